package wire_test

import (
	"errors"
	"testing"

	"twinkey/proto/wire"
)

func TestReaderStopsAtFirstFailure(t *testing.T) {
	r := wire.NewReader("TEST", []byte{0x01, 0x02, 0x03, 0x04, 0x05})
	if got := r.Uint8("a"); got != 1 {
		t.Errorf("a = %d, want 1", got)
	}
	if got := r.Uint16("b"); got != 0x0203 {
		t.Errorf("b = %#x, want 0x0203", got)
	}
	if got := r.Uint32("c"); got != 0 {
		t.Errorf("c past the end = %#x, want 0", got)
	}
	if got := r.Uint8("d"); got != 0 || r.Len() != 0 {
		t.Errorf("after a failure: d = %d with %d left, want 0 and 0", got, r.Len())
	}
	pe, ok := errors.AsType[*wire.ParseError](r.Err())
	if !ok || pe.Field != "c" || pe.Offset != 3 || !errors.Is(pe, wire.ErrTruncated) {
		t.Fatalf("err = %v, want c truncated at offset 3", r.Err())
	}
	if want := "TEST: c at offset 3: input ends before the field does"; pe.Error() != want {
		t.Errorf("Error() = %q, want %q", pe, want)
	}
}

func TestReaderBounds(t *testing.T) {
	tests := []struct {
		name string
		read func(*wire.Reader)
		want error
	}{
		{"negative length", func(r *wire.Reader) { r.Bytes("x", -1) }, wire.ErrLength},
		{"one too many", func(r *wire.Reader) { r.Bytes("x", 9) }, wire.ErrTruncated},
		{"trailing", func(r *wire.Reader) { r.Uint32("x"); r.Empty("end") }, wire.ErrTrailing},
		{"exact", func(r *wire.Reader) { r.Uint64("x"); r.Empty("end") }, nil},
		{"rest", func(r *wire.Reader) { r.Rest(); r.Empty("end") }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := wire.NewReader("TEST", make([]byte, 8))
			tt.read(&r)
			if err := r.Err(); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
		})
	}
}

// Appending to a slice that Bytes returned must not write into what follows it in the input.
func TestBytesCannotGrowIntoTheInput(t *testing.T) {
	in := []byte{1, 2, 3, 4}
	r := wire.NewReader("TEST", in)
	_ = append(r.Bytes("x", 2), 9)
	if in[2] != 3 {
		t.Errorf("input was overwritten: % x", in)
	}
}
