package engine

import (
	"testing"
	"time"
)

// Packets gather when more of them come alone than 40 a millisecond, no sooner and no longer, and never while some are left
// from the last turn.
func TestGather(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	r := rest{began: start}
	feed := func(from, to time.Duration, every time.Duration) (gathers bool) {
		for d := from; d < to; d += every {
			r.took(100, true, false)
			gathers = r.floods(at(d))
		}
		return gathers
	}
	if feed(0, 10*time.Millisecond, 30*time.Microsecond) {
		t.Error("33,000 packets a second gather")
	}
	if !feed(10*time.Millisecond, 20*time.Millisecond, 10*time.Microsecond) {
		t.Error("100,000 packets a second do not")
	}
	if feed(time.Second, time.Second+30*time.Microsecond, 30*time.Microsecond) {
		t.Error("the first packet after a pause waits")
	}

	r = rest{began: time.Now().Add(-time.Second), flood: true, lone: 1 << 20}
	r.took(100, true, true)
	if r.gather() {
		t.Error("a worker that has more to do waits")
	}
	r.took(64<<10, false, false)
	r.lone = 0
	if r.gather() {
		t.Error("trains gather")
	}
	r.lone = 1 << 20
	if !r.gather() {
		t.Error("a flood does not")
	}
}

// A worker that moved little asks the kernel what there is to do, one in a bulk transfer or a flood looks itself.
func TestLight(t *testing.T) {
	var r rest
	r.took(1400, true, false)
	if !r.light() {
		t.Error("one packet is no light load")
	}
	for range 10 {
		r.took(1400, true, false)
	}
	if r.light() {
		t.Error("14,000 bytes at a time are")
	}
	if r.sleeps(); !r.light() {
		t.Error("what was before it slept counts")
	}
	r.flood = true
	if r.light() {
		t.Error("a flood is a light load")
	}
}
