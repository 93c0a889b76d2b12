package station

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
)

// lastResort is the metric of routes for what is withheld, and for all that calls carry: whatever else leads to the very same destination is preferred.
const lastResort = math.MaxInt32

// hold withholds all that sites are known to be certified for, since runs before this one: until there is a map no call carries it. In the first run nothing is
// known.
func (r *run) hold(ctx context.Context) error {
	around, err := r.look()
	if err != nil {
		return err
	}
	r.maps.Lock()
	defer r.maps.Unlock()
	return r.eng.SetMap(ctx, engine.Map{Wanted: func(string) bool { return false }, Withheld: withheld(r.s.certified, nil, nil, around, around.front)})
}

// awaitMap ends the run if there is no map in time. A router in front that lies could let the user believe for ever that what is for the sites goes there
// in calls.
func (r *run) awaitMap(ctx context.Context) {
	select {
	case <-time.After(r.s.patience):
	case <-ctx.Done():
		return
	}
	r.maps.Lock()
	defer r.maps.Unlock()
	if r.around == nil {
		r.stop(ErrNoMap)
	}
}

// learn notes what sites are certified for. It is remembered as long as the client runs: what was for a site is not to leave in the clear because the site's
// router was revoked, say, or because the router in front has everything begin anew. The caller holds maps.
func (r *run) learn(now time.Time, believed []native.Peer) {
	for _, p := range believed {
		for _, prefix := range p.Certified {
			r.s.certified[prefix] = true
		}
	}
	for _, s := range r.sites {
		if slices.ContainsFunc(believed, func(p native.Peer) bool { return p.Name == s.Name }) {
			continue
		}
		if c, err := r.trust.Issued(now, s.Certificate, twincert.Router); err == nil && c.Name == s.Name {
			for _, prefix := range c.Prefixes {
				r.s.certified[prefix] = true
			}
		}
	}
}

// finished are the routers whose calls have ended for good.
func (r *run) finished() (refused []native.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, reason := range r.over {
		refused = append(refused, native.Refusal{Peer: name, What: "calls", Reason: reason})
	}
	return refused
}

// retell tells the engine of the map again after calls have ended for good, if it was told of one.
func (r *run) retell(ctx context.Context, now time.Time) error {
	r.maps.Lock()
	defer r.maps.Unlock()
	if !r.told(now) {
		return nil
	}
	return r.pushMap(ctx)
}

// withheld is what sites are certified for and no call of ours will carry: all of certified but what the peers have that may be called. What
// this machine is in stays out of it, and what routers are reached by.
func withheld(certified map[netip.Prefix]bool, peers []native.Peer, over []native.Refusal, a surroundings, reaching []netip.Addr) []netip.Prefix {
	holes := slices.Clone(a.clear)
	for _, addr := range reaching {
		holes = append(holes, netip.PrefixFrom(addr, addr.BitLen()))
	}
	for _, p := range peers {
		if p.Endpoint.IsValid() && !slices.ContainsFunc(over, func(o native.Refusal) bool { return o.Peer == p.Name }) {
			holes = append(holes, p.Certified...)
		}
	}
	var out []netip.Prefix
	for p := range certified {
		out = append(out, carve(p, holes)...)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// carve is what is left of a prefix without the holes: a half that has none is left whole. Everything is cut in two in any case, so that no route
// of ours is a default route.
func carve(p netip.Prefix, holes []netip.Prefix) []netip.Prefix {
	var in []netip.Prefix
	for _, h := range holes {
		switch {
		case !h.Overlaps(p):
		case h.Bits() <= p.Bits():
			return nil
		default:
			in = append(in, h)
		}
	}
	if len(in) == 0 && p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	low, high := halves(p)
	return append(carve(low, in), carve(high, in)...)
}

// halves are the two of a prefix that is no single address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	second, _ := netip.AddrFromSlice(b) // as long as it was
	return netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(second, p.Bits()+1)
}
