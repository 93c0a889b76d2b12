package issue_test

import (
	"slices"
	"testing"

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
