package accounting_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/directory/client"
	"twinkey/router/internal/accounting"
)

// book is a directory that takes records, or does not.
type book struct {
	mu      sync.Mutex
	err     error
	bad     uint64   // a number that is not taken
	got     []uint64 // numbers, in the order in which they came
	batches int
	lost    uint64
	runs    []string
}

func (b *book) take(_ context.Context, run string, rs []client.CallRecord) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches++
	if b.err != nil {
		return b.err
	}
	if slices.ContainsFunc(rs, func(r client.CallRecord) bool { return r.Seq == b.bad }) && b.bad != 0 {
		return client.ErrInvalid
	}
	for _, r := range rs {
		b.got = append(b.got, r.Seq)
		b.lost += r.Lost
	}
	b.runs = append(b.runs, run)
	return nil
}

func (b *book) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// upTo are the numbers from 1 on.
func upTo(n int) (s []uint64) {
	for i := range n {
		s = append(s, uint64(i)+1) //nolint:gosec // not negative
	}
	return s
}

// begin runs a reporter until the test ends it.
func begin(t *testing.T, b *book) (r *accounting.Reporter, log *strings.Builder, end func()) {
	log = &strings.Builder{}
	r = accounting.New(b.take, "run-1", slog.New(slog.NewTextHandler(log, nil)))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, log, func() { stop(); <-done }
}

func TestRecordsArriveTogetherAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		r, log, end := begin(t, b)
		for range 450 {
			r.Add(client.CallRecord{Event: client.CallUp})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !slices.Equal(b.got, upTo(450)) || b.batches != 3 || r.Waiting() != 0 {
			t.Errorf("%d records in %d batches", len(b.got), b.batches)
		}
		time.Sleep(time.Hour)
		if b.batches != 3 {
			t.Errorf("%d batches with nothing to tell", b.batches)
		}
		end()
		if log.Len() > 0 || b.runs[0] != "run-1" {
			t.Errorf("runs %v, log:\n%s", b.runs, log)
		}
	})
}

// While the directory is away it is asked ever less often; afterwards nothing is missing, and the log says so twice.
func TestDirectoryIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{err: client.ErrUnavailable}
		r, log, end := begin(t, b)
		defer end()
		for range 3 {
			r.Add(client.CallRecord{})
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if b.batches < 8 || b.batches > 20 || r.Waiting() != 3 {
			t.Errorf("%d attempts in ten minutes, %d waiting", b.batches, r.Waiting())
		}
		b.set(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !slices.Equal(b.got, upTo(3)) || strings.Count(log.String(), "level=") != 2 {
			t.Errorf("got %v; log:\n%s", b.got, log)
		}
	})
}

// More than the queue holds is counted, and the count told.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{err: client.ErrUnavailable}
		r, _, end := begin(t, b)
		defer end()
		for range 12_345 {
			r.Add(client.CallRecord{})
		}
		if r.Waiting() != 10_000 {
			t.Errorf("%d waiting", r.Waiting())
		}
		b.set(nil)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(b.got) != 10_001 || b.lost != 2345 {
			t.Errorf("%d records, %d said to be lost", len(b.got), b.lost)
		}
	})
}

// One record that the directory does not take costs no other, and is said to be lost.
func TestOneBadRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{bad: 3}
		r, _, end := begin(t, b)
		defer end()
		for range 7 {
			r.Add(client.CallRecord{Event: client.CallUp})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(b.got, []uint64{1, 2, 4, 5, 6, 7, 8}) || b.lost != 1 {
			t.Errorf("got %v, %d lost", b.got, b.lost)
		}
	})
}

// What the directory will never take is let go of, or nothing after it would arrive.
func TestRecordsThatAreRefused(t *testing.T) {
	for _, err := range []error{client.ErrInvalid, client.ErrNotFound} {
		synctest.Test(t, func(t *testing.T) {
			b := &book{err: err}
			r, log, end := begin(t, b)
			defer end()
			r.Add(client.CallRecord{})
			time.Sleep(time.Second)
			synctest.Wait()
			b.set(nil)
			r.Add(client.CallRecord{})
			time.Sleep(time.Second)
			synctest.Wait()
			if !slices.Contains(b.got, 3) || !strings.Contains(log.String(), "does not take") {
				t.Errorf("%v: got %v, log:\n%s", err, b.got, log)
			}
		})
	}
}

// The last words of a router that stops are delivered, unless the directory is away: then it stops all the same.
func TestStop(t *testing.T) {
	for _, err := range []error{nil, errors.New("away")} {
		synctest.Test(t, func(t *testing.T) {
			b := &book{err: err}
			r, _, end := begin(t, b)
			synctest.Wait()
			began := time.Now()
			r.Add(client.CallRecord{})
			end()
			if len(b.got) != map[bool]int{true: 1, false: 0}[err == nil] || time.Since(began) > 3*time.Second {
				t.Errorf("%v: got %v after %v", err, b.got, time.Since(began))
			}
		})
	}
}
