package native

import (
	"fmt"
	"net/netip"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/policy"
)

// errCrossed: who logs in at both ends of a link has two calls that would be taken for one.
var errCrossed = fmt.Errorf("%w: they are in a call with the same router in the other direction", policy.ErrDenied)

// admit holds a call that is being set up to the policy, and to the user's other calls.
func (s *session) admit() error {
	if s.kind() != calls.User {
		return nil
	}
	routers := map[string]bool{} // others than this one; a call with the same router is going to be replaced
	for _, o := range s.t.e.byCall {
		if o == s || o.cert == nil || o.kind() != calls.User || o.cert.Name != s.cert.Name {
			continue
		}
		if o.t.peer.Name != s.t.peer.Name {
			routers[o.t.peer.Name] = true
		} else if o.initiator != s.initiator {
			return fmt.Errorf("user %s: %w", s.cert.Name, errCrossed)
		}
	}
	return s.restrict(len(routers))
}

// restrict puts the policy on a user's call; each end enforces its own. beside is how many calls with other routers the user has.
func (s *session) restrict(beside int) error {
	t, err := s.t.e.terms(s.cert, s.address, beside)
	if err != nil {
		return fmt.Errorf("user %s: %w", s.cert.Name, err)
	}
	s.terms = t.Within(s.longest)
	s.call.SetFilter(s.terms.Filter(s.initiator))
	return nil
}

// terms are what the policy of now says of a user's call. The error is policy.ErrDenied.
func (e *Endpoint) terms(c *twincert.Certificate, a netip.Addr, beside int) (policy.Terms, error) {
	var p *policy.Policy // which allows nothing
	if e.c.Policy != nil {
		p = e.c.Policy()
	}
	t, err := p.Terms(c.Group)
	if err == nil {
		err = t.Admits(a, beside)
	}
	return t, err
}

// PolicyChanged puts the policy of now on all calls, and ends those that it does not allow.
func (e *Endpoint) PolicyChanged(now time.Time) {
	for _, s := range e.byCall {
		if s.cert == nil || s.kind() != calls.User {
			continue // without a certificate it is looked at when it has one
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
		s.cause = calls.SessionOver
		return fmt.Sprintf("the session time of %s is over", s.terms.Session)
	case s.terms.Idle > 0 && now.Sub(s.movedAt) >= s.terms.Idle:
		s.cause = calls.Idle
		return fmt.Sprintf("nothing was sent or received for %s", s.terms.Idle)
	}
	return ""
}

// Allowed says whether the policy lets the user of a wish have a call, as many being wanted already. The error is policy.ErrDenied.
func (e *Endpoint) Allowed(w Wish, wanted int) error {
	_, err := e.Terms(w, wanted)
	return err
}

// Terms is Allowed, and what the policy says of the call.
func (e *Endpoint) Terms(w Wish, wanted int) (policy.Terms, error) {
	return e.terms(w.Cred.Certificate, w.Address, wanted)
}
