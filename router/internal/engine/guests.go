package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

// Guest is a user whose own machine places the calls: this router carries none of them, it only vouches for the
// tunnels.
type Guest struct {
	Certificate *twincert.Certificate // of the engine's from Welcome on
	Address     netip.Addr
	Since       time.Time
	// Dismissed is told, in the control loop, why this router will vouch no more: it must not wait. Whoever calls Leave
	// is not told.
	Dismissed func(reason string)
	// Replaces is a guest of the same user at the same address whom nobody has heard of for a while: they leave when this one is welcome, who
	// takes over what they have proved. Nil: there is none.
	Replaces *Guest

	// What follows is the engine's from Welcome on.
	closes bool    // the policy wants the certificate revoked at the end
	ending *Ending // what proves the end; nil: nothing does yet
}

// Ending is what proves to the CA that a user's session has ended, though nobody here has the user's keys (ca/client CloseProof).
type Ending struct {
	Certificate *twincert.Certificate
	Proof       []byte
}

// Vacant says whether a user may come from an address at all. The error is ErrNotOurs, ErrBridged or ErrBusy.
func (e *Engine) Vacant(ctx context.Context, a netip.Addr) error {
	var refused error
	if err := e.Do(ctx, func(time.Time) { refused = e.vacant(a, "") }); err != nil {
		return err
	}
	return refused
}

// vacant says whether an address is one for users, and no other user's than uid.
func (e *Engine) vacant(a netip.Addr, uid string) error {
	for k, o := range e.state.users {
		if o.Address == a && k.User != uid {
			return fmt.Errorf("%w: %s is bound to %s", ErrBusy, a, k.User)
		}
	}
	self := e.state.self.Certificate
	if self == nil {
		return nil // our own machine: the router in front has looked
	}
	if !slices.ContainsFunc(self.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return fmt.Errorf("%w: %s is in none of %v", ErrNotOurs, a, self.Prefixes)
	}
	return e.apart(a)
}

// Welcome takes in a guest, under the same conditions as a user who logs in here, and returns what the policy says of
// them. It does not displace another.
func (e *Engine) Welcome(ctx context.Context, g *Guest) (terms policy.Terms, err error) {
	var refused error
	if err := e.Do(ctx, func(now time.Time) {
		if terms, refused = e.welcome(g); refused == nil {
			g.Since, g.closes = now, terms.RevokeOnClose
			if o := g.Replaces; o != nil && e.state.guests[g.Address] == o {
				g.ending = o.ending
				e.c.Log.Info("client gone", "user", o.Certificate.Name, "address", o.Address.String(), "reason", "the user has logged in again")
			}
			g.Replaces = nil
			e.state.guests[g.Address] = g
			e.c.Log.Info("client welcome", "user", g.Certificate.Name, "address", g.Address.String(), "certificate", g.Certificate.ID().String())
		}
	}); err != nil {
		return terms, err
	}
	return terms, refused
}

func (e *Engine) welcome(g *Guest) (policy.Terms, error) {
	uid := g.Certificate.Name
	logins := e.logins(uid)
	if o, ok := e.state.guests[g.Address]; ok && o == g.Replaces && o.Certificate.Name == uid {
		logins--
	} else if ok {
		return policy.Terms{}, fmt.Errorf("%w: %s is bound to a client of %s", ErrBusy, g.Address, o.Certificate.Name)
	}
	if err := e.vacant(g.Address, ""); err != nil {
		return policy.Terms{}, err
	}
	return e.native.Terms(g.wish(), logins)
}

// GuestAt returns the guest at an address; false: there is none.
func (e *Engine) GuestAt(ctx context.Context, a netip.Addr) (guest Guest, ok bool, err error) {
	err = e.Do(ctx, func(time.Time) {
		var g *Guest
		if g, ok = e.state.guests[a]; ok {
			guest = *g
		}
	})
	return guest, ok, err
}

func (g *Guest) wish() native.Wish {
	return native.Wish{Key: links.Key{User: g.Certificate.Name}, Cred: native.Credentials{Certificate: g.Certificate}, Address: g.Address}
}

// logins is how often a user is logged in: calls that are wanted here, and machines of their own.
func (e *Engine) logins(uid string) (n int) {
	for k := range e.state.users {
		if k.User == uid {
			n++
		}
	}
	for _, g := range e.state.guests {
		if g.Certificate.Name == uid {
			n++
		}
	}
	return n
}

// SucceedGuest puts a newer certificate in the place of a guest's, which may be of another group, and returns what the policy says of that. Their
// machine has to be told. A guest whom nothing lets in by it, from there, leaves and is Dismissed. The error is ErrGone if the guest has left, by
// this or before, or has another certificate already.
func (e *Engine) SucceedGuest(ctx context.Context, u User, c *twincert.Certificate) (terms policy.Terms, err error) {
	gone := false
	if err := e.Do(ctx, func(time.Time) {
		g := u.Guest
		if gone = e.state.guests[g.Address] != g || g.Certificate.ID() != u.Certificate.ID(); gone {
			return
		}
		g.Certificate = c
		if reason := e.unwelcome(g); reason != "" {
			gone = e.forgetGuest(g, reason)
			g.Dismissed(reason)
			return
		}
		terms, _ = e.native.Terms(g.wish(), 0) // of whom it welcomes there are some
		g.closes = terms.RevokeOnClose
	}); err != nil {
		return terms, err
	}
	if gone {
		return terms, ErrGone
	}
	return terms, nil
}

// Leave forgets a guest. One that has gone already is none of its concern, nor one who came after.
func (e *Engine) Leave(ctx context.Context, g *Guest, reason string) error {
	return e.Do(ctx, func(time.Time) { e.forgetGuest(g, reason) })
}

func (e *Engine) forgetGuest(g *Guest, reason string) bool {
	if e.state.guests[g.Address] != g {
		return false
	}
	delete(e.state.guests, g.Address)
	e.c.Log.Info("client gone", "user", g.Certificate.Name, "address", g.Address.String(), "reason", reason)
	e.closeGuest(g)
	return true
}

// Prove keeps what proves the end of a guest's stay, in the place of what they have proved before: that is of the certificate that they had
// then. The error is ErrGone if the guest has left, or has another certificate.
func (e *Engine) Prove(ctx context.Context, g *Guest, end Ending) error {
	gone := false
	err := e.Do(ctx, func(time.Time) {
		if gone = e.state.guests[g.Address] != g || g.Certificate.ID() != end.Certificate.ID(); !gone {
			g.ending = &end
		}
	})
	if err == nil && gone {
		err = ErrGone
	}
	return err
}

// closing says whether a guest's stay has a certificate revoked at its end.
func (g *Guest) closing(id twincert.ID) bool {
	return g.closes && g.ending != nil && g.ending.Certificate.ID() == id
}

// Closing says whether the guest's certificate is revoked when the stay is over.
func (g *Guest) Closing() bool { return g.closing(g.Certificate.ID()) }

// note takes over what a policy wants of the certificate at the end. Where no rule is left for the guest, what the last one said counts.
func (g *Guest) note(p *policy.Policy) {
	if t, err := p.Terms(g.Certificate.Group); err == nil {
		g.closes = t.RevokeOnClose
	}
}

// closeGuest has the certificate of a guest who has left revoked, if it is to be and nobody else here stands on it: who does closes it.
func (e *Engine) closeGuest(g *Guest) {
	if !g.closes || g.ending == nil || e.c.ClosedGuest == nil {
		return
	}
	id := g.ending.Certificate.ID()
	for _, o := range e.state.guests {
		if o.closing(id) {
			return
		}
	}
	for _, w := range e.state.users {
		if w.Cred.Certificate.ID() == id {
			e.state.open[id] = true
			return
		}
	}
	delete(e.state.open, id)
	e.c.ClosedGuest(*g.ending)
}

// dismiss lets go of the guests of whom why says why; empty: they may stay.
func (e *Engine) dismiss(why func(*Guest) string) (n int) {
	for _, g := range e.state.guests {
		if reason := why(g); reason != "" && e.forgetGuest(g, reason) {
			g.Dismissed(reason)
			n++
		}
	}
	return n
}

// Dismiss lets go of all guests of a user, and returns how many there were.
func (e *Engine) Dismiss(ctx context.Context, uid string) (n int, err error) {
	err = e.Do(ctx, func(time.Time) {
		n = e.dismiss(func(g *Guest) string {
			if g.Certificate.Name == uid {
				return byOperator
			}
			return ""
		})
	})
	return n, err
}

// unwelcome is why a guest may not stay under the present map and policy; empty: they may.
func (e *Engine) unwelcome(g *Guest) string {
	if err := e.vacant(g.Address, ""); err != nil {
		return err.Error()
	}
	if err := e.native.Allowed(g.wish(), 0); err != nil {
		return err.Error()
	}
	return ""
}
