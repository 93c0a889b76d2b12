package ip

import (
	"encoding/binary"

	"twinkey/proto/wire"
)

// ShortBy is how many bytes Shorten takes off an IPv4 header.
const ShortBy = 5

// CanShorten says whether the packet has a short form: IPv4 without options.
func (p Packet) CanShorten() bool { return p.b[0] == 4<<4|headerV4/4 }

// Shorten takes off a packet that CanShorten what its receiver can tell from the rest: version and IHL,
// Total Length, Header Checksum. The short form is what stands at pkt[ShortBy:] afterwards:
//
//	 0        1                 3                 5        6        7                          15
//	+--------+-----------------+-----------------+--------+--------+-----------------+--------+---
//	| Type   | Identification  | Flags, Offset   | TTL    | Proto  | Source, Destination      | payload
//	+--------+-----------------+-----------------+--------+--------+-----------------+--------+---
//
// The checksum must be right, or the error it shows is lost.
func Shorten(pkt []byte) {
	h := pkt[:headerV4]
	tos, rest := h[1], [6]byte(h[4:10])
	h[ShortBy] = tos
	copy(h[ShortBy+1:], rest[:])
}

// Lengthen is the inverse: buf[ShortBy:] is the short form, and buf the packet afterwards. What stood in
// the first bytes of buf does not matter. The error is a *wire.ParseError.
func Lengthen(buf []byte) error {
	const layer = "short IPv4"
	if len(buf) < headerV4 {
		return malformed(layer, "header", 0, wire.ErrTruncated)
	}
	if len(buf) > 0xffff {
		return malformed(layer, "length", 0, wire.ErrLength)
	}
	h := buf[:headerV4]
	tos, rest := h[ShortBy], [6]byte(h[ShortBy+1:])
	h[0], h[1] = 4<<4|headerV4/4, tos
	binary.BigEndian.PutUint16(h[2:], uint16(len(buf)))
	copy(h[4:], rest[:])
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], Checksum(Sum(0, h)))
	return nil
}
