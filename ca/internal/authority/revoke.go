package authority

import (
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/smallstep/certificates/db"
)

// Revocation of one certificate.
type Revocation struct {
	Serial  *big.Int
	Reason  string
	At      time.Time
	Expires time.Time // notAfter of the certificate; without it the entry would stay in every CRL for ever
}

// Revoke marks a certificate, twin or TLS, as revoked. It is in the CRL from the next
// RefreshCRL on. Doing it twice does no harm; the first time counts.
func (a *Authority) Revoke(r Revocation) error {
	err := a.store.Revoke(&db.RevokedCertificateInfo{Serial: r.Serial.String(), Reason: r.Reason, RevokedAt: r.At.UTC(), ExpiresAt: r.Expires.UTC()})
	if err != nil && !errors.Is(err, db.ErrAlreadyExists) {
		return fmt.Errorf("revoking certificate %s: %w", r.Serial, explain(err))
	}
	return nil
}

// Revoked says whether a certificate is.
func (a *Authority) Revoked(serial *big.Int) (bool, error) {
	yes, err := a.store.IsRevoked(serial.String())
	if err != nil {
		return false, fmt.Errorf("asking whether certificate %s is revoked: %w", serial, explain(err))
	}
	return yes, nil
}

// CRL is a signed revocation list.
type CRL struct {
	DER    []byte
	Number int64
	Next   time.Time // nextUpdate
}

// CRL returns the newest list.
func (a *Authority) CRL() (CRL, error) {
	l, err := a.step.GetCertificateRevocationList()
	if err != nil {
		return CRL{}, fmt.Errorf("reading the CRL: %w", explain(err))
	}
	return CRL{DER: l.Data, Number: l.Number, Next: l.ExpiresAt}, nil
}

// RefreshCRL signs a new list, with the next number, and returns it.
func (a *Authority) RefreshCRL() (CRL, error) {
	if err := a.step.GenerateCertificateRevocationList(); err != nil {
		return CRL{}, fmt.Errorf("signing a CRL: %w", explain(err))
	}
	return a.CRL()
}
