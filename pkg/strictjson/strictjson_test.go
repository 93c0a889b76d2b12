package strictjson_test

import (
	"strings"
	"testing"

	"twinkey/pkg/strictjson"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"a":1}`, ""},
		{" {\"a\":1}\n", ""},
		{`{"a":1,"b":2}`, `unknown field "b"`},
		{`{"a":1} {}`, "something follows it"},
		{`{"a":1}x`, "something follows it"},
		{`{"a":`, "unexpected EOF"},
		{``, "EOF"},
	} {
		var v struct {
			A int `json:"a"`
		}
		err := strictjson.Decode([]byte(tt.in), &v)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.in, err, tt.want)
		}
		if err == nil && v.A != 1 {
			t.Errorf("%q: read %d", tt.in, v.A)
		}
	}
}
