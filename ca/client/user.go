package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// UserKeys are the keys that a user has made on a machine of their own, and what the CA says of them. The private keys
// are nowhere else: Wipe them when they have been put away.
type UserKeys struct {
	Certificate          *twincert.Certificate
	Roots, Intermediates []*x509.Certificate
	Control, Data        secret.Key
}

// Wipe overwrites the private keys.
func (u UserKeys) Wipe() { u.Control.Wipe(); u.Data.Wipe() }

// EnrollUser makes the two keys of user uid and has the CA certify them; see Enroll. The token is one of
// `twinkey-ca user token`, for this user.
func EnrollUser(ctx context.Context, caURL, rootFingerprint, token, uid string, o Options) (UserKeys, Endpoints, error) {
	none := func(err error) (UserKeys, Endpoints, error) { return UserKeys{}, Endpoints{}, err }
	_, roots, err := firstContact(ctx, caURL, rootFingerprint, token, "user")
	if err != nil {
		return none(err)
	}
	k := keys{name: uid}
	if err := k.makeTwin(); err != nil {
		return none(err)
	}
	s := newSession(caURL, trusting(roots))
	defer s.close()
	a, err := s.certify(ctx, opEnroll, PathEnroll, k, token, o)
	if err != nil {
		return none(err)
	}
	u, err := k.user(a, roots, o.now())
	if err != nil {
		return none(fmt.Errorf("%s: %w", opEnroll, err))
	}
	return u, a.Endpoints, nil
}

// RenewUser makes new keys for the user that old belongs to and has them certified under the old ones, which prove
// themselves in the same exchange. It does not touch old. The old certificate may have expired within the CA's grace.
func RenewUser(ctx context.Context, caURL string, old UserKeys, o Options) (UserKeys, Endpoints, error) {
	const op = "renewing a user's certificate"
	none := func(err error) (UserKeys, Endpoints, error) { return UserKeys{}, Endpoints{}, err }
	k := keys{name: old.Certificate.Name, old: &old}
	if err := k.makeTwin(); err != nil {
		return none(err)
	}
	roots := pool(old.Roots)
	s := newSession(caURL, trusting(roots))
	defer s.close()
	a, err := s.certify(ctx, op, PathRenewUser, k, "", o)
	if err != nil {
		return none(err)
	}
	u, err := k.user(a, roots, o.now())
	if err != nil {
		return none(fmt.Errorf("%s: %w", op, err))
	}
	return u, a.Endpoints, nil
}

// user puts an answer and the keys together, and holds them against the roots that are trusted already.
func (k keys) user(a *Answer, roots *x509.CertPool, now time.Time) (u UserKeys, err error) {
	if u.Roots, err = parseAll(a.Roots); err != nil {
		return u, err
	}
	if u.Intermediates, err = parseAll(a.Intermediates); err != nil {
		return u, err
	}
	if u.Certificate, err = twincert.Parse(a.Twin); err != nil {
		return u, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	c := u.Certificate
	if c.Name != k.name || !bytes.Equal(c.Keys.Control[:], k.control.PublicKey().Bytes()) || !bytes.Equal(c.Keys.Data[:], k.data.PublicKey().Bytes()) {
		return u, fmt.Errorf("%w: the certificate is for another user or other keys", ErrAnswer)
	}
	err = c.Verify(twincert.VerifyOptions{Roots: roots, Intermediates: pool(u.Intermediates), Now: now, Role: twincert.User, AllowUnknownRevocation: true})
	if err != nil {
		return u, fmt.Errorf("%w: the certificate: %w%s", ErrAnswer, err, clockHint(err))
	}
	u.Control, u.Data = secret.New(k.control.Bytes()), secret.New(k.data.Bytes())
	return u, nil
}
