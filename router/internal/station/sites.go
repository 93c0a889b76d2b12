package station

import (
	"context"
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

// pushMap tells the engine of the routers that are wanted, and wants calls to those that are new.
func (r *run) pushMap(ctx context.Context) error {
	peers, refused := sitemap.Believe(time.Now(), r.trust, r.sites)
	if want := r.s.o.Peers; len(want) > 0 {
		peers = slices.DeleteFunc(peers, func(p native.Peer) bool { return !slices.Contains(want, p.Name) })
		refused = slices.DeleteFunc(refused, func(f native.Refusal) bool { return !slices.Contains(want, f.Peer) })
	}
	own, err := ownNetworks(r.dev.Name())
	if err != nil {
		return err
	}
	peers, conflicts := apart(peers, own, r.reaching(peers))
	refused = append(append(refused, conflicts...), unreachable(peers, r.s.o.Peers)...)
	m := engine.Map{Wanted: func(string) bool { return false }, Peers: peers, Refused: refused}
	if err := r.eng.SetMap(ctx, m); err != nil {
		return err
	}
	for _, p := range peers {
		if err := r.want(ctx, p); err != nil {
			return err
		}
	}
	return nil
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

// reaching are the addresses that must not go into the interface: those by which routers are reached.
func (r *run) reaching(peers []native.Peer) []netip.Addr {
	var all []netip.Addr
	if host, _, err := net.SplitHostPort(r.s.home.Router); err == nil {
		if a, err := netip.ParseAddr(host); err == nil {
			all = append(all, a.Unmap())
		}
	}
	for _, p := range peers {
		if p.Endpoint.IsValid() {
			all = append(all, p.Endpoint.Addr().Unmap())
		}
	}
	return all
}

// ownNetworks are those that this machine is in, but for the one behind an interface, and host routes.
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
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() && !p.IsSingleIP() {
				own = append(own, p.Masked())
			}
		}
	}
	return own, nil
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

// install brings the kernel's routes in line. What is of another family than the user's address goes in too: it stays here,
// rather than leave in the clear.
func (r *run) install(remote []netip.Prefix, a netip.Addr) error {
	routes := make([]netcfg.Route, 0, len(remote))
	for _, p := range remote {
		route := netcfg.Route{Dst: p}
		if p.Addr().Is4() == a.Is4() {
			route.Src = a
		}
		routes = append(routes, route)
	}
	return netcfg.Update(context.Background(), r.dev.Name(), routes)
}
