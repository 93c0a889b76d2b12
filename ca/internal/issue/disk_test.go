package issue_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
)

// skip skips, or fails where nothing may be left out.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// smallDisk puts w on a disk of its own.
func (w *world) smallDisk() {
	w.Helper()
	if os.Geteuid() != 0 {
		skip(w.T, "needs root")
	}
	w.close()
	w.dir = w.TempDir()
	if err := unix.Mount("tmpfs", w.dir, "tmpfs", 0, "size=2m"); err != nil {
		w.open() // for the cleanup
		skip(w.T, "needs root that may mount: "+err.Error())
	}
	w.Cleanup(func() {
		if err := unix.Unmount(w.dir, unix.MNT_DETACH); err != nil {
			w.Error(err)
		}
	})
	w.open()
}

func (w *world) filler() string { return filepath.Join(w.dir, "filler") }

// fill leaves no page free.
func (w *world) fill() {
	f, err := os.Create(w.filler())
	if err != nil {
		w.Fatal(err)
	}
	page := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		w.Errorf("filling the disk: %v", err)
	}
	if err := f.Close(); err != nil {
		w.Error(err)
	}
}

// addUntilItFails adds users, so that the databases have to grow, until one fails.
func (w *world) addUntilItFails() (uid string, err error) {
	w.Helper()
	for i := range 200 {
		uid = "user" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		if err = w.addUser(uid); err != nil {
			return uid, err
		}
	}
	w.Fatal("200 users fit on a full disk")
	return "", nil
}

func TestFullDisk(t *testing.T) {
	t.Run("before anything is issued", func(t *testing.T) {
		w := newWorld(t)
		w.smallDisk()
		if err := w.addUser("alice"); err != nil {
			t.Fatal(err)
		}
		w.fill()
		uid, err := w.addUntilItFails()
		if !errors.Is(err, ledger.ErrStorage) && !errors.Is(err, authority.ErrStorage) {
			t.Fatalf("got %v", err)
		}
		all, none := w.presence(uid)
		if errors.Is(err, issue.ErrNothingIssued) && !none || all {
			t.Errorf("all %v, none %v after: %v", all, none, err)
		}
		if all, _ := w.presence("alice"); !all {
			t.Error("an earlier user is no longer whole")
		}
		if err := os.Remove(w.filler()); err != nil {
			t.Fatal(err)
		}
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		if all, _ := w.presence(uid); !all {
			if err := w.addUser(uid); err != nil {
				t.Errorf("when there is room again: %v", err)
			}
		}
	})
	t.Run("after the directory has it", func(t *testing.T) {
		w := newWorld(t)
		w.smallDisk()
		w.atStep = func(what, step string) {
			if step == issue.StepApplied {
				w.fill()
			}
		}
		if err := w.addUser("alice"); err != nil {
			if !errors.Is(err, issue.ErrUnrecorded) {
				t.Fatalf("got %v", err)
			}
			if _, none := w.presence("alice"); none {
				t.Error("alice is nowhere, though the directory has her")
			}
		}
		w.atStep = nil
		if err := os.Remove(w.filler()); err != nil {
			t.Fatal(err)
		}
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		if all, _ := w.presence("alice"); !all || len(w.pending()) > 0 {
			t.Errorf("alice is not everywhere, pending %v", w.pending())
		}
	})
}
