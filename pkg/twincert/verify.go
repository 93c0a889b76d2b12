package twincert

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// What Verify fails with; ask with errors.Is.
var (
	ErrExpired           = errors.New("expired")
	ErrNotYetValid       = errors.New("not valid yet")
	ErrRevoked           = errors.New("revoked")
	ErrRevocationUnknown = errors.New("nothing is known of revocations")
	ErrUnknownAuthority  = errors.New("signed by an authority that we do not know")
	ErrRole              = errors.New("bearer has another role")
	ErrConstraint        = errors.New("a constraint of its issuers forbids it")
)

// VerifyOptions say against what a certificate is held.
type VerifyOptions struct {
	Roots, Intermediates *x509.CertPool
	Now                  time.Time
	Role                 Role
	// Revoked is asked of the certificate and of every intermediate above it.
	Revoked func(ID) bool
	// AllowUnknownRevocation lets Revoked be nil. Without it nil is ErrRevocationUnknown.
	AllowUnknownRevocation bool
}

// Verify says whether the certificate is to be believed: chain, signatures over the bytes
// that were received, validity, role, constraints, revocation. One chain has to pass all.
func (c *Certificate) Verify(o VerifyOptions) error {
	if c.Role != o.Role {
		return fmt.Errorf("%w: %s, not %s", ErrRole, c.Role, o.Role)
	}
	if o.Revoked == nil && !o.AllowUnknownRevocation {
		return ErrRevocationUnknown
	}
	if o.Roots == nil || o.Now.IsZero() { // crypto/x509 would take the system's
		return fmt.Errorf("%w: neither roots nor the time may be left open", ErrUnknownAuthority)
	}
	chains, err := c.std.Verify(x509.VerifyOptions{
		Roots: o.Roots, Intermediates: o.Intermediates, CurrentTime: o.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // ours is checked by Parse
	})
	if err != nil {
		return verifyError(err, c, o.Now)
	}
	if o.Revoked != nil && o.Revoked(c.ID()) {
		return ErrRevoked
	}
	for _, chain := range chains {
		if err = c.believe(chain[1:], o.Revoked); err == nil {
			return nil
		}
	}
	return err
}

// believe says whether issuers, the nearest first, may say what c says.
func (c *Certificate) believe(issuers []*x509.Certificate, revoked func(ID) bool) error {
	for _, ca := range issuers {
		if revoked != nil && revoked(IDOf(ca)) {
			return fmt.Errorf("issuer %s: %w", printable(ca.Subject.String()), ErrRevoked)
		}
		if err := c.within(ca); err != nil {
			return err
		}
	}
	return nil
}

func verifyError(err error, c *Certificate, now time.Time) error {
	if ie, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch {
		case ie.Reason == x509.Expired && ie.Cert.NotBefore.After(now):
			return fmt.Errorf("%w: from %s on", ErrNotYetValid, ie.Cert.NotBefore.Format(time.RFC3339))
		case ie.Reason == x509.Expired:
			return fmt.Errorf("%w on %s", ErrExpired, ie.Cert.NotAfter.Format(time.RFC3339))
		default:
			return fmt.Errorf("%w: %w", ErrConstraint, err)
		}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%w: issuer %s", ErrUnknownAuthority, printable(c.Issuer.String()))
	}
	return fmt.Errorf("%w: %w", ErrConstraint, err)
}
