package policy_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/proto/ip"
	"twinkey/router/internal/policy"
)

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func services(t testing.TB, ss ...string) (list []policy.Service) {
	t.Helper()
	for _, text := range ss {
		var s policy.Service
		if err := s.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func TestService(t *testing.T) {
	for in, out := range map[string]string{
		"any": "any", "icmp": "icmp", "tcp": "tcp", "6": "tcp", "udp/53": "udp/53", "tcp/80-443": "tcp/80-443", "17/1-1": "udp/1",
		"gre": "gre", "47": "gre", "255": "255", "sctp": "sctp",
		"": "", "tcp/": "", "tcp/0": "", "tcp/65536": "", "tcp/2-1": "", "tcp/a": "", "icmp/8": "", "gre/1": "", "256": "", "0": "", "TCP": "", "tcp/1-2-3": "", "any/1": "",
	} {
		var s policy.Service
		err := s.UnmarshalText([]byte(in))
		if (err == nil) != (out != "") || err == nil && s.String() != out {
			t.Errorf("%q: %v, %v; want %q", in, s, err, out)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		rule  policy.Rule
		field string
	}{
		"nobody":                {policy.Rule{}, "groups"},
		"a group of no name":    {policy.Rule{Groups: []string{"a b"}}, "groups"},
		"host bits":             {policy.Rule{Groups: []string{"staff"}, To: prefixes("10.2.0.1/24")}, "to"},
		"host bits in from":     {policy.Rule{Groups: []string{"staff"}, From: prefixes("10.2.0.1/24")}, "from"},
		"less than no call":     {policy.Rule{Groups: []string{"staff"}, Calls: -1}, "calls"},
		"idle below a second":   {policy.Rule{Groups: []string{"staff"}, Idle: 1}, "idle"},
		"session of the past":   {policy.Rule{Groups: []string{"staff"}, Session: -time.Hour}, "session"},
		"more services than it": {policy.Rule{Groups: []string{"staff"}, Allow: make([]policy.Service, 1001)}, "allow"},
	} {
		_, err := policy.New([]policy.Rule{{Groups: []string{"fine"}}, tt.rule})
		e, ok := errors.AsType[*policy.FieldError](err)
		if !ok || e.Rule != 1 || e.Field != tt.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTerms(t *testing.T) {
	p, err := policy.New([]policy.Rule{
		{Groups: []string{"staff", "guests"}, From: prefixes("10.1.1.0/24"), Idle: time.Minute},
		{Groups: []string{"staff"}, From: prefixes("10.1.2.0/24"), Idle: time.Hour, Calls: 2},
		{Groups: []string{"*"}, From: prefixes("10.1.3.0/24"), Session: 12 * time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	staff, err := p.Terms("staff")
	if err != nil || staff.Idle != time.Minute || staff.Calls != 2 || staff.Session != 12*time.Hour {
		t.Errorf("staff: %+v, %v", staff, err)
	}
	for _, tt := range []struct {
		group, addr string
		calls       int
		ok          bool
	}{
		{"staff", "10.1.2.7", 1, true}, {"staff", "10.1.2.7", 2, false}, {"staff", "10.1.4.7", 0, false},
		{"guests", "10.1.1.7", 99, true}, {"guests", "10.1.2.7", 0, false}, {"others", "10.1.3.7", 0, true}, {"", "10.1.3.7", 0, true}, {"others", "10.1.1.7", 0, false},
	} {
		terms, err := p.Terms(tt.group)
		if err != nil {
			t.Fatal(err)
		}
		if err := terms.Admits(netip.MustParseAddr(tt.addr), tt.calls); (err == nil) != tt.ok || err != nil && !errors.Is(err, policy.ErrDenied) {
			t.Errorf("%s from %s beside %d: %v", tt.group, tt.addr, tt.calls, err)
		}
	}
	if staff.RevokeOnClose || p.RevokesOnClose() {
		t.Error("nobody said that certificates are to be revoked")
	}
	// One rule that says so is enough, whichever of the group's it is.
	closing, err := policy.New([]policy.Rule{{Groups: []string{"*"}}, {Groups: []string{"guests"}, RevokeOnClose: true}})
	if err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]bool{"guests": true, "staff": false} {
		if terms, err := closing.Terms(group); err != nil || terms.RevokeOnClose != want {
			t.Errorf("revoke-on-close of %s: %v, %v", group, terms.RevokeOnClose, err)
		}
	}
	if !closing.RevokesOnClose() {
		t.Error("one group's certificates are to be revoked")
	}
	// Without a rule there is no call.
	few, err := policy.New([]policy.Rule{{Groups: []string{"staff"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*policy.Policy{nil, few} {
		for _, group := range []string{"guests", ""} {
			if _, err := p.Terms(group); !errors.Is(err, policy.ErrDenied) {
				t.Errorf("%q: %v", group, err)
			}
		}
	}
	if terms, _ := few.Terms("staff"); terms.Filter(true) != nil {
		t.Error("a rule without limits looks at packets")
	}
}

var user, server, other = netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("10.2.0.2"), netip.MustParseAddr("10.3.0.2")

// v4 is an IPv4 packet.
func v4(proto byte, src, dst netip.Addr, frag uint16, payload ...byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload))) //nolint:gosec // short
	binary.BigEndian.PutUint16(b[6:], frag)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	return append(b, payload...)
}

func tcp(src, dst uint16, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12], b[13] = 0x50, flags
	return b
}

const syn, ack, more = 0x02, 0x10, 0x2000

// What a group is told is what holds for it, and as rules means the same.
func TestFor(t *testing.T) {
	rules := []policy.Rule{
		{Groups: []string{"staff", "admins"}, To: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}, Idle: time.Minute},
		{Groups: []string{"admins"}},
		{Groups: []string{policy.Everybody}, Calls: 2, From: []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24")}},
	}
	p, err := policy.New(rules)
	if err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]int{"staff": 2, "admins": 3, "guests": 1, "": 1} {
		told := p.For(group)
		if text := fmt.Sprint(told); len(told) != want || strings.Contains(text, "admins") && group != "admins" {
			t.Errorf("%q is told %v", group, told)
		}
		again, err := policy.New(told)
		if err != nil {
			t.Fatal(err)
		}
		a, err1 := p.Terms(group)
		b, err2 := again.Terms(group)
		if err1 != nil || err2 != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%q: %+v, %v became %+v, %v", group, a, err1, b, err2)
		}
	}
	if told := (*policy.Policy)(nil).For("staff"); len(told) != 0 {
		t.Errorf("no policy tells %v", told)
	}
	if len(rules[0].Groups) != 2 {
		t.Error("the rules themselves were changed")
	}
}

func TestFilter(t *testing.T) {
	p, err := policy.New([]policy.Rule{
		{Groups: []string{"staff"}, To: prefixes("10.2.0.0/24"), Allow: services(t, "tcp/80-443", "udp/53", "icmp")},
		{Groups: []string{"staff"}, To: prefixes("10.3.0.0/24"), Allow: services(t, "47")},
		{Groups: []string{"staff"}, To: prefixes("10.4.0.0/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	terms, err := p.Terms("staff")
	if err != nil {
		t.Fatal(err)
	}
	anywhere := netip.MustParseAddr("10.9.0.1")
	for _, tt := range []struct {
		name     string
		pkt      []byte
		fromUser bool
		ok       bool
	}{
		{"a connection to a port that is allowed", v4(6, user, server, 0, tcp(5000, 443, syn)...), true, true},
		{"to one that is not", v4(6, user, server, 0, tcp(5000, 444, syn)...), true, false},
		{"from one that is: the user's own port does not count", v4(6, user, server, 0, tcp(443, 22, syn)...), true, false},
		{"to another site", v4(6, user, other, 0, tcp(5000, 443, syn)...), true, false},
		{"the answer", v4(6, server, user, 0, tcp(443, 5000, syn|ack)...), false, true},
		{"data that comes back", v4(6, server, user, 0, tcp(80, 5000, ack)...), false, true},
		{"from a port that is not allowed", v4(6, server, user, 0, tcp(22, 5000, ack)...), false, false},
		{"a connection that begins at the far end", v4(6, server, user, 0, tcp(443, 22, syn)...), false, false},
		{"a question", v4(17, user, server, 0, 0x13, 0x88, 0, 53, 0, 8, 0, 0), true, true},
		{"its answer", v4(17, server, user, 0, 0, 53, 0x13, 0x88, 0, 8, 0, 0), false, true},
		{"UDP to another port", v4(17, user, server, 0, 0, 53, 0x13, 0x88, 0, 8, 0, 0), true, false},
		{"UDP too short for ports", v4(17, user, server, 0, 0, 53, 0), true, false},
		{"echo", v4(1, user, server, 0, 8, 0, 0, 0), true, true},
		{"echo to where it is not allowed", v4(1, user, other, 0, 8, 0, 0, 0), true, false},
		{"another protocol by number", v4(47, user, other, 0, 1, 2, 3), true, true},
		{"and in the wrong place", v4(47, user, server, 0, 1, 2, 3), true, false},
		{"anything to where anything may go", v4(132, user, netip.MustParseAddr("10.4.0.9"), 0, 1), true, true},
		{"but no connection from there", v4(6, netip.MustParseAddr("10.4.0.9"), user, 0, tcp(1, 2, syn)...), false, false},
		{"to an address of no rule", v4(1, user, anywhere, 0, 8, 0, 0, 0), true, false},
		{"an error of a router on the way", v4(1, anywhere, user, 0, 3, 4, 0, 0, 0, 0), false, true},
		{"what only looks like an error", v4(1, anywhere, user, 0, 8, 0, 0, 0), false, false},
		{"a redirect is none", v4(1, anywhere, user, 0, 5, 1, 0, 0), false, false},
		{"the user's error, to where packets may come from", v4(1, user, netip.MustParseAddr("10.3.0.1"), 0, 3, 3, 0, 0), true, true},
		{"and to anybody else", v4(1, user, anywhere, 0, 3, 3, 0, 0), true, false},
		{"the first fragment, allowed", v4(17, user, server, more, 0x13, 0x88, 0, 53, 0, 8, 0, 0), true, true},
		{"the first fragment, not allowed", v4(17, user, server, more, 0x13, 0x88, 0, 54, 0, 8, 0, 0), true, false},
		{"a later fragment", v4(17, user, server, 185, 0xff, 0xff), true, true},
		{"a later fragment of what may not pass at all", v4(132, user, server, 185, 0xff, 0xff), true, false},
		{"a later fragment to where nothing may go", v4(17, user, anywhere, 185, 0xff, 0xff), true, false},
		{"a first fragment without TCP's flags", v4(6, user, server, more, tcp(5000, 443, syn)[:8]...), true, false},
		{"a fragment that would lie over them", v4(6, server, user, 1, tcp(5000, 443, syn)...), false, false},
		{"one behind them", v4(6, server, user, 3, 1, 2, 3), false, true},
	} {
		pkt, err := ip.Parse(tt.pkt)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		here, there := terms.Filter(true), terms.Filter(false)
		a, b := here.Enters(pkt), there.Leaves(pkt) // what the user sends enters at their end and leaves at the other
		if !tt.fromUser {
			a, b = there.Enters(pkt), here.Leaves(pkt)
		}
		if a != tt.ok || b != tt.ok {
			t.Errorf("%s: %v where it enters, %v where it leaves, want %v", tt.name, a, b, tt.ok)
		}
	}
	for name, options := range map[string][]byte{"loose source route": {131, 7, 4, 10, 3, 0, 2, 0}, "strict, behind others": {1, 1, 137, 3, 4, 0, 0, 0}, "cut off": {7, 9, 0, 0}} {
		b := v4(1, user, server, 0, 8, 0, 0, 0)
		b = slices.Concat(b[:20], options, b[20:])
		b[0] += byte(len(options) / 4)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b))) //nolint:gosec // short
		pkt, err := ip.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if terms.Filter(true).Enters(pkt) {
			t.Errorf("%s passes", name)
		}
	}
	var all *policy.Filter
	pkt, _ := ip.Parse(v4(6, server, user, 0, tcp(443, 22, syn)...))
	if !all.Enters(pkt) || !all.Leaves(pkt) {
		t.Error("no filter stops something")
	}
}

func TestFilterAllocatesNothing(t *testing.T) {
	p, _ := policy.New([]policy.Rule{{Groups: []string{"*"}, To: prefixes("10.2.0.0/24"), Allow: services(t, "udp/53", "tcp/22", "tcp/443")}})
	terms, _ := p.Terms("x")
	f := terms.Filter(true)
	pkt, _ := ip.Parse(v4(6, user, server, 0, tcp(5000, 443, ack)...))
	if n := testing.AllocsPerRun(100, func() {
		if !f.Enters(pkt) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFilter(b *testing.B) {
	p, _ := policy.New([]policy.Rule{{Groups: []string{"*"}, To: prefixes("10.2.0.0/24"), Allow: services(b, "udp/53", "tcp/22", "tcp/443")}})
	terms, _ := p.Terms("x")
	f := terms.Filter(true)
	pkt, _ := ip.Parse(v4(6, user, server, 0, tcp(5000, 443, ack)...))
	for b.Loop() {
		f.Enters(pkt)
	}
}

// FuzzFilter: whatever a packet is, what enters at one end leaves at the other, and nothing with a source or destination outside of
// all rules passes but an error.
func FuzzFilter(f *testing.F) {
	f.Add(v4(6, user, server, 0, tcp(5000, 443, syn)...), true)
	f.Add(v4(17, server, user, 185, 1, 2, 3), false)
	f.Add(slices.Concat([]byte{0x60, 0, 0, 0, 0, 8, 44, 64}, make([]byte, 32), []byte{6, 0, 0, 1, 0, 0, 0, 0}), true)
	p, _ := policy.New([]policy.Rule{{Groups: []string{"*"}, To: prefixes("10.2.0.0/24", "2001:db8::/32"), Allow: services(f, "udp/53", "tcp/22", "icmp")}})
	terms, _ := p.Terms("x")
	here, there := terms.Filter(true), terms.Filter(false)
	f.Fuzz(func(t *testing.T, b []byte, fromUser bool) {
		pkt, err := ip.Parse(b)
		if err != nil {
			return
		}
		enters, leaves, far := here.Enters(pkt), there.Leaves(pkt), pkt.Dst()
		if !fromUser {
			enters, leaves, far = there.Enters(pkt), here.Leaves(pkt), pkt.Src()
		}
		if enters != leaves {
			t.Errorf("% x: enters %v, leaves %v", b, enters, leaves)
		}
		outside := !slices.ContainsFunc(prefixes("10.2.0.0/24", "2001:db8::/32"), func(p netip.Prefix) bool { return p.Contains(far) })
		if enters && outside && (fromUser || pkt.Protocol() != ip.ICMP && pkt.Protocol() != ip.ICMPv6) {
			t.Errorf("% x passes", b)
		}
	})
}
