package issue

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// enrollUser certifies the keys that a user has made on a machine of their own. There is nothing to seal: directory and
// ledger have the certificate and who the user is.
func (d *Desk) enrollUser(ctx context.Context, t ledger.Token, k Keys) (Issued, error) {
	in := &ledger.Intent{Kind: ledger.KindIssue, What: "enrolling user " + t.Name, Reserved: t.ID, Change: &client.Change{Actor: "token:" + t.ID}}
	return d.certifyOwn(ctx, in, ledger.User{UID: t.Name, Group: t.Group, Own: true, Created: d.now()}, k, &t)
}

// RenewOwn certifies new keys of a user under the old certificate, whose keys the caller has seen proved as well as the
// new ones; it may have expired within the grace, and been replaced within renewAgain. It is not revoked.
func (d *Desk) RenewOwn(ctx context.Context, k Keys) (Issued, error) {
	if k.role() != RoleUser || k.Old == nil || k.Old.Name != k.User {
		return Issued{}, fmt.Errorf("%w: a user renews with a certificate of their own", ErrInvalid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return Issued{}, err
	}
	defer cancel()
	var u ledger.User
	err = d.View(func(tx *ledger.Tx) (err error) {
		u, err = d.owner(tx, k.Old)
		return err
	})
	if err != nil {
		return Issued{}, err
	}
	in := &ledger.Intent{Kind: ledger.KindIssue, What: "renewing user " + u.UID, Change: &client.Change{Actor: "user:" + u.UID}}
	return d.certifyOwn(ctx, in, u, k, nil)
}

// renewAgain is how long keys that others took the place of are good for a renewal: the answer was lost, or could not be
// stored. A copy of them that turns up later is worth nothing here.
const renewAgain = 24 * time.Hour

// owner is the user whose keys of their own old certifies, if it is good for a renewal. Who may not renew is not told why.
func (d *Desk) owner(tx *ledger.Tx, old *twincert.Certificate) (ledger.User, error) {
	none := fmt.Errorf("the certificate %w, too long expired or replaced, or none of a user with keys of their own", ErrRevoked)
	c, ok, err := tx.Cert(old.Serial.String())
	if err != nil {
		return ledger.User{}, err
	}
	// The whole certificate, since nobody has looked at its signature.
	if !ok || !bytes.Equal(c.DER, old.Raw) || c.Role != twincert.User.String() || !c.Revoked.IsZero() || d.now().Sub(c.NotAfter) > d.cfg.Terms.Grace {
		return ledger.User{}, none
	}
	u, ok, err := tx.User(c.Name)
	if err == nil && (!ok || !u.Active() || !u.Own) {
		err = none
	}
	if err != nil || u.Serial == c.Serial {
		return u, err
	}
	newest, ok, err := tx.Cert(u.Serial)
	if err == nil && (!ok || d.now().Sub(newest.NotBefore.Add(backdate)) > renewAgain) {
		err = none
	}
	return u, err
}

// certifyOwn certifies the keys of u, whose control key is not the group's: calls of u have a tunnel of their own.
func (d *Desk) certifyOwn(ctx context.Context, in *ledger.Intent, u ledger.User, k Keys, t *ledger.Token) (Issued, error) {
	group, err := d.groupOf(in, u.Group)
	if err != nil {
		return Issued{}, fmt.Errorf("%s: %w: %w", in.What, ErrNothingIssued, err)
	}
	if bytes.Equal(group.Control, k.Twin.Control[:]) {
		return Issued{}, fmt.Errorf("%w: %s: the control key is that of the group", ErrInvalid, in.What)
	}
	c, err := d.twin(twincert.Template{Profile: d.cfg.Profile, Role: twincert.User, Name: u.UID, Group: u.Group, Keys: k.Twin}, d.cfg.Terms.User)
	if err != nil {
		return Issued{}, fmt.Errorf("%s: %w: %w", in.What, ErrNothingIssued, err)
	}
	u.Serial = c.Serial.String()
	in.Effects.Users = []ledger.User{u}
	in.Effects.Certs = []ledger.Cert{twinRecord(c)}
	in.Change.Certificates = d.certRecords(in.Effects.Certs...)
	in.Change.Users = []client.UserRecord{{UID: u.UID, Group: u.Group, Own: true}}
	if t != nil {
		d.use(in, *t, k, "", u.Serial)
	}
	if err := d.commit(ctx, in); err != nil {
		return Issued{}, fmt.Errorf("%s: %w", in.What, err)
	}
	return Issued{Twin: c.Raw}, nil
}
