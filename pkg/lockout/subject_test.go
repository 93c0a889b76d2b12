package lockout_test

import (
	"testing"
	"time"

	"twinkey/pkg/lockout"
)

func TestSubjects(t *testing.T) {
	for key, want := range map[string]lockout.Subject{
		"u/alice":        {UID: "alice"},
		"p/berlin/alice": {UID: "alice", Router: "berlin"},
		"o/berlin/alice": {UID: "alice", Router: "berlin", Asking: true},
		"r/berlin":       {Router: "berlin"},
	} {
		if s, ok := lockout.ParseSubject(key); !ok || s != want || s.Key() != key {
			t.Errorf("%s: %+v %v, whose key is %s", key, s, ok, s.Key())
		}
	}
	for _, key := range []string{"", "u", "u/", "r/", "r//alice", "p/", "p/berlin", "p/berlin/", "p//alice", "o/berlin", "u/a/b", "p/a/b/c", "x/alice", "x/berlin/alice"} {
		if s, ok := lockout.ParseSubject(key); ok {
			t.Errorf("%q was taken for %+v", key, s)
		}
	}
}

func TestWhatIsReleasedTogether(t *testing.T) {
	for _, c := range []struct {
		uid, router string
		want        []string
	}{
		{"alice", "", []string{"u/alice", "p/berlin/alice", "o/paris/alice"}},
		{"", "berlin", []string{"r/berlin"}},
		{"alice", "berlin", []string{"u/alice", "p/berlin/alice", "o/paris/alice", "r/berlin"}},
		{"", "", nil},
		{"berlin", "alice", nil},
	} {
		var got []string
		for _, key := range []string{"u/alice", "u/bob", "p/berlin/alice", "p/berlin/bob", "o/paris/alice", "r/berlin", "r/paris"} {
			if s, ok := lockout.ParseSubject(key); ok && s.Concerns(c.uid, c.router) {
				got = append(got, key)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%q, %q: %v, want %v", c.uid, c.router, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%q, %q: %v, want %v", c.uid, c.router, got, c.want)
			}
		}
	}
}

func TestLockAt(t *testing.T) {
	g := newGuess(t).fail(3, true)
	l, ok := g.th.LockAt("u/alice", g.now.Add(20*time.Second))
	if !ok || l.UID != "alice" || !l.Until.Equal(g.now.Add(time.Minute)) {
		t.Errorf("%+v %v", l, ok)
	}
	if l, ok := g.th.LockAt("u/alice", g.now.Add(time.Minute)); ok {
		t.Errorf("over, and still %+v", l)
	}
	if l, ok := g.th.LockAt("nonsense", g.now); ok {
		t.Errorf("of nobody: %+v", l)
	}
}
