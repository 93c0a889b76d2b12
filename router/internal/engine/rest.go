package engine

import (
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of polling before a worker sleeps. To be woken costs 10 to 50 us on a virtual machine, so
// to look again for as long may be cheaper than to sleep, if something comes.
const (
	lingerFirst = 10 * time.Microsecond
	lingerMost  = 80 * time.Microsecond
	// lingerNever is a sleep so long that it was right.
	lingerNever = 4 * lingerMost
	// lingerLoad is how many bytes make it a bulk transfer: nobody waits for one packet of it, and
	// whoever shares the core has better use for the time.
	lingerLoad = 8 << 10
	// flood is how many lone packets in a window are so many that each looked after by itself would keep everybody busy. Then
	// they gather for a while: sealed together they leave in one message, and the far end is woken once. Nobody asks
	// for the delay of one of 40,000 packets a second; a TCP transfer comes in trains and is not meant.
	flood       = 40
	floodWindow = time.Millisecond
	floodPause  = 60 * time.Microsecond
	// lingerLooks bounds the looks where the clock does not tell: each takes about 1 us.
	lingerLooks = 160
)

// rest decides whether a worker that has nothing to do sleeps at once or looks again for a while. It
// learns from how long the sleeps were, as the kernel's haltpoll governor does, but apart for what
// was done last: after a request was sent its reply may be near; after the reply nothing is.
//
//	the sleep lasted   what is polled next time before sleeping
//	up to 80 us        twice as long, 10 us at first, 80 us at the most
//	over 320 us        half as long, or not at all
//
// In a bulk transfer it sleeps at once. In a flood of lone packets it sleeps a little although there is something to do soon.
// Whoever else can run on the core goes first, at every look.
type rest struct {
	polls [4]time.Duration // by what was done last
	did   int
	moved int // bytes since it slept
	looks int
	lone  int       // packets that came alone, not in trains, in this window
	began time.Time // of the window
	flood bool
	more  bool      // what was left at the end of a turn
	since time.Time // when it had nothing to do; valid if it has looked again
	slept time.Time
}

// worked notes what a turn has done, and says whether it was anything.
func (r *rest) worked(sent, received bool) bool {
	if !sent && !received {
		return false
	}
	r.did = 0
	if sent {
		r.did |= 1
	}
	if received {
		r.did |= 2
	}
	r.looks = 0
	return true
}

// linger says whether to look once more before sleeping.
func (r *rest) linger() bool {
	most := r.polls[r.did]
	if most == 0 || r.moved > lingerLoad {
		return false
	}
	if r.looks++; r.looks == 1 {
		r.since = time.Now()
	} else if r.looks > lingerLooks || time.Since(r.since) >= most {
		return false
	}
	r.yield()
	return true
}

// took notes n bytes: a packet alone or a train, and whether the turn ended with it although there may be more.
func (r *rest) took(n int, alone, last bool) {
	r.moved += n
	if alone {
		r.lone++
	}
	r.more = r.more || last
}

// gather says whether packets come so fast that it is worth waiting for more of them. Where more wait already it is not.
func (r *rest) gather() bool {
	more := r.more
	r.more = false
	if r.lone == 0 || more {
		return false
	}
	return r.floods(time.Now())
}

// floods looks once in a window whether more packets than flood came in it.
func (r *rest) floods(now time.Time) bool {
	if d := now.Sub(r.began); d >= floodWindow {
		r.flood = r.lone >= int(flood*d/floodWindow)
		r.began, r.lone = now, 0
	}
	return r.flood
}

// pause waits for packets to gather.
func (r *rest) pause() {
	t := unix.NsecToTimespec(int64(floodPause))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}

// yield lets whoever else can run on the core go first.
func (r *rest) yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

func (r *rest) sleeps() {
	r.slept = time.Now()
	r.looks, r.moved = 0, 0
}

func (r *rest) woke() {
	p := &r.polls[r.did]
	switch d := time.Since(r.slept); {
	case d <= lingerMost:
		*p = min(max(2**p, lingerFirst), lingerMost)
	case d > lingerNever:
		if *p /= 2; *p < lingerFirst {
			*p = 0
		}
	}
}
