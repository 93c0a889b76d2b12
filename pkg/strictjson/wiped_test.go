package strictjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
)

// Nothing of a secret is in the decoder's buffers afterwards, in whichever way it ended: not in the one that it has, nor in a smaller one that it had before.
func TestNothingIsLeftInTheDecoder(t *testing.T) {
	for _, n := range []int{1, 100, 511, 512, 513, 1000, 1535, 1536, 5000, 60000} {
		secret := bytes.Repeat([]byte{0xff}, n) // "////" in base64
		text := base64.StdEncoding.EncodeToString(secret)
		for what, in := range map[string]string{
			"read":          fmt.Sprintf(`{"a":%q}`, text),
			"unknown field": fmt.Sprintf(`{"a":%q,"b":1}`, text),
			"cut":           fmt.Sprintf(`{"a":%q`, text),
			"trailing":      fmt.Sprintf(`{"a":%q} {}`, text),
		} {
			var v struct {
				A []byte `json:"a"`
			}
			r := &handed{source: source{rest: []byte(in)}}
			d := json.NewDecoder(r)
			err := decode(d, &v)
			r.wipe()
			if (err == nil) != (what == "read") || err == nil && !bytes.Equal(v.A, secret) {
				t.Errorf("%s, %d bytes: %v", what, n, err)
			}
			buf := reflect.ValueOf(d).Elem().FieldByName("buf")
			for i, b := range append(r.buffers, buf.Slice(0, buf.Cap()).Bytes()) {
				if bytes.Contains(b, []byte("//")) {
					t.Errorf("%s, %d bytes: buffer %d of %d still has it", what, n, i, len(r.buffers))
				}
			}
		}
	}
}

// handed remembers every buffer that it was to fill.
type handed struct {
	source
	buffers [][]byte
}

func (h *handed) Read(p []byte) (int, error) {
	h.buffers = append(h.buffers, p)
	return h.source.Read(p)
}
