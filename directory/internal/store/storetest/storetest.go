package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"twinkey/directory/internal/store"
)

// Open opens the engine's database in dir, which persists from one call to the next.
type Open func(dir string) (store.Store, error)

// Run holds an engine to the contract of store.Store; the test binary's TestMain must call
// Main. restore puts what Backup wrote into
// the empty directory dir, so that Open finds it.
func Run(t *testing.T, open Open, restore func(dir string, backup []byte) error) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *suite){
		"everything of an update or nothing": testAtomic,
		"an update outlives the process":     testDurable,
		"a view is one state":                testSnapshot,
		"keys are in byte order":             testOrder,
		"updates happen one after the other": testSerial,
		"many at once, some of which fail":   testFailuresAmongOthers,
		"an update sees what it has changed": testOwnChanges,
		"a backup is one state":              testBackup,
		"a view cannot write":                testViewReadOnly,
		"an ended context changes nothing":   testContext,
		"one process at a time":              testExclusive,
		"killed in the middle":               testKilled,
	} {
		t.Run(name, func(t *testing.T) { test(t, &suite{open: open, restore: restore, dir: t.TempDir()}) })
	}
}

type suite struct {
	open    Open
	restore func(dir string, backup []byte) error
	dir     string
}

func (s *suite) start(t *testing.T) store.Store {
	t.Helper()
	st, err := s.open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func update(t *testing.T, s store.Store, f func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func set(key, value string) func(store.Tx) error {
	return func(tx store.Tx) error { return tx.Put(store.Users, []byte(key), []byte(value)) }
}

// content is a table as "key=value" in the order of Range.
func content(t *testing.T, s store.Store, table store.Table, from string) []string {
	t.Helper()
	out := []string{}
	err := s.View(t.Context(), func(tx store.Tx) error {
		for k, v := range tx.Range(table, []byte(from)) {
			out = append(out, string(k)+"="+string(v))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func testAtomic(t *testing.T, su *suite) {
	s := su.start(t)
	update(t, s, set("a", "1"))
	refused := errors.New("refused")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		if err := errors.Join(set("a", "2")(tx), set("b", "2")(tx), tx.Put(store.Audit, []byte("x"), []byte("y"))); err != nil {
			return err
		}
		if got := tx.Get(store.Users, []byte("a")); string(got) != "2" {
			t.Errorf("a transaction does not see its own write: %q", got)
		}
		return refused
	})
	if !errors.Is(err, refused) || errors.Is(err, store.ErrWrite) {
		t.Errorf("got %v, want the function's own error", err)
	}
	want(t, content(t, s, store.Users, ""), "a=1")
	want(t, content(t, s, store.Audit, ""))
}

func testDurable(t *testing.T, su *suite) {
	s := su.start(t)
	update(t, s, set("a", "1"))
	update(t, s, func(tx store.Tx) error { return errors.Join(set("b", "2")(tx), tx.Delete(store.Users, []byte("a"))) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, content(t, su.start(t), store.Users, ""), "b=2")
}

func testSnapshot(t *testing.T, su *suite) {
	s := su.start(t)
	update(t, s, set("a", "old"))
	err := s.View(t.Context(), func(tx store.Tx) error {
		done := make(chan error)
		go func() { done <- s.Update(context.Background(), set("a", "new")) }() // a view does not hold up an update
		if err := <-done; err != nil {
			return err
		}
		if got := tx.Get(store.Users, []byte("a")); string(got) != "old" {
			t.Errorf("the view changed under its reader: %q", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, content(t, s, store.Users, ""), "a=new")
}

func testOrder(t *testing.T, su *suite) {
	s := su.start(t)
	update(t, s, func(tx store.Tx) error {
		var errs []error
		for _, k := range []string{"b", "a", "\xff", "ab", "\x00"} {
			errs = append(errs, set(k, "v")(tx))
		}
		return errors.Join(append(errs, tx.Delete(store.Users, []byte("not there")))...)
	})
	want(t, content(t, s, store.Users, ""), "\x00=v", "a=v", "ab=v", "b=v", "\xff=v")
	want(t, content(t, s, store.Users, "aa"), "ab=v", "b=v", "\xff=v")
	want(t, content(t, s, store.Groups, ""))
	err := s.View(t.Context(), func(tx store.Tx) error {
		if k, v := tx.Last(store.Users); string(k) != "\xff" || string(v) != "v" {
			t.Errorf("Last: %q %q", k, v)
		}
		if k, v := tx.Last(store.Groups); k != nil || v != nil {
			t.Errorf("Last of an empty table: %q %q", k, v)
		}
		if v := tx.Get(store.Users, []byte("c")); v != nil {
			t.Errorf("Get of what is not there: %q", v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testSerial(t *testing.T, su *suite) {
	const workers, each = 4, 10
	s := su.start(t)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				err := s.Update(context.Background(), func(tx store.Tx) error {
					return tx.Put(store.Meta, []byte("n"), append(bytes.Clone(tx.Get(store.Meta, []byte("n"))), '.'))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want(t, content(t, s, store.Meta, ""), "n="+string(bytes.Repeat([]byte{'.'}, workers*each)))
}

func testFailuresAmongOthers(t *testing.T, su *suite) {
	const workers, each = 8, 20
	s := su.start(t)
	refused := errors.New("refused")
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for range each {
				err := s.Update(context.Background(), func(tx store.Tx) error {
					if err := tx.Put(store.Meta, []byte("n"), append(bytes.Clone(tx.Get(store.Meta, []byte("n"))), '.')); err != nil {
						return err
					}
					switch i % 4 {
					case 1:
						return errors.Join(set("spoilt", "x")(tx), refused)
					case 2:
						return tx.Put(store.Users, nil, []byte("no key"))
					default:
						return nil
					}
				})
				if failed := i%4 == 1 || i%4 == 2; (err != nil) != failed || (i%4 == 1) != errors.Is(err, refused) || errors.Is(err, store.ErrWrite) {
					t.Errorf("worker %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	want(t, content(t, s, store.Meta, ""), "n="+string(bytes.Repeat([]byte{'.'}, workers/2*each)))
	want(t, content(t, s, store.Users, ""))
}

// Against a map: after each of many changes in one update Get, Range and Last show what will be there, and then it is.
func testOwnChanges(t *testing.T, su *suite) {
	s := su.start(t)
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same every time
	model := map[string]string{}
	for range 20 {
		update(t, s, func(tx store.Tx) error {
			for n := range 20 {
				k := string(rune('a' + r.IntN(12)))
				var err error
				if r.IntN(3) == 0 {
					delete(model, k)
					err = tx.Delete(store.Users, []byte(k))
				} else {
					model[k] = strconv.Itoa(n)
					err = set(k, model[k])(tx)
				}
				if err != nil {
					return err
				}
				checkModel(t, tx, model, string(rune('a'+r.IntN(13))))
			}
			return nil
		})
		if err := s.View(t.Context(), func(tx store.Tx) error { checkModel(t, tx, model, "a"); return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func checkModel(t *testing.T, tx store.Tx, model map[string]string, from string) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(model))
	var got, should []string
	for k, v := range tx.Range(store.Users, []byte(from)) {
		got = append(got, string(k)+"="+string(v))
	}
	for _, k := range keys {
		if k >= from {
			should = append(should, k+"="+model[k])
		}
	}
	if !slices.Equal(got, should) {
		t.Fatalf("from %q: %q, want %q", from, got, should)
	}
	for range tx.Range(store.Users, []byte(from)) {
		break // whoever has seen enough may stop
	}
	last := ""
	if len(keys) > 0 {
		last = keys[len(keys)-1]
	}
	if k, v := tx.Last(store.Users); string(k) != last || string(v) != model[last] {
		t.Fatalf("the last is %q=%q, want %q", k, v, last)
	}
	if v, ok := model[from]; string(tx.Get(store.Users, []byte(from))) != v || ok != (tx.Get(store.Users, []byte(from)) != nil) {
		t.Fatalf("%q is %q, want %q", from, tx.Get(store.Users, []byte(from)), v)
	}
}

func testBackup(t *testing.T, su *suite) {
	s := su.start(t)
	update(t, s, set("a", "1"))
	var copied bytes.Buffer
	var said int64
	if err := s.Backup(t.Context(), &copied, func(n int64) { said = n }); err != nil {
		t.Fatal(err)
	}
	if said != int64(copied.Len()) {
		t.Errorf("size %d was announced, %d bytes came", said, copied.Len())
	}
	update(t, s, set("a", "2"))
	other := &suite{open: su.open, dir: t.TempDir()}
	if err := su.restore(other.dir, copied.Bytes()); err != nil {
		t.Fatal(err)
	}
	want(t, content(t, other.start(t), store.Users, ""), "a=1")
	want(t, content(t, s, store.Users, ""), "a=2")
}

func testViewReadOnly(t *testing.T, su *suite) {
	s := su.start(t)
	err := s.View(t.Context(), func(tx store.Tx) error {
		if set("a", "1")(tx) == nil {
			return errors.New("a view wrote")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	want(t, content(t, s, store.Users, ""))
}

func testContext(t *testing.T, su *suite) {
	s := su.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, set("a", "1")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := s.View(ctx, func(store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	want(t, content(t, s, store.Users, ""))
}

func testExclusive(t *testing.T, su *suite) {
	su.start(t)
	if _, err := su.open(su.dir); !errors.Is(err, store.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
}

// NeedsRoot skips a test that has to mount a file system, unless TWINKEY_NO_SKIP is set.
func NeedsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// Fill writes to a file in dir until the disk is full, and returns how to make room again.
func Fill(dir string) (free func() error, err error) {
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	for block := make([]byte, 1<<16); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // the last bytes as well
		}
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("filling %s: %w", dir, err)
	}
	return func() error { return os.Remove(name) }, nil
}
