package issue_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
)

// A user changes the password at a router: what holds is in the directory alone. No later change of the CA brings the
// old one back, wherever the CA is killed in it.
func TestTheCAOverwritesNoChangedPassword(t *testing.T) {
	revoke := func(w *world) { _, _ = w.desk.RevokeUser(w.Context(), "operator:test", "alice", "left") }
	for _, step := range []string{"", issue.StepJournalled, issue.StepPrepared, issue.StepApplied, issue.StepRecorded} {
		t.Run("revoked, "+step, func(t *testing.T) {
			w := newWorld(t)
			if err := w.addUser("alice"); err != nil {
				t.Fatal(err)
			}
			w.changePassword("alice")
			if step == "" {
				revoke(w)
			} else {
				w.die("revoking user alice: "+step, func() { revoke(w) })
			}
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if !w.remote.users["alice"].Disabled {
				t.Error("her login is not closed")
			}
			w.passwordStands("alice")
		})
	}
	t.Run("added, and killed before the CA knew", func(t *testing.T) {
		w := newWorld(t)
		w.die("adding user alice: "+issue.StepApplied, func() { _ = w.addUser("alice") })
		w.changePassword("alice") // while the intent is in the journal
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		if all, _ := w.presence("alice"); !all {
			t.Error("alice is not everywhere")
		}
		w.passwordStands("alice")
	})
	t.Run("the directory restored and accepted", func(t *testing.T) {
		w := newWorld(t)
		if err := w.addUser("alice"); err != nil {
			t.Fatal(err)
		}
		w.changePassword("alice")
		w.remote.restore(map[string]string{})
		if err := w.desk.Compare(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.desk.Accept(); err != nil {
			t.Fatal(err)
		}
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		if err := w.desk.PublishCRL(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.passwordStands("alice")
	})
}

// What a password is checked against is nowhere at the CA once the directory has it.
func TestNoVerifierInTheLedger(t *testing.T) {
	w := newWorld(t)
	r := w.user("alice")
	if _, err := w.desk.AddUser(t.Context(), "operator:test", r); err != nil {
		t.Fatal(err)
	}
	found := false
	err := w.desk.View(func(tx *ledger.Tx) error {
		users, err := tx.Users()
		if err != nil {
			return err
		}
		b, err := json.Marshal(users)
		found = bytes.Contains(b, []byte("verifier")) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString(r.Verifier)))
		return err
	})
	if err != nil || found {
		t.Errorf("the ledger has it: %v, %v", found, err)
	}
}

// changePassword is what the directory does when a user has changed the password.
func (w *world) changePassword(uid string) {
	w.Helper()
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	u := w.remote.users[uid]
	u.Verifier = bytes.Repeat([]byte{7}, 32)
	w.remote.users[uid] = u
}

func (w *world) passwordStands(uid string) {
	w.Helper()
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	if !bytes.Equal(w.remote.users[uid].Verifier, bytes.Repeat([]byte{7}, 32)) {
		w.Errorf("the password of %s is the old one again", uid)
	}
}
