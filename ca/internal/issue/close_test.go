package issue_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
)

// session is a user's certificate and what a router that was released its data key proves at the end.
type session struct {
	cert *twincert.Certificate
	data *ecdh.PrivateKey
}

// login is what a router gets of the directory.
func (w *world) login(uid string) session {
	w.Helper()
	w.remote.mu.Lock()
	b := w.remote.bundles[uid]
	der := w.remote.certs[b.ID]
	w.remote.mu.Unlock()
	keys, err := keybundle.Open(b.Sealed, w.user(uid).Seal, der)
	if err != nil {
		w.Fatal(err)
	}
	c, err := twincert.Parse(der)
	if err != nil {
		w.Fatal(err)
	}
	k, err := ecdh.X25519().NewPrivateKey(keys.Data.Bytes())
	if err != nil {
		w.Fatal(err)
	}
	return session{c, k}
}

func (w *world) ended(router string, s session) caclient.Closed {
	w.Helper()
	ca, err := w.desk.CloseKey()
	if err != nil {
		w.Fatal(err)
	}
	proof, err := caclient.CloseProof(s.data, ca, router, s.cert.Raw)
	if err != nil {
		w.Fatal(err)
	}
	return caclient.Closed{Serial: s.cert.Serial.String(), Proof: proof}
}

// router enrols one with a scope and returns its TLS certificate.
func (w *world) router(name string, scope ...string) *x509.Certificate {
	w.Helper()
	tok, _, err := w.desk.Token(issue.TokenRequest{Role: issue.RoleRouter, Name: name, TTL: time.Hour, Scope: scope})
	if err != nil {
		w.Fatal(err)
	}
	got, err := w.desk.Enroll(w.Context(), tok, w.box())
	if err != nil {
		w.Fatal(err)
	}
	return got.TLS[0]
}

func (w *world) revoked(s session) (ledgerToo, crl, remote bool) {
	w.Helper()
	c, err := w.desk.Certificate(s.cert.Serial.String())
	if err != nil {
		w.Fatal(err)
	}
	l, err := w.auth.CRL()
	if err != nil {
		w.Fatal(err)
	}
	list, err := twincert.NewCRL(l.DER, w.h.Intermediate, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	return !c.Revoked.IsZero(), list.Contains(s.cert.ID()), w.remote.revoked[s.cert.ID()]
}

// The end of a session takes the certificate and leaves the user: everywhere, with the router as the one who asked, and
// however often it is told.
func TestClose(t *testing.T) {
	w := newWorld(t)
	leaf := w.router("berlin", "group:staff")
	for _, uid := range []string{"alice", "bob"} {
		if err := w.addUser(uid); err != nil {
			t.Fatal(err)
		}
	}
	alice, bob := w.login("alice"), w.login("bob")
	for range 2 {
		refused, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{w.ended("berlin", alice)})
		if err != nil || len(refused) > 0 {
			t.Fatalf("%v, %v", refused, err)
		}
	}
	if a, b, c := w.revoked(alice); !a || !b || !c {
		t.Errorf("alice: ledger %v, CRL %v, directory %v", a, b, c)
	}
	if a, b, c := w.revoked(bob); a || b || c {
		t.Error("bob's certificate went with hers")
	}
	asked := 0
	for _, c := range w.remote.asked {
		for _, r := range c.Revocations {
			asked++
			if c.Actor != "twinkey://router/berlin" || r.Name != "alice" || r.Role != twincert.User || !strings.Contains(r.Reason, "router berlin") || !strings.Contains(r.Reason, "revoke-on-close") {
				t.Errorf("for %s: %+v", c.Actor, r)
			}
		}
	}
	if asked != 1 {
		t.Errorf("the directory was told %d times", asked)
	}
	if w.remote.users["alice"].Disabled {
		t.Error("her login is closed for good")
	}
	// She is still a user, and gets other keys as before.
	if _, err := w.desk.RenewUser(t.Context(), "operator:test", w.user("alice")); err != nil {
		t.Fatal(err)
	}
	again := w.login("alice")
	if a, b, c := w.revoked(again); a || b || c {
		t.Error("the new certificate is revoked")
	}
	// The old proof is not one for the new certificate.
	old := w.ended("berlin", alice)
	old.Serial = again.cert.Serial.String()
	if refused, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{old}); err != nil || len(refused) != 1 {
		t.Errorf("%v, %v", refused, err)
	}
}

// Each row is a request in which one thing is wrong: nothing is revoked, and the router hears the same of all.
func TestCloseRefused(t *testing.T) {
	for name, spoil := range map[string]func(w *world, s session) caclient.Closed{
		"no proof": func(w *world, s session) caclient.Closed {
			return caclient.Closed{Serial: s.cert.Serial.String(), Proof: make([]byte, 32)}
		},
		"another router's proof":   func(w *world, s session) caclient.Closed { return w.ended("paris", s) },
		"by a key that it made up": func(w *world, s session) caclient.Closed { return w.ended("berlin", session{s.cert, w.x25519()}) },
		"a serial of nobody": func(w *world, s session) caclient.Closed {
			return caclient.Closed{Serial: "12345", Proof: w.ended("berlin", s).Proof}
		},
		"its own certificate":     func(w *world, s session) caclient.Closed { return w.ofRouter("berlin", s) },
		"another router's":        func(w *world, s session) caclient.Closed { return w.ofRouter("paris", s) },
		"a user of another group": func(w *world, _ session) caclient.Closed { return w.ended("berlin", w.login("carol")) },
		"another user's, by the data key of this one": func(w *world, s session) caclient.Closed {
			return caclient.Closed{Serial: w.login("bob").cert.Serial.String(), Proof: w.ended("berlin", s).Proof}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			leaf := w.router("berlin", "group:staff")
			w.router("paris", "*")
			for _, uid := range []string{"alice", "bob"} {
				if err := w.addUser(uid); err != nil {
					t.Fatal(err)
				}
			}
			carol := w.user("carol")
			carol.Group = "sales"
			if _, err := w.desk.AddUser(t.Context(), "operator:test", carol); err != nil {
				t.Fatal(err)
			}
			told := len(w.remote.asked)
			c := spoil(w, w.login("alice"))
			refused, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{c})
			if err != nil || !slices.Equal(refused, []string{c.Serial}) {
				t.Errorf("refused %v, %v", refused, err)
			}
			if len(w.remote.revoked) > 0 || len(w.remote.asked) != told || len(w.pending()) > 0 {
				t.Error("something was revoked")
			}
			// It does not keep the others from being revoked.
			good := w.ended("berlin", w.login("bob"))
			if refused, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{c, good}); err != nil || len(refused) != 1 {
				t.Errorf("beside a good one: %v, %v", refused, err)
			}
			if _, crl, _ := w.revoked(w.login("alice")); crl {
				t.Error("alice's certificate is revoked")
			}
			if _, crl, _ := w.revoked(w.login("bob")); !crl {
				t.Error("bob's is not")
			}
		})
	}
}

func (w *world) x25519() *ecdh.PrivateKey {
	w.Helper()
	k, err := ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{5}, 32))
	if err != nil {
		w.Fatal(err)
	}
	return k
}

// ofRouter names a router's twin certificate.
func (w *world) ofRouter(name string, s session) caclient.Closed {
	w.Helper()
	c := w.ended("berlin", s)
	err := w.desk.View(func(tx *ledger.Tx) error {
		r, _, err := tx.Router(name)
		c.Serial = r.Twin
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// Who may not ask at all.
func TestCloseByWhom(t *testing.T) {
	w := newWorld(t)
	leaf, other := w.router("berlin", "*"), w.router("paris", "*")
	if err := w.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	s := w.login("alice")
	ask := func(name string, leaf *x509.Certificate) error {
		_, err := w.desk.Close(t.Context(), name, leaf, []caclient.Closed{w.ended(name, s)})
		return err
	}
	if err := ask("berlin", other); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("with another's certificate: %v", err)
	}
	if err := ask("rome", leaf); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("under another name: %v", err)
	}
	now := w.now
	w.now = leaf.NotAfter.Add(time.Hour)
	if err := ask("berlin", leaf); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("with an expired certificate: %v", err)
	}
	w.now = now
	if _, err := w.desk.RevokeRouter(t.Context(), "operator:test", "berlin", "stolen"); err != nil {
		t.Fatal(err)
	}
	if err := ask("berlin", leaf); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("a revoked router: %v", err)
	}
	if a, b, c := w.revoked(s); a || b || c {
		t.Error("alice's certificate is revoked")
	}
}

// Once the CA has it the revocation is carried out, wherever the CA is killed; until then the router asks again.
func TestCloseKilledAnywhere(t *testing.T) {
	for _, step := range []string{issue.StepJournalled, issue.StepPrepared, issue.StepApplied, issue.StepRecorded, issue.StepDone} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			leaf := w.router("berlin", "group:staff")
			if err := w.addUser("alice"); err != nil {
				t.Fatal(err)
			}
			s := w.login("alice")
			closed := []caclient.Closed{w.ended("berlin", s)}
			w.die("ending sessions at router berlin: "+step, func() { _, _ = w.desk.Close(t.Context(), "berlin", leaf, closed) })
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if a, b, c := w.revoked(s); !a || !b || !c || len(w.pending()) > 0 {
				t.Errorf("ledger %v, CRL %v, directory %v, pending %v", a, b, c, w.pending())
			}
			if refused, err := w.desk.Close(t.Context(), "berlin", leaf, closed); err != nil || len(refused) > 0 {
				t.Errorf("asked again: %v, %v", refused, err)
			}
		})
	}
}

// The directory is away: the CA takes the request, its CRL says so, and it tells the directory by itself.
func TestCloseWhileTheDirectoryIsAway(t *testing.T) {
	w := newWorld(t)
	leaf := w.router("berlin", "group:staff")
	if err := w.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	s := w.login("alice")
	w.remote.down = true
	if refused, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{w.ended("berlin", s)}); err != nil || len(refused) > 0 {
		t.Fatalf("%v, %v", refused, err)
	}
	if _, crl, remote := w.revoked(s); !crl || remote {
		t.Errorf("CRL %v, directory %v", crl, remote)
	}
	w.remote.down = false
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if _, _, remote := w.revoked(s); !remote {
		t.Error("the directory was not told")
	}
}

// The directory has a certificate of which the CA does not know yet that it has it: come again.
func TestCloseOfWhatIsUndecided(t *testing.T) {
	w := newWorld(t)
	leaf := w.router("berlin", "group:staff")
	w.remote.refuse = func(c client.Change) error { w.remote.deaf = len(c.Users) > 0; return nil }
	if err := w.addUser("alice"); !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v", err)
	}
	w.remote.deaf, w.remote.refuse = false, nil
	s := w.login("alice")
	w.remote.down = true
	if _, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{w.ended("berlin", s)}); !errors.Is(err, issue.ErrUndecided) {
		t.Errorf("got %v, want undecided", err)
	}
	w.remote.down = false
	if refused, err := w.desk.Close(t.Context(), "berlin", leaf, []caclient.Closed{w.ended("berlin", s)}); err != nil || len(refused) > 0 {
		t.Errorf("later: %v, %v", refused, err)
	}
	if a, b, c := w.revoked(s); !a || !b || !c {
		t.Errorf("ledger %v, CRL %v, directory %v", a, b, c)
	}
}
