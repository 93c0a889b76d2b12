package issue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
)

// follower is a user who is to get another certificate over the same data key.
type follower struct {
	user ledger.User
	old  ledger.Cert // the present one
	to   time.Time   // when the new one is to end
}

// RenewSameKeys gives a user a certificate that ends later, over the data key that is sealed in the directory and the control key that
// the group has now. Nobody has to type a password, and a call that is up goes on. Users of a source have to: nobody else would notice
// that the source does not know them any more.
func (d *Desk) RenewSameKeys(ctx context.Context, actor, uid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var f follower
	var g ledger.Group
	err = d.View(func(tx *ledger.Tx) (err error) {
		var known bool
		if f.user, known, err = tx.User(uid); err != nil {
			return err
		}
		switch {
		case !known:
			return fmt.Errorf("user %s %w", uid, ErrUnknown)
		case !f.user.Active():
			return fmt.Errorf("user %s %w", uid, ErrRevoked)
		case f.user.Own:
			return fmt.Errorf("%w: user %s has keys of their own and renews them with twinkey-router client renew", ErrInvalid, uid)
		case f.user.Source != "":
			return fmt.Errorf("%w: user %s is of source %s and renewed by logging in", ErrInvalid, uid, f.user.Source)
		}
		var ok bool
		if f.old, ok, err = tx.Cert(f.user.Serial); err == nil && !ok {
			err = fmt.Errorf("certificate %s: %w", f.user.Serial, ledger.ErrDamaged)
		}
		if err != nil {
			return err
		}
		if g, ok, err = tx.Group(f.user.Group); err == nil && !ok {
			err = fmt.Errorf("group %s: %w", f.user.Group, ledger.ErrDamaged)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, f.to, err = d.term(d.cfg.Terms.User); err != nil {
		return err
	}
	err = d.succeed(ctx, actor, "renewing user "+uid, g, []follower{f})
	if errors.Is(err, client.ErrConflict) {
		return fmt.Errorf("%w: the directory has no sealed keys of %s to go on from, so the password is needed: %w", ErrInvalid, uid, err)
	}
	return err
}

// succeed gives users of a group their certificates, all or none.
func (d *Desk) succeed(ctx context.Context, actor, what string, g ledger.Group, all []follower) error {
	in, err := d.succession(actor, what, g, all)
	if err != nil {
		return err
	}
	return d.commit(ctx, in)
}

// succession is what gives users certificates over a group's control key and the data keys that they have.
func (d *Desk) succession(actor, what string, g ledger.Group, all []follower) (*ledger.Intent, error) {
	control, err := d.openGroup(g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer control.Wipe()
	in := &ledger.Intent{Kind: ledger.KindIssue, What: what, Change: &client.Change{Actor: actor, Groups: []client.GroupRecord{{Name: g.Name, Control: g.Control}}}}
	from := d.now().Add(-backdate)
	for _, f := range all {
		old, err := twincert.Parse(f.old.DER)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %s: %w: %w", what, f.old.Serial, ledger.ErrDamaged, err)
		}
		t := twincert.Template{Profile: d.cfg.Profile, Role: twincert.User, Name: f.user.UID, Group: g.Name,
			Keys: twincert.Keys{Control: [keyLen]byte(g.Control), Data: old.Keys.Data}}
		c, err := d.sign(t, from, f.to)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		sealed, err := keybundle.SealControl(control, c.Keys.Data, c.Raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		rec := twinRecord(c)
		f.user.Serial = rec.Serial
		in.Effects.Users = append(in.Effects.Users, f.user)
		in.Effects.Certs = append(in.Effects.Certs, rec)
		in.Change.Successors = append(in.Change.Successors, client.SuccessorRecord{UID: f.user.UID, ID: c.ID(), Sealed: sealed})
	}
	in.Change.Certificates = d.certRecords(in.Effects.Certs...)
	return in, nil
}
