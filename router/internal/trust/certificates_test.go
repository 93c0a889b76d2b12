package trust_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/trust"
)

func (a authority) twin(t *testing.T, serial int64) []byte {
	t.Helper()
	tmpl := twincert.Template{Profile: twincert.Paper, Role: twincert.User, Name: "alice", Group: "staff", Serial: big.NewInt(serial), NotBefore: start, NotAfter: start.Add(10 * time.Hour)}
	for _, k := range []*[32]byte{&tmpl.Keys.Control, &tmpl.Keys.Data} {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		*k = [32]byte(key.PublicKey().Bytes())
	}
	der, err := twincert.Create(rand.Reader, &tmpl, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a authority) tls(t *testing.T, serial int64, uri string, use x509.ExtKeyUsage) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), URIs: []*url.URL{u}, NotBefore: start, NotAfter: start.Add(10 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{use}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// In a world of two authorities of the same name, whose certificates are told apart by
// their signatures alone.
func TestWhoseTwinCertificateIsBelieved(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	s := trust.New(15 * time.Minute)
	good := a.twin(t, 5)
	if _, err := s.Twin(start, good, twincert.User); !errors.Is(err, trust.ErrStale) {
		t.Errorf("before anything was heard: %v", err)
	}
	s.Heard(start.Add(9 * time.Hour))
	if _, err := s.Twin(start.Add(time.Hour), good, twincert.User); err == nil {
		t.Error("believed without an anchor")
	}
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	s.Revoke(a.id(6))
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	for name, tt := range map[string]struct {
		der  []byte
		role twincert.Role
		at   time.Duration
		want error
	}{
		"another CA's":  {stranger.twin(t, 5), twincert.User, time.Hour, twincert.ErrUnknownAuthority},
		"another role":  {good, twincert.Router, time.Hour, twincert.ErrRole},
		"revoked":       {a.twin(t, 6), twincert.User, time.Hour, twincert.ErrRevoked},
		"not yet valid": {good, twincert.User, -time.Hour, twincert.ErrNotYetValid},
		"expired":       {good, twincert.User, 11 * time.Hour, nil},
		"stale":         {good, twincert.User, 9*time.Hour + 16*time.Minute, trust.ErrStale},
		"tampered with": {broken, twincert.User, time.Hour, nil},
		"a TLS one":     {a.tls(t, 9, "twinkey://router/ra", x509.ExtKeyUsageClientAuth), twincert.Router, time.Hour, nil},
	} {
		if c, err := s.Twin(start.Add(tt.at), tt.der, tt.role); err == nil || c != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if c, err := s.Twin(start.Add(time.Hour), good, twincert.User); err != nil || c.Name != "alice" {
		t.Errorf("a good one: %v", err)
	}
	// Who has issued one that is over can still be told.
	for name, tt := range map[string]struct {
		der  []byte
		role twincert.Role
		at   time.Duration
		ok   bool
	}{
		"a good one":    {good, twincert.User, time.Hour, true},
		"expired":       {good, twincert.User, 11 * time.Hour, true},
		"revoked":       {a.twin(t, 6), twincert.User, time.Hour, true},
		"stale":         {good, twincert.User, 9*time.Hour + 16*time.Minute, true},
		"another CA's":  {stranger.twin(t, 5), twincert.User, 11 * time.Hour, false},
		"another role":  {good, twincert.Router, time.Hour, false},
		"not yet valid": {good, twincert.User, -time.Hour, false},
		"tampered with": {broken, twincert.User, time.Hour, false},
	} {
		if c, err := s.Issued(start.Add(tt.at), tt.der, tt.role); (err == nil) != tt.ok || (c != nil) != tt.ok {
			t.Errorf("issued, %s: %v", name, err)
		}
	}
}

func TestWhoseRouterCertificateIsBelieved(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	s := trust.New(15 * time.Minute)
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	s.Heard(start)
	if err := s.SetCRL(a.crl(t, 1, 5*time.Hour, 6), start); err != nil {
		t.Fatal(err)
	}
	const client = x509.ExtKeyUsageClientAuth
	for name, tt := range map[string]struct {
		der  []byte
		at   time.Duration
		want error
	}{
		"an operator's":          {a.tls(t, 3, "twinkey://operator/eve", client), 0, trust.ErrRouter},
		"the directory's":        {a.tls(t, 3, "twinkey://directory", client), 0, trust.ErrRouter},
		"another scheme":         {a.tls(t, 3, "https://router/ra", client), 0, nil},
		"another CA's":           {stranger.tls(t, 3, "twinkey://router/ra", client), 0, nil},
		"a server's":             {a.tls(t, 3, "twinkey://router/ra", x509.ExtKeyUsageServerAuth), 0, nil},
		"revoked by the CRL":     {a.tls(t, 6, "twinkey://router/ra", client), 0, twincert.ErrRevoked},
		"after the CRL":          {a.tls(t, 3, "twinkey://router/ra", client), 5 * time.Hour, trust.ErrStale},
		"a twin certificate":     {a.twin(t, 3), 0, nil},
		"nothing of the kind":    {[]byte("certificate"), 0, nil},
		"with trailing bytes":    {append(a.tls(t, 3, "twinkey://router/ra", client), 0), 0, nil},
		"not valid yet, by hand": {a.tls(t, 3, "twinkey://router/ra", client), -time.Hour, nil},
	} {
		if _, _, err := s.Router(start.Add(tt.at), tt.der); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	if _, name, err := s.Router(start.Add(4*time.Hour), a.tls(t, 3, "twinkey://router/ra", client)); err != nil || name != "ra" {
		t.Errorf("a good one, while the CRL is current: %q, %v", name, err)
	}
}
