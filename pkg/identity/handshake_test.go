package identity_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"twinkey/pkg/identity"
)

// Replace under load: every handshake shows the old certificate or the new one with its
// own key, the one after Replace the new; both ends replace, and others read.
func TestHandshakesWhileReplaced(t *testing.T) {
	a := newAuthority(t)
	dir, _ := create(t, a.bundle("twinkey://directory"))
	router, _ := create(t, a.bundle("twinkey://router/ra"))
	server, client := dir.ServerTLS(), router.ClientTLS("twinkey://directory")
	type pair struct{ dir, router identity.Bundle }
	pairs := make([]pair, 6)
	for n := range pairs {
		pairs[n] = pair{a.bundle("twinkey://directory"), a.bundle("twinkey://router/ra")}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			b := router.Bundle()
			if b.Twin.Name != router.Name() || router.Role() != "router" || !b.TLS.PrivateKey.(*ecdsa.PrivateKey).PublicKey.Equal(b.TLS.Leaf.PublicKey) {
				t.Error("parts of two identities")
				return
			}
			if err := router.Reload(); err != nil {
				t.Error(err)
				return
			}
			if _, err := router.SignHandshake(rand.Reader, make([]byte, 32)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for _, p := range pairs {
		if err := errors.Join(dir.Replace(p.dir), router.Replace(p.router)); err != nil {
			t.Fatal(err)
		}
		var shown []byte
		seen := client.Clone()
		seen.VerifyConnection = func(cs tls.ConnectionState) error {
			shown = cs.PeerCertificates[0].Raw
			return client.VerifyConnection(cs)
		}
		var asked []byte
		asking := server.Clone()
		asking.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := server.GetConfigForClient(h)
			if err == nil {
				c.VerifyConnection = func(cs tls.ConnectionState) error {
					asked = cs.PeerCertificates[0].Raw
					return nil
				}
			}
			return c, err
		}
		if c, s := dial(t, asking, seen); c != nil || s != nil {
			t.Fatalf("%v, %v", c, s)
		}
		if string(shown) != string(p.dir.TLS.Certificate[0]) || string(asked) != string(p.router.TLS.Certificate[0]) {
			t.Error("a handshake after Replace showed an old certificate")
		}
	}
	close(stop)
	wg.Wait()
}

// Where the roots are replaced, the old ones count no longer, in either direction.
func TestReplacedRootsCount(t *testing.T) {
	a, next := newAuthority(t), newAuthority(t)
	dir, _ := create(t, a.bundle("twinkey://directory"))
	router, _ := create(t, a.bundle("twinkey://router/ra"))
	server, client := dir.ServerTLS(), router.ClientTLS("twinkey://directory")
	if err := dir.Replace(next.bundle("twinkey://directory")); err != nil {
		t.Fatal(err)
	}
	if c, s := dial(t, server, client); c == nil || s == nil {
		t.Errorf("old and new roots: %v, %v", c, s)
	}
	if err := router.Replace(next.bundle("twinkey://router/ra")); err != nil {
		t.Fatal(err)
	}
	if c, s := dial(t, server, client); c != nil || s != nil {
		t.Errorf("new roots at both ends: %v, %v", c, s)
	}
}

// The server's refusals, seen by a client that would go along with everything.
func TestServerRefuses(t *testing.T) {
	a := newAuthority(t)
	dir, _ := create(t, a.bundle("twinkey://directory"))
	router, _ := create(t, a.bundle("twinkey://router/ra"))
	naive := func(version uint16, certs ...tls.Certificate) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, MaxVersion: version, Certificates: certs} //nolint:gosec // it goes along with everything
	}
	b := router.Bundle()
	tests := []struct {
		name   string
		client *tls.Config
		says   string // "": it talks
	}{
		{"TLS 1.2", naive(tls.VersionTLS12), "unsupported versions"},
		{"a twin certificate as the client's", naive(0, tls.Certificate{Certificate: [][]byte{b.Twin.Raw}, PrivateKey: b.TLS.PrivateKey}), "incompatible key usage"},
		{"another's certificate without its key", naive(0, tls.Certificate{Certificate: b.TLS.Certificate, PrivateKey: newKey(t)}), "invalid signature"},
		{"no certificate: the handler's to refuse", naive(0), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, s := dial(t, dir.ServerTLS(), tt.client); (s == nil) != (tt.says == "") || s != nil && !strings.Contains(s.Error(), tt.says) {
				t.Errorf("the server says %v", s)
			}
		})
	}
}

// What lies in a file is what was written, or the identity is refused.
func TestFilesThatWereTamperedWith(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	_, foreign := create(t, other.bundle("twinkey://router/ra"))
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(foreign, "current", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	append1 := func(more string) func([]byte) []byte { return func(b []byte) []byte { return append(b, more...) } }
	tests := []struct {
		name, file string
		change     func([]byte) []byte
	}{
		{"another root", "root.pem", func([]byte) []byte { return read("root.pem") }},
		{"no root", "root.pem", func([]byte) []byte { return nil }},
		{"another TLS key", "tls.key", func([]byte) []byte { return read("tls.key") }},
		{"another TLS certificate", "tls.pem", func([]byte) []byte { return read("tls.pem") }},
		{"another twin certificate", "twin.pem", func([]byte) []byte { return read("twin.pem") }},
		{"another control key", "control.key", func([]byte) []byte { return read("control.key") }},
		{"another data key", "data.key", func([]byte) []byte { return read("data.key") }},
		{"an empty key", "data.key", func([]byte) []byte { return nil }},
		{"two keys", "data.key", func(b []byte) []byte { return append(b, b...) }},
		{"two TLS keys", "tls.key", func(b []byte) []byte { return append(b, b...) }},
		{"text behind a key", "tls.key", append1("password: hunter2\n")},
		{"a key among certificates", "root.pem", func(b []byte) []byte { return append(b, read("tls.key")...) }},
		{"half a certificate", "tls.pem", func(b []byte) []byte { return b[:len(b)/2] }},
		{"no PEM", "twin.pem", func([]byte) []byte { return []byte("twin") }},
		{"two megabytes", "root.pem", func([]byte) []byte { return make([]byte, 2<<20) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, dir := create(t, a.bundle("twinkey://router/ra"))
			was := id.Bundle().Twin.ID()
			file := filepath.Join(dir, "current", tt.file)
			b, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(file, tt.change(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := identity.Load(dir); err == nil {
				t.Error("it was loaded")
			} else if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows what lies in a key file: %v", err)
			}
			if err := id.Reload(); err == nil || id.Bundle().Twin.ID() != was {
				t.Errorf("a running box took it: %v", err)
			}
		})
	}
	for _, file := range []string{"root.pem", "intermediates.pem", "tls.pem", "tls.key", "control.key", "data.key"} {
		_, dir := create(t, a.bundle("twinkey://router/ra"))
		if err := os.Remove(filepath.Join(dir, "current", file)); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Load(dir); err == nil {
			t.Errorf("loaded without %s", file)
		}
	}
}
