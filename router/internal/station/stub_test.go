package station

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/native"
)

// fingerprint is what the operator tells of a root.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// stub is a router in front that answers by h, and the root of its company.
func stub(t *testing.T, h http.HandlerFunc) (at string, root *x509.Certificate) {
	t.Helper()
	at, root, _ = stubOf(t, h)
	return at, root
}

// stubOf is a stub of a company that certifies others, too.
func stubOf(t *testing.T, h http.HandlerFunc) (at string, root *x509.Certificate, certify func(uri string) tls.Certificate) {
	t.Helper()
	c := newCompany()
	return c.stub(t, h), c.root, c.certify
}

// company is whom a CA certifies.
type company struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCompany() *company {
	c := &company{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	c.root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, c.key.Public(), c.key))))
	return c
}

func (c *company) certify(uri string) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: c.root.NotBefore, NotAfter: c.root.NotAfter, URIs: []*url.URL{must(url.Parse(uri))},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, leaf, c.root, key.Public(), c.key))}, PrivateKey: key}
}

// twin certifies keys of a bearer's.
func (c *company) twin(tmpl twincert.Template) native.Credentials {
	pair := func() handshake.KeyPair {
		return must(handshake.NewKeyPair(secret.New(must(ecdh.X25519().GenerateKey(rand.Reader)).Bytes())))
	}
	keys := native.Credentials{Control: pair(), Data: pair()}
	tmpl.Profile, tmpl.Serial = twincert.Paper, must(rand.Int(rand.Reader, big.NewInt(1<<60)))
	tmpl.Keys = twincert.Keys{Control: keys.Control.Public, Data: keys.Data.Public}
	tmpl.NotBefore, tmpl.NotAfter = c.root.NotBefore, c.root.NotAfter
	keys.Certificate = must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, c.root, c.key))))
	return keys
}

func (c *company) crl() []byte {
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.root.NotBefore, NextUpdate: c.root.NotAfter}
	return must(x509.CreateRevocationList(rand.Reader, l, c.root, c.key))
}

// stub is router ra.
func (c *company) stub(t *testing.T, h http.HandlerFunc) (at string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.certify("twinkey://router/ra")}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}
