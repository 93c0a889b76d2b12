package lockout_test

import (
	"testing"
	"time"

	"twinkey/pkg/lockout"
)

// guess is a script: failures at moments of a clock moved by hand.
type guess struct {
	t   *testing.T
	now time.Time
	th  lockout.Throttle
	p   lockout.Policy
}

func newGuess(t *testing.T) *guess {
	return &guess{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), p: lockout.Policy{UserFailures: 3, Window: time.Minute, Lock: time.Minute, MaxLock: 5 * time.Minute, Forget: time.Hour}}
}

func (g *guess) wait(d time.Duration) *guess { g.now = g.now.Add(d); return g }

func (g *guess) fail(n int, locks bool) *guess {
	g.t.Helper()
	for i := range n {
		var locked bool
		if g.th, locked = g.th.Fail(g.now, g.p.UserFailures, g.p); locked != (locks && i == n-1) {
			g.t.Errorf("failure %d of %d: locked %v", i+1, n, locked)
		}
	}
	return g
}

func (g *guess) lockedFor(want time.Duration) *guess {
	g.t.Helper()
	left, next, _ := g.th.Locked(g.now)
	if left != want {
		g.t.Errorf("locked for %s, want %s", left, want)
	}
	g.th = next
	return g
}

func TestLocksDouble(t *testing.T) {
	newGuess(t).fail(3, true).lockedFor(time.Minute).
		wait(time.Minute).lockedFor(0).fail(3, true).lockedFor(2*time.Minute).
		wait(2*time.Minute).fail(3, true).lockedFor(4*time.Minute).
		wait(4*time.Minute).fail(3, true).lockedFor(5*time.Minute). // the most
		wait(2*time.Hour).fail(3, true).lockedFor(time.Minute)      // forgotten
}

func TestSlowFailuresDoNotLock(t *testing.T) {
	g := newGuess(t)
	for range 10 {
		g.fail(2, false).wait(2 * time.Minute).lockedFor(0)
	}
}

func TestLockAndAClockThatJumps(t *testing.T) {
	// Back by a year: the lock lasts as long as it was meant to from now on, no longer.
	newGuess(t).fail(3, true).wait(-365 * 24 * time.Hour).lockedFor(time.Minute).wait(30 * time.Second).lockedFor(30 * time.Second).wait(30 * time.Second).lockedFor(0)
	// Ahead by a year: it has passed.
	newGuess(t).fail(3, true).wait(365 * 24 * time.Hour).lockedFor(0)
}
