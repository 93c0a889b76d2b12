package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"twinkey/ca/internal/ledger"
	dirclient "twinkey/directory/client"
	"twinkey/pkg/lockout"
)

// locked makes so many locks of alice, at as many routers, and one of bob.
func (b *box) locked(n int) {
	b.Helper()
	t := lockout.Throttle{Until: time.Now().Add(time.Hour), Length: time.Hour}
	err := b.ca.Ledger.Update(func(tx *ledger.Tx) (err error) {
		for i := range n {
			err = errors.Join(err, tx.PutThrottle(lockout.Subject{UID: "alice", Router: fmt.Sprintf("r%d", i)}.Key(), t))
		}
		return errors.Join(err, tx.PutThrottle(lockout.Subject{UID: "bob"}.Key(), t))
	})
	if err != nil {
		b.Fatal(err)
	}
}

func (b *box) stillLocked() int {
	b.Helper()
	l, err := b.srv.locks(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return len(l.Locks)
}

// Each lock is noted by the directory before it is released, also where they are more than it takes at once; what it does not note stays.
func TestReleaseIsNotedFirst(t *testing.T) {
	const all = dirclient.MaxLocks + 1
	for name, tt := range map[string]struct {
		away           int // the directory, from the how manieth time on it is asked
		released, left int
	}{
		"all":           {3, all, 1},
		"nothing":       {1, 0, all + 1},
		"the first lot": {2, dirclient.MaxLocks, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.locked(all)
			asked, noted := 0, map[string]bool{}
			out, err := b.srv.release(t.Context(), dirclient.Unlock{UID: "alice", Actor: "operator:root"}, func(_ context.Context, u dirclient.Unlock) ([]lockout.Lock, error) {
				if asked++; asked >= tt.away {
					return nil, dirclient.ErrUnavailable
				}
				if len(u.AtCA) > dirclient.MaxLocks || u.UID != "alice" || u.Actor != "operator:root" {
					t.Errorf("%d at once, %+v", len(u.AtCA), u.Actor)
				}
				if left := b.stillLocked(); left != all+1-len(noted) {
					t.Errorf("%d are left before they are noted, %d were", left, len(noted))
				}
				for _, l := range u.AtCA {
					noted[l.Key()] = true
				}
				return nil, nil
			})
			if err != nil || len(out.Locks) != tt.released || len(noted) != tt.released || b.stillLocked() != tt.left || (out.Directory == "") != (tt.released == all) {
				t.Errorf("%v: %d released, %d noted, %d left, %q", err, len(out.Locks), len(noted), b.stillLocked(), out.Directory)
			}
			for _, l := range out.Locks {
				if !noted[l.Key()] || l.At != AtCA {
					t.Errorf("released and not noted: %+v", l)
				}
			}
		})
	}
	// A CA that has no directory has nobody who notes it.
	b := newBox(t)
	b.locked(1)
	got, err := b.srv.unlock(httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/unlock", strings.NewReader(`{"uid":"alice"}`)))
	if out, ok := got.(Locks); err != nil || !ok || len(out.Locks) != 0 || out.Directory == "" || b.stillLocked() != 2 {
		t.Errorf("without a directory: %+v, %v", got, err)
	}
}
