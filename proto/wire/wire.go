package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Causes of a ParseError, to be asked with errors.Is.
var (
	// ErrTruncated says that the input ends before the field does.
	ErrTruncated = errors.New("input ends before the field does")
	// ErrTrailing says that bytes follow the last field.
	ErrTrailing = errors.New("bytes follow the last field")
	// ErrLength says that a length field contradicts the input or its own rule.
	ErrLength = errors.New("impossible length")
	// ErrValue says that a field holds a value that the protocol does not allow.
	ErrValue = errors.New("value not allowed")
)

// ParseError says which field of which layer could not be read, and where.
type ParseError struct {
	Layer  string // protocol, as the RFC names it
	Field  string // field, as the RFC names it
	Offset int    // bytes from the start of the layer's input
	Err    error  // one of the causes above, or one of the layer's own
}

func (e *ParseError) Error() string {
	return fmt.Sprintf("%s: %s at offset %d: %v", e.Layer, e.Field, e.Offset, e.Err)
}

func (e *ParseError) Unwrap() error { return e.Err }

// Reader is a cursor over p. The zero value reads an empty input.
type Reader struct {
	layer string
	p     []byte
	off   int
	err   *ParseError
}

// NewReader returns a cursor at the start of p; layer names the protocol in errors.
func NewReader(layer string, p []byte) Reader { return Reader{layer: layer, p: p} }

// Err returns the first failure as a *ParseError, or nil.
func (r *Reader) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

// Fail records err against field at the cursor, unless a failure stands already.
func (r *Reader) Fail(field string, err error) {
	if r.err == nil {
		r.err = &ParseError{Layer: r.layer, Field: field, Offset: r.off, Err: err}
	}
}

// Offset is the number of bytes consumed.
func (r *Reader) Offset() int { return r.off }

// Len is the number of bytes left, 0 after a failure.
func (r *Reader) Len() int {
	if r.err != nil {
		return 0
	}
	return len(r.p) - r.off
}

// Bytes consumes n bytes and returns them, aliasing the input; nil after a failure.
func (r *Reader) Bytes(field string, n int) []byte {
	switch {
	case r.err != nil:
		return nil
	case n < 0:
		r.Fail(field, ErrLength)
		return nil
	case n > len(r.p)-r.off:
		r.Fail(field, ErrTruncated)
		return nil
	}
	b := r.p[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

// Rest consumes what is left.
func (r *Reader) Rest() []byte { return r.Bytes("rest", r.Len()) }

// Uint8 consumes one byte.
func (r *Reader) Uint8(field string) uint8 {
	if b := r.Bytes(field, 1); b != nil {
		return b[0]
	}
	return 0
}

// Uint16 consumes two bytes, big-endian.
func (r *Reader) Uint16(field string) uint16 {
	if b := r.Bytes(field, 2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 consumes four bytes, big-endian.
func (r *Reader) Uint32(field string) uint32 {
	if b := r.Bytes(field, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 consumes eight bytes, big-endian.
func (r *Reader) Uint64(field string) uint64 {
	if b := r.Bytes(field, 8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Empty fails with ErrTrailing unless everything is consumed.
func (r *Reader) Empty(field string) {
	if r.Len() > 0 {
		r.Fail(field, ErrTrailing)
	}
}
