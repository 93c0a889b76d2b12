package issue_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
)

// tend lets the desk do what is due, until there is nothing more.
func (w *world) tend() error {
	w.Helper()
	for range 1000 {
		more, err := w.desk.Tend(w.Context())
		if err != nil || !more {
			return err
		}
	}
	w.Fatal("there is always something more to do")
	return nil
}

func (w *world) mustTend() {
	w.Helper()
	if err := w.tend(); err != nil {
		w.Fatal(err)
	}
}

// waitingUpTo opens the CA anew, with another patience: many certificates in one intent take a while on a busy machine.
func waitingUpTo(t *testing.T, patience time.Duration) *world {
	t.Helper()
	w := newWorld(t)
	w.patience = patience
	w.close()
	w.open()
	return w
}

func (w *world) addUsers(n int) (uids []string) {
	w.Helper()
	for i := range n {
		uids = append(uids, fmt.Sprintf("u%03d", i))
		if err := w.addUser(uids[i]); err != nil {
			w.Fatal(err)
		}
	}
	return uids
}

func (w *world) rotate(grace time.Duration) error {
	return w.desk.RotateGroup(w.Context(), "operator:test", "staff", grace)
}

func (w *world) staff() issue.GroupState {
	w.Helper()
	all, err := w.desk.Groups()
	if err != nil {
		w.Fatal(err)
	}
	i := slices.IndexFunc(all, func(g issue.GroupState) bool { return g.Name == "staff" })
	if i < 0 {
		w.Fatalf("no such group in %+v", all)
	}
	return all[i]
}

// holds is what a user's password opens at the directory: the present certificate, with both keys as they should be.
func (w *world) holds(uid string) *twincert.Certificate {
	w.Helper()
	d := w.remote
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.bundles[uid]
	if !ok {
		w.Fatalf("the directory has no keys of %s", uid)
	}
	w.opens(uid, b, d.certs[b.ID])
	id := b.ID
	if s, ok := d.successors[uid]; ok {
		id = s.ID
		private, err := keybundle.Open(b.Sealed, w.user(uid).Seal, d.certs[b.ID])
		if err != nil {
			w.Fatal(err)
		}
		control, err := keybundle.OpenControl(s.Sealed, private.Data, d.certs[s.ID])
		if err != nil {
			w.Fatalf("successor of %s: %v", uid, err)
		}
		w.isKeyOf(uid, control, private.Data, d.certs[s.ID])
	}
	if d.revoked[id] {
		w.Errorf("the present certificate of %s is revoked", uid)
	}
	c, err := twincert.Parse(d.certs[id])
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// agree checks that what the ledger says of a user is what the directory has, and nothing is half done.
func (w *world) agree(uids ...string) {
	w.Helper()
	if p := w.pending(); len(p) > 0 {
		w.Errorf("pending: %v", p)
	}
	for _, uid := range uids {
		c := w.holds(uid)
		err := w.desk.View(func(tx *ledger.Tx) error {
			u, ok, err := tx.User(uid)
			if !ok || u.Serial != c.Serial.String() {
				w.Errorf("%s: the ledger says %s, the directory has %s", uid, u.Serial, c.Serial)
			}
			rec, ok, cerr := tx.Cert(u.Serial)
			if !ok || !bytes.Equal(rec.DER, c.Raw) || !rec.Revoked.IsZero() {
				w.Errorf("%s: certificate %s in the ledger: %v %+v", uid, u.Serial, ok, rec.Revoked)
			}
			return errors.Join(err, cerr)
		})
		if err != nil {
			w.Fatal(err)
		}
	}
}

// A rotation from its beginning to its end: nobody needs a password, nobody's certificate lives longer by it, and what
// is revoked is what is over the old key.
func TestRotation(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	uids := w.addUsers(3)
	before := map[string]*twincert.Certificate{}
	for _, uid := range uids {
		before[uid] = w.holds(uid)
	}
	old := w.staff()
	w.now = w.now.Add(day)
	if err := w.rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	if g := w.staff(); bytes.Equal(g.Control, old.Control) || g.Members != 3 || g.Behind != 3 || g.Old != 3 || !g.Created.Equal(w.now.UTC().Truncate(time.Second)) {
		t.Errorf("at first: %+v", g)
	}
	w.mustTend()
	g := w.staff()
	if g.Behind != 0 || g.Old != 3 || len(g.Retired) != 1 || g.Retired[0].Handed.IsZero() {
		t.Errorf("in the grace: %+v", g)
	}
	if at := issue.RevokeAt(g.Retired[0]); at.Sub(w.now) != time.Hour {
		t.Errorf("revoked %s after the rotation", at.Sub(w.now))
	}
	for _, uid := range uids {
		c, was := w.holds(uid), before[uid]
		if !bytes.Equal(c.Keys.Control[:], g.Control) || c.Keys.Data != was.Keys.Data || !c.NotAfter.Equal(was.NotAfter) || c.Serial.Cmp(was.Serial) == 0 || c.Group != "staff" {
			t.Errorf("%s: %+v after %+v", uid, c, was)
		}
		if w.remote.revoked[was.ID()] {
			t.Errorf("the old certificate of %s is revoked too early", uid)
		}
	}
	w.agree(uids...)
	w.now = w.now.Add(59 * time.Minute)
	w.mustTend()
	if w.remote.revoked[before[uids[0]].ID()] {
		t.Error("revoked a minute too early")
	}
	w.close()
	w.open() // a restart forgets nothing
	w.now = w.now.Add(2 * time.Minute)
	w.mustTend()
	crl, err := twincert.NewCRL(w.remote.crl, w.h.Intermediate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range uids {
		if id := before[uid].ID(); !w.remote.revoked[id] || !crl.Contains(id) {
			t.Errorf("the old certificate of %s is not revoked", uid)
		}
	}
	if g := w.staff(); g.Old != 0 || len(g.Retired) != 0 {
		t.Errorf("at the end: %+v", g)
	}
	w.agree(uids...)
	// A user who comes now is of the same group.
	if err := w.addUser("late"); err != nil {
		t.Fatal(err)
	}
	if c := w.holds("late"); !bytes.Equal(c.Keys.Control[:], g.Control) {
		t.Error("a new user has another control key")
	}
	if certs, err := w.desk.Certs("user", uids[0]); err != nil || len(certs) != 2 || !certs[0].Current || certs[1].Current || certs[1].Revoked.IsZero() {
		t.Errorf("%+v, %v", certs, err)
	}
}

// Killed at each step, a rotation goes on where it was, whoever does the next thing.
func TestRotationWhereverTheCAIsKilled(t *testing.T) {
	const revoking = "revoking old certificates of group staff: "
	for _, c := range []struct {
		what  string
		steps []string
	}{
		{"rotating group staff: ", []string{issue.StepJournalled, issue.StepApplied, issue.StepRecorded, issue.StepDone}},
		{"certifying users of group staff over its new key: ", []string{issue.StepJournalled, issue.StepApplied, issue.StepRecorded, issue.StepDone}},
		{revoking, []string{issue.StepJournalled, issue.StepPrepared, issue.StepApplied, issue.StepRecorded, issue.StepDone}},
	} {
		for _, step := range c.steps {
			t.Run(c.what+step, func(t *testing.T) {
				w := newWorld(t)
				uids := w.addUsers(2)
				old := w.staff().Control
				first := w.holds(uids[0]).ID()
				w.die(c.what+step, func() {
					_ = w.rotate(time.Minute)
					_ = w.tend()
					w.now = w.now.Add(2 * time.Minute)
					_ = w.tend()
				})
				if err := w.settle(); err != nil {
					t.Fatal(err)
				}
				w.mustTend()
				w.agree(uids...)
				w.now = w.now.Add(2 * time.Minute)
				w.mustTend()
				w.agree(uids...)
				g := w.staff()
				if bytes.Equal(g.Control, old) || g.Behind != 0 || g.Old != 0 || len(g.Retired) != 0 || !w.remote.revoked[first] {
					t.Errorf("%+v, the old certificate revoked: %v", g, w.remote.revoked[first])
				}
				for _, uid := range uids {
					if c := w.holds(uid); !bytes.Equal(c.Keys.Control[:], g.Control) {
						t.Errorf("%s is over another control key", uid)
					}
					if certs, err := w.desk.Certs("user", uid); err != nil || len(certs) != 2 {
						t.Errorf("%s has %d certificates, %v", uid, len(certs), err)
					}
				}
			})
		}
	}
}

// While the directory is away nothing goes on and nothing is lost.
func TestRotationWhileTheDirectoryIsAway(t *testing.T) {
	w := newWorld(t)
	uids := w.addUsers(2)
	w.remote.down = true
	if err := w.rotate(0); !errors.Is(err, issue.ErrNothingIssued) {
		t.Fatalf("got %v", err)
	}
	w.remote.down = false
	if err := w.rotate(0); err != nil {
		t.Fatal(err)
	}
	w.remote.down = true
	if err := w.tend(); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	w.now = w.now.Add(day)
	if err := w.tend(); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if g := w.staff(); g.Behind != 2 || g.Old != 2 {
		t.Errorf("%+v", g)
	}
	w.remote.down = false
	w.mustTend()
	if g := w.staff(); g.Behind != 0 || g.Old != 2 {
		t.Errorf("nothing may be revoked before the routers had time: %+v", g)
	}
	w.now = w.now.Add(11 * time.Second)
	w.mustTend()
	if g := w.staff(); g.Old != 0 || len(g.Retired) != 0 {
		t.Errorf("%+v", g)
	}
	w.agree(uids...)
}

// Many users: in pieces, none of them large, and others come in between.
func TestRotationIsBounded(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	uids := w.addUsers(120)
	if err := w.rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	for want := 120; want > 0; {
		more, err := w.desk.Tend(t.Context())
		if err != nil || !more {
			t.Fatalf("%d left: %v, %v", want, more, err)
		}
		left := w.staff().Behind
		if done := want - left; done < 1 || done > 50 {
			t.Fatalf("%d users at once", done)
		}
		want = left
	}
	w.mustTend()
	w.agree(uids...)
}

// Somebody whom the directory refuses holds nobody else up.
func TestRotationWithAUserWhoIsStuck(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	uids := w.addUsers(5)
	w.remote.refuse = func(c client.Change) error {
		for _, s := range c.Successors {
			if s.UID == uids[2] {
				return &client.Error{Op: "applying a change", Code: client.CodeConflict, Message: "there are no sealed keys"}
			}
		}
		return nil
	}
	if err := w.rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	if g := w.staff(); g.Behind != 1 || g.Retired[0].Handed.IsZero() {
		t.Errorf("%+v", g)
	}
	w.now = w.now.Add(2 * time.Hour)
	w.mustTend()
	if g := w.staff(); g.Old != 0 || len(g.Retired) != 0 {
		t.Errorf("%+v", g)
	}
	w.agree(uids[0], uids[1], uids[3], uids[4])
	// Neither does somebody hold up those who are to be renewed.
	w.remote.refuse = func(c client.Change) error {
		if slices.ContainsFunc(c.Successors, func(s client.SuccessorRecord) bool { return s.UID == uids[1] }) {
			return &client.Error{Op: "applying a change", Code: client.CodeConflict, Message: "there are no sealed keys"}
		}
		return nil
	}
	w.renewUsers = true
	w.close()
	w.open()
	w.now = w.now.Add(25 * day)
	w.mustTend()
	for _, i := range []int{0, 3, 4} {
		if c := w.holds(uids[i]); c.NotAfter.Sub(w.now) < 29*day {
			t.Errorf("%s is not renewed: ends %s", uids[i], c.NotAfter)
		}
	}
	w.agree(uids[0], uids[1], uids[3], uids[4])
	w.remote.refuse = nil
	if _, err := w.desk.RenewUser(t.Context(), "operator:test", w.user(uids[2])); err != nil {
		t.Errorf("a renewal with a password: %v", err)
	}
	w.agree(uids...)
}

// Revoked in the middle of a rotation: that one user is, and nobody else's effects are lost.
func TestRevocationDuringARotation(t *testing.T) {
	w := waitingUpTo(t, time.Second)
	uids := w.addUsers(3)
	if err := w.rotate(time.Minute); err != nil {
		t.Fatal(err)
	}
	w.remote.mute = true // the batch hangs between here and there
	if err := w.tend(); !errors.Is(err, issue.ErrUndecided) {
		t.Fatalf("got %v", err)
	}
	done, err := w.desk.RevokeUser(t.Context(), "operator:test", uids[1], "left")
	if err != nil || done.Told || done.Certificates != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	w.remote.deliver()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	w.agree(uids[0], uids[2])
	if g := w.staff(); g.Members != 2 || g.Behind != 0 {
		t.Errorf("%+v", g)
	}
	certs, err := w.desk.Certs("user", uids[1])
	for _, c := range certs {
		if c.Revoked.IsZero() || c.Current {
			t.Errorf("certificate %s of who was revoked: %+v", c.Serial, c)
		}
	}
	if err != nil || len(certs) != 2 {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
}

// Two rotations, one upon the other: each old key has a grace of its own.
func TestRotationUponRotation(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	uids := w.addUsers(1)
	first := w.holds(uids[0]).ID()
	if err := w.rotate(3 * time.Hour); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	second := w.holds(uids[0]).ID()
	w.now = w.now.Add(time.Minute)
	if err := w.rotate(0); err != nil { // that one has leaked
		t.Fatal(err)
	}
	w.mustTend()
	w.now = w.now.Add(time.Minute)
	w.mustTend()
	if !w.remote.revoked[second] || w.remote.revoked[first] {
		t.Errorf("revoked: the first %v, the second %v", w.remote.revoked[first], w.remote.revoked[second])
	}
	w.now = w.now.Add(3 * time.Hour)
	w.mustTend()
	if !w.remote.revoked[first] {
		t.Error("the first is not revoked after its grace")
	}
	w.agree(uids...)
	for range 8 {
		if err := w.rotate(time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.rotate(time.Hour); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("a ninth in one hour: %v", err)
	}
}

func TestGroupsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	if err := w.desk.AddGroup(t.Context(), "operator:test", "staff"); err != nil {
		t.Fatal(err)
	}
	if g := w.staff(); g.Members != 0 || len(g.Control) != 32 || len(w.remote.changes) != 1 {
		t.Errorf("%+v", g)
	}
	if err := w.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	if c := w.holds("alice"); !bytes.Equal(c.Keys.Control[:], w.staff().Control) {
		t.Error("the group's first user made another group")
	}
	for name, c := range map[string]struct {
		err, want error
	}{
		"again":         {w.desk.AddGroup(t.Context(), "x", "staff"), issue.ErrExists},
		"a bad name":    {w.desk.AddGroup(t.Context(), "x", "Staff"), issue.ErrInvalid},
		"no such group": {w.desk.RotateGroup(t.Context(), "x", "sales", 0), issue.ErrUnknown},
		"before now":    {w.rotate(-1), issue.ErrInvalid},
		"next year":     {w.rotate(365 * day), issue.ErrInvalid},
		"nobody":        {w.desk.RenewSameKeys(t.Context(), "x", "nobody"), issue.ErrUnknown},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if _, err := w.desk.RevokeUser(t.Context(), "x", "alice", ""); err != nil {
		t.Fatal(err)
	}
	if err := w.desk.RenewSameKeys(t.Context(), "x", "alice"); !errors.Is(err, issue.ErrRevoked) {
		t.Errorf("renewing who is revoked: %v", err)
	}
	if err := w.rotate(0); err != nil {
		t.Errorf("rotating a group without users: %v", err)
	}
	w.mustTend()
	w.now = w.now.Add(time.Minute)
	w.mustTend()
	if g := w.staff(); len(g.Retired) != 0 {
		t.Errorf("%+v", g)
	}
}

// The same keys for another term; after a rotation with the control key of then, also for somebody whose certificate has expired, whom the rotation
// passed over.
func TestRenewalWithTheSameKeys(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	uids := w.addUsers(2)
	was := w.holds(uids[0])
	w.now = w.now.Add(5 * day)
	if err := w.desk.RenewSameKeys(t.Context(), "operator:test", uids[0]); err != nil {
		t.Fatal(err)
	}
	c := w.holds(uids[0])
	if c.Keys != was.Keys || c.NotAfter.Sub(w.now).Round(time.Minute) != 30*day || c.Serial.Cmp(was.Serial) == 0 {
		t.Errorf("%+v after %+v", c, was)
	}
	if w.remote.revoked[was.ID()] {
		t.Error("the old one is revoked: it has the same keys")
	}
	w.now = w.now.Add(27 * day) // the other one has expired, on day 30
	if err := w.rotate(0); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	w.now = w.now.Add(time.Minute)
	w.mustTend()
	if g := w.staff(); g.Behind != 0 || g.Old != 0 || len(g.Retired) != 0 {
		t.Errorf("%+v", g)
	}
	if err := w.desk.RenewSameKeys(t.Context(), "operator:test", uids[1]); err != nil {
		t.Fatal(err)
	}
	if c := w.holds(uids[1]); !bytes.Equal(c.Keys.Control[:], w.staff().Control) {
		t.Error("not over the group's control key")
	}
	w.agree(uids...)
	w.remote.refuse = func(c client.Change) error {
		if len(c.Successors) > 0 {
			return &client.Error{Op: "applying a change", Code: client.CodeConflict, Message: "there are no sealed keys"}
		}
		return nil
	}
	if err := w.desk.RenewSameKeys(t.Context(), "operator:test", uids[1]); !errors.Is(err, issue.ErrInvalid) || !errors.Is(err, issue.ErrNothingIssued) {
		t.Errorf("without sealed keys: %v", err)
	}
	w.remote.refuse = nil
	w.agree(uids...)
}

func TestUsersAreRenewedByThemselves(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	w.renewUsers = true
	w.close()
	w.open()
	uids := w.addUsers(60)
	if _, err := w.desk.RevokeUser(t.Context(), "x", uids[0], ""); err != nil {
		t.Fatal(err)
	}
	uids = uids[1:]
	serials := func() (s []string) {
		for _, uid := range uids {
			s = append(s, w.holds(uid).Serial.String())
		}
		return s
	}
	first := serials()
	w.now = w.now.Add(19 * day)
	w.mustTend()
	if !slices.Equal(serials(), first) {
		t.Fatal("renewed before two thirds have passed")
	}
	w.now = w.now.Add(2 * day)
	w.mustTend()
	changed := 0
	for i, s := range serials() {
		if s != first[i] {
			changed++
		}
	}
	if changed != 50 {
		t.Errorf("%d renewed at once", changed)
	}
	w.mustTend()
	w.now = w.now.Add(11 * time.Second)
	w.mustTend()
	second := serials()
	for i, uid := range uids {
		if c := w.holds(uid); second[i] == first[i] || c.NotAfter.Sub(w.now).Round(time.Hour) != 30*day {
			t.Errorf("%s: ends %s", uid, c.NotAfter)
		}
	}
	w.agree(uids...)
	w.now = w.now.Add(time.Hour)
	w.mustTend()
	if !slices.Equal(serials(), second) {
		t.Error("renewed again")
	}
	w.close()
	w.open()
	w.now = w.now.Add(45 * day) // the CA was off, and everybody has expired
	w.mustTend()
	if c := w.holds(uids[0]); !w.now.Before(c.NotAfter) {
		t.Error("not renewed after a pause")
	}
	w.now = w.h.Intermediate.NotAfter.Add(-3 * time.Hour)
	for range 20 {
		w.mustTend()
		w.now = w.now.Add(time.Minute)
	}
	if certs, err := w.desk.Certs("user", uids[0]); err != nil || len(certs) > 4 {
		t.Errorf("%d certificates: renewed for ever at the end of the CA (%v)", len(certs), err)
	}
	w.renewUsers = false
	w.close()
	w.open()
	n := len(w.remote.changes)
	w.mustTend()
	if len(w.remote.changes) != n {
		t.Error("renewed though nobody allows it")
	}
}

// Who has made the keys on a machine of their own has no control key of the group, and no successor either.
func TestRotationPassesOverKeysOfOnesOwn(t *testing.T) {
	w := newWorld(t)
	c, _ := w.enrol("alice")
	if err := w.addUser("bob"); err != nil {
		t.Fatal(err)
	}
	w.renewUsers = true
	w.close()
	w.open()
	if err := w.rotate(0); err != nil {
		t.Fatal(err)
	}
	if g := w.staff(); g.Members != 2 || g.Behind != 1 || g.Old != 1 {
		t.Errorf("%+v", g)
	}
	w.mustTend()
	w.now = w.now.Add(29 * day)
	w.mustTend()
	if g := w.staff(); g.Old != 0 || len(g.Retired) != 0 {
		t.Errorf("%+v", g)
	}
	if err := w.desk.RenewSameKeys(t.Context(), "x", "alice"); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("renewed with the same keys: %v", err)
	}
	if w.remote.revoked[c.ID()] || w.ledgerUser("alice").Serial != c.Serial.String() {
		t.Error("her certificate is another, or revoked")
	}
	w.agree("bob")
}

// What ends soon is shown once, not also what was replaced.
func TestExpiringIsShownOnce(t *testing.T) {
	w := newWorld(t)
	uids := w.addUsers(2)
	w.now = w.now.Add(20 * day)
	if err := w.desk.RenewSameKeys(t.Context(), "x", uids[0]); err != nil {
		t.Fatal(err)
	}
	soon, err := w.desk.Expiring(w.now.Add(14 * day))
	if err != nil || len(soon) != 1 || soon[0].Name != uids[1] {
		t.Errorf("%+v, %v", soon, err)
	}
}
