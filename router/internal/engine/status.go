package engine

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

// Status is a snapshot of everything that an operator may want to see.
type Status struct {
	Calls   []CallStatus
	Tunnels []native.TunnelStatus
	Links   []links.Link
	Refused []native.Refusal
	// Withheld is what goes nowhere.
	Withheld []netip.Prefix
	Guests   []Guest
	Drops    map[string]uint64
}

// CallStatus is one call that is up.
type CallStatus struct {
	Active
	native.CallStatus
}

// Status takes the snapshot in the control loop.
func (e *Engine) Status(ctx context.Context) (s Status, err error) {
	err = e.Do(ctx, func(time.Time) {
		for id, a := range e.state.active {
			cs, _ := e.native.Call(id)
			s.Calls = append(s.Calls, CallStatus{a, cs})
		}
		s.Tunnels = e.native.Tunnels()
		s.Links = e.links.All()
		s.Refused = slices.Clone(e.state.refused)
		s.Withheld = slices.Clone(e.nowhere())
		for _, g := range e.state.guests {
			s.Guests = append(s.Guests, *g)
		}
		s.Drops = e.dropCounts()
	})
	slices.SortFunc(s.Calls, func(a, b CallStatus) int { return cmp.Compare(a.Active.Call.ID, b.Active.Call.ID) })
	slices.SortFunc(s.Guests, func(a, b Guest) int { return a.Address.Compare(b.Address) })
	slices.SortFunc(s.Tunnels, func(a, b native.TunnelStatus) int { return a.Since.Compare(b.Since) })
	slices.SortFunc(s.Links, func(a, b links.Link) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.User, b.User))
	})
	return s, err
}

// Interim records what the calls of the users who logged in here have carried so far, each between its beginning and its end.
func (e *Engine) Interim(ctx context.Context) error {
	return e.Do(ctx, func(now time.Time) {
		for _, a := range e.state.active {
			if a.Initiator && a.Call.Kind == calls.User {
				e.record(CallEvent{Active: a, At: now, Still: true})
			}
		}
	})
}
