package limit

import (
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
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

func TestLeft(t *testing.T) {
	l, now := NewRates(1, 1, 128), time.Now()
	for range 3 {
		if !l.Left("192.0.2.1:1", now) {
			t.Fatal("looking took one")
		}
	}
	if !l.Allow("192.0.2.1:1", now) || l.Left("192.0.2.1:1", now) || !l.Left("192.0.2.2:1", now) {
		t.Error("it was not taken from whom it was taken")
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
