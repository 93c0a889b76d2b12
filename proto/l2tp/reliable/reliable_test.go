package reliable_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/reliable"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// script is one end of a channel, told what arrives, under a clock moved by hand.
type script struct {
	t    *testing.T
	c    *reliable.Channel
	now  time.Time
	sent int // messages given to Send
}

func newScript(t *testing.T, c reliable.Config) *script {
	s := &script{t: t, c: reliable.New(start, c), now: start}
	s.c.SetPeer(s.now, 7, 8)
	return s
}

func message(n int) []byte {
	return l2tp.AppendMessage(nil, l2tp.ControlHeader{}, l2tp.VendorTwinkey, l2tp.MessageType(n))
}

// send queues n messages.
func (s *script) send(n int) *script {
	s.t.Helper()
	for range n {
		if err := s.c.Send(s.now, message(s.sent)); err != nil {
			s.t.Fatal(err)
		}
		s.sent++
	}
	return s
}

// leaves checks what Poll gives: "Ns/Nr" of messages, "zNs/Nr" of ZLBs, "hNs/Nr" of HELLOs.
func (s *script) leaves(want ...string) *script {
	s.t.Helper()
	var got []string
	for {
		b, ok := s.c.Poll()
		if !ok {
			break
		}
		m, err := l2tp.ParseMessage(b)
		if err != nil || m.Header.TunnelID != 7 {
			s.t.Fatalf("% x: %v", b, err)
		}
		kind := ""
		if m.ZLB {
			kind = "z"
		} else if m.VendorID == 0 {
			kind = "h"
		}
		got = append(got, fmt.Sprintf("%s%d/%d", kind, m.Header.Ns, m.Header.Nr))
	}
	if !slices.Equal(got, want) {
		s.t.Fatalf("at %v: left %v, want %v", s.now.Sub(start), got, want)
	}
	return s
}

// acked: a ZLB with this Nr arrives.
func (s *script) acked(nr uint16) *script {
	s.c.Receive(s.now, l2tp.ControlHeader{Nr: nr}, make([]byte, l2tp.ControlHeaderLen))
	return s
}

// arrives: a message with these numbers arrives and is acted on where it is due.
func (s *script) arrives(ns, nr uint16, want reliable.Arrival, delivered ...int) *script {
	s.t.Helper()
	msg := message(int(ns))
	h := l2tp.ControlHeader{Ns: ns, Nr: nr}
	got := s.c.Receive(s.now, h, msg)
	if got != want {
		s.t.Fatalf("Ns %d: arrival %d, want %d", ns, got, want)
	}
	var in []int
	for ok := got == reliable.Due; ok; msg, ok = s.c.Next() {
		s.c.Accept()
		_, typ, _ := l2tp.PeekType(msg)
		in = append(in, int(typ))
	}
	if !slices.Equal(in, delivered) {
		s.t.Fatalf("Ns %d: delivered %v, want %v", ns, in, delivered)
	}
	return s
}

// at moves the clock to so many seconds after the start, and advances.
func (s *script) at(seconds float64) *script {
	s.now = start.Add(time.Duration(seconds * float64(time.Second)))
	s.c.Advance(s.now)
	if at := s.c.Deadline(); !at.IsZero() && !at.After(s.now) {
		s.t.Fatalf("at %v: the deadline %v is past", s.now.Sub(start), at.Sub(start))
	}
	return s
}

// resentAt: the deadline is then, nothing leaves before, and then this does.
func (s *script) resentAt(seconds float64, want ...string) *script {
	s.t.Helper()
	if at := s.c.Deadline().Sub(start).Seconds(); at != seconds {
		s.t.Fatalf("deadline at %v s, want %v s", at, seconds)
	}
	return s.at(seconds - 0.001).leaves().at(seconds).leaves(want...)
}

func (s *script) failed(want bool) *script {
	s.t.Helper()
	if s.c.Failed() != want {
		s.t.Fatalf("at %v: failed is %v", s.now.Sub(start), !want)
	}
	return s
}

func TestBackoffDoublesToCap(t *testing.T) { // RFC 2661 5.8: 1, 2, 4 s ..., a cap of 8 s or more, 5 tries
	newScript(t, reliable.Config{}).send(1).leaves("0/0").
		resentAt(1, "0/0").resentAt(3, "0/0").resentAt(7, "0/0").resentAt(15, "0/0").resentAt(23, "0/0").
		failed(false).resentAt(31).failed(true).at(100).leaves()
}

func TestRetriesAreConfigured(t *testing.T) {
	s := newScript(t, reliable.Config{RetryBase: 500 * time.Millisecond, RetryCap: time.Second, Retries: 2}).send(1).leaves("0/0").
		resentAt(0.5, "0/0").resentAt(1.5, "0/0").resentAt(2.5).failed(true)
	if c := s.c.Cycle(); c != 2500*time.Millisecond {
		t.Errorf("Cycle() = %v", c)
	}
	if c := reliable.New(start, reliable.Config{}).Cycle(); c != 31*time.Second { // RFC 2661 5.7
		t.Errorf("Cycle() by default = %v", c)
	}
}

func TestAcknowledgementStartsBackoffAnew(t *testing.T) {
	newScript(t, reliable.Config{}).send(2).leaves("0/0").resentAt(1, "0/0").at(2).acked(1).leaves("1/0").resentAt(3, "1/0").resentAt(5, "1/0")
}

func TestSlowStartThenCongestionAvoidance(t *testing.T) { // RFC 2661 appendix A
	s := newScript(t, reliable.Config{}).send(40)
	s.leaves("0/0")                       // CWND 1
	s.acked(1).leaves("1/0", "2/0")       // 2
	s.acked(2).leaves("3/0", "4/0")       // 3: 2 3 4 fly
	s.acked(3).leaves("5/0", "6/0")       // 4
	s.acked(4).acked(5).acked(6).acked(7) // up to 8, the peer's window
	s.leaves("7/0", "8/0", "9/0", "10/0", "11/0", "12/0", "13/0", "14/0")
	s.acked(8).leaves("15/0") // no more than the window, whatever is acknowledged
	// A message is lost: SSTHRESH 4, CWND 1.
	s.resentAt(1, "8/0")
	s.acked(9).leaves("9/0", "10/0")   // 2, slow start again
	s.acked(10).leaves("11/0", "12/0") // 3
	s.acked(11).leaves("13/0", "14/0") // 4: from here a quarter for each acknowledgement
	s.acked(12).leaves("15/0").acked(13).leaves("16/0").acked(14).leaves("17/0")
	s.acked(15).leaves("18/0", "19/0") // 5
}

func TestWindowOfThePeerBounds(t *testing.T) {
	s := newScript(t, reliable.Config{})
	s.c.SetPeer(s.now, 7, 1) // RFC 2661 5.8: a window of 1 is allowed
	s.send(3).leaves("0/0").acked(1).leaves("1/0").acked(2).leaves("2/0")
	s = newScript(t, reliable.Config{Queue: 1 << 12})
	s.c.SetPeer(s.now, 7, 65535)
	s.send(300)
	flying := 0
	for nr := uint16(0); nr < 200; nr++ {
		s.acked(nr)
		for _, ok := s.c.Poll(); ok; _, ok = s.c.Poll() {
			flying++
		}
		flying = max(flying, 0)
		if over := flying - int(nr); over > 64 {
			t.Fatalf("%d fly", over)
		}
	}
}

// What was sent and lost behind the oldest flies again, and keeps its number.
func TestGoBackAfterLoss(t *testing.T) {
	s := newScript(t, reliable.Config{}).send(1).leaves("0/0").acked(1).send(2).leaves("1/0", "2/0")
	s.resentAt(1, "1/0").acked(2).leaves("2/0").acked(3).at(10).leaves()
	if !s.c.Idle() {
		t.Error("not idle")
	}
}

// The peer had it although we were about to repeat it.
func TestAcknowledgementOfWhatFliesNoMore(t *testing.T) {
	newScript(t, reliable.Config{}).send(1).leaves("0/0").acked(1).send(3).leaves("1/0", "2/0").resentAt(1, "1/0").acked(3).leaves("3/0")
}

func TestAcknowledgementsThatSayNothing(t *testing.T) {
	s := newScript(t, reliable.Config{}).send(2).leaves("0/0")
	s.acked(2).acked(0).acked(40000).acked(65535).leaves() // of what was never sent, or before
	s.acked(1).leaves("1/0").acked(1).leaves()
}

func TestEveryMessageIsAcknowledgedOnce(t *testing.T) {
	s := newScript(t, reliable.Config{})
	s.arrives(0, 0, reliable.Due, 0).leaves("z0/1").leaves()
	s.arrives(1, 0, reliable.Due, 1).send(1).leaves("0/2") // piggybacked
	s.arrives(1, 1, reliable.Duplicate).leaves("z1/2")     // RFC 2661 5.8: duplicates MUST be acknowledged
	s.acked(1).leaves()                                    // a ZLB is not
}

// xl2tpd #136, #156, #43: early messages are kept, not dropped as bad.
func TestEarlyMessagesWaitForTheGap(t *testing.T) {
	s := newScript(t, reliable.Config{Window: 4})
	s.arrives(2, 0, reliable.Early).arrives(1, 0, reliable.Early).arrives(1, 0, reliable.Early).leaves("z0/0")
	s.arrives(4, 0, reliable.Beyond)
	s.arrives(0, 0, reliable.Due, 0, 1, 2).leaves("z0/3")
	s.arrives(4, 0, reliable.Early).arrives(3, 0, reliable.Due, 3, 4).leaves("z0/5")
	if _, early := s.c.Queued(); early != 0 {
		t.Errorf("%d are still kept", early)
	}
}

func TestMessageThatIsNotAcceptedCountsAsNotReceived(t *testing.T) {
	s := newScript(t, reliable.Config{})
	if got := s.c.Receive(s.now, l2tp.ControlHeader{}, message(0)); got != reliable.Due {
		t.Fatal(got)
	}
	s.leaves().arrives(0, 0, reliable.Due, 0).leaves("z0/1")
}

func TestNumbersWrap(t *testing.T) {
	s := newScript(t, reliable.Config{})
	for i := range 70_000 {
		n := uint16(i)
		s.send(1).leaves(fmt.Sprintf("%d/%d", n, n)).arrives(n, n+1, reliable.Due, int(n))
		s.leaves(fmt.Sprintf("z%d/%d", n+1, n+1))
	}
}

func TestRepetitionCarriesThePresentNr(t *testing.T) { // RFC 2661 5.8: the Nr value MUST be updated
	newScript(t, reliable.Config{}).send(1).leaves("0/0").arrives(0, 0, reliable.Due, 0).leaves("z1/1").resentAt(1, "0/1")
}

func TestHelloAfterSilence(t *testing.T) {
	s := newScript(t, reliable.Config{Hello: 60 * time.Second})
	s.resentAt(60, "h0/0").at(60.1).acked(1).leaves()
	s.at(100).arrives(0, 1, reliable.Due, 0).leaves("z1/1") // anything heard puts it off
	s.at(130)
	s.c.Heard(s.now) // data too
	s.resentAt(190, "h1/1").resentAt(191, "h1/1").resentAt(193, "h1/1").resentAt(197, "h1/1").resentAt(205, "h1/1").resentAt(213, "h1/1").
		resentAt(221).failed(true)
}

// xl2tpd #191: Android does not acknowledge HELLO. A tunnel whose calls pass data stays.
func TestUnansweredHelloDoesNotEndWhatPassesData(t *testing.T) {
	s := newScript(t, reliable.Config{Hello: 60 * time.Second}).resentAt(60, "h0/0")
	for i := range 600 { // ten minutes of data
		s.at(60 + float64(i))
		s.c.Heard(s.now)
		s.failed(false)
	}
	s.send(1) // what stands behind the HELLO is sent nevertheless
	found := false
	for b, ok := s.c.Poll(); ok; b, ok = s.c.Poll() {
		found = found || binary.BigEndian.Uint16(b[8:]) == 1
	}
	if !found {
		t.Error("the message behind HELLO is stuck")
	}
	for i := 660; i < 800; i++ { // then silence
		s.at(float64(i))
	}
	s.failed(true)
}

// Calls that pass data are no excuse for another message that is not acknowledged.
func TestDataDoesNotExcuseOtherMessages(t *testing.T) {
	s := newScript(t, reliable.Config{Hello: 60 * time.Second}).send(1)
	for i := range 31 {
		s.at(float64(i)).failed(false)
		s.c.Heard(s.now)
	}
	s.at(31).failed(true)
}

// CVE-2016-5361: who has not proven where it is gets no repetition by a timer.
func TestPassiveRepeatsOnlyWhenAsked(t *testing.T) {
	s := newScript(t, reliable.Config{Passive: true, Hello: time.Minute})
	s.arrives(0, 0, reliable.Due, 0).send(1).leaves("0/1").at(1000).leaves().failed(false)
	if !s.c.Deadline().IsZero() {
		t.Errorf("a deadline at %v", s.c.Deadline())
	}
	s.arrives(0, 0, reliable.Duplicate).leaves("0/1").leaves()
	s.arrives(1, 0, reliable.Due, 1).leaves("0/2").leaves() // it came, but does not acknowledge
	s.arrives(2, 1, reliable.Due, 2).leaves("z1/3")
	s.send(1).leaves("1/3")
	s.c.Prove(s.now)
	s.resentAt(1001, "1/3")
}

// RFC 9000 8.1 has the reason: three bytes for each that came, until the peer was reached.
func TestPassiveSendsNoMoreThanThreeTimesWhatCame(t *testing.T) {
	s := newScript(t, reliable.Config{Passive: true})
	big := l2tp.AppendMessage(nil, l2tp.ControlHeader{}, l2tp.VendorTwinkey, 0, l2tp.AVP{Value: make([]byte, 94)}) // 120 bytes
	s.arrives(0, 0, reliable.Due, 0).arrives(1, 0, reliable.Due, 1)                                                // 40 bytes
	if err := s.c.Send(s.now, big); err != nil {
		t.Fatal(err)
	}
	s.leaves("0/2")
	for range 5 {
		s.arrives(0, 0, reliable.Duplicate).leaves() // 60 bytes more
		s.arrives(0, 0, reliable.Duplicate).leaves("0/2")
	}
	s.c.Reached()
	for range 5 {
		s.arrives(0, 0, reliable.Duplicate).leaves("0/2")
	}
}

func TestUnknownPeerIsNotAcknowledged(t *testing.T) { // a ZLB to tunnel 0 would be nobody's
	s := newScript(t, reliable.Config{})
	s.c.SetPeer(s.now, 0, 4)
	s.arrives(0, 0, reliable.Due, 0).leaves().at(1000).leaves()
	s.c.SetPeer(s.now, 7, 4)
	s.leaves("z0/1")
}

func TestSetPeerReachesWhatWaits(t *testing.T) {
	s := newScript(t, reliable.Config{})
	s.c.SetPeer(s.now, 0, 4)
	s.send(2)
	s.c.SetPeer(s.now, 7, 4)
	s.leaves("0/0").acked(1).leaves("1/0")
}

// The last message overtakes what was never sent, and no congestion window holds it.
func TestFinish(t *testing.T) {
	s := newScript(t, reliable.Config{}).send(5).leaves("0/0")
	s.c.Finish(s.now, message(99))
	s.leaves("1/0").resentAt(1, "0/0").acked(1).leaves("1/0").acked(2).at(100).leaves()
	if err := s.c.Send(s.now, message(1)); !errors.Is(err, reliable.ErrOver) {
		t.Errorf("Send after Finish: %v", err)
	}
	s.c.Finish(s.now, message(99))
	s.leaves()
}

func TestStopStillAcknowledgesAndMuteDoesNot(t *testing.T) {
	s := newScript(t, reliable.Config{Hello: time.Second}).send(3).leaves("0/0")
	s.c.Stop()
	s.at(100).leaves().arrives(0, 0, reliable.Due, 0).leaves("z1/1").arrives(0, 0, reliable.Duplicate).leaves("z1/1")
	s.c.Mute()
	s.arrives(0, 0, reliable.Duplicate).leaves()
}

func TestQueueIsBounded(t *testing.T) {
	s := newScript(t, reliable.Config{Queue: 3}).send(3)
	if err := s.c.Send(s.now, message(3)); !errors.Is(err, reliable.ErrQueue) {
		t.Errorf("err = %v", err)
	}
	s.leaves("0/0").acked(1)
	s.send(1)
}

func TestZLBAndHelloTakeNoMemory(t *testing.T) {
	c := reliable.New(start, reliable.Config{})
	c.SetPeer(start, 7, 8)
	hello := l2tp.AppendMessage(nil, l2tp.ControlHeader{}, 0, l2tp.HELLO)
	var ns uint16
	if n := testing.AllocsPerRun(1000, func() {
		if c.Receive(start, l2tp.ControlHeader{Ns: ns}, hello) != reliable.Due {
			t.Fatal("not due")
		}
		c.Accept()
		ns++
		if _, ok := c.Next(); ok {
			t.Fatal("something was early")
		}
		if _, ok := c.Poll(); !ok {
			t.Fatal("not acknowledged")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
