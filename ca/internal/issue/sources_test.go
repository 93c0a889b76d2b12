package issue_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/directory/client"
)

// The directory hears of sources with every CRL: never of none from a company that never had any, whose directory may not
// know the word, and of none once there were some.
func TestDirectoryIsToldOfSources(t *testing.T) {
	w := newWorld(t)
	publish := func() (said []string) {
		t.Helper()
		before := len(w.remote.asked)
		if err := w.desk.PublishCRL(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, c := range w.remote.asked[before:] {
			said = append(said, words(c))
		}
		return said
	}
	restart := func(sources bool) {
		w.close()
		w.sources = sources
		w.open()
	}
	for i, step := range []struct {
		sources bool
		want    string
	}{{false, "nothing"}, {true, "some"}, {true, "some"}, {false, "none"}, {false, "nothing"}} {
		restart(step.sources)
		if got := publish(); !slices.Equal(got, []string{step.want}) {
			t.Errorf("step %d: said %q, want %s", i, got, step.want)
		}
	}
	// With a revocation too, which may stand before the CRL in the queue.
	restart(true)
	if err := w.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	before := len(w.remote.asked)
	if _, err := w.desk.RevokeUser(t.Context(), "operator:test", "alice", ""); err != nil {
		t.Fatal(err)
	}
	if got := words(w.remote.asked[before]); got != "some" {
		t.Errorf("with a revocation: %s", got)
	}
}

func words(c client.Change) string {
	switch {
	case c.Sources == nil:
		return "nothing"
	case *c.Sources:
		return "some"
	}
	return "none"
}

// Nobody renews users of a source but they themselves, at a login, at which the source is asked. A rotation gives them another
// control key and not a day more.
func TestUsersOfASourceAreNotRenewedUnasked(t *testing.T) {
	w := waitingUpTo(t, 20*time.Second)
	w.renewUsers = true
	w.close()
	w.open()
	r := w.user("alice")
	r.Source = "corp"
	if _, err := w.desk.AddUser(t.Context(), "source:corp", r); err != nil {
		t.Fatal(err)
	}
	if err := w.addUser("bob"); err != nil {
		t.Fatal(err)
	}
	was := w.holds("alice")
	w.now = w.now.Add(25 * day)
	w.mustTend()
	if c := w.holds("alice"); c.ID() != was.ID() {
		t.Errorf("renewed until %s", c.NotAfter)
	}
	if c := w.holds("bob"); c.NotAfter.Sub(w.now) < 29*day {
		t.Errorf("a local user is not renewed: until %s", c.NotAfter)
	}
	if err := w.desk.RenewSameKeys(t.Context(), "operator:test", "alice"); !errors.Is(err, issue.ErrInvalid) {
		t.Errorf("renewed by the operator: %v", err)
	}
	if err := w.rotate(time.Hour); err != nil {
		t.Fatal(err)
	}
	w.mustTend()
	if c := w.holds("alice"); c.Keys.Control == was.Keys.Control || !c.NotAfter.Equal(was.NotAfter) {
		t.Errorf("after a rotation: until %s, before it until %s", c.NotAfter, was.NotAfter)
	}
	if u := w.ledgerUser("alice"); u.Source != "corp" || u.Accepted == nil {
		t.Errorf("%+v", u)
	}
	w.agree("alice", "bob")
}
