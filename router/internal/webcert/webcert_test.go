package webcert

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const term = 30 * time.Hour

// ca issues certificates, and can be told to do it wrong.
type ca struct {
	t      *testing.T
	root   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
	asked  []time.Time
	down   bool
	names  []string // instead of those asked for
	other  bool     // for another key
	as     *ca      // somebody else signs
	log    bytes.Buffer
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newCA(t *testing.T) *ca {
	c := &ca{t: t, key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), serial: 1}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	c.root = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, c.key.Public(), c.key))))
	return c
}

func (c *ca) issue(_ context.Context, key crypto.Signer, names []string) ([][]byte, error) {
	c.asked = append(c.asked, time.Now())
	if c.down {
		return nil, errors.New("the CA does not answer")
	}
	if c.names != nil {
		names = c.names
	}
	if c.other {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	c.serial++
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(c.serial), NotBefore: time.Now(), NotAfter: time.Now().Add(term), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	by := c
	if c.as != nil {
		by = c.as
	}
	return [][]byte{must(x509.CreateCertificate(rand.Reader, tmpl, by.root, key.Public(), by.key))}, nil
}

func (c *ca) config(file string) Config {
	return Config{File: file, Names: []string{"10.1.0.1", "ra"}, Issue: c.issue, Roots: func() []*x509.Certificate { return []*x509.Certificate{c.root} },
		Log: slog.New(slog.NewTextHandler(&c.log, nil))}
}

func run(t *testing.T, k *Keeper, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	k.Run(ctx)
}

// A certificate is there at once, is renewed when two thirds of its life have passed, and is there again after a restart.
func TestRenewedAtTwoThirds(t *testing.T) {
	file := filepath.Join(t.TempDir(), "portal.pem")
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t)
		k := must(Load(c.config(file)))
		if _, err := k.Certificate(); !errors.Is(err, ErrNone) {
			t.Errorf("before the first: %v", err)
		}
		start := time.Now()
		run(t, k, 3*term)
		if len(c.asked) != 5 {
			t.Fatalf("asked at %v", c.asked)
		}
		for i, at := range c.asked {
			if late := at.Sub(start) - time.Duration(i)*term*2/3; late < 0 || late > time.Minute {
				t.Errorf("order %d came %v late", i, late)
			}
		}
		got, err := k.Certificate()
		if err != nil || got.Leaf.VerifyHostname("ra") != nil || got.Leaf.VerifyHostname("10.1.0.1") != nil {
			t.Errorf("%v, %v", got, err)
		}
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		again := must(Load(c.config(file)))
		same, err := again.Certificate()
		if err != nil || !same.Leaf.Equal(got.Leaf) {
			t.Errorf("after a restart: %v", err)
		}
		run(t, again, time.Minute)
		if len(c.asked) != 5 {
			t.Error("ordered again after a restart")
		}
	})
}

// A CA that is down is asked again, ever more rarely, and the old certificate serves as long as it is valid, no longer.
func TestCAIsDown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "portal.pem")
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t)
		k := must(Load(c.config(file)))
		run(t, k, time.Minute)
		c.down = true
		c.asked = nil
		run(t, k, term-time.Hour)
		if n := len(c.asked); n < 80 || n > 160 {
			t.Errorf("asked %d times in nine hours", n)
		}
		if _, err := k.Certificate(); err != nil {
			t.Errorf("valid still: %v", err)
		}
		if !strings.Contains(k.Problem(), "does not answer") {
			t.Errorf("problem %q", k.Problem())
		}
		time.Sleep(2 * time.Hour)
		if _, err := k.Certificate(); !errors.Is(err, ErrNone) {
			t.Errorf("expired: %v", err)
		}
		c.down = false
		run(t, k, 10*time.Minute)
		if _, err := k.Certificate(); err != nil || k.Problem() != "" {
			t.Errorf("after it came back: %v, %q", err, k.Problem())
		}
	})
}

// What the CA should not have answered is not shown to browsers.
func TestUnfitAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*ca)
		want  string
	}{
		"another name":  {func(c *ca) { c.names = []string{"rb", "10.1.0.1"} }, "not ra"},
		"not all names": {func(c *ca) { c.names = []string{"10.1.0.1"} }, "ra"},
		"another key":   {func(c *ca) { c.other = true }, "another key"},
		"another root":  {func(c *ca) { c.as = newCA(c.t) }, "unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "portal.pem")
			synctest.Test(t, func(t *testing.T) {
				c := newCA(t)
				tt.spoil(c)
				k := must(Load(c.config(file)))
				run(t, k, time.Second)
				if _, err := k.Certificate(); !errors.Is(err, ErrNone) || !strings.Contains(k.Problem(), tt.want) {
					t.Errorf("%v, problem %q", err, k.Problem())
				}
				if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("it was saved: %v", err)
				}
			})
		})
	}
}

// A file that is no good (another name was configured, another CA, garbage) is passed over; one that others can read is refused.
func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "portal.pem")
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t)
		run(t, must(Load(c.config(file))), time.Second)
		named := c.config(file)
		named.Names = []string{"10.1.0.1", "portal.example"}
		for name, config := range map[string]Config{"another name": named, "another CA": newCA(t).config(file)} {
			if _, err := must(Load(config)).Certificate(); !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(c.config(file)); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("that others read: %v", err)
		}
		if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("garbage"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := must(Load(c.config(file))).Certificate(); !errors.Is(err, ErrNone) {
			t.Errorf("garbage: %v", err)
		}
	})
}
