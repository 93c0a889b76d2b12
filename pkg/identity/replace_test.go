package identity_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"twinkey/pkg/identity"
)

// A process that is killed after any number of Replace's steps, or in the middle of one,
// leaves the old identity or the new one; the next replacement clears up behind it.
func TestKilledAfterEachStep(t *testing.T) {
	a := newAuthority(t)
	old, next, last := a.bundle("twinkey://router/ra"), a.bundle("twinkey://router/ra"), a.bundle("twinkey://router/ra")
	seenOld, seenNew := false, false
	for n := 0; ; n++ {
		id, dir := create(t, old)
		steps, counts, err := id.Steps(next)
		if err != nil {
			t.Fatal(err)
		}
		if n > len(steps) {
			break
		}
		for _, step := range steps[:n] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		tear(t, dir)
		again, err := identity.Load(dir)
		if err != nil {
			t.Fatalf("killed after %d of %d steps: %v", n, len(steps), err)
		}
		want := old
		if seenOld = seenOld || !counts(); counts() {
			want, seenNew = next, true
		}
		if again.Bundle().Twin.ID() != want.Twin.ID() || !again.Bundle().Data.Equal(want.Data) {
			t.Errorf("killed after %d of %d steps: neither old nor new", n, len(steps))
		}
		if err := again.Replace(last); err != nil {
			t.Fatalf("killed after %d of %d steps, replaced again: %v", n, len(steps), err)
		}
		if id, err = identity.Load(dir); err != nil || id.Bundle().Twin.ID() != last.Twin.ID() {
			t.Errorf("killed after %d of %d steps, replaced again: %v", n, len(steps), err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "gen-*")); len(left) != 1 {
			t.Errorf("killed after %d of %d steps: left over: %v", n, len(steps), left)
		}
	}
	if !seenOld || !seenNew {
		t.Error("no step makes the difference")
	}
}

// tear cuts the files of every generation that does not count in half, as a write does
// that was not finished.
func tear(t *testing.T, dir string) {
	t.Helper()
	counts, err := filepath.EvalSymlinks(filepath.Join(dir, "current"))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "gen-*", "*"))
	for _, f := range files {
		st, err := os.Stat(f)
		if err == nil && filepath.Dir(f) != counts {
			err = os.Truncate(f, st.Size()/2)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What does not belong together changes nothing, and a step that fails takes back those
// before it.
func TestAFailedReplacementChangesNothing(t *testing.T) {
	a := newAuthority(t)
	b := a.bundle("twinkey://router/ra")
	id, dir := create(t, b)
	bad := a.bundle("twinkey://router/ra")
	bad.Control = bad.Data
	if err := id.Replace(bad); !errors.Is(err, identity.ErrMismatch) {
		t.Errorf("keys that do not belong together: %v", err)
	}
	// The rename fails: what is to be replaced is no link.
	current := filepath.Join(dir, "current")
	target, err := os.Readlink(current)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(current), os.Mkdir(current, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := id.Replace(a.bundle("twinkey://router/ra")); err == nil {
		t.Error("a directory was replaced by a link")
	}
	if err := errors.Join(os.Remove(current), os.Symlink(target, current)); err != nil {
		t.Fatal(err)
	}
	if id.Bundle().Twin.ID() != b.Twin.ID() {
		t.Error("memory holds what the disk does not")
	}
	if again, err := identity.Load(dir); err != nil || again.Bundle().Twin.ID() != b.Twin.ID() {
		t.Errorf("the old identity is gone: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "gen-*")); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
}

// Several processes may replace, and others load, at the same time: each Identity here
// stands for a process, the lock is the kernel's and per open file.
func TestProcessesAtTheSameTime(t *testing.T) {
	a := newAuthority(t)
	_, dir := create(t, a.bundle("twinkey://directory"))
	bundles := make([]identity.Bundle, 8)
	for n := range bundles {
		bundles[n] = a.bundle("twinkey://directory")
	}
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			id, err := identity.Load(dir)
			for _, b := range bundles[half*4 : half*4+4] {
				if err == nil {
					err = id.Replace(b)
				}
			}
			if err != nil {
				t.Errorf("replacing: %v", err)
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			if _, err := identity.Load(dir); err != nil {
				t.Errorf("loading: %v", err)
				return
			}
		}
	})
	wg.Wait()
	if left, _ := filepath.Glob(filepath.Join(dir, "gen-*")); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
}

// Of two that enrol at once, one is told so: its keys do not overwrite the other's.
func TestOneFirstIdentity(t *testing.T) {
	a := newAuthority(t)
	dir := filepath.Join(t.TempDir(), "identity")
	errs := make([]error, 2)
	bundles := []identity.Bundle{a.bundle("twinkey://ca"), a.bundle("twinkey://ca")}
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() { _, errs[n] = identity.Create(dir, bundles[n]) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), identity.ErrExists) {
		t.Errorf("two first identities: %v, %v", errs[0], errs[1])
	}
}
