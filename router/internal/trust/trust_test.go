package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/router/internal/trust"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) crl(t *testing.T, number int64, life time.Duration, serials ...int64) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: start, NextUpdate: start.Add(life)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: start})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a authority) id(serial int64) twincert.ID {
	return twincert.IDOf(&x509.Certificate{RawIssuer: a.cert.RawSubject, SerialNumber: big.NewInt(serial)})
}

// The directory's word holds for the bound after it fell silent, a CRL until its
// nextUpdate; then nobody new is admitted.
func TestKnowledgeGrowsStale(t *testing.T) {
	a := newAuthority(t)
	s := trust.New(15 * time.Minute)
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	if err := s.Fresh(start); !errors.Is(err, trust.ErrStale) {
		t.Errorf("never heard: %v", err)
	}
	s.Heard(start)
	for after, fresh := range map[time.Duration]bool{0: true, 15 * time.Minute: true, 15*time.Minute + time.Second: false} {
		if err := s.Fresh(start.Add(after)); (err == nil) != fresh {
			t.Errorf("%v after the last word: %v", after, err)
		}
	}
	if err := s.SetCRL(a.crl(t, 1, 2*time.Hour), start); err != nil {
		t.Fatal(err)
	}
	if err := s.Fresh(start.Add(time.Hour)); err != nil {
		t.Errorf("a current CRL is held: %v", err)
	}
	if err := s.Fresh(start.Add(2 * time.Hour)); !errors.Is(err, trust.ErrStale) {
		t.Errorf("the CRL has ended: %v", err)
	}
}

func TestCRLsAreTakenFromOurIssuersAndForward(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	s := trust.New(time.Hour)
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	if err := s.SetCRL(a.crl(t, 2, time.Hour, 7), start); err != nil {
		t.Fatal(err)
	}
	if !s.Revoked(a.id(7)) || s.Revoked(a.id(8)) {
		t.Error("the CRL revokes 7, and 7 alone")
	}
	if err := s.SetCRL(a.crl(t, 1, time.Hour), start); err != nil || !s.Revoked(a.id(7)) {
		t.Errorf("an older CRL took the place of a newer one: %v", err)
	}
	if err := s.SetCRL(stranger.crl(t, 9, time.Hour), start); err == nil || !s.Revoked(a.id(7)) {
		t.Errorf("a stranger's CRL: %v", err)
	}
	if err := s.SetCRL(a.crl(t, 3, time.Hour), start.Add(2*time.Hour)); !errors.Is(err, twincert.ErrExpired) {
		t.Errorf("a CRL that has ended: %v", err)
	}
	s.Revoke(a.id(8))
	if err := s.SetCRL(a.crl(t, 4, time.Hour), start); err != nil || !s.Revoked(a.id(8)) {
		t.Error("what the directory said is revoked stays so, whatever a CRL lacks")
	}
}

// What others say of the directory counts for as long as a CRL does, and so does what they hold back.
func TestToldByOthers(t *testing.T) {
	a := newAuthority(t)
	s := trust.New(time.Minute)
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	s.Told(start, start)
	if err := s.Fresh(start); !errors.Is(err, trust.ErrStale) {
		t.Errorf("without a CRL: %v", err)
	}
	if err := s.SetCRL(a.crl(t, 1, time.Hour), start); err != nil {
		t.Fatal(err)
	}
	for age := time.Duration(0); age <= 2*time.Hour; age += 30 * time.Second {
		now := start.Add(age)
		s.Told(now, now)
		if err := s.Fresh(now); (err == nil) != (age <= time.Hour+30*time.Second) {
			t.Errorf("after %s: %v", age, err)
		}
	}

	s = trust.New(time.Minute)
	s.SetAnchors([]*x509.Certificate{a.cert}, nil)
	if err := s.SetCRL(a.crl(t, 1, time.Hour), start); err != nil {
		t.Fatal(err)
	}
	s.Told(start.Add(290*365*24*time.Hour), start)
	if err := s.Fresh(start.Add(2 * time.Hour)); !errors.Is(err, trust.ErrStale) {
		t.Errorf("told that it will speak: %v", err)
	}
}
