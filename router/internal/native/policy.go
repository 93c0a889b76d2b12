package native

import (
	"fmt"
	"time"

	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/policy"
)

// restrict puts the policy on a user's call; each end enforces its own. beside is how many calls of the user there are
// already.
func (s *session) restrict(beside int) error {
	if s.kind() != calls.User {
		return nil
	}
	t, err := s.t.e.policy().Terms(s.cert.Group)
	if err == nil && s.crossed() {
		err = errCrossed
	}
	if err == nil {
		err = t.Admits(s.address, beside)
	}
	if err != nil {
		return fmt.Errorf("user %s: %w", s.cert.Name, err)
	}
	s.terms = t
	s.call.SetFilter(t.Filter(s.initiator))
	return nil
}

// errCrossed: who logs in at both ends of a link has two calls that would be taken for one.
var errCrossed = fmt.Errorf("%w: they are in a call with the same router in the other direction", policy.ErrDenied)

// crossed says whether the user has a call with the same router that was placed at the other end.
func (s *session) crossed() bool {
	for _, o := range s.t.e.byCall {
		if o != s && o.cert != nil && o.kind() == calls.User && o.cert.Name == s.cert.Name && o.t.peer.Name == s.t.peer.Name && o.initiator != s.initiator {
			return true
		}
	}
	return false
}

func (e *Endpoint) policy() *policy.Policy {
	if e.c.Policy == nil {
		return nil // which allows nothing
	}
	return e.c.Policy()
}

// beside counts the user's calls with other routers. One with the same router is going to be replaced.
func (s *session) beside() int {
	routers := map[string]bool{}
	for _, o := range s.t.e.byCall {
		if o != s && o.cert != nil && o.kind() == calls.User && o.cert.Name == s.cert.Name && o.t.peer.Name != s.t.peer.Name {
			routers[o.t.peer.Name] = true
		}
	}
	return len(routers)
}

// PolicyChanged puts the policy of now on all calls, and ends those that it does not allow.
func (e *Endpoint) PolicyChanged(now time.Time) {
	for _, s := range e.byCall {
		if s.cert == nil {
			continue // it is looked at when its certificate is
		}
		if err := s.restrict(0); err != nil {
			s.hangup(now, resultAdmin, err.Error())
		}
	}
}

// overtime is why a user's call has to end now; empty: it has not.
func (s *session) overtime(now time.Time) string {
	if n := s.call.RxPackets.Load() + s.call.TxPackets.Load(); n != s.moved || s.movedAt.IsZero() {
		s.moved, s.movedAt = n, now
	}
	switch {
	case !s.up:
		return ""
	case s.terms.Session > 0 && now.Sub(s.since) >= s.terms.Session:
		return fmt.Sprintf("the session time of %s is over", s.terms.Session)
	case s.terms.Idle > 0 && now.Sub(s.movedAt) >= s.terms.Idle:
		return fmt.Sprintf("nothing was sent or received for %s", s.terms.Idle)
	}
	return ""
}

// Allowed says whether the policy lets the user of a wish have a call, as many being wanted already. The error is policy.ErrDenied.
func (e *Endpoint) Allowed(w Wish, wanted int) error {
	if w.Key == (links.Key{Peer: w.Key.Peer}) {
		return nil // a site link
	}
	t, err := e.policy().Terms(w.Cred.Certificate.Group)
	if err != nil {
		return err
	}
	return t.Admits(w.Address, wanted)
}
