package ip

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// Why AppendTooBig answers nothing.
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

	icmpUnreachable  = 3 // code 4: fragmentation needed and DF set
	icmpFragNeeded   = 4
	icmpv6TooBig     = 2
	icmpv6LowestInfo = 128 // below it are the errors
	icmpEchoReply    = 0
	icmpEcho         = 8
	icmpTimestamp    = 13
	icmpMaskReply    = 18
)

// AppendTooBig appends the whole packet that tells p's source that p does not fit into
// mtu bytes: ICMP "fragmentation needed" or ICMPv6 "packet too big", from src, quoting as
// much of p as the RFCs let it.
func AppendTooBig(b []byte, src netip.Addr, p Packet, mtu int) ([]byte, error) {
	v6 := p.Version() == 6
	switch {
	case !src.IsValid(), src.Is4() == v6, src.Is4In6():
		return b, ErrFamily
	case mtu > 0xffff, v6 && mtu < MinMTUv6, !v6 && mtu < MinMTUv4:
		return b, ErrMTU
	case !p.DontFragment():
		return b, ErrMayFragment
	case p.offset != 0 && !v6, !host(p.Src()), !v6 && !host(p.Dst()), p.icmpError():
		return b, ErrNoReply
	}
	if v6 {
		return appendTooBigV6(b, src, p, mtu), nil
	}
	return appendTooBigV4(b, src, p, mtu), nil
}

// host tells whether an address can be one single host's. A multicast destination is no
// hindrance to "packet too big" (RFC 4443 section 2.4 (e.3)), so IPv6 does not ask.
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

func appendTooBigV4(b []byte, src netip.Addr, p Packet, mtu int) []byte {
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
	b = append(b, icmpUnreachable, icmpFragNeeded, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(mtu)) // RFC 1191 section 4
	b = append(b, quote...)
	binary.BigEndian.PutUint16(b[icmp+2:], Checksum(Sum(0, b[icmp:])))
	return b
}

func appendTooBigV6(b []byte, src netip.Addr, p Packet, mtu int) []byte {
	quote := p.b[:min(len(p.b), MinMTUv6-headerV6-headerICMP)]
	from, to := src.As16(), p.Src().As16()
	at := len(b)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(headerICMP+len(quote)))
	b = append(b, byte(ICMPv6), hopLimit)
	b = append(append(b, from[:]...), to[:]...)

	icmp := len(b)
	b = append(b, icmpv6TooBig, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(mtu))
	b = append(b, quote...)
	pseudo := Packet{b: b[at:]}.PseudoSum(ICMPv6, len(b)-icmp)
	binary.BigEndian.PutUint16(b[icmp+2:], Checksum(Sum(pseudo, b[icmp:])))
	return b
}
