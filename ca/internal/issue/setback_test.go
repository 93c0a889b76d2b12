package issue_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"twinkey/ca/internal/issue"
)

// A directory that has forgotten what it acknowledged is noticed before the next change covers it up, and stays
// noticed, over a restart too, until somebody says that it is mended.
func TestRestoredDirectoryIsNoticed(t *testing.T) {
	for name, next := range map[string]func(w *world) error{
		"by asking":       func(w *world) error { return w.desk.Compare(w.Context()) },
		"by a user":       func(w *world) error { return w.addUser("carol") },
		"by a CRL":        func(w *world) error { return w.desk.PublishCRL(w.Context()) },
		"by a revocation": func(w *world) error { _, err := w.desk.RevokeUser(w.Context(), "op", "alice", "left"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			setback := func() string {
				t.Helper()
				s, err := w.desk.Setback()
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			if err := w.addUser("alice"); err != nil {
				t.Fatal(err)
			}
			copied := maps.Clone(w.remote.changes)
			if err := w.addUser("bob"); err != nil {
				t.Fatal(err)
			}
			if err := w.desk.Compare(t.Context()); err != nil || setback() != "" {
				t.Fatalf("noticed what did not happen: %q, %v", setback(), err)
			}
			w.remote.restore(copied)
			if err := next(w); err != nil {
				t.Fatal(err)
			}
			w.close()
			w.open()
			if s := setback(); !strings.Contains(s, `"adding user bob"`) || !strings.Contains(s, "accept-restore") {
				t.Errorf("setback: %q", s)
			}
			if err := w.desk.Accept(); err != nil {
				t.Fatal(err)
			}
			if err := w.desk.Compare(t.Context()); err != nil || setback() != "" {
				t.Errorf("noticed again: %q, %v", setback(), err)
			}
			if err := w.desk.Accept(); !errors.Is(err, issue.ErrUnknown) {
				t.Errorf("accepting nothing: %v", err)
			}
		})
	}
}

// A directory that is away has forgotten nothing.
func TestDirectoryAwayIsNotRestored(t *testing.T) {
	w := newWorld(t)
	if err := w.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	w.remote.down = true
	if err := w.desk.Compare(t.Context()); err == nil {
		t.Error("it answered")
	}
	if s, err := w.desk.Setback(); s != "" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
}
