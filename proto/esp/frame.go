package esp

import "encoding/binary"

// Kind says what a datagram on the shared UDP port is (RFC 3948 section 2).
type Kind uint8

// The kinds of datagram.
const (
	Invalid   Kind = iota // too short to be any of the others
	Keepalive             // a single octet FF, section 2.3
	Control               // four zero octets, the non-ESP marker, then a message in clear; section 2.2
	Packet                // an SPI that is not zero, and at least a sequence number; section 2.1
)

func (k Kind) String() string {
	switch k {
	case Keepalive:
		return "keepalive"
	case Control:
		return "control"
	case Packet:
		return "esp"
	case Invalid:
	}
	return "invalid"
}

// MarkerLen is the length of the non-ESP marker in octets.
const MarkerLen = 4

const keepalive = 0xFF

// Classify says what datagram, the payload of a UDP datagram, is. It looks at the first
// four octets and the length only.
func Classify(datagram []byte) Kind {
	if len(datagram) == 1 && datagram[0] == keepalive {
		return Keepalive
	}
	if len(datagram) < MarkerLen {
		return Invalid
	}
	if binary.BigEndian.Uint32(datagram) == 0 {
		return Control
	}
	if len(datagram) < headerSize {
		return Invalid
	}
	return Packet
}

// SPI returns the security parameters index of pkt, and false unless Classify says Packet.
func SPI(pkt []byte) (uint32, bool) {
	if Classify(pkt) != Packet {
		return 0, false
	}
	return binary.BigEndian.Uint32(pkt), true
}

// AppendMarker appends the non-ESP marker that goes before a message in clear.
func AppendMarker(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// AppendKeepalive appends the payload of a NAT keepalive.
func AppendKeepalive(b []byte) []byte { return append(b, keepalive) }
