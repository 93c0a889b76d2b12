package voluntary

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
	"twinkey/router/internal/policy"
)

// successor certifies a user's data key anew, beside another control key, for so long.
func (a *authority) successor(of *twincert.Certificate, life time.Duration) *twincert.Certificate {
	return a.regrouped(of, of.Group, life)
}

// regrouped is successor, in another group.
func (a *authority) regrouped(of *twincert.Certificate, group string, life time.Duration) *twincert.Certificate {
	tmpl := twincert.Template{Role: twincert.User, Name: of.Name, Group: group, Profile: twincert.Paper, Serial: must(rand.Int(rand.Reader, big.NewInt(1<<60))),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life)}
	tmpl.Keys.Control = [32]byte(must(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey().Bytes())
	tmpl.Keys.Data = of.Keys.Data
	return must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, a.cert, a.key))))
}

// loggedIn is what the engine says of a guest.
func (w *world) loggedIn(a netip.Addr) engine.User {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.guests[a]
	return engine.User{Key: links.Key{User: g.Certificate.Name}, Certificate: g.Certificate, Guest: g}
}

// A newer certificate goes to the client, whatever watch it has, and what is signed from then on is for that certificate; the session lasts
// as long as it does. What does not follow on the old one is not taken.
func TestSuccession(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c, adm := w.login("alice", 1)
	alice := w.users["alice"]
	words, _ := watching(t, c, adm.Token)
	heard(t, words, "what there is", func(w Word) bool {
		if w.Successor != nil {
			t.Errorf("a successor before there is one")
		}
		return true
	})
	u := w.loggedIn(adm.Address)
	for name, bad := range map[string]*twincert.Certificate{
		"another data key": w.ca.user("alice"),
		"somebody else's":  w.ca.successor(w.users["bob"], time.Minute),
		"another CA's":     newAuthority("other", nil).successor(alice, time.Minute),
	} {
		if err := w.Server.Succeed(ctx, u, client.Successor{Certificate: bad.Raw}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	next := w.ca.successor(alice, 55*time.Minute)
	told := client.Successor{Certificate: next.Raw, Sealed: []byte("sealed")}
	if err := w.Server.Succeed(ctx, u, told); err != nil {
		t.Fatal(err)
	}
	is := func(w Word) bool {
		return w.Successor != nil && bytes.Equal(w.Successor.Certificate, next.Raw) && string(w.Successor.Sealed) == "sealed"
	}
	heard(t, words, "the newer certificate", is)
	hash := [32]byte{1, 2, 3}
	v, _, err := c.Sign(ctx, adm.Token, hash)
	if err != nil {
		t.Fatal(err)
	}
	key := must(x509.ParseCertificate(v.Router)).PublicKey.(*ecdsa.PublicKey)
	for cert, want := range map[*twincert.Certificate]bool{next: true, alice: false} {
		d := handshake.Statement{Hash: hash, Control: cert.Keys.Control, Certificate: cert.Raw, Bound: v.Bound}.Digest()
		if twincert.VerifyLowS(key, d[:], v.Signature) != want {
			t.Errorf("the signature is for certificate %s: %v", cert.Serial, !want)
		}
	}
	e, _ := w.desk.at(adm.Address)
	if _, until, _ := w.desk.present(e); !until.Equal(next.NotAfter) {
		t.Errorf("the session lasts until %s, the certificate until %s", until, next.NotAfter)
	}
	if err := w.Server.Succeed(ctx, u, told); !errors.Is(err, engine.ErrGone) {
		t.Errorf("again: %v", err)
	}
	again, _ := watching(t, c, adm.Token) // the client has lost its watch, and maybe the word
	heard(t, again, "the newer certificate once more", is)
	if err := c.Logout(ctx, adm.Token); err != nil {
		t.Fatal(err)
	}
	u.Certificate = next
	if err := w.Server.Succeed(ctx, u, told); !errors.Is(err, engine.ErrGone) {
		t.Errorf("after the logout: %v", err)
	}
}

// The policy's session time is not prolonged by a newer certificate.
func TestSuccessionKeepsTheSessionTime(t *testing.T) {
	w := newWorld(t)
	w.terms.Session = 10 * time.Minute
	_, adm := w.login("alice", 1)
	u := w.loggedIn(adm.Address)
	if err := w.Server.Succeed(t.Context(), u, client.Successor{Certificate: w.ca.successor(w.users["alice"], 55*time.Minute).Raw}); err != nil {
		t.Fatal(err)
	}
	e, _ := w.desk.at(adm.Address)
	if _, until, _ := w.desk.present(e); !until.Equal(adm.Until) {
		t.Errorf("the session lasted until %s and lasts until %s", adm.Until, until)
	}
}

// The session time of the group that a source puts a user into counts from the login on. It shortens what bounded the session before, and prolongs nothing; who
// has been there for longer leaves.
func TestSessionTimeOfAnotherGroup(t *testing.T) {
	w := newWorld(t)
	_, adm := w.login("alice", 1)
	alice := w.users["alice"]
	e, _ := w.desk.at(adm.Address)
	into := func(group string, session time.Duration) (until time.Time) {
		t.Helper()
		w.mu.Lock()
		w.terms.Session = session
		w.mu.Unlock()
		alice = w.ca.regrouped(alice, group, 55*time.Minute)
		if err := w.Server.Succeed(t.Context(), w.loggedIn(adm.Address), client.Successor{Certificate: alice.Raw}); err != nil {
			t.Fatal(err)
		}
		_, until, _ = w.desk.present(e)
		return until
	}
	if until := into("others", 0); !until.Equal(alice.NotAfter) {
		t.Errorf("without a session time it lasts until %s, the certificate until %s", until, alice.NotAfter)
	}
	for _, session := range []time.Duration{10 * time.Minute, 20 * time.Minute, 0} {
		if until, want := into("staff", session), e.since.Add(10*time.Minute); !until.Equal(want) {
			t.Errorf("session time %s: it lasts until %s, want %s", session, until, want)
		}
	}
	into("others", time.Nanosecond)
	select {
	case <-e.gone:
	case <-time.After(5 * time.Second):
		t.Error("the session goes on")
	}
}

// Who logs in after the CA has certified them anew gets bundle and successor, and the session stands on the latter.
func TestLoginWithASuccessor(t *testing.T) {
	w := newWorld(t)
	alice := w.users["alice"]
	next := w.ca.successor(alice, 55*time.Minute)
	w.mu.Lock()
	w.successor = &client.Successor{Certificate: next.Raw, Sealed: []byte("sealed")}
	w.mu.Unlock()
	w.trust.Revoke(alice.ID()) // which counts no more
	_, adm := w.login("alice", 1)
	if !bytes.Equal(adm.Certificate, alice.Raw) || adm.Successor == nil || !bytes.Equal(adm.Successor.Certificate, next.Raw) || !adm.Until.Equal(next.NotAfter) {
		t.Errorf("admission %+v", adm)
	}
	if u := w.loggedIn(adm.Address); u.Certificate.ID() != next.ID() {
		t.Errorf("the guest is on certificate %s", u.Certificate.Serial)
	}
}

// A source puts a user who is logged in into another group: with the newer certificate the client is told the rules of that one, and those of the one before, until it
// has gone over; later that group's alone. Where the hall lets them in no more by it, the session ends.
func TestAnotherGroup(t *testing.T) {
	w := newWorld(t)
	c, adm := w.login("alice", 1)
	words, ended := watching(t, c, adm.Token)
	heard(t, words, "rules", func(w Word) bool { return w.Rules != nil })
	groups := func(r *[]policy.Rule) (all []string) {
		for _, one := range *r {
			all = append(all, one.Groups...)
		}
		return all
	}
	others := w.ca.regrouped(w.users["alice"], "others", 55*time.Minute)
	if err := w.Server.Succeed(t.Context(), w.loggedIn(adm.Address), client.Successor{Certificate: others.Raw}); err != nil {
		t.Fatal(err)
	}
	next := heard(t, words, "the newer certificate", func(w Word) bool { return w.Successor != nil })
	if next.Rules == nil || !slices.Equal(groups(next.Rules), []string{"others", "others", "staff"}) {
		t.Errorf("rules %+v", next.Rules)
	}
	w.Policy(must(policy.New([]policy.Rule{{Groups: []string{"staff", "others"}}})))
	if next = heard(t, words, "another policy", func(w Word) bool { return w.Rules != nil }); !slices.Equal(groups(next.Rules), []string{"others"}) {
		t.Errorf("rules %+v", next.Rules)
	}
	w.mu.Lock()
	w.welcome = errors.New("no rule is for strangers")
	w.mu.Unlock()
	if err := w.Server.Succeed(t.Context(), w.loggedIn(adm.Address), client.Successor{Certificate: w.ca.regrouped(others, "strangers", 55*time.Minute).Raw}); !errors.Is(err, engine.ErrGone) {
		t.Errorf("in a group without a rule: %v", err)
	}
	if last := heard(t, words, "the end", func(w Word) bool { return w.Ended != "" }); !strings.Contains(last.Ended, "strangers") {
		t.Errorf("ended: %q", last.Ended)
	}
	if err := <-ended; err != nil || len(w.guests) != 0 {
		t.Errorf("%v, %d guests", err, len(w.guests))
	}
}
