package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"twinkey/proto/ip"
)

// Service is a protocol, or some of its ports.
type Service struct {
	proto  ip.Protocol
	any    bool   // any protocol
	icmp   bool   // ICMP and ICMPv6
	lo, hi uint16 // ports; 0, 0: all
}

var protocols = map[string]ip.Protocol{"tcp": ip.TCP, "udp": ip.UDP, "gre": 47, "esp": 50, "ospf": 89, "sctp": 132}

// UnmarshalText reads any, icmp, tcp, udp/53, tcp/80-443, gre, esp, ospf, sctp, 47.
func (s *Service) UnmarshalText(b []byte) error {
	name, ports, ranged := strings.Cut(string(b), "/")
	*s = Service{}
	switch {
	case name == "any":
		s.any = true
	case name == "icmp":
		s.icmp = true
	case protocols[name] != 0:
		s.proto = protocols[name]
	default:
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is no protocol: any, icmp, tcp, udp, sctp, gre, esp, ospf or a number", name)
		}
		s.proto = ip.Protocol(n)
	}
	if !ranged {
		return nil
	}
	if s.proto != ip.TCP && s.proto != ip.UDP {
		return fmt.Errorf("%q: only tcp and udp have ports", b)
	}
	low, high, two := strings.Cut(ports, "-")
	if !two {
		high = low
	}
	lo, err1 := strconv.ParseUint(low, 10, 16)
	hi, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || lo == 0 || lo > hi {
		return fmt.Errorf("%q: ports are written as 22 or 80-443", b)
	}
	s.lo, s.hi = uint16(lo), uint16(hi)
	return nil
}

// String is what UnmarshalText reads.
func (s Service) String() string {
	name := strconv.Itoa(int(s.proto))
	for n, p := range protocols {
		if p == s.proto {
			name = n
		}
	}
	switch {
	case s.any:
		return "any"
	case s.icmp:
		return "icmp"
	case s.lo == 0:
		return name
	case s.lo == s.hi:
		return fmt.Sprintf("%s/%d", name, s.lo)
	}
	return fmt.Sprintf("%s/%d-%d", name, s.lo, s.hi)
}

// MarshalText is String.
func (s Service) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func everything(allow []Service) bool {
	return len(allow) == 0 || slices.ContainsFunc(allow, func(s Service) bool { return s.any })
}

// covers says whether the service is that of a packet with this port at the far end; ported: it shows one.
func (s *Service) covers(p ip.Packet, port uint16, ported bool) bool {
	proto := p.Protocol()
	switch {
	case s.any:
		return true
	case s.icmp:
		return proto == ip.ICMP || proto == ip.ICMPv6
	case s.proto != proto:
		return false
	case s.lo == 0:
		return true
	}
	// A fragment behind the first shows no port, and is of no use without the first, which does.
	return p.Offset() > 0 || ported && s.lo <= port && port <= s.hi
}

// rule is what a Rule lets through.
type rule struct {
	to    []netip.Prefix
	allow []Service
}

// Filter is what may pass in one call, at one of its ends. Nil lets everything pass. It is immutable.
type Filter struct {
	here  bool // the user is at this end
	rules []rule
}

// Filter returns what may pass in a call of these terms; here says that the user is at this end.
func (t Terms) Filter(here bool) *Filter {
	if t.open {
		return nil
	}
	return &Filter{here, t.rules}
}

// Enters says whether a packet may enter the call at this end.
func (f *Filter) Enters(p ip.Packet) bool { return f == nil || f.passes(p, f.here) }

// Leaves says whether a packet may come out of the call at this end.
func (f *Filter) Leaves(p ip.Packet) bool { return f == nil || f.passes(p, !f.here) }

func (f *Filter) passes(p ip.Packet, fromUser bool) bool {
	src, dst, ported := p.Ports()
	far, port := p.Dst(), dst
	if !fromUser {
		if isError(p) { // of any router on the way
			return true
		}
		far, port = p.Src(), src
	}
	if p.Masked() || routed(p) || p.Protocol() == ip.TCP && !sound(p, fromUser) {
		return false
	}
	for i := range f.rules {
		r := &f.rules[i]
		if len(r.to) > 0 && !within(r.to, far) {
			continue
		}
		if len(r.allow) == 0 || isError(p) {
			return true
		}
		for j := range r.allow {
			if r.allow[j].covers(p, port, ported) {
				return true
			}
		}
	}
	return false
}

// sound refuses what hides TCP's flags, a first fragment that ends before them or one that would lie over them (RFC 3128),
// and a connection that begins at the far end.
func sound(p ip.Packet, fromUser bool) bool {
	const flags, syn, ack = 13, 0x02, 0x10
	if at := p.Offset(); at > 0 {
		return at > flags
	}
	b := p.Payload()
	return len(b) > flags && (fromUser || b[flags]&(syn|ack) != syn)
}

// routed says whether IPv4 options send the packet on from the destination in its header (RFC 791 section 3.1: loose and
// strict source route).
func routed(p ip.Packet) bool {
	const fixed, end, nop, loose, strict = 20, 0, 1, 131, 137
	b := p.Bytes()
	if p.Version() != 4 {
		return false
	}
	for o := b[fixed : int(b[0]&15)*4]; len(o) > 0 && o[0] != end; {
		switch {
		case o[0] == loose || o[0] == strict:
			return true
		case o[0] == nop:
			o = o[1:]
		case len(o) < 2 || o[1] < 2 || int(o[1]) > len(o):
			return true // nobody can say what comes next
		default:
			o = o[o[1]:]
		}
	}
	return false
}

// isError says whether p is an ICMP error: what becomes of packets that have passed.
func isError(p ip.Packet) bool {
	b := p.Payload()
	if p.Offset() > 0 || len(b) == 0 {
		return false
	}
	switch p.Protocol() {
	case ip.ICMP:
		return p.Version() == 4 && (b[0] == 3 || b[0] == 11 || b[0] == 12) // unreachable, time exceeded, parameter problem
	case ip.ICMPv6:
		return p.Version() == 6 && b[0] >= 1 && b[0] <= 4 // likewise, and packet too big
	default:
		return false
	}
}
