package ip

import "net/netip"

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
	// A multicast destination is no hindrance to "packet too big" (RFC 4443 section 2.4 (e.3)).
	case p.offset != 0 && !v6, !host(p.Src()), !v6 && !host(p.Dst()), p.icmpError():
		return b, ErrNoReply
	}
	if v6 {
		return appendV6(b, src, p, icmpv6TooBig, 0, uint32(mtu)), nil
	}
	return appendV4(b, src, p, icmpFragNeeded, uint32(mtu)), nil // RFC 1191 section 4
}
