package issue

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// Revoked is the outcome of a revocation. It holds whatever Told says.
type Revoked struct {
	Certificates int   `json:"certificates"` // that were valid until now
	Told         bool  `json:"told"`         // the directory has it, and tells the routers
	Err          error `json:"-"`            // why it was not told yet
}

// RevokeUser withdraws all certificates of a user, and tokens, and closes the login. A user of a source
// is barred: the source's word lets nobody in again until AllowUser.
func (d *Desk) RevokeUser(ctx context.Context, actor, uid, reason string) (Revoked, error) {
	return d.revokeUser(ctx, actor, uid, reason, func(u *ledger.User) error {
		if !u.Active() && (u.Source == "" || u.Barred) {
			return fmt.Errorf("user %s %w", uid, ErrRevoked)
		}
		u.Barred = u.Source != ""
		return nil
	})
}

// EndUser withdraws all certificates of a user because the user's source says so, or has
// said something else than before. The next login that it accepts brings new ones. The
// error is ErrUnknown if the source has no such user with a certificate.
func (d *Desk) EndUser(ctx context.Context, source, uid, reason string) (Revoked, error) {
	return d.revokeUser(ctx, "source:"+source, uid, reason, func(u *ledger.User) error {
		if u.Source != source || !u.Active() {
			return fmt.Errorf("user %s of source %s %w", uid, source, ErrUnknown)
		}
		return nil
	})
}

// AllowUser lets a user of a source in again whom RevokeUser has barred. What the user gets
// is issued when the source next accepts a login.
func (d *Desk) AllowUser(actor, uid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		u, ok, err := tx.User(uid)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("user %s %w", uid, ErrUnknown)
		case u.Source == "":
			return fmt.Errorf("%w: user %s is of no source; a local user is let in again by adding them", ErrInvalid, uid)
		case !u.Barred:
			return fmt.Errorf("%w: user %s is not barred", ErrInvalid, uid)
		}
		u.Barred = false
		return tx.Take(ledger.Effects{Users: []ledger.User{u}})
	})
	if err == nil {
		d.cfg.Log.Info("user allowed", "uid", uid, "actor", actor)
	}
	return err
}

// revokeUser does it, if may says nil; what may alters is kept.
func (d *Desk) revokeUser(ctx context.Context, actor, uid, reason string, may func(*ledger.User) error) (Revoked, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := &ledger.Intent{Kind: ledger.KindRevoke, What: "revoking user " + uid, Change: &client.Change{Actor: actor}}
	n := 0
	return d.revoke(ctx, in, &n, func(tx *ledger.Tx) error {
		u, ok, err := tx.User(uid)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("user %s %w", uid, ErrUnknown)
		}
		if err := may(&u); err != nil {
			return err
		}
		if err := dropTokens(tx, RoleUser, uid); err != nil {
			return err
		}
		u.Revoked, u.RevokedBy, u.Reason = d.now(), actor, reason
		in.Effects.Users = []ledger.User{u}
		in.Change.Disable = []string{uid}
		n, err = d.revokeCerts(tx, in, "user", uid, twincert.User, reason)
		return err
	})
}

// RevokeRouter withdraws all certificates of a router, twin and TLS, and its tokens.
func (d *Desk) RevokeRouter(ctx context.Context, actor, name, reason string) (Revoked, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := &ledger.Intent{Kind: ledger.KindRevoke, What: "revoking router " + name, Change: &client.Change{Actor: actor}}
	n := 0
	return d.revoke(ctx, in, &n, func(tx *ledger.Tx) error {
		r, ok, err := tx.Router(name)
		switch {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("router %s %w", name, ErrUnknown)
		case !r.Active():
			return fmt.Errorf("router %s %w", name, ErrRevoked)
		}
		if err := dropTokens(tx, RoleRouter, name); err != nil {
			return err
		}
		r.Revoked, r.Reason = d.now(), reason
		in.Effects.Routers = []ledger.Router{r}
		n, err = d.revokeCerts(tx, in, "router", name, twincert.Router, reason)
		return err
	})
}

// revoke journals a revocation, which takes effect in the ledger at once, puts it into the
// CRL and tells the directory. guard fills in what is to be revoked, and n.
func (d *Desk) revoke(ctx context.Context, in *ledger.Intent, n *int, guard func(*ledger.Tx) error) (Revoked, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Patience)
	defer cancel()
	// What is under way for the same bearer must be decided first, or it would be missed.
	if err := d.settle(ctx); err != nil {
		d.cfg.Log.Warn("journal not settled", "error", err)
	}
	err := d.journal(in, func(tx *ledger.Tx) error {
		if err := guard(tx); err != nil {
			return err
		}
		return tx.Take(in.Effects)
	})
	if err != nil {
		return Revoked{}, err
	}
	if err := d.publishHere(in); err != nil {
		return Revoked{}, err
	}
	err = d.retry(ctx, func() error { return d.settle(ctx) })
	return Revoked{Certificates: *n, Told: err == nil && d.cfg.Directory != nil, Err: err}, nil
}

// revokeCerts adds to in the revocation of every certificate of a bearer that anybody may
// still accept, and says how many have not expired.
func (d *Desk) revokeCerts(tx *ledger.Tx, in *ledger.Intent, role, name string, twin twincert.Role, reason string) (int, error) {
	certs, err := tx.Certs()
	if err != nil {
		return 0, err
	}
	pending, err := closePending(tx, role, name)
	if err != nil {
		return 0, err
	}
	certs = append(certs, pending...)
	now, valid := d.now(), 0
	for _, c := range certs {
		if c.Role != role || c.Name != name || !c.Revoked.IsZero() || !lives(c, now, d.cfg.Terms.Grace) {
			continue
		}
		if now.Before(c.NotAfter) {
			valid++
		}
		c.Revoked, c.Reason = now, reason
		in.Effects.Certs = append(in.Effects.Certs, c)
		id := twincert.ID{Issuer: d.issuer(), Serial: c.Serial}
		in.Change.Revocations = append(in.Change.Revocations, client.Revocation{ID: id, Name: name, Role: twin, Time: now, Reason: reason})
	}
	return valid, nil
}

// closePending sees to it that what is still undecided for a bearer comes out revoked if
// it comes out at all, and returns the certificates that it holds.
func closePending(tx *ledger.Tx, role, name string) ([]ledger.Cert, error) {
	queue, err := tx.Intents()
	if err != nil {
		return nil, err
	}
	var certs []ledger.Cert
	for _, q := range queue {
		mine := func(c ledger.Cert) bool { return c.Role == role && c.Name == name }
		if q.Kind != ledger.KindIssue || !slices.ContainsFunc(q.Effects.Certs, mine) {
			continue
		}
		for _, c := range q.Effects.Certs {
			if mine(c) {
				certs = append(certs, c)
			}
		}
		// The revocation's own effects are written now; these must not undo them.
		q.Effects.Certs = slices.DeleteFunc(q.Effects.Certs, mine)
		q.Effects.Users = slices.DeleteFunc(q.Effects.Users, func(u ledger.User) bool { return role == "user" && u.UID == name })
		q.Effects.Routers = slices.DeleteFunc(q.Effects.Routers, func(r ledger.Router) bool { return role == RoleRouter && r.Name == name })
		if err := tx.PutIntent(q); err != nil {
			return nil, err
		}
	}
	return certs, nil
}

// lives says whether anybody may still accept c: until it has expired, and for a TLS
// certificate as long as it can be renewed, plus what clocks may differ.
func lives(c ledger.Cert, now time.Time, grace time.Duration) bool {
	return now.Before(c.NotAfter.Add(grace + skew))
}

// issuer is the issuer in the identity of every certificate that this CA signs.
func (d *Desk) issuer() string {
	return twincert.IDOf(&x509.Certificate{RawIssuer: d.cfg.Authority.Intermediate().RawSubject, SerialNumber: new(big.Int)}).Issuer
}

// publishHere puts a revocation into smallstep's database and a new CRL, and that into
// the intent. What is sent under one ID must stay the same, so the ID is new too; being
// told of a revocation twice does the directory no harm.
func (d *Desk) publishHere(in *ledger.Intent) error {
	for _, c := range in.Effects.Certs {
		n := c.Number()
		if n == nil {
			return fmt.Errorf("%w: serial number %q", ledger.ErrDamaged, c.Serial)
		}
		if err := d.cfg.Authority.Revoke(d.revocation(c, n)); err != nil {
			return err
		}
	}
	crl, err := d.cfg.Authority.RefreshCRL()
	if err != nil {
		return err
	}
	in.Change.CRL, in.CRLSigned, in.Change.ChangeID = crl.DER, d.now(), rand.Text()
	if in.Change.Sources, err = d.sources(); err != nil {
		return err
	}
	if err := d.keep(in); err != nil {
		return err
	}
	d.cfg.At(in.What, StepPrepared)
	return nil
}

// revocation is the entry of a certificate that is kept as long as it can be renewed.
func (d *Desk) revocation(c ledger.Cert, n *big.Int) authority.Revocation {
	return authority.Revocation{Serial: n, Reason: c.Reason, At: c.Revoked, Expires: c.NotAfter.Add(d.cfg.Terms.Grace)}
}

// sources is what the directory is told of our sources, with every CRL: so it knows soon
// after a start, and also if it was restored from an older copy. A company that never had
// any says nothing, and its directory may be of a version that has not heard of them.
func (d *Desk) sources() (there *bool, err error) {
	told := false
	err = d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		told, err = tx.ToldSources()
		return err
	})
	if err != nil || !told && !d.cfg.Sources {
		return nil, err
	}
	return &d.cfg.Sources, nil
}

// forwardRevocation tells the directory, with a CRL that is still fresh.
func (d *Desk) forwardRevocation(ctx context.Context, in *ledger.Intent) error {
	if age := d.now().Sub(in.CRLSigned); age < 0 || age > d.cfg.Terms.CRL/3 {
		if err := d.publishHere(in); err != nil {
			return err
		}
	}
	if d.cfg.Directory == nil {
		return d.finish(in)
	}
	err := d.cfg.Directory.Apply(ctx, *in.Change)
	if err == nil {
		d.cfg.At(in.What, StepApplied)
		return d.finish(in)
	}
	if !transient(err) {
		in.Change.CRL = nil // refused: next time with another one
	}
	in.LastFailed = err.Error()
	return errors.Join(err, d.keep(in))
}

// PublishCRL signs a new CRL and hands it to the directory. While something else waits to
// be told, that goes first, with a CRL of its own.
func (d *Desk) PublishCRL(ctx context.Context) error {
	ctx, cancel := d.unawaited(ctx)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	var queue []ledger.Intent
	err := d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		queue, err = tx.Intents()
		return err
	})
	if err != nil {
		return err
	}
	if d.cfg.Directory == nil {
		_, err := d.cfg.Authority.RefreshCRL()
		return err
	}
	if len(queue) == 0 {
		if err := d.journal(crlIntent(d.now()), func(*ledger.Tx) error { return nil }); err != nil {
			return err
		}
	}
	return d.settle(ctx)
}

// crlIntent is to publish a CRL. What it holds it gets when it is about to be sent.
func crlIntent(now time.Time) *ledger.Intent {
	return &ledger.Intent{Kind: ledger.KindCRL, What: "publishing a CRL", Created: now, Change: &client.Change{Actor: actorSelf}}
}

// actorSelf is who is at work when nobody asked.
const actorSelf = "twinkey://ca"
