package boltstore_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/directory/internal/store/storetest"
)

// holdEnv makes the test binary a process that opens the database there and waits.
const holdEnv = "TWINKEY_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		if _, err := boltstore.Open(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("open")
		time.Sleep(time.Hour) // until it is killed; an endless select counts as a deadlock where nothing else runs
	}
	os.Exit(storetest.Main(m, open))
}

func open(dir string) (store.Store, error) { return boltstore.Open(filepath.Join(dir, "directory.db")) }

func TestConformance(t *testing.T) {
	storetest.Run(t, open, func(dir string, backup []byte) error {
		return os.WriteFile(filepath.Join(dir, "directory.db"), backup, 0o600)
	})
}

func register(t *testing.T, s store.Store) *store.Register {
	t.Helper()
	r, err := store.Open(t.Context(), s, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func revision(t *testing.T, r *store.Register) (rev client.Revision) {
	t.Helper()
	if err := r.Read(t.Context(), func(rd *store.Reader) (err error) {
		rev, err = rd.Revision()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return rev
}

func start(t *testing.T, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), holdEnv+"="+path)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c, bufio.NewScanner(out)
}

func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "directory.db")
	c, out := start(t, path)
	if !out.Scan() {
		t.Fatal("the first process did not open the database")
	}
	began := time.Now()
	_, err := boltstore.Open(path)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s to find out", took)
	}
	if !errors.Is(err, store.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("in use by another process (pid %d)", c.Process.Pid)) {
		t.Errorf("got %v", err)
	}
	if _, err := boltstore.Replace(path, path, path+".old", nil); !errors.Is(err, store.ErrInUse) {
		t.Errorf("replaced under a running process: %v", err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	s, err := boltstore.Open(path) // the lock died with its process
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A real file system of 1 MiB, full to the last byte.
func TestFullDisk(t *testing.T) {
	storetest.NeedsRoot(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := register(t, s)
	n := 0
	for ; n < 5; n++ {
		if _, err := r.Apply(t.Context(), "twinkey://ca", storetest.Group(n)); err != nil {
			t.Fatal(err)
		}
	}
	free, err := storetest.Fill(dir)
	if err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil && n < 1000; n++ { // pages that lie free in the file are used up first
		_, err = r.Apply(t.Context(), "twinkey://ca", storetest.Group(n))
	}
	n--
	if !errors.Is(err, store.ErrWrite) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d changes: %v", n, err)
	}
	for range 3 { // and goes on failing, and reading
		if _, err := r.Apply(t.Context(), "twinkey://ca", storetest.Group(n)); !errors.Is(err, store.ErrWrite) {
			t.Errorf("got %v", err)
		}
		storetest.CheckWhole(t, r, client.Revision(n))
	}
	// A restart with a full disk reads as well.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = open(dir); err != nil {
		t.Fatal(err)
	}
	r = register(t, s)
	storetest.CheckWhole(t, r, client.Revision(n))
	if err := free(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), "twinkey://ca", storetest.Group(n)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	storetest.CheckWhole(t, r, client.Revision(n)+1)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoDatabase(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"text":  []byte("hello"),
		"zeros": make([]byte, 1<<16),
		"noise": bytes.Repeat([]byte{0xA5, 0x17}, 1<<15),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := boltstore.Open(path); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("Open of %s: %v", name, err)
		}
		if err := boltstore.Check(path); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("Check of %s: %v", name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestReplaceKeepsTheOldOneUntilTheNewOneIsWhole(t *testing.T) {
	dir := t.TempDir()
	path, copyOf := filepath.Join(dir, "directory.db"), filepath.Join(dir, "copy.db")
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	r := register(t, s)
	apply := func(n int) {
		if _, err := r.Apply(t.Context(), "twinkey://ca", storetest.Group(n)); err != nil {
			t.Fatal(err)
		}
	}
	apply(0)
	var b bytes.Buffer
	if err := r.Backup(t.Context(), &b, nil); err != nil {
		t.Fatal(err)
	}
	apply(1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	current := func() client.Revision {
		s, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		return revision(t, register(t, s))
	}
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		file    []byte
		prepare error
		want    error
	}{
		"cut short": {b.Bytes()[:b.Len()/2], nil, store.ErrDamaged},
		"empty":     {nil, nil, nil},
		"refused":   {b.Bytes(), refused, refused},
	} {
		if err := os.WriteFile(copyOf, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := boltstore.Replace(path, copyOf, path+".old", func(fresh, old store.Store) error {
			if c.prepare != nil {
				return c.prepare
			}
			return store.Known(t.Context(), fresh)
		})
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if got := current(); got != 2 {
			t.Errorf("%s: revision %d now", name, got)
		}
	}
	if err := os.WriteFile(copyOf, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := boltstore.Replace(path, copyOf, path+".old", func(fresh, old store.Store) error {
		if fresh == nil || old == nil {
			return errors.New("both were to be seen")
		}
		return nil
	})
	if err != nil || kept != path+".old" || current() != 1 {
		t.Errorf("kept %q, revision %d, %v", kept, current(), err)
	}
	if err := boltstore.Check(kept); err != nil {
		t.Errorf("the old one: %v", err)
	}
	if left, _ := filepath.Glob(path + ".restore*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func BenchmarkApply(b *testing.B) {
	s, err := open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	r, err := store.Open(b.Context(), s, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		if _, err := r.Apply(b.Context(), "twinkey://ca", storetest.Group(n)); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// A database with a few bytes changed anywhere is refused or read, and never ends the
// process.
func FuzzCheck(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "good.db")
	s, err := boltstore.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	r, err := store.Open(f.Context(), s, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	for n := range 50 {
		if _, err := r.Apply(f.Context(), "twinkey://ca", storetest.Group(n)); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, at := range []uint32{8, 16, 24, 48, 56, 64, 4096, 8192, 8200, 12288, 16384 + 8} {
		f.Add(at, uint64(0xff), 0)
		f.Add(at, uint64(1)<<40, 0)
	}
	f.Add(uint32(0), uint64(0), len(good)/2)
	f.Fuzz(func(t *testing.T, at uint32, flip uint64, cut int) {
		b := bytes.Clone(good)
		for i := range 8 {
			b[(int(at)+i)%len(b)] ^= byte(flip >> (8 * i))
		}
		if cut > 0 {
			b = b[:len(b)-cut%len(b)]
		}
		bad := filepath.Join(t.TempDir(), "bad.db")
		if err := os.WriteFile(bad, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := boltstore.Check(bad); err != nil && !errors.Is(err, store.ErrDamaged) {
			t.Errorf("neither sound nor damaged: %v", err)
		}
	})
}
