package strictjson

import (
	"encoding/json"
	"errors"
	"io"
)

var errTrailing = errors.New("something follows it")

// Decode reads b into v. How long b may be is the caller's to bound. Of b no copy is left behind but what stands in v: what is
// wiped there and in b is gone, if v takes it as bytes.
func Decode(b []byte, v any) error {
	r := &source{rest: b}
	defer r.wipe()
	return decode(json.NewDecoder(r), v)
}

func decode(d *json.Decoder, v any) error {
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errTrailing
	}
	return nil
}

// room is what a json.Decoder wants to have free before it reads. It moves to a larger buffer if there is less.
const room = 512

// source hands over all of rest at once, and remembers where it went, so that it can be wiped there.
type source struct {
	rest, given []byte
}

// Read gives white space, which may stand before any value, until there is room for all of rest and the decoder will not
// have to move it.
func (s *source) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	if len(p) < len(s.rest)+room {
		for i := range p {
			p[i] = ' '
		}
		return len(p), nil
	}
	n := copy(p, s.rest)
	s.given, s.rest = p[:n], nil
	return n, nil
}

func (s *source) wipe() { clear(s.given) }
