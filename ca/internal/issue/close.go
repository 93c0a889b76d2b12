package issue

import (
	"context"
	"crypto/ecdh"
	"crypto/x509"
	"errors"
	"fmt"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/enroll"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// errNothing ends a revocation in which there is nothing to revoke.
var errNothing = errors.New("nothing to revoke")

// The causes of a refusal, for the CA's log alone: a router is not told which certificates there are.
var (
	errNoUser = errors.New("no certificate of a user has this number")
	errScope  = errors.New("the user is out of the router's scope")
)

// CloseKey is the public key against which routers prove that sessions have ended.
func (d *Desk) CloseKey() (*ecdh.PublicKey, error) {
	k, err := enroll.CloseKey(d.cfg.GroupKey)
	if err != nil {
		return nil, err
	}
	return k.PublicKey(), nil
}

// Close withdraws the certificates of users whose last call at a router has ended, where the router's policy wants that;
// the users stay, and may be given others. leaf is the router's TLS certificate; the caller has seen its chain verified
// and its key proved. Of each certificate the router must have the bearer in its scope, and prove that it held the data
// key, which the directory releases to it for the right password alone: so no router revokes anybody it likes. What is
// not granted is in refused, in the same words whatever the cause.
func (d *Desk) Close(ctx context.Context, router string, leaf *x509.Certificate, closed []caclient.Closed) (refused []string, err error) {
	own, err := enroll.CloseKey(d.cfg.GroupKey)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.Router(router, leaf)
	if err != nil {
		return nil, err
	}
	in := &ledger.Intent{Kind: ledger.KindRevoke, What: "ending sessions at router " + router, Change: &client.Change{Actor: bearer(RoleRouter, router)}}
	n := 0
	_, err = d.revoke(ctx, in, &n, func(tx *ledger.Tx) error {
		for _, c := range closed {
			cert, err := d.closable(tx, own, r, c)
			switch {
			case refusal(err):
				d.cfg.Log.Warn("session not ended", "router", router, "serial", c.Serial, "error", err)
				refused = append(refused, c.Serial)
				continue
			case err != nil:
				return err
			case !cert.Revoked.IsZero() || !lives(cert, d.now(), d.cfg.Terms.Grace):
				continue // there is nothing left to do
			}
			n++
			cert.Revoked, cert.Reason = d.now(), "the session at router "+router+" has ended (revoke-on-close)"
			in.Effects.Certs = append(in.Effects.Certs, cert)
			in.Change.Revocations = append(in.Change.Revocations, client.Revocation{ID: d.id(cert.Serial), Name: cert.Name, Role: twincert.User, Time: cert.Revoked, Reason: cert.Reason})
		}
		if n == 0 {
			return errNothing
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.What, err)
	}
	return refused, nil
}

func refusal(err error) bool {
	return errors.Is(err, errNoUser) || errors.Is(err, errScope) || errors.Is(err, enroll.ErrPossession)
}

// closable is the certificate that c names, if router r may have it revoked.
func (d *Desk) closable(tx *ledger.Tx, own *ecdh.PrivateKey, r ledger.Router, c caclient.Closed) (ledger.Cert, error) {
	cert, ok, err := tx.Cert(c.Serial)
	if err != nil {
		return cert, err
	}
	if !ok {
		return cert, undecided(tx, c.Serial)
	}
	if cert.Kind != client.KindTwin || cert.Role != twincert.User.String() {
		return cert, errNoUser
	}
	twin, err := twincert.Parse(cert.DER)
	if err != nil {
		return cert, fmt.Errorf("certificate %s: %w: %w", c.Serial, ledger.ErrDamaged, err)
	}
	if !twincert.InScope(r.Scope, twin.Name, twin.Group) {
		return cert, errScope
	}
	return cert, enroll.CheckClose(own, r.Name, cert.DER, twin.Keys.Data, c.Proof)
}

// undecided says of a certificate that is not in the ledger whether it may yet come: the directory has it, and the CA
// does not know that it does.
func undecided(tx *ledger.Tx, serial string) error {
	queue, err := tx.Intents()
	if err != nil {
		return err
	}
	for _, in := range queue {
		for _, c := range in.Effects.Certs {
			if c.Serial == serial && in.Kind == ledger.KindIssue {
				return ErrUndecided
			}
		}
	}
	return errNoUser
}
