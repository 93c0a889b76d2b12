package twincert

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
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
// that were received, validity, role, constraints, revocation.
func (c *Certificate) Verify(o VerifyOptions) error {
	if c.Role != o.Role {
		return fmt.Errorf("%w: %s, not %s", ErrRole, c.Role, o.Role)
	}
	if o.Revoked == nil && !o.AllowUnknownRevocation {
		return ErrRevocationUnknown
	}
	chains, err := c.std.Verify(x509.VerifyOptions{
		Roots: o.Roots, Intermediates: o.Intermediates, CurrentTime: o.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // ours is checked by Parse
	})
	if err != nil {
		return verifyError(err, c, o.Now)
	}
	if o.Revoked == nil {
		return nil
	}
	if o.Revoked(c.ID()) {
		return ErrRevoked
	}
	for _, chain := range chains {
		if !anyRevoked(chain[1:], o.Revoked) {
			return nil
		}
	}
	return fmt.Errorf("issuer %w", ErrRevoked)
}

func anyRevoked(chain []*x509.Certificate, revoked func(ID) bool) bool {
	for _, c := range chain {
		if revoked(IDOf(c)) {
			return true
		}
	}
	return false
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
		return fmt.Errorf("%w: issuer %s", ErrUnknownAuthority, c.Issuer)
	}
	return fmt.Errorf("%w: %w", ErrConstraint, err)
}

// CRL is a verified certificate revocation list (RFC 5280 5).
type CRL struct {
	list    *x509.RevocationList
	revoked map[ID]struct{}
}

// NewCRL parses der, checks that issuer signed it and that it is current at now.
func NewCRL(der []byte, issuer *x509.Certificate, now time.Time) (*CRL, error) {
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parsing a CRL: %w", err)
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return nil, fmt.Errorf("verifying a CRL of %s: %w", issuer.Subject, err)
	}
	if l.Number == nil {
		return nil, fmt.Errorf("verifying a CRL of %s: it has no number", issuer.Subject)
	}
	if now.After(l.NextUpdate) {
		return nil, fmt.Errorf("verifying a CRL of %s: %w on %s", issuer.Subject, ErrExpired, l.NextUpdate.Format(time.RFC3339))
	}
	c := &CRL{list: l, revoked: make(map[ID]struct{}, len(l.RevokedCertificateEntries))}
	for _, e := range l.RevokedCertificateEntries {
		c.revoked[IDOf(&x509.Certificate{RawIssuer: l.RawIssuer, SerialNumber: e.SerialNumber})] = struct{}{}
	}
	return c, nil
}

// Contains says whether the list revokes id.
func (c *CRL) Contains(id ID) bool { _, ok := c.revoked[id]; return ok }

// Len is the number of entries.
func (c *CRL) Len() int { return len(c.revoked) }

// Number is the CRL number; a later list has a higher one.
func (c *CRL) Number() *big.Int { return c.list.Number }

// ThisUpdate and NextUpdate are the list's term.
func (c *CRL) ThisUpdate() time.Time { return c.list.ThisUpdate }

// NextUpdate is when the list is no longer current.
func (c *CRL) NextUpdate() time.Time { return c.list.NextUpdate }
