package native

import (
	"container/heap"
	"time"
)

// timed is something that wants to be called at a time: a tunnel or a session.
type timed interface {
	advance(now time.Time)
	timer() *timer
}

// timer is where a timed stands in the heap. The zero value stands nowhere.
type timer struct {
	at    time.Time
	index int // 1-based
}

// timers is a heap of deadlines, the earliest first. The zero value is empty.
type timers struct{ h timerHeap }

type timerHeap []timed

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].timer().at.Before(h[j].timer().at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].timer().index, h[j].timer().index = i+1, j+1
}

func (h *timerHeap) Push(x any) {
	o := x.(timed) //nolint:forcetypeassert // only set pushes
	*h = append(*h, o)
	o.timer().index = len(*h)
}

func (h *timerHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	o.timer().index = 0
	return o
}

// set arranges that o is called at the earliest non-zero of at, or not at all.
func (t *timers) set(o timed, at ...time.Time) {
	var first time.Time
	for _, a := range at {
		if !a.IsZero() && (first.IsZero() || a.Before(first)) {
			first = a
		}
	}
	tm := o.timer()
	switch {
	case first.IsZero():
		t.drop(o)
	case tm.index == 0:
		tm.at = first
		heap.Push(&t.h, o)
	case !tm.at.Equal(first):
		tm.at = first
		heap.Fix(&t.h, tm.index-1)
	}
}

func (t *timers) drop(o timed) {
	if i := o.timer().index; i != 0 {
		heap.Remove(&t.h, i-1)
	}
}

func (t *timers) first() time.Time {
	if len(t.h) == 0 {
		return time.Time{}
	}
	return t.h[0].timer().at
}

// due takes out one whose time has come.
func (t *timers) due(now time.Time) (timed, bool) {
	if len(t.h) == 0 || t.h[0].timer().at.After(now) {
		return nil, false
	}
	o, ok := heap.Pop(&t.h).(timed)
	return o, ok
}
