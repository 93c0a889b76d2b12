package engine

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lightLoad is how many bytes at a time make no bulk transfer.
	lightLoad = 8 << 10
	// yieldEvery is how often a worker, before it sleeps, calls Go's scheduler of its own accord. Of whom the runtime has not
	// seen there for 10 ms (forcePreemptNS) it takes the processor away at every system call that lasts: to have it back
	// costs each packet 10 to 20 us.
	yieldEvery = 7 * time.Millisecond
	// flood is how many lone packets in a window are so many that each looked after by itself would keep everybody busy. Then
	// they gather for a while: sealed together they leave in one message, and the far end is woken once. Nobody asks
	// for the delay of one of 40,000 packets a second; a TCP transfer comes in trains and is not meant.
	flood       = 40
	floodWindow = time.Millisecond
	floodPause  = 60 * time.Microsecond
)

// rest decides what a worker does after a turn.
//
//	moved little     it asks the kernel at once what there is to do, and sleeps; after it has delivered something it looks for the
//	                 answer first. A lone packet waits for no system call that finds nothing.
//	moved much       it looks again, and sleeps when nothing came.
//	lone packets     in a flood it sleeps a little although there is something to do soon.
type rest struct {
	moved int       // bytes since it slept
	lone  int       // packets that came alone, not in trains, in this window
	began time.Time // of the window
	flood bool
	more  bool      // what was left at the end of a turn
	gave  time.Time // when it called the scheduler last
}

// light says whether so little was moved since it slept that a look again would hardly find anything.
func (r *rest) light() bool { return r.moved <= lightLoad && !r.flood }

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

// sleeps is called before the worker does.
func (r *rest) sleeps() {
	r.moved = 0
	if now := time.Now(); now.Sub(r.gave) > yieldEvery {
		r.gave = now
		runtime.Gosched()
	}
}
