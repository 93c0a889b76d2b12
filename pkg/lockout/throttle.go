package lockout

import "time"

// Policy says when failed logins lock.
type Policy struct {
	UserFailures   int           // of one user within Window
	RouterFailures int           // of all users of one router within Window
	Window         time.Duration // from the first failure on
	Lock           time.Duration // the first; each later one is twice as long
	MaxLock        time.Duration
	Forget         time.Duration // without a failure, after which the next lock is short again
}

// Default leaves a guesser some 240 tries a day at one password.
func Default() Policy {
	return Policy{UserFailures: 10, RouterFailures: 100, Window: 15 * time.Minute, Lock: time.Minute, MaxLock: time.Hour, Forget: 24 * time.Hour}
}

// Throttle counts the failures of one user or router. Its times are wall-clock times, so
// that it survives a restart; a clock that jumps back neither prolongs a lock nor
// shortens it.
type Throttle struct {
	Failures int           `json:"failures"` // in the window that began at First
	First    time.Time     `json:"first"`
	Last     time.Time     `json:"last"`
	Locks    int           `json:"locks,omitempty"` // so far, in a row
	Until    time.Time     `json:"until,omitzero"`
	Length   time.Duration `json:"length,omitempty"` // of the lock that ends at Until
}

// Fail counts a failure at now and says whether it locks. limit is that of the policy for
// whatever is counted here.
func (t Throttle) Fail(now time.Time, limit int, p Policy) (next Throttle, locked bool) {
	if now.Before(t.Last) || now.Sub(t.First) > p.Window {
		t.Failures, t.First = 0, now
	}
	if now.Sub(t.Last) > p.Forget {
		t.Locks = 0
	}
	t.Failures++
	t.Last = now
	if t.Failures < limit {
		return t, false
	}
	t.Length = p.MaxLock
	if t.Locks < 30 { // beyond that the shift means nothing
		t.Length = min(p.Lock<<t.Locks, p.MaxLock)
	}
	t.Locks++
	t.Failures, t.First, t.Until = 0, now, now.Add(t.Length)
	return t, true
}

// Locked says for how long the lock still holds at now. moved is true if the clock has
// gone back since the lock began: next then ends as far ahead as the lock was long, and is
// to be stored.
func (t Throttle) Locked(now time.Time) (left time.Duration, next Throttle, moved bool) {
	left = t.Until.Sub(now)
	switch {
	case t.Until.IsZero() || left <= 0:
		return 0, t, false
	case left > t.Length:
		t.Until = now.Add(t.Length)
		return t.Length, t, true
	}
	return left, t, false
}

// Dead says whether nothing in t matters any more.
func (t Throttle) Dead(now time.Time, p Policy) bool {
	return now.After(t.Until) && now.Sub(t.Last) > p.Forget
}
