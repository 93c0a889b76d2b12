package issue_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

func TestUserIsEverywhereOrNowhereWhereverTheCAIsKilled(t *testing.T) {
	for _, step := range []string{issue.StepJournalled, issue.StepApplied, issue.StepRecorded, issue.StepDone} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.die("adding user alice: "+step, func() { _ = w.addUser("alice") })
			// Before anything is settled nobody is told of half a user: in the ledger it
			// stands only as an intent.
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if all, _ := w.presence("alice"); !all || len(w.pending()) > 0 {
				t.Errorf("after the restart alice is not everywhere; pending %v", w.pending())
			}
			if err := w.addUser("bob"); err != nil {
				t.Errorf("the next operation: %v", err)
			}
		})
	}
}

func TestKilledWhileTheDirectoryIsAwayIsCarriedOutWhenItIsBack(t *testing.T) {
	w := newWorld(t)
	w.die("adding user alice: "+issue.StepJournalled, func() { _ = w.addUser("alice") })
	w.remote.down = true
	if err := w.settle(); !errors.Is(err, client.ErrUnavailable) {
		t.Fatalf("settled without a directory: %v", err)
	}
	if _, none := w.presence("alice"); !none {
		t.Error("something of alice is there already")
	}
	w.remote.down = false
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if all, _ := w.presence("alice"); !all {
		t.Error("alice is not everywhere")
	}
}

func TestDirectoryAwayNothingIsIssued(t *testing.T) {
	w := newWorld(t)
	w.remote.down = true
	if err := w.addUser("alice"); !errors.Is(err, issue.ErrNothingIssued) || !errors.Is(err, client.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	if _, none := w.presence("alice"); !none || len(w.pending()) > 0 {
		t.Errorf("something is left, pending %v", w.pending())
	}
}

// The change is on its way when the CA gives up, and arrives after everything is over.
func TestLateChangeMeetsItsTombstone(t *testing.T) {
	w := newWorld(t)
	w.remote.refuse = func(c client.Change) error {
		if len(c.Users) > 0 && len(w.remote.lost) == 0 {
			w.remote.lost = []client.Change{c}
			return unavailable("timeout")
		}
		if len(c.Users) > 0 {
			return unavailable("timeout")
		}
		return nil
	}
	if err := w.addUser("alice"); !errors.Is(err, issue.ErrNothingIssued) {
		t.Fatalf("got %v, want that nothing was issued", err)
	}
	w.remote.refuse = nil
	for _, err := range w.remote.deliver() {
		if !errors.Is(err, client.ErrConflict) {
			t.Errorf("the late change was taken: %v", err)
		}
	}
	if _, none := w.presence("alice"); !none || len(w.pending()) > 0 {
		t.Error("alice is there after all")
	}
}

// The change was applied, its answer lost: the tombstone comes second and the CA learns it.
func TestLostAnswerIsNoLostUser(t *testing.T) {
	w := newWorld(t)
	w.remote.refuse = func(c client.Change) error { w.remote.deaf = len(c.Users) > 0; return nil }
	err := w.addUser("alice") // every answer about alice is lost, that to the tombstone too
	if !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v, want undecided", err)
	}
	w.remote.deaf, w.remote.refuse = false, nil
	if err := w.addUser("bob"); err != nil { // settles first
		t.Fatal(err)
	}
	for _, uid := range []string{"alice", "bob"} {
		if all, _ := w.presence(uid); !all {
			t.Errorf("%s is not everywhere", uid)
		}
	}
}

func TestUndecidedWhileTheDirectoryIsMute(t *testing.T) {
	w := newWorld(t)
	w.remote.mute = true
	if err := w.addUser("alice"); !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v, want undecided", err)
	}
	if err := w.addUser("bob"); !errors.Is(err, issue.ErrNothingIssued) {
		t.Errorf("with alice undecided bob got %v", err)
	}
	// Everything arrives in the order in which it was sent: alice first, her tombstone second.
	w.remote.deliver()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if all, _ := w.presence("alice"); !all || len(w.pending()) > 0 {
		t.Errorf("alice is not everywhere, pending %v", w.pending())
	}
}

func TestRefusalWithdraws(t *testing.T) {
	w := newWorld(t)
	w.remote.refuse = func(c client.Change) error {
		if len(c.Users) > 0 {
			return &client.Error{Op: "applying a change", Code: client.CodeInvalid, Message: "not today"}
		}
		return nil
	}
	if err := w.addUser("alice"); !errors.Is(err, issue.ErrNothingIssued) || !errors.Is(err, client.ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	w.remote.refuse = nil
	if _, none := w.presence("alice"); !none || len(w.pending()) > 0 {
		t.Error("something is left")
	}
	if err := w.addUser("alice"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestUsersOfAGroupShareOneControlKey(t *testing.T) {
	w := newWorld(t)
	var certs []*twincert.Certificate
	for _, uid := range []string{"alice", "bob"} {
		rec, err := w.desk.AddUser(t.Context(), "operator:test", w.user(uid))
		if err != nil {
			t.Fatal(err)
		}
		c, err := twincert.Parse(rec.DER)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, c)
	}
	a, b := certs[0], certs[1]
	if a.Keys.Control != b.Keys.Control || a.Keys.Data == b.Keys.Data || a.Group != "staff" || a.Role != twincert.User {
		t.Errorf("got %+v and %+v", a, b)
	}
	if life := a.NotAfter.Sub(w.now); life > 30*day || life < 30*day-time.Minute {
		t.Errorf("a user's certificate lives %s", life)
	}
}

func TestRevocation(t *testing.T) {
	revoke := func(w *world) (issue.Revoked, error) {
		return w.desk.RevokeUser(w.Context(), "operator:test", "alice", "left")
	}
	// inCRL says whether the newest CRL here and in the directory list alice's certificate.
	inCRL := func(w *world) (here, there bool) {
		w.Helper()
		l, err := w.auth.CRL()
		if err != nil {
			w.Fatal(err)
		}
		id := w.remote.bundles["alice"].ID
		for i, der := range [][]byte{l.DER, w.remote.crl} {
			if der == nil {
				continue
			}
			crl, err := twincert.NewCRL(der, w.h.Intermediate, time.Now())
			if err != nil {
				w.Fatal(err)
			}
			if *[]*bool{&here, &there}[i] = crl.Contains(id); i == 1 && !w.remote.revoked[id] && there {
				w.Error("the directory has the CRL without the revocation")
			}
		}
		return here, there
	}
	check := func(w *world) {
		w.Helper()
		if here, there := inCRL(w); !here || !there || !w.remote.users["alice"].Disabled || len(w.pending()) > 0 {
			w.Errorf("here %v, there %v, disabled %v, pending %v", here, there, w.remote.users["alice"].Disabled, w.pending())
		}
	}
	start := func(t *testing.T) *world {
		w := newWorld(t)
		if err := w.addUser("alice"); err != nil {
			t.Fatal(err)
		}
		return w
	}

	t.Run("told", func(t *testing.T) {
		w := start(t)
		done, err := revoke(w)
		if err != nil || !done.Told || done.Certificates != 1 {
			t.Fatalf("%+v, %v", done, err)
		}
		check(w)
		if _, err := revoke(w); !errors.Is(err, issue.ErrRevoked) {
			t.Errorf("again: %v", err)
		}
		if err := w.addUser("alice"); err != nil {
			t.Errorf("alice comes back: %v", err)
		}
		if w.remote.users["alice"].Disabled {
			t.Error("she is still disabled")
		}
	})
	t.Run("directory away", func(t *testing.T) {
		w := start(t)
		w.remote.down = true
		done, err := revoke(w)
		if err != nil || done.Told || done.Certificates != 1 || done.Err == nil {
			t.Fatalf("%+v, %v", done, err)
		}
		if here, there := inCRL(w); !here || there {
			t.Errorf("here %v, there %v", here, there)
		}
		w.close()
		w.open() // the CA is restarted meanwhile
		w.remote.down = false
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		check(w)
	})
	for _, step := range []string{issue.StepJournalled, issue.StepPrepared, issue.StepApplied, issue.StepRecorded, issue.StepDone} {
		t.Run("killed "+step, func(t *testing.T) {
			w := start(t)
			w.die("revoking user alice: "+step, func() { _, _ = revoke(w) })
			w.remote.down = step == issue.StepJournalled // even then the CRL here must say it
			err := w.settle()
			if here, _ := inCRL(w); !here {
				t.Errorf("after the restart it is not in the CRL here (%v)", err)
			}
			w.remote.down = false
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			check(w)
		})
	}
	t.Run("behind something undecided", func(t *testing.T) {
		w := start(t)
		w.remote.mute = true
		if _, err := w.desk.RenewUser(t.Context(), "operator:test", w.user("alice")); !errors.Is(err, issue.ErrUndecided) {
			t.Fatalf("got %v", err)
		}
		done, err := revoke(w)
		if err != nil || done.Told || done.Certificates != 2 {
			t.Fatalf("%+v, %v", done, err)
		}
		w.remote.deliver() // the renewal goes through after all
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		check(w)
		if err := w.desk.View(func(tx *ledger.Tx) error {
			u, _, err := tx.User("alice")
			if u.Active() {
				t.Error("the late renewal has undone the revocation")
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCRLIsPublishedAlsoWhenNothingChanges(t *testing.T) {
	w := newWorld(t)
	if err := w.desk.PublishCRL(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := w.remote.crl
	if err := w.desk.PublishCRL(t.Context()); err != nil {
		t.Fatal(err)
	}
	if first == nil || bytes.Equal(first, w.remote.crl) {
		t.Error("no new CRL has arrived")
	}
	w.remote.down = true
	for range 3 { // waiting CRLs do not pile up
		if err := w.desk.PublishCRL(t.Context()); !errors.Is(err, client.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if got := w.pending(); len(got) != 1 {
		t.Errorf("pending %v", got)
	}
	if done, err := w.desk.RevokeUser(t.Context(), "x", "nobody", ""); !errors.Is(err, issue.ErrUnknown) {
		t.Errorf("%+v, %v", done, err)
	}
	w.remote.down = false
	w.now = w.now.Add(50 * time.Minute) // what waits has aged: it is signed anew before it is sent
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(w.remote.crl)
	if err != nil {
		t.Fatal(err)
	}
	if here, err := w.auth.CRL(); err != nil || l.Number.Int64() != here.Number {
		t.Errorf("the directory has number %s, here is %d (%v)", l.Number, here.Number, err)
	}
}

func TestClockJumps(t *testing.T) {
	w := newWorld(t)
	if err := w.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	start := w.now
	for _, c := range []struct {
		name string
		at   time.Time
		ok   bool
	}{
		{"back a little", start.Add(-4 * time.Minute), true},
		{"back an hour", start.Add(-time.Hour), false},
		{"back before the CA", start.Add(-10 * day), false},
		{"to 1970", time.Unix(0, 0), false},
		{"beyond the intermediate's end", w.h.Intermediate.NotAfter.Add(time.Hour), false},
		{"right again", start, true},
	} {
		w.now = c.at
		_, err := w.desk.RenewUser(t.Context(), "operator:test", w.user("alice"))
		refused := errors.Is(err, issue.ErrClock) && errors.Is(err, issue.ErrNothingIssued)
		if c.ok && err != nil || !c.ok && !refused {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.ok {
			if _, _, err := w.desk.Token(issue.TokenRequest{Role: issue.RoleDirectory, TTL: time.Hour}); !errors.Is(err, issue.ErrClock) {
				t.Errorf("%s: a token: %v", c.name, err)
			}
		}
	}
	if all, _ := w.presence("alice"); !all {
		t.Error("something of alice was lost")
	}

	w.now = start.Add(100 * day) // ahead; something is issued; then it is set right
	if err := w.addUser("bob"); err != nil {
		t.Fatal(err)
	}
	w.now = start.Add(day)
	if err := w.addUser("carol"); !errors.Is(err, issue.ErrClock) {
		t.Errorf("carol: %v", err)
	}
	if done, err := w.desk.RevokeUser(t.Context(), "operator:test", "bob", ""); err != nil || !done.Told {
		t.Errorf("revoking must work with any clock: %+v, %v", done, err)
	}
	if err := w.desk.ResetClock(); err != nil {
		t.Fatal(err)
	}
	if err := w.addUser("carol"); err != nil {
		t.Errorf("carol, once the clock is accepted: %v", err)
	}
}

func TestNothingOutlivesTheIntermediate(t *testing.T) {
	w := newWorld(t)
	w.now = w.h.Intermediate.NotAfter.Add(-2 * day)
	rec, err := w.desk.AddUser(t.Context(), "operator:test", w.user("alice"))
	if err != nil || !rec.NotAfter.Equal(w.h.Intermediate.NotAfter) {
		t.Errorf("two days before the end: %v, %v", rec.NotAfter, err)
	}
	w.now = w.h.Intermediate.NotAfter.Add(-time.Minute)
	if err := w.addUser("bob"); !errors.Is(err, authority.ErrExpired) {
		t.Errorf("a minute before the end: %v", err)
	}
}
