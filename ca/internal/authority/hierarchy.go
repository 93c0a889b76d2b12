package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// Terms of the CA's own certificates. The intermediate outlives everything it signs by
// years; to replace it the root key is needed.
const (
	rootTerm         = 20 * 365 * 24 * time.Hour
	intermediateTerm = 10 * 365 * 24 * time.Hour
	backdate         = 5 * time.Minute // boxes' clocks differ
)

// Hierarchy is a new root and its intermediate, with their keys.
type Hierarchy struct {
	Root, Intermediate       *x509.Certificate
	RootKey, IntermediateKey *ecdsa.PrivateKey
}

// NewHierarchy makes root and intermediate for a company. Both are P-256, because native
// clients meet the same chain.
func NewHierarchy(company string, now time.Time) (h Hierarchy, err error) {
	if h.RootKey, err = NewKey(); err != nil {
		return h, err
	}
	if h.IntermediateKey, err = NewKey(); err != nil {
		return h, err
	}
	root := template(company, "Root CA", now, rootTerm, 1)
	if h.Root, err = sign(root, root, &h.RootKey.PublicKey, h.RootKey); err != nil {
		return h, fmt.Errorf("making the root: %w", err)
	}
	if h.Intermediate, err = sign(template(company, "Intermediate CA", now, intermediateTerm, 0), h.Root, &h.IntermediateKey.PublicKey, h.RootKey); err != nil {
		return h, fmt.Errorf("making the intermediate: %w", err)
	}
	return h, nil
}

// NewKey makes a P-256 key.
func NewKey() (*ecdsa.PrivateKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return k, nil
}

// NewSerial draws a serial number of 127 random bits, positive and not zero.
func NewSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return n.SetBit(n, 127, 1), nil
}

func template(company, what string, now time.Time, term time.Duration, pathLen int) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{company}, CommonName: company + " " + what},
		NotBefore:             now.Add(-backdate).UTC().Truncate(time.Second),
		NotAfter:              now.Add(term).UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
	}
}

func sign(t, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	var err error
	if t.SerialNumber, err = NewSerial(); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
