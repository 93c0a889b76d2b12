package station

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/netcfg"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/sitemap"
)

// pushMap tells the engine of the routers that are wanted, and wants calls to those that are new. The caller holds maps.
func (r *run) pushMap(ctx context.Context) error {
	now := time.Now()
	believed, refused := sitemap.Believe(now, r.trust, r.sites)
	r.learn(now, believed)
	peers, unnamed := named(believed, r.s.o.Peers)
	around, err := r.look()
	if err != nil {
		return err
	}
	ways := reaching(around.front, peers)
	peers, conflicts := apart(peers, around.own, ways)
	peers, overlaps := engine.Disjoint(nil, peers)
	over := r.finished()
	m := engine.Map{
		Wanted: func(string) bool { return false }, Peers: peers,
		Withheld: withheld(r.s.certified, peers, over, around, ways),
		Refused:  slices.Concat(refused, unnamed, conflicts, overlaps, unreachable(peers, r.s.o.Peers), over),
	}
	if err := r.eng.SetMap(ctx, m); err != nil {
		return err
	}
	r.around = &around
	for _, p := range peers {
		if err := r.want(ctx, p); err != nil {
			return err
		}
	}
	// Now, and not before, what is for the sites goes into the interface: whoever waits for the client may begin.
	r.s.mu.Lock()
	r.s.run = r
	r.s.mu.Unlock()
	return nil
}

// named are the peers that the user wants called: those that were named, or all.
func named(believed []native.Peer, want []string) (peers []native.Peer, refused []native.Refusal) {
	if len(want) == 0 {
		return believed, nil
	}
	for _, p := range believed {
		if slices.Contains(want, p.Name) {
			peers = append(peers, p)
		} else {
			refused = append(refused, native.Refusal{Peer: p.Name, What: "site", Reason: "not among those that --peer names"})
		}
	}
	return peers, refused
}

// unreachable are routers that cannot be called, of those that are there and those that the user named.
func unreachable(peers []native.Peer, named []string) (refused []native.Refusal) {
	for _, name := range named {
		if !slices.ContainsFunc(peers, func(p native.Peer) bool { return p.Name == name }) {
			refused = append(refused, native.Refusal{Peer: name, What: "site", Reason: "no such router in the site map"})
		}
	}
	for _, p := range peers {
		if !p.Endpoint.IsValid() {
			refused = append(refused, native.Refusal{Peer: p.Name, What: "site", Reason: "nobody can dial it: it has no public address"})
		}
	}
	return refused
}

// want has a call to a router, if it can be dialled and leads anywhere.
func (r *run) want(ctx context.Context, p native.Peer) error {
	r.mu.Lock()
	_, over := r.over[p.Name]
	skip := over || r.wanted[p.Name] || !p.Endpoint.IsValid() || len(p.Announced) == 0
	if !skip {
		r.wanted[p.Name] = true
	}
	r.mu.Unlock()
	if skip {
		return nil
	}
	cred, err := r.credentials()
	if err != nil {
		return err
	}
	demand := len(r.s.o.Peers) == 0
	w := native.Wish{Key: links.Key{Peer: p.Name, User: r.s.o.User}, Cred: cred, Address: r.s.admission().Address}
	if err := r.eng.Want(ctx, w, demand); err != nil {
		return err
	}
	if demand {
		r.s.say("%s: %v, called when a packet asks", p.Name, p.Announced)
	}
	return nil
}

// surroundings are what the routes to sites must keep clear of, besides the routers that are called.
type surroundings struct {
	own   []netip.Prefix // networks that this machine is in; an address alone stands for one whose length is not known
	clear []netip.Prefix // those that are known, and what else is reached without a next hop
	front []netip.Addr   // where the router in front is
}

func (a surroundings) equal(b surroundings) bool {
	return slices.Equal(a.own, b.own) && slices.Equal(a.clear, b.clear) && slices.Equal(a.front, b.front)
}

// look says what is around now.
func (r *run) look() (surroundings, error) {
	own, err := ownNetworks(r.s.dev.Name())
	if err != nil {
		return surroundings{}, err
	}
	known, err := netcfg.OnLink(r.s.dev.Name())
	for _, p := range own {
		if !p.IsSingleIP() {
			known = append(known, p)
		}
	}
	slices.SortFunc(known, netip.Prefix.Compare)
	return surroundings{own, slices.Compact(known), front(r.s.home.Router, r.s.front.Reached())}, err
}

// front is where the router in front is, of which we know host and port and where it was reached: a name alone says no address.
func front(router string, reached []netip.Addr) []netip.Addr {
	if host, _, err := net.SplitHostPort(router); err == nil {
		if a, err := netip.ParseAddr(host); err == nil {
			reached = append(slices.Clip(reached), a.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(reached, netip.Addr.Compare)
	return slices.Compact(reached)
}

// lookTick is how often it is looked whether this machine has moved.
const lookTick = 5 * time.Second

// lookAround tells the engine of the map again when this machine, or the router in front, is in other networks than when it was told.
func (r *run) lookAround(ctx context.Context) {
	t := time.NewTicker(lookTick)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			if err := r.keepClear(ctx, now); errors.Is(err, engine.ErrStopped) || ctx.Err() != nil {
				return
			} else if err != nil {
				r.s.log.Warn("routes not brought in line with this machine's networks", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// keepClear does it once.
func (r *run) keepClear(ctx context.Context, now time.Time) error {
	around, err := r.look()
	if err != nil {
		return err
	}
	r.maps.Lock()
	defer r.maps.Unlock()
	if !r.moved(now, around) {
		return nil
	}
	r.s.log.Info("this machine's networks have changed", "networks", fmt.Sprint(around.own), "router", fmt.Sprint(around.front))
	return r.pushMap(ctx)
}

// moved says whether the map that the engine has is to be told anew, since this machine is elsewhere. The caller holds maps.
func (r *run) moved(now time.Time, around surroundings) bool {
	return r.told(now) && !r.around.equal(around)
}

// told says whether the engine has a map that may be told anew. One that waits is told later anyway, and while no certificate is
// believed the calls that are up would end. The caller holds maps.
func (r *run) told(now time.Time) bool {
	return r.around != nil && !r.unread && r.trust.Fresh(now) == nil
}

// reaching are the addresses that must not go into the interface: those by which routers are reached.
func reaching(front []netip.Addr, peers []native.Peer) []netip.Addr {
	all := slices.Clone(front)
	for _, p := range peers {
		if p.Endpoint.IsValid() {
			all = append(all, p.Endpoint.Addr().Unmap())
		}
	}
	return all
}

// ownNetworks are those that this machine is in, but for the one behind an interface.
func ownNetworks(except string) ([]netip.Prefix, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	var own []netip.Prefix
	for _, i := range ifs {
		if i.Name == except || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("listing the addresses of %s: %w", i.Name, err)
		}
		own = append(own, networks(i.Flags, addrs)...)
	}
	slices.SortFunc(own, netip.Prefix.Compare)
	return slices.Compact(own), nil
}

// networks are those that an interface with these addresses is in. A single address, as clouds and DHCPv6 give them, stands in a network
// too, whose length it does not tell; at the end of a line, such as another tunnel, it stands alone.
func networks(f net.Flags, addrs []net.Addr) (own []netip.Prefix) {
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() || p.IsSingleIP() && f&net.FlagPointToPoint != 0 {
			continue
		}
		own = append(own, p.Masked())
	}
	return own
}

// apart takes from the peers what would cut this machine off: its own networks, and what routers are reached by.
func apart(peers []native.Peer, own []netip.Prefix, reaching []netip.Addr) (kept []native.Peer, refused []native.Refusal) {
	for _, p := range peers {
		why := func(prefix netip.Prefix) string {
			if i := slices.IndexFunc(own, prefix.Overlaps); i >= 0 {
				return fmt.Sprintf("overlaps %s, which this machine is in", own[i])
			}
			if i := slices.IndexFunc(reaching, prefix.Contains); i >= 0 {
				return fmt.Sprintf("%s is in it, by which a router is reached", reaching[i])
			}
			return ""
		}
		p.Certified = slices.DeleteFunc(slices.Clone(p.Certified), func(prefix netip.Prefix) bool {
			reason := why(prefix)
			if reason != "" {
				refused = append(refused, native.Refusal{Peer: p.Name, What: prefix.String(), Reason: reason})
			}
			return reason != ""
		})
		p.Announced = slices.DeleteFunc(slices.Clone(p.Announced), func(prefix netip.Prefix) bool {
			return !slices.ContainsFunc(p.Certified, func(c netip.Prefix) bool { return c.Bits() <= prefix.Bits() && c.Contains(prefix.Addr()) })
		})
		kept = append(kept, p)
	}
	return kept, refused
}

// install brings the kernel's routes in line.
func (r *run) install(remote, withheld []netip.Prefix, a netip.Addr) error {
	return netcfg.Update(context.Background(), r.s.dev.Name(), routes(remote, withheld, a))
}

// routes are those into the interface. What is of another family than the user's address goes in too, and what is withheld: it stays here, rather than leave in
// the clear. So does what calls carry when the kernel has taken away the route that has the address for a source, with the address: below each of those
// there is one without.
func routes(remote, withheld []netip.Prefix, a netip.Addr) (all []netcfg.Route) {
	for _, p := range remote {
		route := netcfg.Route{Dst: p}
		if p.Addr().Is4() == a.Is4() {
			route.Src = a
		}
		all = append(all, route, netcfg.Route{Dst: p, Metric: lastResort})
	}
	for _, p := range withheld {
		if !slices.Contains(remote, p) {
			all = append(all, netcfg.Route{Dst: p, Metric: lastResort})
		}
	}
	return all
}
