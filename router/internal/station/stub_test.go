package station

import (
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
	ca := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, ca.Public(), ca))))
	certify = func(uri string) tls.Certificate {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: tmpl.NotBefore, NotAfter: tmpl.NotAfter, URIs: []*url.URL{must(url.Parse(uri))},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		return tls.Certificate{Certificate: [][]byte{must(x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), ca))}, PrivateKey: key}
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certify("twinkey://router/ra")}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), root, certify
}
