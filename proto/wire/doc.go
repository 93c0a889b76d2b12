// Package wire reads and writes big-endian protocol fields within bounds.
//
// A Reader is a cursor with a sticky error: after the first read past the end every
// later read returns zero, so a codec reads a whole structure and asks Err once.
// Nothing is copied; the slices it returns alias the input.
//
//	r := wire.NewReader("L2TP", msg)
//	flags, length := r.Uint16("flags"), r.Uint16("length")
//	body := r.Bytes("body", int(length)-r.Offset())
//	if err := r.Err(); err != nil { ... }   // *wire.ParseError{Layer: "L2TP", Field: "body", Offset: 4}
//
// It leaves out everything that a single protocol wants of its own.
package wire
