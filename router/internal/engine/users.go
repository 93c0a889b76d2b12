package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

// Reasons of calls that people have ended: at the control socket, at the portal.
const (
	byOperator = "hung up by the operator"
	byUser     = "logged out"
)

// ErrNotOurs says that an address is not on this router's LAN.
var ErrNotOurs = errors.New("the address is not one that this router is certified for")

// ErrBridged says that an address is one that a site link carries.
var ErrBridged = errors.New("the address belongs to a site, not to a user")

// ErrBusy says that a user is logged in to the same peer already, or an address taken.
var ErrBusy = errors.New("already logged in")

// Failed is a call that did not come up, in the words of whoever gave it up.
type Failed struct {
	Reason string
	// Refused says that one of the two routers would not have it, so that trying again is of no use. Then it has proved who it is; otherwise a
	// stranger may have said anything.
	Refused bool
}

func (f *Failed) Error() string { return f.Reason }

// Login places a user's call and waits until it is up, has failed, or ctx ends. While
// the user is logged in the call is placed again whenever it is lost. The credentials
// are the engine's from now on: it wipes them when the user's call ends for good. A call
// that was begun and did not come up is Failed.
func (e *Engine) Login(ctx context.Context, w native.Wish) (*calls.Call, error) {
	type outcome struct {
		c   *calls.Call
		err error
	}
	done := make(chan outcome, 1)
	var refused error
	err := e.Do(ctx, func(now time.Time) {
		if refused = e.admits(w); refused != nil {
			return
		}
		w.Since = now
		e.state.users[w.Key] = w
		e.state.waiting[w.Key] = append(e.state.waiting[w.Key], func(c *calls.Call, err error) { done <- outcome{c, err} })
		e.links.Want(now, w.Key, false)
	})
	if err = errors.Join(err, refused); err != nil {
		return nil, fmt.Errorf("logging in %s: %w", w.Key, err)
	}
	select {
	case o := <-done:
		return o.c, o.err
	case <-e.stopped:
		return nil, ErrStopped
	case <-ctx.Done(): // nobody waits any more, so nobody is logged in
		_ = e.Do(context.WithoutCancel(ctx), func(now time.Time) {
			delete(e.state.waiting, w.Key)
			e.forgetUser(now, w.Key, "the login was given up")
		})
		return nil, fmt.Errorf("logging in %s: %w", w.Key, ctx.Err())
	}
}

// admits says whether a user may have a call from an address here.
func (e *Engine) admits(w native.Wish) error {
	if _, ok := e.state.users[w.Key]; ok {
		return fmt.Errorf("%w: %s", ErrBusy, w.Key)
	}
	if g, ok := e.state.guests[w.Address]; ok {
		return fmt.Errorf("%w: %s is bound to a client of %s", ErrBusy, w.Address, g.Certificate.Name)
	}
	if err := e.vacant(w.Address, w.Key.User); err != nil {
		return err
	}
	return e.native.Allowed(w, e.logins(w.Key.User))
}

// apart says whether an address is free for a user. What a site link carries is not: while the
// call is up it would take a host's packets away from the link, and once it has ended, by a
// revocation say, the user's packets would go on over the link.
func (e *Engine) apart(a netip.Addr) error {
	holds := func(p netip.Prefix) bool { return p.Contains(a) }
	if i := slices.IndexFunc(e.state.local, holds); i >= 0 {
		return fmt.Errorf("%w: %s is in %s, which this router bridges", ErrBridged, a, e.state.local[i])
	}
	for name, p := range e.state.peers {
		if i := slices.IndexFunc(p.Certified, holds); i >= 0 {
			return fmt.Errorf("%w: %s is in %s, for which %s is certified", ErrBridged, a, p.Certified[i], name)
		}
	}
	return nil
}

// User is a login: who, for a call to whom, since when, on which certificate.
type User struct {
	Key         links.Key
	Since       time.Time
	Certificate *twincert.Certificate
	Guest       *Guest // whose own machine places the calls; nil: this router does
}

// Users lists who is logged in, guests too, in no order.
func (e *Engine) Users(ctx context.Context) (all []User, err error) {
	err = e.Do(ctx, func(time.Time) {
		all = make([]User, 0, len(e.state.users))
		for k, w := range e.state.users {
			all = append(all, User{Key: k, Since: w.Since, Certificate: w.Cred.Certificate})
		}
		for _, g := range e.state.guests {
			all = append(all, User{Key: links.Key{User: g.Certificate.Name}, Since: g.Since, Certificate: g.Certificate, Guest: g})
		}
	})
	return all, err
}

// ErrGone says that a user has logged out, or has another certificate already.
var ErrGone = errors.New("the user has logged out, or has another certificate already")

// Succeed puts newer credentials in the place of a user's: open makes them of the data key, which is a copy that is wiped
// afterwards. The call is placed anew, in the tunnel of the certificate's control key, and the old one carries packets until
// that is up and two seconds longer. Logins are numbered by Since: that of somebody who has logged in anew meanwhile is left alone.
func (e *Engine) Succeed(ctx context.Context, u User, open func(data secret.Key) (native.Credentials, error)) error {
	var data secret.Key
	same := func() (native.Wish, bool) {
		w, ok := e.state.users[u.Key]
		return w, ok && w.Since.Equal(u.Since) && w.Cred.Certificate.ID() == u.Certificate.ID()
	}
	gone := false
	err := e.Do(ctx, func(time.Time) {
		w, ok := same()
		if gone = !ok; ok {
			data = secret.Copy(w.Cred.Data.Private.Bytes())
		}
	})
	if err == nil && gone {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("certifying %s anew: %w", u.Key, err)
	}
	defer data.Wipe()
	cred, err := open(data)
	if err != nil {
		return fmt.Errorf("certifying %s anew: %w", u.Key, err)
	}
	err = e.Do(ctx, func(now time.Time) {
		w, ok := same()
		if gone = !ok; ok {
			e.succeed(now, w, cred)
		}
	})
	if err == nil && gone {
		err = ErrGone
	}
	if err != nil {
		cred.Control.Private.Wipe()
		cred.Data.Private.Wipe()
		return fmt.Errorf("certifying %s anew: %w", u.Key, err)
	}
	return nil
}

// succeed swaps the credentials of w and places its call anew, unless the policy has no call for the group that they are of.
func (e *Engine) succeed(now time.Time, w native.Wish, cred native.Credentials) {
	old := w.Cred
	w.Cred = cred
	e.state.users[w.Key] = w
	e.moveOpen(old.Certificate.ID(), cred.Certificate.ID())
	// What stands goes on with the keys as the handshake has parsed them.
	old.Control.Private.Wipe()
	old.Data.Private.Wipe()
	if old.Control.Public != cred.Control.Public && !e.wanted(w.Key.Peer, old.Control.Public) {
		e.native.Retire(w.Key.Peer, old.Control.Public)
	}
	if err := e.native.Allowed(w, 0); err != nil { // the group may be another one
		e.forgetUser(now, w.Key, err.Error())
		e.answerWaiting(w.Key, nil, err)
		return
	}
	e.replace(now, w.Key)
	e.links.Soon(now, w.Key) // if none is up: what stood in the way may have been the certificate
}

// moveOpen has what was noted of a login's certificate hold for the one in its place.
func (e *Engine) moveOpen(old, now twincert.ID) {
	if closes, was := e.state.open[old]; was {
		e.state.open[now] = closes
	}
	for _, o := range e.state.users {
		if o.Cred.Certificate.ID() == old {
			return
		}
	}
	delete(e.state.open, old)
	delete(e.state.doubted, old)
}

// wanted says whether anybody here still places calls to a peer with a control key.
func (e *Engine) wanted(peer string, control [32]byte) bool {
	for k, w := range e.state.users {
		if k.Peer == peer && w.Cred.Control.Public == control {
			return true
		}
	}
	return false
}

// overtaken says whether a call of ours, or the attempt at one, stood on a certificate that its user does not have any more: what ended
// it, the revocation of that certificate above all, is not to end the login.
func (e *Engine) overtaken(v native.CallDown) bool {
	w, ok := e.state.users[v.Key]
	return ok && v.Initiator && v.Cert != twincert.ID{} && v.Cert != w.Cred.Certificate.ID()
}

// doubt is how long a login outlasts its certificate, once that is known to be revoked and before Revoke says that calls end for it:
// succession is asking for a newer one (Overtake, two seconds at the most). Where Cut was told of it, until Revoke is, or the certificate ends.
const doubt = 5 * time.Second

// unheard says whether a call of ours that ended, or could not be placed, because its certificate is revoked leaves the login standing. Either
// the peer has heard of it and we have not: the directory will say whether it is so. Or we have, and there may be a newer certificate, of
// which Revoke waits to hear. Until then nothing is admitted.
func (e *Engine) unheard(now time.Time, k links.Key) bool {
	w, ok := e.state.users[k]
	if !ok {
		return false
	}
	id := w.Cred.Certificate.ID()
	if !e.c.Trust.Revoked(id) {
		return true
	}
	until, ok := e.state.doubted[id]
	if !ok {
		until = now.Add(doubt)
		e.state.doubted[id] = until
	}
	return now.Before(until)
}

// forgetUser lets go of a user's call, however far it has come, and keys for good.
func (e *Engine) forgetUser(now time.Time, k links.Key, reason string) {
	if w, ok := e.state.users[k]; ok {
		e.native.Cancel(now, k, reason)
		e.logout(k, w)
		if e.c.Ended != nil {
			e.c.Ended(k, reason)
		}
	}
	e.links.Forget(k)
}

// logout drops a login and its keys. The last one that stood on a certificate closes it, if a call was ever up; a guest is one too.
func (e *Engine) logout(k links.Key, w native.Wish) {
	delete(e.state.users, k)
	id := w.Cred.Certificate.ID()
	last := true
	for _, o := range e.state.users {
		last = last && o.Cred.Certificate.ID() != id
	}
	for _, g := range e.state.guests {
		last = last && !g.closing(id)
	}
	if last {
		if e.state.open[id] && e.c.Closed != nil {
			e.c.Closed(w.Cred)
		}
		delete(e.state.open, id)
		delete(e.state.doubted, id)
	}
	w.Cred.Data.Private.Wipe()
	w.Cred.Control.Private.Wipe()
}

// closeAll ends all logins, and all stays of guests: the engine stops.
func (e *Engine) closeAll() {
	for k, w := range e.state.users {
		e.logout(k, w)
	}
	for a, g := range e.state.guests {
		delete(e.state.guests, a)
		e.closeGuest(g)
	}
}

// noteOpen notes what the policy of now wants of the certificate of a login when that ends. Of a login without a call,
// which up says there is, nothing is wanted. Where no rule is left for the user, what the last one said counts.
func (e *Engine) noteOpen(w native.Wish, up bool) {
	id := w.Cred.Certificate.ID()
	if _, was := e.state.open[id]; !was && !up {
		return
	}
	if t, err := e.state.policy.Terms(w.Cred.Certificate.Group); err == nil {
		e.state.open[id] = t.RevokeOnClose
	}
}

// Hangup ends one call by ID, or all of a user's, and returns the IDs of those ended.
func (e *Engine) Hangup(ctx context.Context, id uint64, user string) (ended []uint64, err error) {
	err = e.Do(ctx, func(now time.Time) {
		for k := range e.state.users {
			if user != "" && k.User == user && !e.standing(k) {
				e.forgetUser(now, k, byOperator) // it waits for its next attempt, or is at it
			}
		}
		for i, a := range e.state.active {
			if i == id || user != "" && a.Key.User == user {
				ended = append(ended, i)
			}
		}
		slices.Sort(ended)
		for _, i := range ended {
			a := e.state.active[i]
			last := a.Initiator && a.Key.User != "" && !e.beside(i, a.Key)
			e.native.Logout(now, i, byOperator)
			if last {
				e.forgetUser(now, a.Key, byOperator) // also if the call stood on a certificate that was succeeded
			}
		}
	})
	return ended, err
}

// Standing is a login: a call that a user wants to have up.
type Standing struct {
	Key     links.Key
	Address netip.Addr
	Since   time.Time   // of the login
	Call    *CallStatus // nil while it is placed again
}

// Logins returns what stands for an address; the zero address stands for all. It is asked for each page that a user looks at, so it costs
// little beside Status.
func (e *Engine) Logins(ctx context.Context, at netip.Addr) (all []Standing, err error) {
	err = e.Do(ctx, func(time.Time) {
		for k, w := range e.state.users {
			if _, first := e.state.waiting[k]; !first && (!at.IsValid() || w.Address == at) {
				all = append(all, Standing{Key: k, Address: w.Address, Since: w.Since})
			}
		}
		if len(all) == 0 {
			return
		}
		newest := map[links.Key]Active{}
		for id, a := range e.state.active {
			if o, ok := newest[a.Key]; a.Initiator && a.Key.User != "" && (!ok || o.Call.ID < id) {
				newest[a.Key] = a
			}
		}
		for i := range all {
			if a, ok := newest[all[i].Key]; ok {
				cs, _ := e.native.Call(a.Call.ID)
				all[i].Call = &CallStatus{a, cs}
			}
		}
	})
	slices.SortFunc(all, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Key.User, b.Key.User), cmp.Compare(a.Key.Peer, b.Key.Peer))
	})
	return all, err
}

// Logout ends what a user has from one address, and returns how many logins that were.
func (e *Engine) Logout(ctx context.Context, user string, at netip.Addr) (n int, err error) {
	err = e.Do(ctx, func(now time.Time) {
		for k, w := range e.state.users {
			if k.User != user || w.Address != at {
				continue
			}
			n++
			for id, a := range e.state.active {
				if a.Key == k && a.Initiator {
					e.native.Logout(now, id, byUser)
				}
			}
			e.forgetUser(now, k, byUser) // also if it waits for its next attempt, or its call stood on a certificate that was succeeded
		}
	})
	return n, err
}
