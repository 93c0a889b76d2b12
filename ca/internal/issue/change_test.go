package issue_test

import (
	"bytes"
	"errors"
	"math/big"
	"testing"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// guest is alice of source corp in staff, and a group admins besides.
func (w *world) guest() *twincert.Certificate {
	w.Helper()
	r := w.user("alice")
	r.Source = "corp"
	_, err := w.desk.AddUser(w.Context(), "source:corp", r)
	if err := errors.Join(err, w.desk.AddGroup(w.Context(), "operator:test", "admins")); err != nil {
		w.Fatal(err)
	}
	return w.holds("alice")
}

func (w *world) change(a issue.Alteration) error {
	_, _, err := w.desk.ChangeUser(w.Context(), "corp", "alice", a, "a change")
	return err
}

// listed says whether a certificate is in the CRL that the directory has.
func (w *world) listed(id twincert.ID) bool {
	w.Helper()
	crl, err := twincert.NewCRL(w.remote.crl, w.h.Intermediate, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	return crl.Contains(id)
}

// withdrawn checks that a certificate is revoked wherever it can be asked.
func (w *world) withdrawn(c *twincert.Certificate) {
	w.Helper()
	here, err := w.auth.Revoked(c.Serial)
	if err != nil {
		w.Fatal(err)
	}
	rec, err := w.desk.Certificate(c.Serial.String())
	if err != nil {
		w.Fatal(err)
	}
	if !here || rec.Revoked.IsZero() || rec.Reason != "a change" || !w.remote.revoked[c.ID()] || !w.listed(c.ID()) {
		w.Errorf("%s: revoked in smallstep's database %v, in the ledger %v %q, in the directory %v, in its CRL %v", c.Serial, here, rec.Revoked, rec.Reason, w.remote.revoked[c.ID()], w.listed(c.ID()))
	}
}

// Another group: the data key stays, and the time; everything else is the group's. What comes and what goes is one change.
func TestChangeOfGroup(t *testing.T) {
	w := newWorld(t)
	was := w.guest()
	w.now = w.now.Add(day)
	if err := w.change(issue.Alteration{Group: "admins"}); err != nil {
		t.Fatal(err)
	}
	w.agree("alice")
	c := w.holds("alice")
	if c.Group != "admins" || c.Keys.Data != was.Keys.Data || c.Keys.Control == was.Keys.Control || !c.NotAfter.Equal(was.NotAfter) || c.ID() == was.ID() {
		t.Errorf("%+v after %+v", c, was)
	}
	w.withdrawn(was)
	u, of := w.ledgerUser("alice"), w.remote.users["alice"]
	if u.Group != "admins" || u.Source != "corp" || !u.Bound.IsZero() || of.Group != "admins" || of.Source != "corp" || of.Disabled || !bytes.Equal(of.Verifier, w.user("alice").Verifier) {
		t.Errorf("at the CA %+v, at the directory %+v", u, of)
	}
	for _, ch := range w.remote.asked {
		if (len(ch.Successors) > 0) != (len(ch.Revocations) > 0) || len(ch.Successors) > 0 && ch.Actor != "source:corp" {
			t.Errorf("a change of its own: %+v", ch)
		}
	}
	known, err := w.desk.Groups()
	if err != nil || len(known) != 2 || known[0].Members != 1 || !bytes.Equal(c.Keys.Control[:], known[0].Control) || known[1].Members != 0 {
		t.Errorf("%v, groups %+v", err, known)
	}
	// The new group's rotations are theirs from now on, those of the one before are not.
	if err := w.rotate(0); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	if w.holds("alice").ID() != c.ID() {
		t.Error("she has got the control key of a group that she is not in")
	}
	if err := w.desk.RotateGroup(t.Context(), "operator:test", "admins", time.Hour); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	if next := w.holds("alice"); next.Keys.Control == c.Keys.Control || next.Keys.Data != was.Keys.Data || next.Group != "admins" {
		t.Errorf("after a rotation of her group: %+v", next)
	}
}

// Another end: sooner, later again, and not later than a login would bring.
func TestChangeOfTheEnd(t *testing.T) {
	w := newWorld(t)
	was := w.guest()
	w.now = w.now.Add(day)
	for _, in := range []time.Duration{time.Second, time.Hour, 29 * day, 30 * day} {
		before := w.holds("alice")
		until := w.now.Add(in)
		if err := w.change(issue.Alteration{Until: until}); err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		w.agree("alice")
		c := w.holds("alice")
		if left := until.Sub(c.NotAfter); left < 0 || left >= time.Second || c.Keys != was.Keys || c.Group != "staff" {
			t.Errorf("%s: it ends %s sooner: %+v", in, left, c)
		}
		w.withdrawn(before)
		if u := w.ledgerUser("alice"); !u.Bound.Equal(c.NotAfter) {
			t.Errorf("%s: %+v", in, u)
		}
	}
	c := w.holds("alice")
	if err := w.change(issue.Alteration{Until: w.now.Add(30*day + time.Second)}); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("later than any certificate: %v", err)
	}
	if err := w.change(issue.Alteration{Until: w.now}); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("now: %v", err)
	}
	if w.holds("alice").ID() != c.ID() {
		t.Error("what was refused has brought a certificate")
	}
	// A group besides: the end stays what the source has set.
	if err := w.change(issue.Alteration{Group: "admins"}); err != nil {
		t.Fatal(err)
	}
	if next := w.holds("alice"); !next.NotAfter.Equal(c.NotAfter) || !w.ledgerUser("alice").Bound.Equal(c.NotAfter) {
		t.Errorf("%+v", next)
	}
}

// What alters nothing is done without a word to anybody.
func TestChangeOfNothing(t *testing.T) {
	w := newWorld(t)
	was := w.guest()
	said := len(w.remote.asked)
	for _, a := range []issue.Alteration{{}, {Group: "staff"}, {Until: was.NotAfter}, {Group: "staff", Until: was.NotAfter.Add(time.Second / 2)}} {
		c, altered, err := w.desk.ChangeUser(t.Context(), "corp", "alice", a, "a change")
		if err != nil || altered || c.Serial != was.Serial.String() || len(w.remote.asked) != said {
			t.Errorf("%+v: %v, %s, %d changes", a, err, c.Serial, len(w.remote.asked)-said)
		}
	}
}

// Calls on keys of before the present ones cannot go on: they would stand under the group of before.
func TestChangeEndsWhatIsOlder(t *testing.T) {
	w := newWorld(t)
	first := w.guest()
	r := w.user("alice")
	r.Source = "corp"
	if _, err := w.desk.RenewUser(t.Context(), "source:corp", r); err != nil {
		t.Fatal(err)
	}
	second := w.holds("alice")
	if err := w.addUser("bob"); err != nil {
		t.Fatal(err)
	}
	if err := w.change(issue.Alteration{Group: "admins"}); err != nil {
		t.Fatal(err)
	}
	w.agree("alice", "bob")
	w.withdrawn(first)
	w.withdrawn(second)
	if third := w.holds("alice"); third.Keys.Data != second.Keys.Data || third.Keys.Data == first.Keys.Data {
		t.Error("it goes on from other keys than the present ones")
	}
}

func TestChangeRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare     func(w *world)
		source, uid string
		group       string
		want        error
	}{
		"nobody":                       {nil, "corp", "carol", "admins", issue.ErrUnknown},
		"another source's":             {nil, "other", "alice", "admins", issue.ErrUnknown},
		"a local user":                 {nil, "corp", "bob", "admins", issue.ErrUnknown},
		"a group that there is not":    {nil, "corp", "alice", "nowhere", issue.ErrInvalid},
		"a group that cannot be":       {nil, "corp", "alice", "No Group", issue.ErrInvalid},
		"ended":                        {func(w *world) { w.must(w.desk.EndUser(w.Context(), "corp", "alice", "")) }, "corp", "alice", "admins", issue.ErrUnknown},
		"barred":                       {func(w *world) { w.must(w.desk.RevokeUser(w.Context(), "operator:test", "alice", "")) }, "corp", "alice", "admins", issue.ErrUnknown},
		"expired":                      {func(w *world) { w.now = w.now.Add(31 * day) }, "corp", "alice", "admins", issue.ErrUnknown},
		"the end of a session revoked": {func(w *world) { w.closed("alice") }, "corp", "alice", "admins", issue.ErrUnknown},
		"the directory is away":        {func(w *world) { w.remote.down = true }, "corp", "alice", "admins", issue.ErrNothingIssued},
		"the directory refuses": {func(w *world) {
			w.remote.refuse = func(c client.Change) error {
				if len(c.Successors) > 0 {
					return &client.Error{Op: "applying a change", Code: client.CodeConflict, Message: "there are no sealed keys"}
				}
				return nil
			}
		}, "corp", "alice", "admins", issue.ErrNothingIssued},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			was := w.guest()
			if err := w.addUser("bob"); err != nil {
				t.Fatal(err)
			}
			if tt.prepare != nil {
				tt.prepare(w)
			}
			before := w.ledgerUser("alice")
			_, _, err := w.desk.ChangeUser(t.Context(), tt.source, tt.uid, issue.Alteration{Group: tt.group}, "a change")
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			w.remote.down, w.remote.refuse = false, nil
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if got := w.ledgerUser("alice"); got.Serial != before.Serial || got.Group != "staff" || w.remote.users["alice"].Group != "staff" {
				t.Errorf("%+v", got)
			}
			if rec, err := w.desk.Certificate(was.Serial.String()); err != nil || rec.Reason == "a change" {
				t.Errorf("what was refused revoked: %+v, %v", rec, err)
			}
		})
	}
}

func (w *world) must(_ issue.Revoked, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// closed is as if a session's end had revoked the user's certificate.
func (w *world) closed(uid string) {
	w.Helper()
	err := w.led.Update(func(tx *ledger.Tx) error {
		u, _, err := tx.User(uid)
		c, _, cerr := tx.Cert(u.Serial)
		c.Revoked = w.now
		return errors.Join(err, cerr, tx.Take(ledger.Effects{Certs: []ledger.Cert{c}}))
	})
	if err != nil {
		w.Fatal(err)
	}
}

// Killed at each step, a change is done as a whole when the CA is back, the CRL too.
func TestChangeWhereverTheCAIsKilled(t *testing.T) {
	for what, steps := range map[string][]string{
		"changing user alice: ": {issue.StepJournalled, issue.StepApplied, issue.StepRecorded, issue.StepDone},
		"publishing a CRL: ":    {issue.StepPrepared, issue.StepApplied, issue.StepRecorded, issue.StepDone},
	} {
		for _, step := range steps {
			t.Run(what+step, func(t *testing.T) {
				w := newWorld(t)
				was := w.guest()
				w.die(what+step, func() { _ = w.change(issue.Alteration{Group: "admins", Until: w.now.Add(time.Hour)}) })
				for range 2 { // what was under way, and the CRL after it
					if err := w.settle(); err != nil {
						t.Fatal(err)
					}
				}
				w.agree("alice")
				w.withdrawn(was)
				if c := w.holds("alice"); c.Group != "admins" || c.NotAfter.After(w.now.Add(time.Hour)) {
					t.Errorf("%+v", c)
				}
				if certs, err := w.desk.Certs("user", "alice"); err != nil || len(certs) != 2 {
					t.Errorf("%d certificates, %v", len(certs), err)
				}
			})
		}
	}
}

// A change that the directory may have or not, and then somebody is to go altogether: nothing of it outlives that.
func TestChangeUndecidedAndThenRevoked(t *testing.T) {
	w := newWorld(t)
	was := w.guest()
	w.remote.mute = true
	if err := w.change(issue.Alteration{Group: "admins"}); !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v, want undecided", err)
	}
	lost := w.remote.lost[0]
	if _, err := w.desk.RevokeUser(t.Context(), "operator:test", "alice", "gone"); err != nil {
		t.Fatal(err)
	}
	w.remote.deliver()
	for range 3 {
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
	}
	serial, ok := new(big.Int).SetString(lost.Successors[0].ID.Serial, 10)
	if !ok {
		t.Fatal(lost.Successors[0].ID)
	}
	for _, n := range []*big.Int{was.Serial, serial} {
		id := twincert.ID{Issuer: was.ID().Issuer, Serial: n.String()}
		if gone, err := w.auth.Revoked(n); err != nil || !gone || !w.remote.revoked[id] || !w.listed(id) {
			t.Errorf("certificate %s is not revoked everywhere: %v", n, err)
		}
	}
	if u := w.ledgerUser("alice"); u.Active() || !u.Barred || !w.remote.users["alice"].Disabled || len(w.pending()) > 0 {
		t.Errorf("%+v, pending %v", u, w.pending())
	}
}

// Asked again after an answer that was lost, the CA finds that it is done.
func TestChangeWhoseAnswerWasLost(t *testing.T) {
	w := newWorld(t)
	was := w.guest()
	w.remote.refuse = func(c client.Change) error { w.remote.deaf = len(c.Successors) > 0; return nil }
	if err := w.change(issue.Alteration{Group: "admins"}); !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v, want undecided", err)
	}
	w.remote.deaf, w.remote.refuse = false, nil
	if err := w.change(issue.Alteration{Group: "admins"}); err != nil {
		t.Fatal(err)
	}
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.agree("alice")
	w.withdrawn(was)
	if certs, err := w.desk.Certs("user", "alice"); err != nil || len(certs) != 2 {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
}
