package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/db"
)

// ErrRequest says that a PKCS#10 request is not one to sign.
var ErrRequest = errors.New("unfit certificate request")

// TLS says what a TLS certificate of ours is to hold. Of the request only the key counts.
type TLS struct {
	Name                string // subject CN
	URI                 string // the bearer, twinkey://...
	Hosts               []string
	NotBefore, NotAfter time.Time
}

// SignTLS has smallstep check and sign a TLS certificate that names a twinkey:// bearer.
// It is not stored anywhere. The chain is leaf first and ends with the intermediate.
func (a *Authority) SignTLS(ctx context.Context, csr *x509.CertificateRequest, t TLS) ([]*x509.Certificate, error) {
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("signing for %s: %w: its key is no ECDSA key on P-256", t.URI, ErrRequest)
	}
	uri, err := url.Parse(t.URI)
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", t.URI, err)
	}
	enforce := provisioner.CertificateEnforcerFunc(func(c *x509.Certificate) error {
		*c = x509.Certificate{
			Subject:               pkix.Name{CommonName: t.Name},
			URIs:                  []*url.URL{uri},
			NotBefore:             t.NotBefore,
			NotAfter:              t.NotAfter,
			KeyUsage:              x509.KeyUsageDigitalSignature,
			ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			BasicConstraintsValid: true,
			CRLDistributionPoints: []string{a.cfg.CRLURL},
			PublicKey:             csr.PublicKey,
			PublicKeyAlgorithm:    csr.PublicKeyAlgorithm,
		}
		c.DNSNames, c.IPAddresses = SplitHosts(t.Hosts)
		return nil
	})
	chain, err := a.step.SignWithContext(ctx, csr, provisioner.SignOptions{}, enforce)
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", t.URI, explain(err))
	}
	return chain, nil
}

// SplitHosts tells DNS names from addresses.
func SplitHosts(hosts []string) (names []string, addrs []net.IP) {
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			addrs = append(addrs, a.AsSlice())
			continue
		}
		names = append(names, h)
	}
	return names, addrs
}

// Record stores a certificate, twin or TLS, among those that were issued. Doing it twice
// does no harm.
func (a *Authority) Record(der []byte, serial *big.Int) error {
	if err := a.store.StoreCertificate(&x509.Certificate{Raw: der, SerialNumber: serial}); err != nil {
		return fmt.Errorf("recording certificate %s: %w", serial, explain(err))
	}
	return nil
}

// held is smallstep's database, but for one thing: what is signed for no provisioner is
// ours, and is stored by Record.
type held struct{ *db.DB }

func (h held) StoreCertificateChain(p provisioner.Interface, chain ...*x509.Certificate) error {
	if p == nil {
		return nil
	}
	return h.DB.StoreCertificateChain(p, chain...)
}
