package issue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// Bounds of what is done unasked: others want to use the desk, the directory and the disks in between.
const (
	followBatch = 50 // users in one intent
	revokeBatch = 500
	// renewPause lies between two batches of renewals: at most 300 users a minute.
	renewPause = 10 * time.Second
	renewLook  = 10 * time.Minute // between two looks when nobody is due
	// stuckFor is how long a user whom the directory refused is left alone: who has no sealed keys there will not get any
	// by waiting.
	stuckFor = 24 * time.Hour
)

// tended is what Tend remembers. A restart forgets it, and nothing but time is lost.
type tended struct {
	careful map[string]bool      // groups of which a batch was refused: one user at a time, to find out who
	stuck   map[string]time.Time // users who were refused, and until when they are left alone
	renewAt time.Time            // not before that are renewals looked for
}

func newTended() tended { return tended{careful: map[string]bool{}, stuck: map[string]time.Time{}} }

// Tend does the next of what nobody waits for: users of a group with a new control key get their certificates, those over
// an old one are revoked when their grace is over, users are renewed. More says that there is
// something to be done at once; each call does a bounded piece of it.
func (d *Desk) Tend(ctx context.Context) (more bool, err error) {
	if d.cfg.Directory == nil {
		return false, nil
	}
	if busy, err := d.anything(); err != nil || !busy {
		return false, err
	}
	ctx, cancel := d.unawaited(ctx)
	defer cancel()
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.CheckClock(); err != nil {
		return false, err
	}
	groups, err := d.rotating()
	switch {
	case err != nil:
		return false, err
	case len(groups) == 0:
		return d.renewDue(ctx)
	}
	g := groups[0]
	if slices.ContainsFunc(g.Retired, unhanded) {
		return true, d.handOut(ctx, g)
	}
	return true, d.retire(ctx, g.Name)
}

// unhanded says whether users may still have to get certificates because of a retired key.
func unhanded(r ledger.RetiredKey) bool { return r.Handed.IsZero() }

// over says whether the grace of a retired key is over.
func over(now time.Time) func(ledger.RetiredKey) bool {
	return func(r ledger.RetiredKey) bool { return !unhanded(r) && !now.Before(RevokeAt(r)) }
}

// anything says whether there may be something to do, without holding anybody up.
func (d *Desk) anything() (bool, error) {
	groups, err := d.rotating()
	if len(groups) > 0 || err != nil || !d.cfg.RenewUsers {
		return len(groups) > 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.renewalIsDue(d.now()), nil
}

// rotating are the groups for whose retired keys something is to be done now.
func (d *Desk) rotating() (groups []ledger.Group, err error) {
	now := d.now()
	err = d.View(func(tx *ledger.Tx) (err error) {
		groups, err = tx.Groups()
		return err
	})
	return slices.DeleteFunc(groups, func(g ledger.Group) bool {
		return !slices.ContainsFunc(g.Retired, unhanded) && !slices.ContainsFunc(g.Retired, over(now))
	}), err
}

// followers are the active users whom want names, with their present certificates, unless they are stuck.
func (d *Desk) followers(want func(u ledger.User, c ledger.Cert) bool) (out []follower, err error) {
	now := d.now()
	err = d.View(func(tx *ledger.Tx) error {
		users, err := tx.Users()
		if err != nil {
			return err
		}
		for _, u := range users {
			if !u.Active() || u.Own || now.Before(d.stuck[u.UID]) { // keys of one's own are the group's no more than they are ours
				continue
			}
			c, ok, err := tx.Cert(u.Serial)
			if err != nil {
				return err
			}
			if ok && c.Revoked.IsZero() && want(u, c) {
				out = append(out, follower{user: u, old: c, to: c.NotAfter})
			}
		}
		return nil
	})
	return out, err
}

// handOut gives the next users of a group certificates over its control key; when nobody is left it notes that.
func (d *Desk) handOut(ctx context.Context, g ledger.Group) error {
	now := d.now()
	left, err := d.followers(func(u ledger.User, c ledger.Cert) bool {
		return u.Group == g.Name && now.Before(c.NotAfter) && !bytes.Equal(controlOf(c), g.Control)
	})
	if err != nil {
		return err
	}
	if len(left) > 0 {
		d.cfg.Log.Info("group is rotated", "group", g.Name, "users_left", len(left))
		return d.follow(ctx, g.Retired[len(g.Retired)-1].By, "certifying users of group "+g.Name+" over its new key", g, left)
	}
	delete(d.careful, g.Name)
	err = d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		g, ok, err := tx.Group(g.Name)
		if err != nil || !ok {
			return err
		}
		for i := range g.Retired {
			if g.Retired[i].Handed.IsZero() {
				g.Retired[i].Handed = d.cfg.Now().UTC()
			}
		}
		return tx.Take(ledger.Effects{Groups: []ledger.Group{g}})
	})
	if err == nil {
		d.cfg.Log.Info("every user of the group is certified over its new key", "group", g.Name)
	}
	return err
}

// follow is succeed for the first of many, in a batch, or one by one where a batch was refused. Who is refused alone is left out
// from then on.
func (d *Desk) follow(ctx context.Context, actor, what string, g ledger.Group, all []follower) error {
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	n := followBatch
	if d.careful[g.Name] {
		n = 1
	}
	batch := all[:min(n, len(all))]
	err = d.succeed(ctx, actor, what, g, batch)
	refused := errors.Is(err, ErrNothingIssued) && (errors.Is(err, client.ErrConflict) || errors.Is(err, client.ErrInvalid))
	switch {
	case !refused:
		return err
	case len(batch) > 1:
		d.careful[g.Name] = true
		d.cfg.Log.Warn("users refused by the directory, now one by one", "group", g.Name, "error", err)
		return nil
	}
	uid := batch[0].user.UID
	delete(d.careful, g.Name) // it may have been this one alone
	d.stuck[uid] = d.now().Add(stuckFor)
	d.cfg.Log.Error("user not certified anew: renew with a password", "uid", uid, "error", err)
	return nil
}

// retire revokes certificates over those control keys of a group whose grace is over, so many at a time, and forgets a
// key when there are none left. What has expired is left alone: it opens nothing, and the sealed keys stay, so that
// a renewal with the same keys is still possible.
func (d *Desk) retire(ctx context.Context, name string) error {
	if err := d.settle(ctx); err != nil { // what is undecided would be missed
		return err
	}
	const reason = "the group's control key was replaced"
	now := d.now()
	in := &ledger.Intent{Kind: ledger.KindRevoke, What: "revoking old certificates of group " + name}
	var rest *ledger.Group
	fill := func(tx *ledger.Tx) error {
		g, ok, err := tx.Group(name)
		if err != nil || !ok {
			return err
		}
		certs, err := tx.Certs()
		if err != nil {
			return err
		}
		due := slices.DeleteFunc(slices.Clone(g.Retired), func(r ledger.RetiredKey) bool { return !over(now)(r) })
		if len(due) == 0 {
			return nil
		}
		in.Change = &client.Change{Actor: due[0].By}
		for _, c := range certs {
			old := slices.ContainsFunc(due, func(r ledger.RetiredKey) bool { return bytes.Equal(r.Control, controlOf(c)) })
			if c.Role != "user" || !old || !c.Revoked.IsZero() || !now.Before(c.NotAfter) {
				continue
			}
			if len(in.Effects.Certs) == revokeBatch {
				return nil // the key stays until the rest is done too
			}
			c.Revoked, c.Reason = now, reason
			in.Effects.Certs = append(in.Effects.Certs, c)
			in.Change.Revocations = append(in.Change.Revocations, client.Revocation{ID: d.id(c.Serial), Name: c.Name, Role: twincert.User, Time: now, Reason: reason})
		}
		g.Retired = slices.DeleteFunc(g.Retired, over(now))
		in.Effects.Groups, rest = []ledger.Group{g}, &g
		return nil
	}
	if err := d.View(fill); err != nil {
		return err
	}
	if len(in.Effects.Certs) == 0 {
		if rest == nil {
			return nil
		}
		return d.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.Take(in.Effects) })
	}
	n := len(in.Effects.Certs)
	done, err := d.revoke(ctx, in, &n, func(*ledger.Tx) error { return nil }) // the desk is ours: nothing has changed since
	if err != nil {
		return err
	}
	d.cfg.Log.Info("certificates over an old control key revoked", "group", name, "certificates", n, "told", done.Told)
	return nil
}

// renewalAt is when a user's certificate is to be renewed: two thirds through its life, which began when it was issued.
func renewalAt(c ledger.Cert) time.Time {
	issued := c.NotBefore.Add(backdate)
	return issued.Add(c.NotAfter.Sub(issued) * 2 / 3)
}

// renewalIsDue says whether users are to be looked at. A clock that was set back must not put it off.
func (d *Desk) renewalIsDue(now time.Time) bool {
	return !now.Before(d.renewAt) || d.renewAt.Sub(now) > renewLook
}

// renewDue renews local users with the keys that they have, those first whose certificates end first. Also who has expired is renewed, for as
// long as a router would be: the CA may have been off.
func (d *Desk) renewDue(ctx context.Context) (more bool, err error) {
	now := d.now()
	if !d.cfg.RenewUsers || !d.renewalIsDue(now) {
		return false, nil
	}
	look := min(renewLook, d.cfg.Terms.User/12)
	_, to, err := d.term(d.cfg.Terms.User)
	if err != nil {
		d.renewAt = now.Add(look)
		return false, err
	}
	due, err := d.followers(func(u ledger.User, c ledger.Cert) bool {
		if u.Source != "" { // whether they still may is for the source to say, and it is asked at a login only
			return false
		}
		gains := to.Sub(c.NotAfter) > d.cfg.Terms.User/10 // or it would be renewed for ever, once the CA's own certificate ends
		return gains && !now.Before(renewalAt(c)) && lives(c, now, d.cfg.Terms.Grace)
	})
	if err != nil || len(due) == 0 {
		d.renewAt = now.Add(look)
		return false, err
	}
	d.renewAt = now.Add(min(renewPause, look))
	slices.SortStableFunc(due, func(a, b follower) int { return cmp.Compare(a.old.NotAfter.Unix(), b.old.NotAfter.Unix()) })
	name := due[0].user.Group
	due = slices.DeleteFunc(due, func(f follower) bool { return f.user.Group != name })
	for i := range due {
		due[i].to = to
	}
	var g ledger.Group
	err = d.View(func(tx *ledger.Tx) (err error) {
		var ok bool
		if g, ok, err = tx.Group(name); err == nil && !ok {
			err = fmt.Errorf("group %s: %w", name, ledger.ErrDamaged)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	careful := d.careful[name]
	err = d.follow(ctx, actorSelf, "renewing users of group "+name, g, due)
	if err == nil && (careful || d.careful[name]) { // one by one there is no need for a pause
		d.renewAt = time.Time{}
		return true, nil
	}
	return false, err
}
