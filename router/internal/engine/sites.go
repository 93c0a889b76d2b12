package engine

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

// overlap is how long a replaced call still receives after its successor is up.
const overlap = 2 * time.Second

// takeover is how long a call that is being placed in the place of one that has ended may take until it is placed again.
const takeover = time.Second

// courtesy is how long the higher name waits to be called before it dials itself.
const courtesy = 3 * time.Second

// replaceRetry is how long a link whose replacement failed waits for the next try. The
// certificates that it stands on live for long: renewal comes early.
const replaceRetry = 30 * time.Second

// LeftMap is why calls with a router end that is no longer known.
const LeftMap = "the peer left the site map"

// Map is what the site map and the configuration say.
type Map struct {
	Local  []netip.Prefix // what we bridge
	Public bool           // peers can dial us
	Demand bool           // open site links when a packet asks for them
	Wanted func(peer string) bool
	Peers  []native.Peer
	// Withheld is what goes nowhere, rather than by another way: no call is going to carry it. Its senders are told.
	Withheld []netip.Prefix
	// Refused is what was left out already, for status.
	Refused []native.Refusal
}

// SetMap takes over a new map: links to new peers are wanted, those to peers that are
// gone end, bounds and routes of calls that stand are adjusted.
func (e *Engine) SetMap(ctx context.Context, m Map) error {
	return e.Do(ctx, func(now time.Time) { e.setMap(now, m) })
}

func (e *Engine) setMap(now time.Time, m Map) {
	s := &e.state
	peers, refused := Disjoint(m.Local, m.Peers)
	old := s.peers
	s.local, s.public, s.demand, s.wanted = m.Local, m.Public, m.Demand, m.Wanted
	s.refused = append(m.Refused, refused...)
	e.withheld.Store(&m.Withheld)
	s.peers = make(map[string]native.Peer, len(peers))
	for _, p := range peers {
		s.peers[p.Name] = p
	}
	for _, r := range s.refused {
		e.c.Log.Warn("site map refused in part", "peer", r.Peer, "what", r.What, "reason", r.Reason)
	}
	for name := range old {
		if _, ok := s.peers[name]; !ok {
			e.lose(now, name)
		}
	}
	e.yieldToSite(now)
	e.dismiss(e.unwelcome)
	for name, p := range s.peers {
		if q, ok := old[name]; ok && q.ID != p.ID {
			e.replacePeer(now, name)
		}
		e.want(now, p)
	}
	e.native.Refresh(func(c *calls.Call, b calls.Bounds) {
		a, up := s.active[c.ID]
		if up {
			e.table.SetRoutes(e.table.Routes().Without(c, a.Initiator))
		}
		c.SetBounds(b)
		if up {
			e.table.SetRoutes(e.table.Routes().With(c, a.Initiator))
		}
	})
	e.install()
}

// Disjoint leaves out prefixes that overlap ours or those of a peer before: who routes
// an ambiguous prefix delivers somebody's packets to somebody else.
func Disjoint(local []netip.Prefix, peers []native.Peer) (kept []native.Peer, refused []native.Refusal) {
	type owner struct {
		p    netip.Prefix
		name string
	}
	var taken []owner
	for _, p := range local {
		taken = append(taken, owner{p, "this router"})
	}
	peers = slices.Clone(peers)
	slices.SortFunc(peers, func(a, b native.Peer) int { return cmp.Compare(a.Name, b.Name) })
	for _, peer := range peers {
		free := func(p netip.Prefix) bool {
			i := slices.IndexFunc(taken, func(o owner) bool { return o.name != peer.Name && o.p.Overlaps(p) })
			if i >= 0 {
				refused = append(refused, native.Refusal{Peer: peer.Name, What: p.String(), Reason: "overlaps " + taken[i].p.String() + " of " + taken[i].name})
			}
			return i < 0
		}
		peer.Certified = keep(peer.Certified, free)
		inCertified := func(p netip.Prefix) bool {
			return slices.ContainsFunc(peer.Certified, func(c netip.Prefix) bool { return c.Bits() <= p.Bits() && c.Contains(p.Addr()) })
		}
		peer.Announced = keep(peer.Announced, inCertified)
		for _, p := range peer.Certified {
			taken = append(taken, owner{p, peer.Name})
		}
		kept = append(kept, peer)
	}
	return kept, refused
}

func keep(ps []netip.Prefix, ok func(netip.Prefix) bool) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(ps), func(p netip.Prefix) bool { return !ok(p) })
}

// install brings the kernel's routes in line: everything that a peer is certified for
// goes into the TUN interface, also while no call is up, so that it never leaves by the
// default route in the clear.
func (e *Engine) install() {
	var remote []netip.Prefix
	for _, p := range e.state.peers {
		remote = append(remote, p.Certified...)
	}
	slices.SortFunc(remote, func(a, b netip.Prefix) int { return a.Compare(b) })
	if err := e.c.Install(slices.Compact(remote), e.nowhere()); err != nil {
		e.c.Log.Error("routes not set", "error", err)
	}
}

// nowhere is what the map has withheld.
func (e *Engine) nowhere() []netip.Prefix {
	if w := e.withheld.Load(); w != nil {
		return *w
	}
	return nil
}

// want decides who dials the site link to p. Of two that can be dialled the lower name
// dials at once; the other waits a moment whether it is called, so that it also dials
// when it has just been started and its peer still believes in a link to what it was.
func (e *Engine) want(now time.Time, p native.Peer) {
	s := &e.state
	k := links.Key{Peer: p.Name}
	if !p.Endpoint.IsValid() || !s.wanted(p.Name) {
		e.links.Forget(k)
		return
	}
	_, known := e.links.Get(k)
	e.links.Want(now, k, s.demand)
	switch {
	case e.standing(k):
		e.links.Up(now, k)
	case e.waitsFor(p.Name):
		if !known {
			e.links.NotBefore(k, now.Add(courtesy))
		}
	default:
		e.links.Soon(now, k)
	}
}

// waitsFor says whether we let the peer dial first.
func (e *Engine) waitsFor(peer string) bool {
	return e.state.public && !e.state.demand && e.c.Name > peer
}

// lose ends everything with a peer that is no longer in the site map.
func (e *Engine) lose(now time.Time, peer string) {
	e.links.Forget(links.Key{Peer: peer})
	for id, a := range e.state.active {
		if a.Call.Peer == peer {
			if a.Key.User != "" && a.Initiator {
				e.forgetUser(now, a.Key, LeftMap)
			}
			e.native.Hangup(now, id, LeftMap)
		}
	}
}

// yieldToSite ends users' calls from addresses that a reload has put under the site link.
func (e *Engine) yieldToSite(now time.Time) {
	for k, w := range e.state.users {
		i := slices.IndexFunc(e.state.local, func(p netip.Prefix) bool { return p.Contains(w.Address) })
		if i >= 0 {
			e.forgetUser(now, k, "its address is in "+e.state.local[i].String()+", which is bridged now")
		}
	}
}

// dialDue places the calls whose time has come.
func (e *Engine) dialDue(now time.Time) {
	for _, k := range e.links.Due(now) {
		w, ok := e.wish(k)
		if !ok {
			e.links.Down(now, k, "no certificate")
			continue
		}
		err := e.native.PlaceCall(now, w)
		if err == nil {
			continue
		}
		if k.User != "" && (e.firstTry(k) || errors.Is(err, twincert.ErrRevoked) && !e.unheard(now, k) || errors.Is(err, twincert.ErrExpired)) {
			e.forgetUser(now, k, err.Error())
		} else {
			e.links.Down(now, k, err.Error())
		}
		e.answerWaiting(k, nil, err)
	}
}

// asked notes that a packet found no call: a link on demand is opened.
func (e *Engine) asked(dst netip.Addr) {
	for name, p := range e.state.peers {
		for _, prefix := range p.Announced {
			if prefix.Contains(dst) {
				e.links.Ask(links.Key{Peer: name})
				for k := range e.state.users {
					if k.Peer == name {
						e.links.Ask(k)
					}
				}
				return
			}
		}
	}
}

// wish is what a call of k is placed with.
func (e *Engine) wish(k links.Key) (native.Wish, bool) {
	if k.User != "" {
		w, ok := e.state.users[k]
		return w, ok
	}
	return native.Wish{Key: k, Cred: e.state.self.Credentials}, e.state.self.Certificate != nil
}

// placed says whether a call of k is up that we placed.
func (e *Engine) placed(k links.Key) bool {
	for _, a := range e.state.active {
		if a.Key == k && a.Initiator {
			return true
		}
	}
	return false
}

// replacePeer makes every call to peer that we placed anew: its certificate has changed.
func (e *Engine) replacePeer(now time.Time, peer string) {
	keys := make(map[links.Key]bool)
	for _, a := range e.state.active {
		if a.Key.Peer == peer && a.Initiator {
			keys[a.Key] = true
		}
	}
	for k := range keys { // first all, since those of a group share a tunnel
		if w, ok := e.wish(k); ok {
			e.native.Retire(peer, w.Cred.Certificate.Keys.Control)
		}
	}
	for k := range keys {
		e.replace(now, k)
	}
}

// replace makes a call anew: certificates changed at one end. The old one carries packets
// until the new one is up.
func (e *Engine) replace(now time.Time, k links.Key) {
	w, ok := e.wish(k)
	if !ok || !e.placed(k) {
		return // the end that placed the call makes it anew
	}
	if err := e.native.PlaceCall(now, w); err != nil {
		e.state.replace[k] = now.Add(replaceRetry)
		e.c.Log.Warn("call not replaced yet", "peer", k.Peer, "user", k.User, "reason", err)
	}
}

// resolve lets one of several calls for the same purpose stand: the younger one. Of two
// site links that both ends dialled in the same moment it is that of the lower name.
func (e *Engine) resolve(now time.Time, v native.CallUp) {
	for id, a := range e.state.active {
		if id == v.Call.ID || a.Key != v.Key || a.Call.Kind != v.Call.Kind {
			continue
		}
		loser := id
		if a.Initiator != v.Initiator && now.Sub(a.Since) < courtesy && a.Initiator == (e.c.Name < v.Call.Peer) {
			loser = v.Call.ID
		}
		switch l := e.state.active[loser]; {
		case l.Initiator: // each end lets go of what it dialled
			e.state.retiring[loser] = now.Add(overlap)
		case l.Call.Held && slices.Equal(l.Call.Bounds().Remote, v.Call.Bounds().Remote):
			// A user's own machine may have been killed, and know nothing of it any more. Another one of theirs has another address.
			e.state.retiring[loser] = now.Add(2 * overlap)
		}
	}
}

func (e *Engine) retireDue(now time.Time) {
	for id, at := range e.state.retiring {
		if !now.Before(at) {
			delete(e.state.retiring, id)
			e.native.Hangup(now, id, "replaced by another call")
		}
	}
}

// replaceDue tries again to replace links whose replacement failed.
func (e *Engine) replaceDue(now time.Time) {
	for k, at := range e.state.replace {
		if !now.Before(at) {
			delete(e.state.replace, k)
			e.replace(now, k)
		}
	}
}

// soonest is the first of the times in m; zero: there is none.
func soonest[K comparable](m map[K]time.Time) time.Time {
	var first time.Time
	for _, at := range m {
		first = earliest(first, at)
	}
	return first
}
