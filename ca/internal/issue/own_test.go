package issue_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// machine is a user's own, which has proved two keys.
func (w *world) machine(uid string) issue.Keys {
	w.Helper()
	k := issue.Keys{User: uid}
	for _, p := range []*[32]byte{&k.Twin.Control, &k.Twin.Data} {
		x, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			w.Fatal(err)
		}
		*p = [32]byte(x.PublicKey().Bytes())
	}
	return k
}

func (w *world) userToken(uid string) string {
	w.Helper()
	t, _, err := w.desk.Token(issue.TokenRequest{Role: issue.RoleUser, Name: uid, Group: "staff", TTL: time.Hour})
	if err != nil {
		w.Fatal(err)
	}
	return t
}

func (w *world) enrol(uid string) (*twincert.Certificate, issue.Keys) {
	w.Helper()
	k := w.machine(uid)
	got, err := w.desk.Enroll(w.Context(), w.userToken(uid), k)
	if err != nil {
		w.Fatal(err)
	}
	c, err := twincert.Parse(got.Twin)
	if err != nil {
		w.Fatal(err)
	}
	return c, k
}

func (w *world) ledgerUser(uid string) (u ledger.User) {
	w.Helper()
	err := w.desk.View(func(tx *ledger.Tx) (err error) {
		u, _, err = tx.User(uid)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return u
}

// Certificate and user are in the directory, and no sealed keys and no password: nobody but the user has them. The group is
// that of the others by its name, and its control key is not theirs.
func TestOwnKeys(t *testing.T) {
	w := newWorld(t)
	c, k := w.enrol("alice")
	if c.Name != "alice" || c.Group != "staff" || c.Role != twincert.User || c.Keys != k.Twin {
		t.Errorf("certificate %+v", c)
	}
	u, ok := w.remote.users["alice"]
	_, sealed := w.remote.bundles["alice"]
	if _, known := w.remote.certs[c.ID()]; !ok || !u.Own || u.Group != "staff" || len(u.Verifier) > 0 || len(u.Params.Salt) > 0 || sealed || !known {
		t.Errorf("the directory has %+v, sealed keys: %v", u, sealed)
	}
	if u := w.ledgerUser("alice"); !u.Own || u.Serial != c.Serial.String() {
		t.Errorf("the ledger has %+v", u)
	}
	bob, err := w.desk.AddUser(t.Context(), "operator:test", w.user("bob"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := twincert.Parse(bob.DER)
	if err != nil || b.Keys.Control == c.Keys.Control || w.ledgerUser("bob").Own {
		t.Errorf("bob has her control key (%v)", err)
	}
	if done, err := w.desk.RevokeUser(t.Context(), "operator:test", "alice", "left"); err != nil || done.Certificates != 1 || !w.remote.revoked[c.ID()] {
		t.Errorf("revoking: %+v, %v", done, err)
	}
	if u := w.remote.users["alice"]; !u.Disabled || !u.Own {
		t.Errorf("afterwards the directory has %+v", u)
	}
	// The name is free again, for keys of either kind.
	if _, err := w.desk.Enroll(t.Context(), w.userToken("alice"), w.machine("alice")); err != nil {
		t.Error(err)
	}
}

func TestOwnKeysKilledAnywhere(t *testing.T) {
	for _, step := range []string{issue.StepJournalled, issue.StepApplied, issue.StepRecorded, issue.StepDone} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			tok, keys := w.userToken("alice"), w.machine("alice")
			w.die("enrolling user alice: "+step, func() { _, _ = w.desk.Enroll(t.Context(), tok, keys) })
			got, err := w.desk.Enroll(t.Context(), tok, keys)
			if err != nil {
				t.Fatal(err)
			}
			c, err := twincert.Parse(got.Twin)
			if err != nil || c.Keys != keys.Twin || len(got.TLS) > 0 || len(w.remote.certs) != 1 || !w.remote.users["alice"].Own {
				t.Errorf("%v; the directory has %d certificates", err, len(w.remote.certs))
			}
			if _, err := w.desk.Enroll(t.Context(), tok, w.machine("alice")); !errors.Is(err, issue.ErrToken) {
				t.Errorf("another machine with the same token: %v", err)
			}
		})
	}
}

// Each row is an enrolment in which one thing is wrong.
func TestOwnKeysRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		token func(w *world) string
		keys  func(w *world) issue.Keys
		want  error
	}{
		"another user's token":   {func(w *world) string { return w.userToken("bob") }, nil, issue.ErrInvalid},
		"a router's token":       {func(w *world) string { return w.token("berlin") }, nil, issue.ErrInvalid},
		"a user's, for a router": {nil, func(w *world) issue.Keys { return w.box() }, issue.ErrInvalid},
		"expired": {func(w *world) string {
			tok := w.userToken("alice")
			w.now = w.now.Add(2 * time.Hour)
			return tok
		}, nil, issue.ErrToken},
		"added meanwhile": {func(w *world) string {
			tok := w.userToken("alice")
			if err := w.addUser("alice"); err != nil {
				w.Fatal(err)
			}
			return tok
		}, nil, issue.ErrExists},
		"enrolled meanwhile": {func(w *world) string {
			tok := w.userToken("alice")
			w.enrol("alice")
			return tok
		}, nil, issue.ErrExists},
		"the group's control key": {nil, func(w *world) issue.Keys {
			rec, err := w.desk.AddUser(w.Context(), "operator:test", w.user("bob"))
			if err != nil {
				w.Fatal(err)
			}
			bob, err := twincert.Parse(rec.DER)
			if err != nil {
				w.Fatal(err)
			}
			k := w.machine("alice")
			k.Twin.Control = bob.Keys.Control
			return k
		}, issue.ErrInvalid},
		"directory away": {func(w *world) string {
			tok := w.userToken("alice")
			w.remote.down = true
			return tok
		}, nil, issue.ErrNothingIssued},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			keys := w.machine("alice")
			if tt.keys != nil {
				keys = tt.keys(w)
			}
			tok := ""
			if tt.token != nil {
				tok = tt.token(w)
			} else {
				tok = w.userToken("alice")
			}
			certs := len(w.remote.certs)
			if _, err := w.desk.Enroll(t.Context(), tok, keys); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if len(w.remote.certs) != certs || len(w.pending()) > 0 {
				t.Error("something was issued")
			}
		})
	}
}

func TestUserTokensThatAreNotMade(t *testing.T) {
	w := newWorld(t)
	if err := w.addUser("bob"); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]issue.TokenRequest{
		"no group":          {Role: issue.RoleUser, Name: "alice"},
		"no name":           {Role: issue.RoleUser, Group: "staff"},
		"bad name":          {Role: issue.RoleUser, Name: "A b", Group: "staff"},
		"with a scope":      {Role: issue.RoleUser, Name: "alice", Group: "staff", Scope: []string{"*"}},
		"with hosts":        {Role: issue.RoleUser, Name: "alice", Group: "staff", Hosts: []string{"a.example"}},
		"a router's group":  {Role: issue.RoleRouter, Name: "berlin", Group: "staff"},
		"for ever":          {Role: issue.RoleUser, Name: "alice", Group: "staff", TTL: 365 * day},
		"somebody is there": {Role: issue.RoleUser, Name: "bob", Group: "staff"},
	} {
		if r.TTL == 0 {
			r.TTL = time.Hour
		}
		if _, _, err := w.desk.Token(r); !errors.Is(err, issue.ErrInvalid) && !errors.Is(err, issue.ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenewOwn(t *testing.T) {
	w := newWorld(t)
	old, _ := w.enrol("alice")
	k := w.machine("alice")
	k.Old = old
	got, err := w.desk.RenewOwn(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := twincert.Parse(got.Twin)
	if err != nil || c.Keys != k.Twin || c.Group != "staff" || c.ID() == old.ID() || w.ledgerUser("alice").Serial != c.Serial.String() || !w.remote.users["alice"].Own {
		t.Errorf("%+v, %v", c, err)
	}
	if _, sealed := w.remote.bundles["alice"]; sealed || w.remote.revoked[old.ID()] {
		t.Error("there are sealed keys, or the old certificate is revoked")
	}
	// The operator's renewal would put keys into the directory that are not the user's own.
	if _, err := w.desk.RenewUser(t.Context(), "operator:test", w.user("alice")); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("renewed by the operator: %v", err)
	}
}

// Each row is a renewal by somebody who may not.
func TestRenewOwnRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world, k *issue.Keys)
		want   error
	}{
		"no old certificate": {func(_ *world, k *issue.Keys) { k.Old = nil }, issue.ErrInvalid},
		"somebody else's":    {func(_ *world, k *issue.Keys) { k.User = "bob" }, issue.ErrInvalid},
		"revoked": {func(w *world, _ *issue.Keys) {
			_, _ = w.desk.RevokeUser(w.Context(), "operator:test", "alice", "left")
		}, issue.ErrRevoked},
		"revoked, and enrolled anew elsewhere": {func(w *world, _ *issue.Keys) {
			_, _ = w.desk.RevokeUser(w.Context(), "operator:test", "alice", "stolen")
			w.enrol("alice")
		}, issue.ErrRevoked},
		"too long expired": {func(w *world, k *issue.Keys) { w.now = k.Old.NotAfter.Add(31 * day) }, issue.ErrRevoked},
		"renewed two days ago": {func(w *world, k *issue.Keys) {
			next := w.machine("alice")
			next.Old = k.Old
			if _, err := w.desk.RenewOwn(w.Context(), next); err != nil {
				w.Fatal(err)
			}
			w.now = w.now.Add(2 * day)
		}, issue.ErrRevoked},
		"keys of the CA's": {func(w *world, k *issue.Keys) {
			rec, err := w.desk.AddUser(w.Context(), "operator:test", w.user("bob"))
			if err != nil {
				w.Fatal(err)
			}
			if k.Old, err = twincert.Parse(rec.DER); err != nil {
				w.Fatal(err)
			}
			k.User = "bob"
		}, issue.ErrRevoked},
		"forged, with a serial of ours": {func(_ *world, k *issue.Keys) {
			forged := *k.Old
			forged.Raw = bytes.Clone(k.Old.Raw)
			forged.Raw[len(forged.Raw)-1] ^= 1
			k.Old = &forged
		}, issue.ErrRevoked},
		"directory away": {func(w *world, _ *issue.Keys) { w.remote.down = true }, client.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old, _ := w.enrol("alice")
			k := w.machine("alice")
			k.Old = old
			tt.change(w, &k)
			certs := len(w.remote.certs)
			if _, err := w.desk.RenewOwn(t.Context(), k); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if len(w.remote.certs) != certs {
				t.Error("something was issued")
			}
		})
	}
	t.Run("renewed an hour ago, and the answer was lost", func(t *testing.T) {
		w := newWorld(t)
		k := w.machine("alice")
		k.Old, _ = w.enrol("alice")
		w.now = w.now.Add(20 * day)
		if _, err := w.desk.RenewOwn(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Hour)
		again := w.machine("alice")
		again.Old = k.Old
		if _, err := w.desk.RenewOwn(t.Context(), again); err != nil {
			t.Error(err)
		}
	})
	t.Run("expired within the grace", func(t *testing.T) {
		w := newWorld(t)
		old, _ := w.enrol("alice")
		k := w.machine("alice")
		k.Old = old
		w.now = old.NotAfter.Add(day)
		if _, err := w.desk.RenewOwn(t.Context(), k); err != nil {
			t.Error(err)
		}
	})
}

// A token that was not used before its user was revoked, or ended at the source, is good for nothing afterwards; one that the
// operator makes then is.
func TestTokensOfWhoIsRevoked(t *testing.T) {
	for name, end := range map[string]func(w *world) error{
		"by the operator": func(w *world) error {
			_, err := w.desk.RevokeUser(w.Context(), "operator:test", "alice", "left")
			return err
		},
		"by the source": func(w *world) error {
			_, err := w.desk.EndUser(w.Context(), "corp", "alice", "disabled")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tok, bobs := w.userToken("alice"), w.userToken("bob")
			r := w.user("alice")
			if name == "by the source" {
				r.Source = "corp"
			}
			if _, err := w.desk.AddUser(t.Context(), "x", r); err != nil {
				t.Fatal(err)
			}
			if err := end(w); err != nil {
				t.Fatal(err)
			}
			was := w.ledgerUser("alice")
			if _, err := w.desk.Enroll(t.Context(), tok, w.machine("alice")); !errors.Is(err, issue.ErrToken) {
				t.Errorf("with a token of before: %v", err)
			}
			if u := w.ledgerUser("alice"); u.Active() || u.Own || u.Source != was.Source {
				t.Errorf("the ledger has %+v", u)
			}
			if _, err := w.desk.Enroll(t.Context(), bobs, w.machine("bob")); err != nil {
				t.Errorf("another user's token: %v", err)
			}
			w.enrol("alice")
		})
	}
}

// While an enrolment is not decided the token is bound to it: if nothing comes of it, it does not come free for somebody who was
// barred meanwhile.
func TestUndecidedTokenOfWhoIsBarred(t *testing.T) {
	w := waitingUpTo(t, time.Second)
	r := w.user("alice")
	r.Source = "corp"
	if _, err := w.desk.AddUser(t.Context(), "source:corp", r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.desk.EndUser(t.Context(), "corp", "alice", "disabled"); err != nil {
		t.Fatal(err)
	}
	tok, k := w.userToken("alice"), w.machine("alice")
	w.remote.mute = true
	if _, err := w.desk.Enroll(t.Context(), tok, k); !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v", err)
	}
	if _, err := w.desk.RevokeUser(t.Context(), "operator:test", "alice", "stolen"); err != nil {
		t.Fatal(err)
	}
	w.remote.mute, w.remote.lost = false, nil // it never arrives, and the tombstone is first
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if err := w.desk.AllowUser("operator:test", "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.desk.Enroll(t.Context(), tok, k); !errors.Is(err, issue.ErrToken) {
		t.Errorf("got %v", err)
	}
	if u := w.ledgerUser("alice"); u.Own || u.Active() {
		t.Errorf("the ledger has %+v", u)
	}
}

// Who is barred would be another user by a token, whom the bar does not stop.
func TestNoTokenForWhoIsBarred(t *testing.T) {
	w := newWorld(t)
	r := w.user("alice")
	r.Source = "corp"
	if _, err := w.desk.AddUser(t.Context(), "source:corp", r); err != nil {
		t.Fatal(err)
	}
	if _, err := w.desk.RevokeUser(t.Context(), "operator:test", "alice", "left"); err != nil {
		t.Fatal(err)
	}
	req := issue.TokenRequest{Role: issue.RoleUser, Name: "alice", Group: "staff", TTL: time.Hour}
	if _, _, err := w.desk.Token(req); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("while barred: %v", err)
	}
	if err := w.desk.AllowUser("operator:test", "alice"); err != nil {
		t.Fatal(err)
	}
	w.enrol("alice")
}

func TestTokensOfARouterThatIsRevoked(t *testing.T) {
	w := newWorld(t)
	first, second := w.token("berlin"), w.token("berlin")
	if _, err := w.desk.Enroll(t.Context(), first, w.box()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.desk.RevokeRouter(t.Context(), "operator:test", "berlin", "stolen"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.desk.Enroll(t.Context(), second, w.box()); !errors.Is(err, issue.ErrToken) {
		t.Errorf("with a token of before: %v", err)
	}
	if _, err := w.desk.Enroll(t.Context(), w.token("berlin"), w.box()); err != nil {
		t.Errorf("with a new one: %v", err)
	}
}
