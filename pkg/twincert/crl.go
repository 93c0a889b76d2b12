package twincert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// MaxCRLSize is the longest CRL that NewCRL reads, in bytes: some 400,000 entries.
const MaxCRLSize = 16 << 20

// maxSkew is how far in the future a CRL may have been made, by our clock.
const maxSkew = 5 * time.Minute

// ErrCRL says that a CRL is not one that says all of what its issuer revoked.
var ErrCRL = errors.New("not a complete CRL of this issuer")

// CRL is a verified certificate revocation list (RFC 5280 5).
type CRL struct {
	number                 *big.Int
	thisUpdate, nextUpdate time.Time
	issuer                 string              // as in an ID
	revoked                map[string]struct{} // by serial number, decimal
}

// NewCRL parses der, checks that issuer signed it, that it is current at now (ErrExpired,
// ErrNotYetValid) and that it is the whole list: neither a delta, nor for some
// certificates or reasons only, nor one that speaks for other issuers.
func NewCRL(der []byte, issuer *x509.Certificate, now time.Time) (*CRL, error) {
	if len(der) > MaxCRLSize {
		return nil, fmt.Errorf("parsing a CRL: %w", ErrSize)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("parsing a CRL: %w", err)
	}
	if err := checkCRL(l, issuer, now); err != nil {
		return nil, fmt.Errorf("verifying a CRL of %s: %w", printable(issuer.Subject.String()), err)
	}
	c := &CRL{
		number: l.Number, thisUpdate: l.ThisUpdate, nextUpdate: l.NextUpdate, issuer: hex.EncodeToString(l.RawIssuer),
		revoked: make(map[string]struct{}, len(l.RevokedCertificateEntries)),
	}
	for _, e := range l.RevokedCertificateEntries {
		c.revoked[e.SerialNumber.String()] = struct{}{}
	}
	return c, nil
}

func checkCRL(l *x509.RevocationList, issuer *x509.Certificate, now time.Time) error {
	if !bytes.Equal(l.RawIssuer, issuer.RawSubject) {
		return fmt.Errorf("%w: it is that of %s", ErrCRL, printable(l.Issuer.String()))
	}
	if err := l.CheckSignatureFrom(issuer); err != nil {
		return err
	}
	if l.Number == nil {
		return fmt.Errorf("%w: it has no number", ErrCRL)
	}
	if now.After(l.NextUpdate) {
		return fmt.Errorf("%w on %s", ErrExpired, l.NextUpdate.Format(time.RFC3339))
	}
	if l.ThisUpdate.After(now.Add(maxSkew)) {
		return fmt.Errorf("%w: it is of %s", ErrNotYetValid, l.ThisUpdate.Format(time.RFC3339))
	}
	for _, x := range l.Extensions {
		if !completeWith(x) {
			return fmt.Errorf("%w: extension %s", ErrCRL, x.Id)
		}
	}
	for _, e := range l.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Critical { // certificateIssuer, RFC 5280 5.3.3: an indirect CRL
				return fmt.Errorf("%w: extension %s of entry %s", ErrCRL, x.Id, e.SerialNumber)
			}
		}
	}
	return nil
}

// completeWith says whether a CRL with this extension can be the whole list.
func completeWith(x pkix.Extension) bool {
	if !x.Id.Equal(oidIssuingDP) {
		return !x.Critical && !x.Id.Equal(oidDeltaCRL)
	}
	// IssuingDistributionPoint, RFC 5280 5.2.5: distributionPoint [0] may say where it lies;
	// every other field leaves something out, or lets in another issuer.
	in := cryptobyte.String(x.Value)
	var idp cryptobyte.String
	return in.ReadASN1(&idp, cbasn1.SEQUENCE) && in.Empty() && idp.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) && idp.Empty()
}

// Contains says whether the list revokes id.
func (c *CRL) Contains(id ID) bool {
	_, ok := c.revoked[id.Serial]
	return ok && id.Issuer == c.issuer
}

// All yields what the list revokes, in no order.
func (c *CRL) All() iter.Seq[ID] {
	return func(yield func(ID) bool) {
		for serial := range c.revoked {
			if !yield(ID{Issuer: c.issuer, Serial: serial}) {
				return
			}
		}
	}
}

// Len is the number of entries.
func (c *CRL) Len() int { return len(c.revoked) }

// Number is the CRL number; a later list has a higher one.
func (c *CRL) Number() *big.Int { return c.number }

// ThisUpdate is when the list was made.
func (c *CRL) ThisUpdate() time.Time { return c.thisUpdate }

// NextUpdate is when the list is no longer current.
func (c *CRL) NextUpdate() time.Time { return c.nextUpdate }
