package admin

import (
	"encoding/json"
	"reflect"
	"testing"
)

// What encode writes is the JSON of the whole, in memory that was made for it: a buffer that grew would have left a copy behind.
func TestEncode(t *testing.T) {
	want := Passwd{User: "alice", Password: []byte("\x00\xff\"secret"), New: []byte("x")}
	b, err := encode(Passwd{User: want.User}, []field{{"password", want.Password}, {"new", want.New}})
	if err != nil {
		t.Fatal(err)
	}
	var got Passwd
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, %v", b, got, err)
	}
	if len(b) != cap(b) {
		t.Errorf("%d bytes in a buffer of %d: it has grown, or is too large", len(b), cap(b))
	}
	if b, err := encode(Hangup{ID: 7}, nil); err != nil || string(b) != `{"id":7}` {
		t.Errorf("without secrets: %s, %v", b, err)
	}
}
