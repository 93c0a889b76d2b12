package ip

import (
	"encoding/binary"
	"net/netip"

	"twinkey/proto/wire"
)

// Protocol is an IP protocol or next header number.
type Protocol uint8

// Protocol numbers.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58

	hopByHop    Protocol = 0
	routing     Protocol = 43
	fragment    Protocol = 44
	authHeader  Protocol = 51
	destOptions Protocol = 60
	mobility    Protocol = 135
)

// Sizes in bytes.
const (
	headerV4 = 20 // without options
	headerV6 = 40
	// MinMTUv4 is what every IPv4 link carries (RFC 791 section 3.2).
	MinMTUv4 = 68
	// MinMTUv6 is what every IPv6 link carries (RFC 8200 section 5).
	MinMTUv6 = 1280
)

// maxExtensions bounds the IPv6 extension headers that are walked: more is an attack on
// whoever walks them.
const maxExtensions = 8

// Packet is a view of one packet whose lengths Parse has checked. It aliases what was
// parsed. The zero value is no packet; its accessors panic.
type Packet struct {
	b       []byte   // exactly the packet, without what followed it
	l4      uint16   // where the payload begins
	offset  uint16   // of a fragment, in units of 8 bytes; not 0: the payload has no header
	proto   Protocol // what the payload is
	partial bool     // a fragment, the first one included
	behind  bool     // of a first fragment: other headers stand between Fragment and the payload
}

// Parse looks at the packet at the start of b; bytes behind its length are ignored. The
// error is a *wire.ParseError.
func Parse(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, malformed("IP", "Version", 0, wire.ErrTruncated)
	}
	switch b[0] >> 4 {
	case 4:
		return parseV4(b)
	case 6:
		return parseV6(b)
	}
	return Packet{}, malformed("IP", "Version", 0, wire.ErrValue)
}

func malformed(layer, field string, offset int, err error) error {
	return &wire.ParseError{Layer: layer, Field: field, Offset: offset, Err: err}
}

func parseV4(b []byte) (Packet, error) {
	const layer = "IPv4"
	if len(b) < headerV4 {
		return Packet{}, malformed(layer, "header", 0, wire.ErrTruncated)
	}
	ihl, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case ihl < headerV4:
		return Packet{}, malformed(layer, "IHL", 0, wire.ErrLength)
	case total < ihl:
		return Packet{}, malformed(layer, "Total Length", 2, wire.ErrLength)
	case total > len(b):
		return Packet{}, malformed(layer, "Total Length", 2, wire.ErrTruncated)
	}
	frag := binary.BigEndian.Uint16(b[6:])
	return Packet{
		b: b[:total:total], l4: uint16(ihl), proto: Protocol(b[9]),
		offset: frag & 0x1fff, partial: frag&0x3fff != 0, // More Fragments and Fragment Offset
	}, nil
}

func parseV6(b []byte) (Packet, error) {
	const layer = "IPv6"
	if len(b) < headerV6 {
		return Packet{}, malformed(layer, "header", 0, wire.ErrTruncated)
	}
	total := headerV6 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return Packet{}, malformed(layer, "Payload Length", 4, wire.ErrTruncated)
	}
	if total > 0xffff {
		// Beyond what l4 and a tunnel can hold; no link of ours carries a tenth of it.
		return Packet{}, malformed(layer, "Payload Length", 4, wire.ErrLength)
	}
	p := Packet{b: b[:total:total]}
	off, next := headerV6, Protocol(b[6])
	cut := 0 // behind the Fragment header
	for range maxExtensions + 1 {
		n := 0
		switch next {
		case hopByHop, routing, destOptions, mobility:
			if off+2 <= total {
				n = 8 + int(p.b[off+1])*8 // RFC 8200 section 4.3
			}
		case authHeader:
			if off+2 <= total {
				n = 8 + int(p.b[off+1])*4 // RFC 4302 section 2.2: 4-byte units, less 2
			}
		case fragment:
			n = 8
		default:
			p.l4, p.proto = uint16(off), next
			p.behind = p.partial && p.offset == 0 && off != cut
			return p, nil
		}
		if n == 0 || off+n > total {
			return Packet{}, malformed(layer, "extension header", off, wire.ErrTruncated)
		}
		if next == fragment {
			f := binary.BigEndian.Uint16(p.b[off+2:])
			cut = off + n
			p.offset, p.partial = f>>3, f&0xfff9 != 0
		}
		next = Protocol(p.b[off])
		off += n
		if p.offset != 0 {
			// What follows is from the middle of something: nothing can be read in it.
			p.l4, p.proto = uint16(off), next
			return p, nil
		}
	}
	return Packet{}, malformed(layer, "extension header", off, wire.ErrValue)
}

// Bytes is the whole packet.
func (p Packet) Bytes() []byte { return p.b }

// Len is the packet's length in bytes.
func (p Packet) Len() int { return len(p.b) }

// Version is 4 or 6.
func (p Packet) Version() int { return int(p.b[0] >> 4) }

// Protocol is what the payload is: behind all IPv6 extension headers, but for a fragment
// that is not the first the next header that its fragment header names.
func (p Packet) Protocol() Protocol { return p.proto }

// Payload is what follows the headers of IP; it aliases the packet.
func (p Packet) Payload() []byte { return p.b[p.l4:] }

// Src is the source address.
func (p Packet) Src() netip.Addr {
	if p.Version() == 4 {
		return netip.AddrFrom4([4]byte(p.b[12:16]))
	}
	return netip.AddrFrom16([16]byte(p.b[8:24]))
}

// Dst is the destination address.
func (p Packet) Dst() netip.Addr {
	if p.Version() == 4 {
		return netip.AddrFrom4([4]byte(p.b[16:20]))
	}
	return netip.AddrFrom16([16]byte(p.b[24:40]))
}

// Fragment tells whether the packet is a part of another, the first part included.
func (p Packet) Fragment() bool { return p.partial }

// Masked says that offsets in the packet's later fragments do not count from where its payload begins: it is the
// first fragment of IPv6, and other headers stand between the Fragment header and the payload.
func (p Packet) Masked() bool { return p.behind }

// Offset is where in the whole payload the payload of a fragment begins, in bytes; 0 of the first, and of what is none.
func (p Packet) Offset() int { return int(p.offset) * 8 }

// DontFragment tells whether a router must not cut the packet: never for IPv6, and for
// IPv4 where the DF bit is set.
func (p Packet) DontFragment() bool { return p.Version() == 6 || p.b[6]&0x40 != 0 }

// Ports are the ports of TCP or UDP; false where the packet has none, be it another
// protocol, a fragment without the transport header, or too short.
func (p Packet) Ports() (src, dst uint16, ok bool) {
	l4 := p.Payload()
	if p.offset != 0 || p.proto != TCP && p.proto != UDP || len(l4) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]), true
}

// Tuple names a flow. It is comparable. Ports are 0 where a packet has none.
type Tuple struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         Protocol
}

// Tuple is the 5-tuple of the packet's flow.
func (p Packet) Tuple() Tuple {
	t := Tuple{Src: p.Src(), Dst: p.Dst(), Protocol: p.proto}
	t.SrcPort, t.DstPort, _ = p.Ports()
	return t
}
