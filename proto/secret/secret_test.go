package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"twinkey/proto/secret"
)

func TestNothingShowsAKey(t *testing.T) {
	k := secret.New([]byte("hunter2hunter2"))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("call up", "key", k, "nested", struct{ K secret.Key }{k})
	shown := fmt.Sprintf("%v %+v %#v %s %x %q %d", k, k, k, k, k, k, k) + fmt.Sprint(struct{ K secret.Key }{k}) + log.String()
	for _, leak := range []string{"hunter", "68756e", "104 117"} {
		if strings.Contains(shown, leak) {
			t.Errorf("%q shows in %q", leak, shown)
		}
	}
	if b, err := json.Marshal(k); err == nil {
		t.Errorf("json.Marshal gave %s", b)
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(k); err == nil {
		t.Error("gob encoded a key")
	}
}

func TestWipeReachesEveryCopy(t *testing.T) {
	b := []byte{1, 2, 3}
	k := secret.New(b)
	other := k
	own := secret.Copy(b)
	k.Wipe()
	if !bytes.Equal(other.Bytes(), make([]byte, 3)) {
		t.Errorf("copy still holds % x", other.Bytes())
	}
	if !own.Equal(secret.New([]byte{1, 2, 3})) || own.Equal(other) {
		t.Error("a key made by Copy must not share bytes")
	}
}
