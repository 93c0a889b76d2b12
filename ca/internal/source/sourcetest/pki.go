package sourcetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// PKI is an authority with its files in Dir: NAME.crt and NAME.key.
type PKI struct {
	Dir  string
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewPKI makes one whose root is NAME.crt.
func NewPKI(tb testing.TB, dir, name string) *PKI {
	tb.Helper()
	p := &PKI{Dir: dir, name: name}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	p.cert, p.key = p.sign(tb, name, tmpl)
	return p
}

// Issue makes a certificate for a server and client of one name, with 127.0.0.1 and the name in it.
func (p *PKI) Issue(tb testing.TB, name string) {
	tb.Helper()
	p.sign(tb, name, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

// Cert and Key are paths.
func (p *PKI) Cert(name string) string { return filepath.Join(p.Dir, name+".crt") }

// Key is the path of the key to a certificate.
func (p *PKI) Key(name string) string { return filepath.Join(p.Dir, name+".key") }

// Root is the path of the root.
func (p *PKI) Root() string { return p.Cert(p.name) }

func (p *PKI) sign(tb testing.TB, name string, tmpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	parent, signer := p.cert, p.key
	if parent == nil {
		parent, signer = tmpl, k
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, k.Public(), signer)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		tb.Fatal(err)
	}
	WriteFile(tb, p.Dir, name+".crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	WriteFile(tb, p.Dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return c, k
}
