package renewal_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/renewal"
)

const term = 10 * time.Hour

// box is an identity with a CA at hand that can be told to fail.
type box struct {
	t       *testing.T
	root    *x509.Certificate
	key     *ecdsa.PrivateKey
	serial  int64
	id      *identity.Identity
	log     bytes.Buffer
	asked   []time.Time // when the CA was
	down    bool        // the CA does not answer
	told    []time.Time // when Renewed was called
	refuses atomic.Bool // Renewed fails
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newBox(t *testing.T) *box {
	b := &box{t: t, key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), serial: 1}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	b.root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, b.key.Public(), b.key))))
	b.id = must(identity.Create(filepath.Join(t.TempDir(), "identity"), b.bundle()))
	return b
}

// bundle is what the CA certifies now.
func (b *box) bundle() identity.Bundle {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	b.serial++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(b.serial), Subject: pkix.Name{CommonName: "directory"}, URIs: []*url.URL{must(url.Parse("twinkey://directory"))},
		NotBefore: time.Now(), NotAfter: time.Now().Add(term),
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, b.root, key.Public(), b.key))
	return identity.Bundle{Roots: []*x509.Certificate{b.root}, TLS: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// run keeps the identity for d.
func (b *box) run(d time.Duration) {
	ctx, cancel := context.WithTimeout(b.t.Context(), d)
	defer cancel()
	k := renewal.Keeper{
		ID: b.id, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		At: func() float64 { return 0.5 }, Warn: func() time.Duration { return 6 * time.Hour },
		Renew: func(context.Context) (identity.Bundle, error) {
			b.asked = append(b.asked, time.Now())
			if b.down {
				return identity.Bundle{}, errors.New("the CA does not answer")
			}
			return b.bundle(), nil
		},
		Renewed: func(context.Context) error {
			if b.refuses.Load() {
				return errors.New("the engine is busy")
			}
			b.told = append(b.told, time.Now())
			return nil
		},
	}
	k.Run(ctx)
}

func (b *box) left() time.Duration { return time.Until(b.id.Bundle().TLS.Leaf.NotAfter) }

func TestRenewedAtItsFraction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		start := time.Now()
		b.run(4*term + time.Hour)
		if len(b.asked) != 8 || len(b.told) != 8 {
			t.Fatalf("asked %v, told %v", b.asked, b.told)
		}
		for i, at := range b.asked {
			if late := at.Sub(start) - time.Duration(i+1)*term/2; late < 0 || late > 2*time.Minute {
				t.Errorf("renewal %d came %v late", i+1, late)
			}
		}
	})
}

// A CA that is down is asked again about once a minute, each day's log says how the
// certificates are, and when it is back the box is renewed.
func TestFailureIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.down = true
		b.run(term/2 + 20*time.Minute)
		if n := len(b.asked); n < 14 || n > 21 {
			t.Errorf("asked %d times in 20 minutes", n)
		}
		if len(b.told) != 0 || !strings.Contains(b.log.String(), "the CA does not answer") {
			t.Errorf("told %v\n%s", b.told, &b.log)
		}
		b.down = false
		b.run(2 * time.Minute)
		if len(b.told) != 1 || b.left() < term-3*time.Minute {
			t.Errorf("told %v, %v left", b.told, b.left())
		}
	})
}

// A box that was off until long after the end of its certificates renews at once.
func TestSleptPastExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		time.Sleep(5 * term)
		woke := time.Now()
		b.run(time.Minute)
		if len(b.asked) != 1 || b.asked[0] != woke || b.left() < term-2*time.Minute {
			t.Errorf("asked %v, %v left", b.asked, b.left())
		}
	})
}

// New certificates that could not be taken over are told of again; the CA is not asked
// for more.
func TestTellingIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.refuses.Store(true)
		time.AfterFunc(term/2+10*time.Minute, func() { b.refuses.Store(false) })
		b.run(term/2 + 15*time.Minute)
		if len(b.asked) != 1 || len(b.told) != 1 {
			t.Errorf("asked %v, told %v", b.asked, b.told)
		}
	})
}

// Once a day a line for each certificate; a warning for one that lives less than Warn.
func TestDailyLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.run(72*time.Hour + time.Minute)
		if n := strings.Count(b.log.String(), `msg="certificate lives" kind=root`); n != 4 {
			t.Errorf("%d lines on the root in three days", n)
		}
		if !strings.Contains(b.log.String(), `level=INFO msg="certificate lives" kind=tls`) {
			t.Errorf("log:\n%s", &b.log)
		}
		time.Sleep(time.Until(b.root.NotAfter) - 5*time.Hour)
		b.log.Reset()
		b.run(time.Minute)
		if !strings.Contains(b.log.String(), `level=WARN msg="certificate lives" kind=root`) {
			t.Errorf("log:\n%s", &b.log)
		}
	})
}

func TestLives(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := func(name string, serial int64, days int) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(serial), NotBefore: start, NotAfter: start.AddDate(0, 0, days)}
	}
	b := identity.Bundle{
		TLS:           tls.Certificate{Leaf: c("rb", 3, 90)},
		Twin:          &twincert.Certificate{Name: "rb", Serial: big.NewInt(4), NotBefore: start, NotAfter: start.AddDate(0, 0, 30)},
		Intermediates: []*x509.Certificate{c("intermediate", 2, 700)},
		Roots:         []*x509.Certificate{c("root", 1, 7000)},
	}
	lives := renewal.Lives(b, 0.5)
	want := []struct {
		kind, serial string
		renewAt      time.Time
	}{{"tls", "3", start.AddDate(0, 0, 45)}, {"twin", "4", start.AddDate(0, 0, 15)}, {"intermediate", "2", time.Time{}}, {"root", "1", time.Time{}}}
	if len(lives) != len(want) {
		t.Fatalf("%+v", lives)
	}
	for i, w := range want {
		if l := lives[i]; l.Kind != w.kind || l.Serial != w.serial || !l.RenewAt.Equal(w.renewAt) {
			t.Errorf("%+v, want %+v", l, w)
		}
	}
	if empty := renewal.Lives(identity.Bundle{}, 0.5); len(empty) != 0 {
		t.Errorf("of nothing: %+v", empty)
	}
}
