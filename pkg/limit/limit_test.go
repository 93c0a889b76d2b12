package limit

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestRatesAreBounded(t *testing.T) {
	now := time.Now()
	l := NewRates(1, 1, 64)
	for i := range 3 * maxAddresses {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if !l.Allow(netip.AddrPortFrom(a, 1).String(), now) {
			t.Fatalf("the first request of %s refused", a)
		}
	}
	if len(l.by) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(l.by))
	}
	if !l.Allow("[2001:db8::1]:1", now) || l.Allow("[2001:db8::2%eth0]:2", now) || !l.Allow("[2001:db8:0:1::1]:1", now) {
		t.Error("a /64 counts as one address")
	}
	if !l.Allow("192.0.2.1:1", now) || l.Allow("[::ffff:192.0.2.1]:1", now) {
		t.Error("a mapped address is the address")
	}
	if l.Allow("nonsense", now) {
		t.Error("no address, no request")
	}
}

// On a LAN each host counts by itself, though all are in one /64.
func TestRatesOnALAN(t *testing.T) {
	l := NewRates(1, 1, 128)
	now := time.Now()
	for _, from := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1"} {
		if !l.Allow(from, now) || l.Allow(from, now) {
			t.Errorf("%s does not count by itself", from)
		}
	}
	if !l.Allow("[2001:db8::1]:1", now.Add(time.Second)) {
		t.Error("the bucket is not filled again")
	}
}

func TestWait(t *testing.T) {
	l, now, a := NewRates(2, 1, 64), time.Now(), netip.MustParseAddr("192.0.2.1")
	if d := l.Wait(a, now); d != 0 {
		t.Errorf("the first waits %v", d)
	}
	d := l.Wait(a, now)
	if d <= 400*time.Millisecond || d > 500*time.Millisecond {
		t.Errorf("the second waits %v", d)
	}
	if d := l.Wait(a, now.Add(d+time.Millisecond)); d != 0 {
		t.Errorf("after the wait it waits %v", d)
	}
}

// What comes beyond the limits is closed and counted; a place that is given back can be taken.
func TestListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var refused atomic.Uint64
	l := NewListener(inner, 3, 2, &refused)
	accepted := make(chan net.Conn, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	closed := func(c net.Conn) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || err != io.EOF && !isReset(err) {
			t.Errorf("not closed: %v", err)
		}
	}
	dial("127.0.0.1")
	first := <-accepted
	dial("127.0.0.1")
	<-accepted
	closed(dial("127.0.0.1")) // the third of this address
	dial("127.0.0.2")
	<-accepted
	closed(dial("127.0.0.3")) // the fourth in all
	if n := refused.Load(); n != 2 {
		t.Errorf("%d are counted as refused", n)
	}
	_ = first.Close()
	_ = first.Close() // a second time gives nothing back
	dial("127.0.0.1")
	<-accepted
	closed(dial("127.0.0.1"))
	_ = inner.Close()
	<-done
}

func isReset(err error) bool {
	e, ok := err.(net.Error)
	return ok && !e.Timeout()
}

// every lets n be at once, and no more for as long as a test takes.
func every(n int) Bucket { return Bucket{Rate: rate.Every(time.Hour), Burst: n} }

func TestFailures(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	alice, bob, carol := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	f := NewFailures(FailureLimits{Each: every(3), Net: every(1), All: every(4), Known: every(3), Remember: 2 * time.Hour})
	begin := func(a netip.Addr) *Try {
		t.Helper()
		try, wait := f.Begin(a, now)
		if wait > 0 {
			t.Fatalf("%s waits %s", a, wait)
		}
		return try
	}
	refused := func(why string, a netip.Addr) {
		t.Helper()
		if try, wait := f.Begin(a, now); try != nil || wait <= 0 || wait > 3*time.Hour {
			t.Fatalf("%s: %s waits %s", why, a, wait)
		}
	}
	for range 10 { // what succeeds, or comes to nothing, costs nothing, however often it is ended
		s := begin(alice)
		s.Succeed(now)
		s.Fail(now)
		n := begin(bob)
		n.Close()
		n.Fail(now)
	}
	for range 3 {
		begin(bob).Fail(now)
	}
	refused("an address has its own", bob)
	last := begin(carol)
	refused("what is going on counts", netip.MustParseAddr("192.0.2.4"))
	last.Fail(now)
	refused("nothing is left", carol)
	// Alice is known: strangers do not keep her out, nor can she fail without end.
	begin(alice).Succeed(now)
	first, second := begin(alice), begin(alice)
	refused("as many as she may let slip are going on", alice)
	first.Fail(now)
	second.Close()
	begin(alice).Succeed(now) // which does not wipe out what she has let slip
	begin(alice).Fail(now)
	refused("after two slips", alice)
	now = now.Add(time.Hour)
	begin(alice).Succeed(now) // there is one again for everybody
	for range 2 {
		begin(netip.MustParseAddr("192.0.2.5")).Close()
	}
	begin(netip.MustParseAddr("192.0.2.5")).Fail(now)
	begin(alice).Close()
	// All: one again; then known no more.
	now = now.Add(time.Hour)
	begin(netip.MustParseAddr("192.0.2.6")).Fail(now)
	begin(alice).Close()
	now = now.Add(30 * time.Minute)
	begin(alice).Close()
	now = now.Add(30 * time.Minute)
	begin(netip.MustParseAddr("192.0.2.7")).Fail(now)
	refused("who was known once", alice)
	if len(f.going) != 0 || f.goingAll != 0 || f.goingOut != 0 {
		t.Errorf("still going on: %v, %d, %d", f.going, f.goingAll, f.goingOut)
	}
}

// The reserve is one for all who are known.
func TestReserve(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := NewFailures(FailureLimits{Each: every(9), Net: every(9), All: every(1), Known: every(3), Remember: time.Hour})
	known := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for i := range 2 * maxKnown {
		try, _ := f.Begin(known(i), now)
		try.Succeed(now)
	}
	if len(f.known) != maxKnown {
		t.Errorf("%d are remembered", len(f.known))
	}
	failed := 0
	for range 3 {
		for i := range 2 * maxKnown {
			if try, _ := f.Begin(known(i), now); try != nil {
				try.Fail(now)
				failed++
			}
		}
	}
	if failed != 1+3 {
		t.Errorf("%d could fail", failed)
	}
}

// A host that has any number of IPv6 addresses leaves some to others.
func TestFailuresOfANetwork(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := NewFailures(FailureLimits{Each: every(1), Net: every(2), All: every(3), Known: every(1), Remember: time.Hour})
	for i, ok := range []bool{true, true, false} {
		try, wait := f.Begin(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}), now)
		if (wait == 0) != ok {
			t.Errorf("address %d waits %s", i, wait)
		}
		try.Fail(now)
	}
	for _, a := range []string{"2001:db8:0:1::1", "192.0.2.1"} {
		try, wait := f.Begin(netip.MustParseAddr(a), now)
		if wait > 0 {
			t.Errorf("%s waits %s", a, wait)
		}
		try.Close()
	}
}
