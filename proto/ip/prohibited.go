package ip

import "net/netip"

// AppendProhibited appends the whole packet that tells p's source that p goes nowhere because somebody will have it so: ICMP or
// ICMPv6 "communication administratively prohibited", from src, quoting as much of p as the RFCs let it.
func AppendProhibited(b []byte, src netip.Addr, p Packet) ([]byte, error) {
	v6 := p.Version() == 6
	switch {
	case !src.IsValid(), src.Is4() == v6, src.Is4In6():
		return b, ErrFamily
	case p.offset != 0, !host(p.Src()), !host(p.Dst()), p.icmpError():
		return b, ErrNoReply
	}
	if v6 {
		return appendV6(b, src, p, icmpv6Unreachable, icmpv6Prohibited, 0), nil
	}
	return appendV4(b, src, p, icmpProhibited, 0), nil
}
