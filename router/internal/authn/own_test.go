package authn_test

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/trust"
)

// Keys that lie on the user's own machine open with the password and nobody's help, and their certificate is held to
// what a peer would hold it to.
func TestOwn(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(w *world, f *keyfile.File)
		password string
		want     error
	}{
		"the password":           {nil, password, nil},
		"another password":       {nil, "guess", keybundle.ErrOpen},
		"revoked":                {func(w *world, f *keyfile.File) { w.trust.Revoke(f.Certificate.ID()) }, password, twincert.ErrRevoked},
		"no word of revocations": {func(w *world, _ *keyfile.File) { w.trust.Heard(time.Now().Add(-2 * time.Hour)) }, password, trust.ErrStale},
		"of another company":     {func(w *world, _ *keyfile.File) { w.trust.SetAnchors([]*x509.Certificate{newWorld().ca}, nil) }, password, twincert.ErrUnknownAuthority},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			k := w.user("alice")
			cert := must(twincert.Parse(k.der))
			seal := must(keybundle.Derive([]byte(password), w.params)).Seal
			path := filepath.Join(t.TempDir(), "alice.keys")
			err := keyfile.Create(path, &keyfile.File{UID: "alice", CA: "https://ca.example", Certificate: cert, Roots: []*x509.Certificate{w.ca}, Params: w.params,
				Sealed: must(keybundle.Seal(rand.Reader, k.private, seal, k.der))})
			if err != nil {
				t.Fatal(err)
			}
			f := must(keyfile.Load(path))
			if tt.change != nil {
				tt.change(w, f)
			}
			c, err := authn.Own(time.Now(), w.trust, f, must(keybundle.Derive([]byte(tt.password), w.params)).Seal)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("err = %v, want %v", err, tt.want)
			}
			if err != nil {
				if c.Control.Private.Len() != 0 || c.Data.Private.Len() != 0 {
					t.Error("keys came with the failure")
				}
				return
			}
			if c.Certificate.Name != "alice" || c.Control.Public != cert.Keys.Control || c.Data.Public != cert.Keys.Data {
				t.Errorf("credentials of %s do not fit", c.Certificate.Name)
			}
		})
	}
}
