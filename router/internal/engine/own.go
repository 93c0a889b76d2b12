package engine

import (
	"context"
	"fmt"
	"time"

	"twinkey/router/internal/native"
)

// What follows is for a user's own machine: an engine whose Self has no certificate, so that it answers nobody, keeps no site
// links, and leaves the question which addresses are its own to the router that vouches for it.

// Want has a call of the user's up from now on: once a packet asks for it, or, without demand, at once. It is placed again
// whenever it is lost, until it ends for good, which Config.Ended tells. The credentials are the engine's from now on, as in Login.
func (e *Engine) Want(ctx context.Context, w native.Wish, demand bool) error {
	var refused error
	if err := e.Do(ctx, func(now time.Time) {
		if _, ok := e.state.users[w.Key]; ok {
			refused = fmt.Errorf("%w: %s", ErrBusy, w.Key)
			return
		}
		if w.Since.IsZero() {
			w.Since = now
		}
		e.state.users[w.Key] = w
		e.links.Want(now, w.Key, demand)
	}); err != nil {
		return err
	}
	return refused
}

// Anew places every call of the users' that is up anew, in tunnels of their own, beside the old ones, which go when the new
// ones are up: what a router said for the old ones holds for a limited time.
func (e *Engine) Anew(ctx context.Context) error {
	return e.Do(ctx, func(now time.Time) {
		for k, w := range e.state.users { // first all, since those to one router share a tunnel
			e.native.Retire(k.Peer, w.Cred.Certificate.Keys.Control)
		}
		for k := range e.state.users {
			e.replace(now, k)
		}
	})
}

// Abandon ends all calls of the users for good.
func (e *Engine) Abandon(ctx context.Context, reason string) error {
	return e.Do(ctx, func(now time.Time) {
		for k := range e.state.users {
			e.forgetUser(now, k, reason)
		}
	})
}
