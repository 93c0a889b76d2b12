package handshake_test

import (
	"bytes"
	"errors"
	"testing"

	"twinkey/proto/handshake"
)

func TestSplitAndAssemble(t *testing.T) {
	var a handshake.Assembler // one for all: it must be ready anew after each message
	for _, tt := range []struct{ length, limit, parts int }{
		{1, 1200, 1}, {1198, 1200, 1}, {1199, 1200, 2}, {handshake.MaxMessage, 1200, 7}, {32, 3, 32},
	} {
		msg := bytes.Repeat([]byte{0xA5}, tt.length)
		parts, err := handshake.Split(msg, tt.limit)
		if err != nil || len(parts) != tt.parts {
			t.Fatalf("%d bytes by %d: %d parts, %v", tt.length, tt.limit, len(parts), err)
		}
		for n, p := range parts {
			if len(p) > tt.limit {
				t.Errorf("part %d has %d bytes", n, len(p))
			}
			if a.Pending() != (n > 0) {
				t.Errorf("Pending before part %d: %v", n, a.Pending())
			}
			got, whole, err := a.Add(p)
			if err != nil || whole != (n == len(parts)-1) {
				t.Fatalf("part %d of %d: whole %v, %v", n, len(parts), whole, err)
			}
			if whole && !bytes.Equal(got, msg) {
				t.Error("another message came out")
			}
		}
	}
	for _, tt := range []struct{ length, limit int }{{0, 1200}, {handshake.MaxMessage + 1, 9000}, {10, 2}, {33, 3}, {10, -5}} {
		if _, err := handshake.Split(make([]byte, tt.length), tt.limit); !errors.Is(err, handshake.ErrTooLong) {
			t.Errorf("%d bytes by %d: %v", tt.length, tt.limit, err)
		}
	}
}

// A part that is refused leaves the assembler waiting for the right one.
func TestAssemblerRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		part []byte
	}{
		{"nothing", nil},
		{"header alone", []byte{1, 3}},
		{"the same again", []byte{0, 3, 'x'}},
		{"one too far", []byte{2, 3, 'x'}},
		{"another total", []byte{1, 4, 'x'}},
		{"no total", []byte{1, 0, 'x'}},
		{"total too large", []byte{1, 33, 'x'}},
		{"too much", append([]byte{1, 3}, make([]byte, handshake.MaxMessage)...)},
	} {
		var a handshake.Assembler
		if _, _, err := a.Add([]byte{0, 3, 'a'}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Add(tt.part); !errors.Is(err, handshake.ErrPart) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, _, err := a.Add([]byte{1, 3, 'b'}); err != nil {
			t.Errorf("%s: then the right one: %v", tt.name, err)
		}
		if msg, whole, err := a.Add([]byte{2, 3, 'c'}); err != nil || !whole || string(msg) != "abc" {
			t.Errorf("%s: %q %v %v", tt.name, msg, whole, err)
		}
	}
	var a handshake.Assembler
	if _, _, err := a.Add([]byte{0, 33, 'x'}); !errors.Is(err, handshake.ErrPart) {
		t.Errorf("first part of 33: %v", err)
	}
}

// The input is cut into parts by its own bytes: a length, then so many bytes.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte{3, 0, 1, 'x', 4, 0, 2, 'a', 'b', 3, 1, 2, 'c'})
	f.Fuzz(func(t *testing.T, in []byte) {
		var a handshake.Assembler
		for len(in) > 0 {
			n := min(int(in[0]), len(in)-1)
			msg, whole, err := a.Add(in[1 : 1+n])
			if len(msg) > handshake.MaxMessage || whole != (len(msg) > 0) || (whole && err != nil) {
				t.Fatalf("%d bytes, whole %v, %v", len(msg), whole, err)
			}
			in = in[1+n:]
		}
	})
}
