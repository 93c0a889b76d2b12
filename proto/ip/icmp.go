package ip

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Why a packet is not answered.
var (
	// ErrNoReply says that the rules forbid an ICMP error about this packet (RFC 1122
	// section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e)).
	ErrNoReply = errors.New("ip: no ICMP error may answer this packet")
	// ErrMayFragment says that an IPv4 packet may be cut into fragments instead.
	ErrMayFragment = errors.New("ip: packet may be fragmented")
	// ErrMTU says that no link has so small an MTU.
	ErrMTU = errors.New("ip: MTU below the protocol's minimum")
	// ErrFamily says that the reply's source is of another version than the packet.
	ErrFamily = errors.New("ip: address of another IP version")
)

const (
	headerICMP = 8
	// quoteV4 bounds an ICMP error in bytes, IP header included (RFC 1812 section 4.3.2.3).
	quoteV4  = 576
	hopLimit = 64

	icmpUnreachable   = 3  // codes 4 and 13 are below
	icmpFragNeeded    = 4  // and DF set
	icmpProhibited    = 13 // communication administratively prohibited (RFC 1812 section 5.2.7.1)
	icmpv6Unreachable = 1
	icmpv6Prohibited  = 1 // likewise (RFC 4443 section 3.1)
	icmpv6TooBig      = 2
	icmpv6LowestInfo  = 128 // below it are the errors
	icmpEchoReply     = 0
	icmpEcho          = 8
	icmpTimestamp     = 13
	icmpMaskReply     = 18
)

// host tells whether an address can be one single host's.
func host(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && (!a.Is4() || a.As4()[0] < 240)
}

// icmpError tells whether the packet is an ICMP error itself, or could be: types that
// are not known to be questions and answers count as errors.
func (p Packet) icmpError() bool {
	l4 := p.Payload()
	switch p.proto {
	case ICMP:
		if len(l4) == 0 || p.Version() == 6 {
			return true
		}
		return l4[0] != icmpEchoReply && l4[0] != icmpEcho && (l4[0] < icmpTimestamp || l4[0] > icmpMaskReply)
	case ICMPv6:
		return p.offset != 0 || len(l4) == 0 || l4[0] < icmpv6LowestInfo
	default:
		return false
	}
}

// appendV4 appends an ICMP "destination unreachable" from src, with a code and the second half of the fixed header.
func appendV4(b []byte, src netip.Addr, p Packet, code byte, rest uint32) []byte {
	quote := p.b[:min(len(p.b), quoteV4-headerV4-headerICMP)]
	from, to := src.As4(), p.Src().As4()
	at := len(b)
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(headerV4+headerICMP+len(quote)))
	// An atomic datagram: Identification 0, DF (RFC 6864 section 4.1).
	b = append(b, 0, 0, 0x40, 0, hopLimit, byte(ICMP), 0, 0)
	b = append(append(b, from[:]...), to[:]...)
	binary.BigEndian.PutUint16(b[at+10:], Checksum(Sum(0, b[at:])))

	icmp := len(b)
	b = append(b, icmpUnreachable, code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, rest)
	b = append(b, quote...)
	binary.BigEndian.PutUint16(b[icmp+2:], Checksum(Sum(0, b[icmp:])))
	return b
}

// appendV6 appends an ICMPv6 error from src.
func appendV6(b []byte, src netip.Addr, p Packet, kind, code byte, rest uint32) []byte {
	quote := p.b[:min(len(p.b), MinMTUv6-headerV6-headerICMP)]
	from, to := src.As16(), p.Src().As16()
	at := len(b)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(headerICMP+len(quote)))
	b = append(b, byte(ICMPv6), hopLimit)
	b = append(append(b, from[:]...), to[:]...)

	icmp := len(b)
	b = append(b, kind, code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, rest)
	b = append(b, quote...)
	pseudo := Packet{b: b[at:]}.PseudoSum(ICMPv6, len(b)-icmp)
	binary.BigEndian.PutUint16(b[icmp+2:], Checksum(Sum(pseudo, b[icmp:])))
	return b
}
