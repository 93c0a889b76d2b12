package issue

import (
	"context"
	"fmt"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// Alteration is what a user's source says of somebody who is logged in, and said otherwise before.
type Alteration struct {
	Group string    // the tunnel group; empty: as it is
	Until time.Time // when the session is to end, and the certificate with it; zero: as it is
}

// ChangeUser gives a user of a source another certificate over the same data key, in the group and until the time that the source names
// now, and revokes all that they had before: the calls that stand on the data key go on under the new one, and nothing else does. Both are
// one change of the directory. It returns the certificate that the user has then, and whether it is another one: there may be nothing to
// alter.
//
// The error is ErrUnknown if the source has no such user with a certificate that is valid, ErrInvalid if there is no such group, or
// if no certificate ends at that time.
func (d *Desk) ChangeUser(ctx context.Context, source, uid string, a Alteration, reason string) (cert ledger.Cert, altered bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return cert, false, err
	}
	defer cancel()
	f, g, others, err := d.altered(source, uid, a)
	if err != nil || f.user.Group == g.Name && f.to.Equal(f.old.NotAfter) {
		return f.old, false, err
	}
	moved := f.user.Group != g.Name
	if f.user.Group = g.Name; !a.Until.IsZero() {
		f.user.Bound = f.to
	}
	in, err := d.succession("source:"+source, "changing user "+uid, g, []follower{f})
	if err != nil {
		return cert, false, err
	}
	cert = in.Effects.Certs[0]
	if moved {
		in.Change.Users = []client.UserRecord{{UID: uid, Group: g.Name, Params: f.user.Accepted.Params, Verifier: f.user.Accepted.Verifier, Source: source}}
	}
	for _, c := range others {
		c.Revoked, c.Reason = d.now(), reason
		in.Effects.Certs = append(in.Effects.Certs, c)
		in.Change.Revocations = append(in.Change.Revocations, client.Revocation{ID: d.id(c.Serial), Name: uid, Role: twincert.User, Time: c.Revoked, Reason: reason})
	}
	if err := d.commit(ctx, in); err != nil {
		return cert, false, err
	}
	// It is done: what is revoked is in a CRL sooner or later, and the directory knows already.
	if err := d.settle(ctx); err != nil {
		d.cfg.Log.Warn("CRL not published yet", "error", err)
	}
	return cert, true, nil
}

// altered is who is to get which certificate in which group, and what of theirs is to be revoked.
func (d *Desk) altered(source, uid string, a Alteration) (f follower, g ledger.Group, others []ledger.Cert, err error) {
	now := d.now()
	err = d.View(func(tx *ledger.Tx) (err error) {
		var known bool
		if f.user, known, err = tx.User(uid); err != nil {
			return err
		}
		if !known || f.user.Source != source || !f.user.Active() {
			return fmt.Errorf("user %s of source %s %w", uid, source, ErrUnknown)
		}
		if f.old, known, err = tx.Cert(f.user.Serial); err == nil && !known || f.user.Accepted == nil {
			err = fmt.Errorf("user %s: %w", uid, ledger.ErrDamaged)
		}
		if err != nil {
			return err
		}
		if !f.old.Revoked.IsZero() || !now.Before(f.old.NotAfter) {
			return fmt.Errorf("user %s of source %s with a certificate that is valid %w", uid, source, ErrUnknown)
		}
		name := f.user.Group
		if a.Group != "" {
			name = a.Group
		}
		if g, known, err = tx.Group(name); err != nil {
			return err
		}
		if !known { // a login would make it: here a name that nobody has ever used is more likely a mistake
			return fmt.Errorf("%w: there is no group %q", ErrInvalid, name)
		}
		certs, err := tx.Certs()
		for _, c := range certs {
			if c.Role == RoleUser && c.Name == uid && c.Revoked.IsZero() && lives(c, now, 0) {
				others = append(others, c)
			}
		}
		return err
	})
	if err != nil {
		return f, g, nil, err
	}
	f.to, err = d.altersTo(f.old, a.Until)
	return f, g, others, err
}

// altersTo is when the certificate after old is to end: its bearer's source may say so, as far as a new login could bring it.
func (d *Desk) altersTo(old ledger.Cert, until time.Time) (time.Time, error) {
	if until.IsZero() {
		return old.NotAfter, nil
	}
	to := until.UTC().Truncate(time.Second)
	if !to.After(d.now()) {
		return to, fmt.Errorf("%w: %s has passed", ErrInvalid, to.Format(time.RFC3339))
	}
	if !to.After(old.NotAfter) {
		return to, nil
	}
	_, most, err := d.term(d.cfg.Terms.User)
	if err == nil && to.After(most) {
		err = fmt.Errorf("%w: a certificate that is issued now ends at %s, before %s", ErrInvalid, most.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return to, err
}
