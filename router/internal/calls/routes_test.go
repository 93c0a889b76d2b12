package calls

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestLookup(t *testing.T) {
	site := New(1, SiteLink, Bounds{Local: prefixes("10.1.0.0/24"), Remote: prefixes("10.2.0.0/16")})
	part := New(2, SiteLink, Bounds{Local: prefixes("10.1.0.0/24"), Remote: prefixes("10.2.7.0/24")})
	alice := New(3, User, Bounds{Local: prefixes("10.1.0.3/32"), Remote: prefixes("10.2.0.0/24")})
	abroad := New(4, User, Bounds{Local: prefixes("10.1.0.0/24"), Remote: prefixes("10.2.0.9/32")})
	r := new(Routes).With(site, true).With(part, false).With(alice, true).With(abroad, false)
	tests := []struct {
		name, src, dst string
		want           *Call
	}{
		{"by destination", "10.1.0.1", "10.2.1.1", site},
		{"the longest prefix", "10.1.0.1", "10.2.7.1", part},
		{"a bound source before a destination", "10.1.0.3", "10.2.0.1", alice},
		{"a bound source, but not where that call leads", "10.1.0.3", "10.2.7.1", part},
		{"a user of the far end who is called from there", "10.1.0.1", "10.2.0.9", abroad},
		{"nowhere", "10.1.0.1", "192.0.2.1", nil},
		{"another family", "2001:db8::1", "2001:db8::2", nil},
	}
	for _, tt := range tests {
		if got := r.Lookup(netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.dst)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, id(got), id(tt.want))
		}
	}
	if got := new(Routes).Lookup(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")); got != nil {
		t.Error("no routes lead somewhere")
	}
}

func id(c *Call) uint64 {
	if c == nil {
		return 0
	}
	return c.ID
}

// Make before break: the call that came last takes the packets, and when it goes the one
// before it has them again.
func TestTheLastCallTakesThePackets(t *testing.T) {
	b := Bounds{Local: prefixes("10.1.0.0/24"), Remote: prefixes("10.2.0.0/24")}
	src, dst := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	old, young := New(1, SiteLink, b), New(2, SiteLink, b)
	r := new(Routes).With(old, true).With(young, true)
	for _, step := range []struct{ without, want *Call }{{nil, young}, {young, old}, {young, old}, {old, nil}} {
		if step.without != nil {
			r = r.Without(step.without, true)
		}
		if got := r.Lookup(src, dst); got != step.want {
			t.Errorf("without %d: %d takes the packets, want %d", id(step.without), id(got), id(step.want))
		}
	}
}

// A user's replaced call shares the bound source with its successor.
func TestTheLastCallOfAUserTakesThePackets(t *testing.T) {
	b := Bounds{Local: prefixes("10.1.0.3/32"), Remote: prefixes("10.2.0.0/24")}
	old, young := New(1, User, b), New(2, User, b)
	r := new(Routes).With(old, true).With(young, true)
	if got := r.Lookup(netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("10.2.0.1")); got != young {
		t.Errorf("call %d takes the packets, want the successor", id(got))
	}
}

// Against a list that is searched from end to end: random calls come and go; every lookup
// agrees, and snapshots taken on the way still answer as they did when they were taken.
func TestRoutesAgreeWithAList(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	addr := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(4)), byte(rng.IntN(8))})
	}
	prefix := func() netip.Prefix { return netip.PrefixFrom(addr(), 8+rng.IntN(25)).Masked() }
	type entry struct {
		c         *Call
		initiator bool
	}
	slow := func(es []entry, src, dst netip.Addr) *Call {
		longest := func(of func(entry) []netip.Prefix, at netip.Addr, ok func(entry) bool) *Call {
			var best *Call
			bits := -1
			for _, e := range es {
				for _, p := range of(e) {
					if ok(e) && p.Contains(at) && p.Bits() >= bits {
						best, bits = e.c, p.Bits()
					}
				}
			}
			return best
		}
		bound := func(e entry) bool { return e.c.Kind == User && e.initiator }
		if c := longest(func(e entry) []netip.Prefix { return e.c.Bounds().Local }, src, func(e entry) bool {
			return bound(e) && within(e.c.Bounds().Remote, dst)
		}); c != nil {
			return c
		}
		return longest(func(e entry) []netip.Prefix { return e.c.Bounds().Remote }, dst, func(e entry) bool { return !bound(e) })
	}
	var (
		es        []entry
		r         = new(Routes)
		snapshots []*Routes
		lists     [][]entry
	)
	agree := func(r *Routes, es []entry, when string) {
		t.Helper()
		for range 50 {
			src, dst := addr(), addr()
			if got, want := r.Lookup(src, dst), slow(es, src, dst); got != want {
				t.Fatalf("%s, %d calls: %s to %s takes call %d, want %d", when, len(es), src, dst, id(got), id(want))
			}
		}
	}
	for i := range 400 {
		if len(es) > 12 || len(es) > 0 && rng.IntN(3) == 0 {
			k := rng.IntN(len(es))
			r = r.Without(es[k].c, es[k].initiator)
			es = slices.Delete(slices.Clone(es), k, k+1)
		} else {
			e := entry{New(uint64(i+1), Kind(rng.IntN(2)), Bounds{Local: []netip.Prefix{prefix()}, Remote: []netip.Prefix{prefix(), prefix()}}), rng.IntN(2) == 0}
			if e.c.Kind == User && e.initiator {
				e.c.SetBounds(Bounds{Local: []netip.Prefix{netip.PrefixFrom(addr(), 32)}, Remote: e.c.Bounds().Remote})
			}
			r, es = r.With(e.c, e.initiator), append(slices.Clone(es), e)
		}
		agree(r, es, "now")
		snapshots, lists = append(snapshots, r), append(lists, es)
	}
	for i, old := range snapshots {
		agree(old, lists[i], "a snapshot")
	}
	for _, e := range es {
		r = r.Without(e.c, e.initiator)
	}
	agree(r, nil, "at the end")
}
