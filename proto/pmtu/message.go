package pmtu

import (
	"encoding/binary"

	"twinkey/proto/wire"
)

// Type says which of the messages it is.
type Type uint8

// The messages.
const (
	TypeProbe  Type = 1
	TypeAnswer Type = 2
)

// HeaderLen is the length of an answer, and of a probe without its zeros, in bytes.
const HeaderLen = 8

// Message is what was read.
type Message struct {
	Type Type
	Size int    // that the probe's sender meant, or that arrived
	ID   uint32 // of the probe
}

// AppendProbe appends a probe of n bytes, at least HeaderLen, of which the caller knows that they make an
// IP packet of p.Size.
func AppendProbe(b []byte, p Probe, n int) []byte {
	b = appendHeader(b, TypeProbe, p.Size, p.ID)
	return append(b, make([]byte, max(0, n-HeaderLen))...)
}

// AppendAnswer appends the answer to the probe of that ID, which arrived in an IP packet of size bytes.
func AppendAnswer(b []byte, id uint32, size int) []byte {
	return appendHeader(b, TypeAnswer, size, id)
}

func appendHeader(b []byte, t Type, size int, id uint32) []byte {
	b = append(b, byte(t), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(size)) //nolint:gosec // an IP packet is at most 65,535 bytes
	return binary.BigEndian.AppendUint32(b, id)
}

// Parse reads a message. What follows its header is not looked at. The error is a *wire.ParseError.
func Parse(b []byte) (Message, error) {
	r := wire.NewReader("PMTU", b)
	t := Type(r.Uint8("Type"))
	if t != TypeProbe && t != TypeAnswer {
		r.Fail("Type", wire.ErrValue)
	}
	r.Uint8("reserved")
	m := Message{Type: t, Size: int(r.Uint16("Size")), ID: r.Uint32("ID")}
	if err := r.Err(); err != nil {
		return Message{}, err
	}
	return m, nil
}
