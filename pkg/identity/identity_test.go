package identity_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// authority is a root that signs leaves itself.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, key: newKey(t)}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	a.cert = a.sign(tmpl, tmpl, a.key)
	return a
}

func (a *authority) sign(tmpl, parent *x509.Certificate, subject *ecdsa.PrivateKey) *x509.Certificate {
	a.t.Helper()
	a.n++
	tmpl.SerialNumber = big.NewInt(a.n)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, subject.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// bundle is a box of these names; a router's has a twin certificate.
func (a *authority) bundle(uris ...string) identity.Bundle {
	a.t.Helper()
	return a.bundleUntil(time.Now().Add(time.Hour), uris...)
}

func (a *authority) bundleUntil(end time.Time, uris ...string) identity.Bundle {
	a.t.Helper()
	key := newKey(a.t)
	tmpl := &x509.Certificate{
		NotBefore: end.Add(-time.Hour), NotAfter: end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	router := ""
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			a.t.Fatal(err)
		}
		tmpl.URIs = append(tmpl.URIs, u)
		router, _ = strings.CutPrefix(s, "twinkey://router/")
		if router == s {
			router = ""
		}
	}
	b := identity.Bundle{Roots: []*x509.Certificate{a.cert}, TLS: tls.Certificate{Certificate: [][]byte{a.sign(tmpl, a.cert, key).Raw}, PrivateKey: key}}
	if router != "" {
		a.twin(&b, router)
	}
	return b
}

func (a *authority) twin(b *identity.Bundle, name string) {
	var keys twincert.Keys
	for _, k := range []struct {
		pub  *[32]byte
		priv *secret.Key
	}{{&keys.Control, &b.Control}, {&keys.Data, &b.Data}} {
		x, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			a.t.Fatal(err)
		}
		*k.pub, *k.priv = [32]byte(x.PublicKey().Bytes()), secret.New(x.Bytes())
	}
	a.n++
	der, err := twincert.Create(rand.Reader, &twincert.Template{
		Profile: twincert.Paper, Role: twincert.Router, Name: name, Keys: keys, Serial: big.NewInt(a.n),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	if b.Twin, err = twincert.Parse(der); err != nil {
		a.t.Fatal(err)
	}
}

func create(t testing.TB, b identity.Bundle) (*identity.Identity, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "identity")
	id, err := identity.Create(dir, b)
	if err != nil {
		t.Fatal(err)
	}
	return id, dir
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	a := newAuthority(t)
	b := a.bundle("twinkey://router/ra")
	_, dir := create(t, b)
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := id.Bundle()
	if id.Role() != "router" || id.Name() != "ra" || got.Twin.ID() != b.Twin.ID() || !got.Control.Equal(b.Control) || !got.Data.Equal(b.Data) || len(got.Roots) != 1 {
		t.Errorf("read %s %s %v", id.Role(), id.Name(), got.Twin.ID())
	}
	if _, err := identity.Create(dir, b); !errors.Is(err, identity.ErrExists) {
		t.Errorf("a second identity in the same place: %v", err)
	}
	if _, err := identity.Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, identity.ErrNone) {
		t.Errorf("nothing there: %v", err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err == nil && st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWhatDoesNotBelongTogetherIsRefused(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	tests := map[string]func(*identity.Bundle){
		"another TLS key":         func(b *identity.Bundle) { b.TLS.PrivateKey = newKey(t) },
		"no twin certificate":     func(b *identity.Bundle) { b.Twin = nil },
		"another router's twin":   func(b *identity.Bundle) { a.twin(b, "rb") },
		"keys exchanged":          func(b *identity.Bundle) { b.Control, b.Data = b.Data, b.Control },
		"no root":                 func(b *identity.Bundle) { b.Roots = nil },
		"another root":            func(b *identity.Bundle) { b.Roots = other.bundle("twinkey://ca").Roots },
		"another root's twin":     func(b *identity.Bundle) { other.twin(b, "ra") },
		"another role's twin":     func(b *identity.Bundle) { twin := b.Twin; *b = a.bundle("twinkey://directory"); b.Twin = twin },
		"a name spelt otherwise":  func(b *identity.Bundle) { *b = a.bundle("twinkey://operator/%61dmin") },
		"two names":               func(b *identity.Bundle) { *b = a.bundle("twinkey://ca", "twinkey://directory") },
		"no name":                 func(b *identity.Bundle) { *b = a.bundle() },
		"a name that nobody has":  func(b *identity.Bundle) { *b = a.bundle("twinkey://printer/x") },
		"a name with a directory": func(b *identity.Bundle) { *b = a.bundle("twinkey://operator/a/b") },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			b := a.bundle("twinkey://router/ra")
			change(&b)
			if _, err := identity.Create(filepath.Join(t.TempDir(), "identity"), b); err == nil {
				t.Error("it was taken")
			}
		})
	}
}

func TestWhatOthersMayReadIsRefused(t *testing.T) {
	_, dir := create(t, newAuthority(t).bundle("twinkey://router/ra"))
	key := filepath.Join(dir, "current", "control.key")
	for path, loose := range map[string]os.FileMode{key: 0o640, dir: 0o750} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, loose); err != nil {
			t.Fatal(err)
		}
		real, err := filepath.EvalSymlinks(path) // current is a link
		if err != nil {
			t.Fatal(err)
		}
		_, err = identity.Load(dir)
		e, ok := errors.AsType[*identity.PermissionsError](err)
		if want := fmt.Sprintf("chmod %o %s;", st.Mode().Perm(), real); !ok || !errors.Is(err, identity.ErrPermissions) || !strings.HasPrefix(e.Hint(), want) {
			t.Errorf("%s with mode %v: %v, want the hint %q", path, loose, err, want)
		}
		if err := os.Chmod(path, st.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// dial makes one TLS connection between two boxes and returns what each end says.
func dial(t *testing.T, server, client *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			s := tls.Server(c, server)
			if err = s.Handshake(); err == nil {
				_, err = s.Write([]byte("x"))
			}
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	return err, <-done
}

func TestTLSBetweenBoxes(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	dir, path := create(t, a.bundle("twinkey://directory"))
	router, _ := create(t, a.bundle("twinkey://router/ra"))
	stranger, _ := create(t, other.bundle("twinkey://router/ra"))
	if c, s := dial(t, dir.ServerTLS(), router.ClientTLS("twinkey://directory")); c != nil || s != nil {
		t.Fatalf("directory and router: %v, %v", c, s)
	}
	if c, _ := dial(t, dir.ServerTLS(), router.ClientTLS("twinkey://ca")); !errors.Is(c, identity.ErrServer) {
		t.Errorf("the directory posing as the CA: %v", c)
	}
	if c, _ := dial(t, router.ServerTLS(), router.ClientTLS("twinkey://directory")); !errors.Is(c, identity.ErrServer) {
		t.Errorf("a router posing as the directory: %v", c)
	}
	if c, _ := dial(t, dir.ServerTLS(), stranger.ClientTLS("twinkey://directory")); c == nil {
		t.Error("a client with another root believed the server")
	}
	blind := stranger.ClientTLS("twinkey://directory")
	blind.VerifyConnection = nil // it does not look; the server does
	if _, s := dial(t, dir.ServerTLS(), blind); s == nil {
		t.Error("the server believed a client of another root")
	}
	old := router.ClientTLS("twinkey://directory")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if c, _ := dial(t, dir.ServerTLS(), old); c == nil {
		t.Error("TLS 1.2 was spoken")
	}

	// Who slept past expiry loads what it has, to renew it; nobody talks to it.
	late, _ := create(t, a.bundleUntil(time.Now().Add(-time.Minute), "twinkey://directory"))
	if c, _ := dial(t, late.ServerTLS(), router.ClientTLS("twinkey://directory")); c == nil || !strings.Contains(c.Error(), "expired") {
		t.Errorf("a server that has expired: %v", c)
	}
	if _, s := dial(t, dir.ServerTLS(), late.ClientTLS("twinkey://directory")); s == nil || !strings.Contains(s.Error(), "expired") {
		t.Errorf("a client that has expired: %v", s)
	}

	// A renewed certificate serves the next handshake, without a restart, and also where
	// another process has written it.
	server := dir.ServerTLS()
	second, err := identity.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	renewed := a.bundle("twinkey://directory")
	if err := second.Replace(renewed); err != nil {
		t.Fatal(err)
	}
	if err := dir.Reload(); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	client := router.ClientTLS("twinkey://directory")
	verify := client.VerifyConnection
	client.VerifyConnection = func(cs tls.ConnectionState) error {
		seen = cs.PeerCertificates[0].Raw
		return verify(cs)
	}
	if c, s := dial(t, server, client); c != nil || s != nil || string(seen) != string(renewed.TLS.Certificate[0]) {
		t.Errorf("after renewal: %v, %v", c, s)
	}
}

func TestSignHandshakeIsLowS(t *testing.T) {
	id, _ := create(t, newAuthority(t).bundle("twinkey://router/ra"))
	digest := make([]byte, 32)
	for range 32 { // half of all plain signatures have a high s
		sig, err := id.SignHandshake(rand.Reader, digest)
		if err != nil {
			t.Fatal(err)
		}
		pub, _ := id.Bundle().TLS.Leaf.PublicKey.(*ecdsa.PublicKey)
		if !twincert.VerifyLowS(pub, digest, sig) {
			t.Fatalf("%x is no low-S signature", sig)
		}
	}
}
