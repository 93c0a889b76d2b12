package links_test

import (
	"testing"
	"time"

	"twinkey/router/internal/links"
)

var (
	start = time.Unix(1_000_000, 0)
	rb    = links.Key{Peer: "rb"}
)

func TestBackoffDoublesToItsCapAndEndsWithSuccess(t *testing.T) {
	s := links.New(1)
	now := start
	s.Want(now, rb, false)
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if due := s.Due(now); len(due) != 1 || due[0] != rb {
			t.Fatalf("attempt %d: due = %v, want rb", i, due)
		}
		s.Down(now, rb, "peer silent")
		if due := s.Due(now); due != nil {
			t.Fatalf("attempt %d: due at once after a failure: %v", i, due)
		}
		wait := s.Deadline().Sub(now)
		if base := want * time.Second; wait < base || wait > base+base/4 {
			t.Errorf("attempt %d: waits %v, want %v to a quarter more", i, wait, base)
		}
		now = s.Deadline()
	}
	s.Due(now)
	s.Up(now, rb)
	s.Down(now, rb, "lost")
	if due := s.Due(now); len(due) != 1 {
		t.Error("a call that was up is dialled again at once")
	}
	s.Down(now, rb, "still gone")
	if l, _ := s.Get(rb); l.Attempts != 1 || l.Reason != "still gone" {
		t.Errorf("link = %+v, want the back-off started anew", l)
	}
}

func TestDemandWaitsForAPacket(t *testing.T) {
	s := links.New(1)
	s.Want(start, rb, true)
	if due := s.Due(start); due != nil || !s.Deadline().IsZero() {
		t.Fatalf("due = %v, deadline %v: nothing asked yet", due, s.Deadline())
	}
	s.Ask(rb)
	if due := s.Due(start); len(due) != 1 {
		t.Fatalf("due = %v, want rb", due)
	}
	s.Down(start, rb, "refused")
	if due := s.Due(start.Add(time.Hour)); due != nil {
		t.Errorf("due = %v: the packet of an hour ago asks no more", due)
	}
}

func TestSoonCutsTheWait(t *testing.T) {
	s := links.New(1)
	s.Want(start, rb, false)
	s.Due(start)
	s.Down(start, rb, "no endpoint in the site map")
	s.Soon(start, rb)
	if due := s.Due(start); len(due) != 1 {
		t.Errorf("due = %v, want rb: the site map changed", due)
	}
	s.Forget(rb)
	s.Down(start, rb, "forgotten")
	if all := s.All(); len(all) != 0 {
		t.Errorf("all = %v after Forget", all)
	}
}
