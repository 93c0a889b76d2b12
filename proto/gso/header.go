package gso

import (
	"encoding/binary"
	"fmt"
)

// Kind says what a train is made of.
type Kind uint8

// The kinds of trains, by their number in the virtio-net header.
const (
	None Kind = 0 // one packet
	TCP4 Kind = 1
	TCP6 Kind = 4
	UDP  Kind = 5 // over IPv4 or IPv6, each datagram whole
)

// ecn is set beside the kind of a TCP train whose first packet carries CWR.
const ecn = 0x80

func (k Kind) String() string {
	switch k {
	case None:
		return "one packet"
	case TCP4:
		return "TCP over IPv4"
	case TCP6:
		return "TCP over IPv6"
	case UDP:
		return "UDP"
	}
	return fmt.Sprintf("gso type %d", uint8(k))
}

// HeaderLen is the length of a virtio-net header in bytes.
const HeaderLen = 10

// flags of a virtio-net header.
const needsChecksum = 1

// Header is a virtio-net header. The zero value stands in front of a packet that is no
// train and whose checksums are complete.
type Header struct {
	Kind Kind
	// Partial says that the checksum at ChecksumAt holds the pseudo-header's sum and that
	// what begins at ChecksumFrom is to be added.
	Partial      bool
	Headers      uint16 // bytes before the first payload
	Size         uint16 // payload bytes of every packet but the last, which may be shorter
	ChecksumFrom uint16 // where the transport header begins, bytes into the packet
	ChecksumAt   uint16 // bytes from ChecksumFrom
}

// Put writes h into the first HeaderLen bytes of b.
func (h *Header) Put(b []byte) {
	b = b[:HeaderLen]
	clear(b)
	if h.Partial {
		b[0] = needsChecksum
	}
	b[1] = byte(h.Kind)
	e := binary.NativeEndian
	e.PutUint16(b[2:], h.Headers)
	e.PutUint16(b[4:], h.Size)
	e.PutUint16(b[6:], h.ChecksumFrom)
	e.PutUint16(b[8:], h.ChecksumAt)
}

// Parse reads the first HeaderLen bytes of b, which has as many.
func (h *Header) Parse(b []byte) {
	b = b[:HeaderLen]
	e := binary.NativeEndian
	*h = Header{
		Kind: Kind(b[1] &^ ecn), Partial: b[0]&needsChecksum != 0,
		Headers: e.Uint16(b[2:]), Size: e.Uint16(b[4:]),
		ChecksumFrom: e.Uint16(b[6:]), ChecksumAt: e.Uint16(b[8:]),
	}
}
