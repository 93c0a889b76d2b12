package calls

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// Routes is an immutable map from addresses to calls. The zero value routes nothing.
// With and Without return a changed copy that shares what did not change.
type Routes struct {
	sources *bart.Table[[]*Call] // bound users, by their address; nil: none
	dests   *bart.Table[[]*Call] // by destination; the last one that came takes the packets
}

// Lookup returns the call that a packet from src to dst takes, or nil.
func (r *Routes) Lookup(src, dst netip.Addr) *Call {
	if r.sources != nil {
		bound, _ := r.sources.Lookup(src)
		for _, c := range slices.Backward(bound) { // here too the last one that came
			if within(c.bounds.Load().Remote, dst) {
				return c
			}
		}
	}
	if r.dests != nil {
		if cs, ok := r.dests.Lookup(dst); ok {
			return cs[len(cs)-1]
		}
	}
	return nil
}

// With returns routes that also hold c: a user's call that starts here is found by its
// bound source, every other call by what lies behind its far end.
func (r *Routes) With(c *Call, initiator bool) *Routes {
	add := func(old []*Call, _ bool) ([]*Call, bool) { return append(slices.Clip(old), c), false }
	return r.change(c, initiator, add)
}

// Without returns routes that do not hold c.
func (r *Routes) Without(c *Call, initiator bool) *Routes {
	drop := func(old []*Call, _ bool) ([]*Call, bool) {
		left := slices.DeleteFunc(slices.Clone(old), func(o *Call) bool { return o == c })
		return left, len(left) == 0
	}
	return r.change(c, initiator, drop)
}

func (r *Routes) change(c *Call, initiator bool, f func([]*Call, bool) ([]*Call, bool)) *Routes {
	n, b := *r, c.Bounds()
	if c.Kind == User && initiator {
		for _, p := range b.Local {
			n.sources = modify(n.sources, p, f)
		}
		return &n
	}
	for _, p := range b.Remote {
		n.dests = modify(n.dests, p, f)
	}
	return &n
}

func modify(t *bart.Table[[]*Call], p netip.Prefix, f func([]*Call, bool) ([]*Call, bool)) *bart.Table[[]*Call] {
	if t == nil {
		t = new(bart.Table[[]*Call])
	}
	return t.ModifyPersist(p.Masked(), f)
}
