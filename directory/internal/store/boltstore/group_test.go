package boltstore

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"twinkey/directory/internal/store"
)

// held is a store in which somebody commits until release is called, and n wait; done is closed when all are through.
func held(t *testing.T, n int, f func(i int, tx store.Tx) error) (release func(), errs []error, done chan struct{}) {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "directory.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	hold, in := make(chan struct{}), make(chan struct{})
	errs, done = make([]error, n), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_ = s.Update(t.Context(), func(store.Tx) error { close(in); <-hold; return nil })
	})
	<-in
	for i := range n {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = errPanic
				}
			}()
			errs[i] = s.Update(t.Context(), func(tx store.Tx) error { return f(i, tx) })
		})
	}
	go func() { all.Wait(); close(done) }()
	return func() {
		for waiting := 0; waiting < n; time.Sleep(time.Millisecond) {
			s.group.mu.Lock()
			waiting = len(s.group.waiting)
			s.group.mu.Unlock()
		}
		close(hold)
	}, errs, done
}

var errPanic = errors.New("panicked")

func transaction(t *testing.T, tx store.Tx) int {
	t.Helper()
	d, ok := tx.(*draft)
	if !ok {
		t.Fatalf("a %T", tx)
	}
	return d.under.tx.ID()
}

// Those who come while somebody commits share the next transaction, up to so many.
func TestUpdatesShareACommit(t *testing.T) {
	const n = maxGroup + 10
	var mu sync.Mutex
	in := map[int]int{} // updates by transaction
	release, errs, done := held(t, n, func(i int, tx store.Tx) error {
		mu.Lock()
		defer mu.Unlock()
		in[transaction(t, tx)]++
		return tx.Put(store.Users, []byte{byte(i)}, []byte("x"))
	})
	release()
	<-done
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if sizes := slices.Sorted(maps.Values(in)); !slices.Equal(sizes, []int{n - maxGroup, maxGroup}) {
		t.Errorf("updates by transaction: %v", in)
	}
}

// A function that panics takes its own caller with it, or whoever commits for it; the others hear that they have failed, and those who
// come afterwards find the store as it was.
func TestPanicInAnUpdate(t *testing.T) {
	release, errs, done := held(t, 10, func(i int, _ store.Tx) error {
		if i == 5 {
			panic("a bug")
		}
		return nil
	})
	release()
	<-done
	panicked := 0
	for i, err := range errs {
		switch {
		case errors.Is(err, errPanic):
			panicked++
		case !errors.Is(err, store.ErrWrite):
			t.Errorf("%d: %v", i, err)
		}
	}
	if panicked != 1 {
		t.Errorf("%d have panicked", panicked)
	}
}

// What an update says because of another one that it saw ("that is done already") it does not say if that one is lost.
func TestRefusalsBehindALostUpdate(t *testing.T) {
	early, late := errors.New("refused before anything has changed"), errors.New("refused for what has changed")
	var turn atomic.Int32 // they do not come in the order of their numbers
	release, errs, done := held(t, 5, func(_ int, tx store.Tx) error {
		switch turn.Add(1) {
		case 1:
			return nil // whose caller commits, and panics
		case 2:
			return early
		case 3:
			return tx.Put(store.Users, []byte("a"), []byte("b"))
		case 4:
			return late
		default:
			panic("a bug")
		}
	})
	release()
	<-done
	var got [3]int
	for _, err := range errs {
		switch {
		case errors.Is(err, early):
			got[0]++
		case errors.Is(err, store.ErrWrite):
			got[1]++
		case errors.Is(err, errPanic):
			got[2]++
		}
	}
	if got != [3]int{1, 3, 1} {
		t.Errorf("got %v", errs)
	}
}
