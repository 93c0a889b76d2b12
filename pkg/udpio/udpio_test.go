//go:build linux

package udpio_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/pkg/udpio"
)

var errPrivileges error

func TestMain(m *testing.M) {
	errPrivileges = netlab.EnsurePrivileges()
	os.Exit(m.Run())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listen(t testing.TB, addr string) udpio.Conn {
	t.Helper()
	c, err := udpio.Listen(t.Context(), netip.MustParseAddrPort(addr), udpio.Options{RcvBuf: 4 << 20, SndBuf: 4 << 20})
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

// batch is room for n datagrams.
type batch struct {
	bufs  [][]byte
	sizes []int
	from  []netip.AddrPort
}

func newBatch(n int) *batch {
	b := &batch{make([][]byte, n), make([]int, n), make([]netip.AddrPort, n)}
	for i := range b.bufs {
		b.bufs[i] = make([]byte, 2048)
	}
	return b
}

func (b *batch) read(t testing.TB, c udpio.Conn) int {
	t.Helper()
	n, err := c.Read(b.bufs, b.sizes, b.from)
	check(t, err)
	return n
}

func TestBatchesBothFamilies(t *testing.T) {
	for _, c := range []struct{ name, a, b, from string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.2:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "[::1]:0", "::1"},
		{"IPv4 to dual stack", "127.0.0.1:0", "[::]:0", "127.0.0.1"},
		{"any IPv4", "127.0.0.1:0", "0.0.0.0:0", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := listen(t, c.a), listen(t, c.b)
			to := b.LocalAddr()
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
			}
			// More than one system call takes, each of a length of its own.
			var bufs [][]byte
			for i := range udpio.BatchSize + 10 {
				bufs = append(bufs, slices.Repeat([]byte{byte(i)}, i+1))
			}
			check(t, a.Write(bufs, to))
			in := newBatch(udpio.BatchSize)
			for i := 0; i < len(bufs); {
				n := in.read(t, b)
				for k := range n {
					if got := in.bufs[k][:in.sizes[k]]; !slices.Equal(got, bufs[i]) {
						t.Fatalf("datagram %d: % x", i, got)
					}
					if in.from[k] != netip.AddrPortFrom(netip.MustParseAddr(c.from), a.LocalAddr().Port()) {
						t.Fatalf("datagram %d: from %v", i, in.from[k])
					}
					i++
				}
			}
			check(t, b.Write([][]byte{[]byte("answer")}, in.from[0])) // what Read said is good for Write
			if n := in.read(t, a); n != 1 || string(in.bufs[0][:in.sizes[0]]) != "answer" {
				t.Error("no answer")
			}
		})
	}
}

func TestEmptyAndLongDatagrams(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	check(t, a.Write([][]byte{{}, make([]byte, 3000)}, b.LocalAddr()))
	in := newBatch(2)
	for got := 0; got < 2; {
		for k := range in.read(t, b) {
			if want := []int{0, 2048}[got]; in.sizes[k] != want {
				t.Errorf("datagram %d: %d bytes, want %d", got, in.sizes[k], want)
			}
			got++
		}
	}
}

func TestCloseUnblocksRead(t *testing.T) {
	c := listen(t, "127.0.0.1:0")
	done := make(chan error)
	go func() {
		in := newBatch(1)
		_, err := c.Read(in.bufs, in.sizes, in.from)
		done <- err
	}()
	time.Sleep(10 * time.Millisecond) // so that Read is usually blocked; either order must work
	check(t, c.Close())
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if err := c.Write([][]byte{{1}}, netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	check(t, c.Close())
}

// An ICMP error names the destination that it is about and leaves the socket in working order, also
// for a Write to somebody else that is under way.
func TestRefusedIsTransient(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	gone := listen(t, "127.0.0.1:0")
	dead := gone.LocalAddr()
	check(t, gone.Close())

	check(t, a.Write([][]byte{{1}}, dead))
	check(t, a.Write([][]byte{{2}}, b.LocalAddr())) // meets the pending error first
	in := newBatch(4)
	_, err := a.Read(in.bufs, in.sizes, in.from)
	pe, ok := errors.AsType[*udpio.PathError](err)
	if !ok || pe.To != dead || !pe.Refused() || !pe.ICMP || pe.TooBig() || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("got %+v", err)
	}
	if n := in.read(t, b); n != 1 || in.bufs[0][0] != 2 {
		t.Error("the datagram to the other destination is lost")
	}
	check(t, b.Write([][]byte{{3}}, a.LocalAddr()))
	if n := in.read(t, a); n != 1 || in.bufs[0][0] != 3 {
		t.Error("the socket does not read on")
	}
}

func TestTooBigForTheInterface(t *testing.T) {
	h, _ := twoHosts(t, 1500)
	a := listenOn(t, h, "10.0.0.1:0")
	to := netip.MustParseAddrPort("10.0.0.2:9")
	err := a.Write([][]byte{make([]byte, 1473), make([]byte, 1472)}, to) // 1472 + 28 = 1500
	pe, ok := errors.AsType[*udpio.PathError](err)
	if !ok || !pe.TooBig() || pe.ICMP || pe.To != to {
		t.Fatalf("got %v", err)
	}
	// The kernel's own refusal comes to the reader as well, with the interface's MTU; then the answer to the
	// datagram that did fit, which nobody listens to.
	in := newBatch(1)
	var mtu int
	for range 2 {
		_, err = a.Read(in.bufs, in.sizes, in.from)
		if pe, ok = errors.AsType[*udpio.PathError](err); !ok {
			t.Fatalf("got %v", err)
		}
		mtu = max(mtu, pe.MTU)
	}
	if mtu != 1500 {
		t.Errorf("MTU %d", mtu)
	}
}

// A router in between with a smaller MTU: its "fragmentation needed" is a hint with the MTU in it, and the kernel, told to
// probe, still sends what we ask it to.
func TestTooBigForThePath(t *testing.T) {
	l := lab(t)
	a, r, b := host(t, l, "a"), host(t, l, "r"), host(t, l, "b")
	p := netip.MustParsePrefix
	check(t, l.Link(a, "eth0", p("10.0.0.1/24"), r, "left", p("10.0.0.254/24")))
	check(t, l.Link(b, "eth0", p("10.0.1.1/24"), r, "right", p("10.0.1.254/24")))
	check(t, r.Sysctl("net.ipv4.ip_forward", "1"))
	check(t, r.SetMTU("right", 1300))
	check(t, a.DefaultRoute(netip.MustParseAddr("10.0.0.254")))
	check(t, b.DefaultRoute(netip.MustParseAddr("10.0.1.254")))
	ca, cb := listenOn(t, a, "10.0.0.1:0"), listenOn(t, b, "10.0.1.1:0")
	in := newBatch(1)
	for range 2 { // with DO the second one would be refused by our own kernel
		check(t, ca.Write([][]byte{make([]byte, 1400)}, cb.LocalAddr()))
		_, err := ca.Read(in.bufs, in.sizes, in.from)
		pe, ok := errors.AsType[*udpio.PathError](err)
		if !ok || !pe.TooBig() || !pe.ICMP || pe.MTU != 1300 || pe.To != cb.LocalAddr() {
			t.Fatalf("got %+v", err)
		}
	}
	check(t, ca.Write([][]byte{make([]byte, 1272)}, cb.LocalAddr()))
	if n := in.read(t, cb); n != 1 || in.sizes[0] != 1272 {
		t.Error("what fits does not arrive")
	}
}

func TestRefusedDestinations(t *testing.T) {
	c4 := listen(t, "127.0.0.1:0")
	for _, to := range []netip.AddrPort{{}, netip.MustParseAddrPort("[2001:db8::1]:1")} {
		if _, ok := errors.AsType[*udpio.PathError](c4.Write([][]byte{{1}}, to)); !ok {
			t.Errorf("%v: no PathError", to)
		}
	}
	if _, err := udpio.Listen(t.Context(), netip.AddrPort{}, udpio.Options{}); err == nil {
		t.Error("listening on nothing")
	}
	if _, err := udpio.Listen(t.Context(), c4.LocalAddr(), udpio.Options{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listening twice: %v", err)
	}
}

func TestBuffers(t *testing.T) {
	rcv, snd, ok := udpio.Buffers(listen(t, "127.0.0.1:0"))
	if !ok || rcv == 0 || snd == 0 {
		t.Fatalf("%d %d %v", rcv, snd, ok)
	}
	if os.Geteuid() == 0 && errPrivileges == nil && rcv != 8<<20 { // doubled by the kernel
		t.Logf("receive buffer %d: SO_RCVBUFFORCE is not allowed here", rcv)
	}
}

func TestManyWritersAndReaders(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	const writers, each = 4, 100
	var writing, reading sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				if err := a.Write([][]byte{{1}, {2}}, b.LocalAddr()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var mu sync.Mutex
	sum := 0
	for range 2 {
		reading.Go(func() {
			in := newBatch(16)
			for {
				n, err := b.Read(in.bufs, in.sizes, in.from)
				if err != nil {
					return
				}
				mu.Lock()
				sum += n
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	for start := time.Now(); time.Since(start) < 5*time.Second; time.Sleep(time.Millisecond) {
		mu.Lock()
		done := sum == writers*each*2
		mu.Unlock()
		if done {
			break
		}
	}
	check(t, b.Close())
	reading.Wait()
	if sum != writers*each*2 {
		t.Errorf("%d of %d datagrams", sum, writers*each*2)
	}
}

func TestNoAllocations(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := listen(t, addr), listen(t, addr)
		out := [][]byte{make([]byte, 1400), make([]byte, 1400)}
		in := newBatch(2)
		to := b.LocalAddr()
		round := func() {
			check(t, a.Write(out, to))
			for got := 0; got < len(out); {
				n, err := b.Read(in.bufs, in.sizes, in.from)
				check(t, err)
				got += n
			}
		}
		if n := testing.AllocsPerRun(200, round); n != 0 {
			t.Errorf("%s: %v allocations for two datagrams there", addr, n)
		}
	}
}

func BenchmarkWriteRead(b *testing.B) {
	for _, n := range []int{1, 8, udpio.BatchSize} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			x, y := listen(b, "127.0.0.1:0"), listen(b, "127.0.0.1:0")
			out, in := make([][]byte, n), newBatch(n)
			for i := range out {
				out[i] = make([]byte, 1400)
			}
			to := y.LocalAddr()
			b.SetBytes(int64(1400 * n))
			b.ReportAllocs()
			for b.Loop() {
				check(b, x.Write(out, to))
				for got := 0; got < n; {
					got += in.read(b, y)
				}
			}
		})
	}
}

func lab(t *testing.T) *netlab.Lab {
	t.Helper()
	switch {
	case errPrivileges != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrivileges)
	case errPrivileges != nil:
		t.Skip("needs root:", errPrivileges)
	}
	l, err := netlab.New(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	return l
}

func host(t *testing.T, l *netlab.Lab, name string) *netlab.Host {
	t.Helper()
	h, err := l.Host(name)
	check(t, err)
	return h
}

func twoHosts(t *testing.T, mtu int) (a, b *netlab.Host) {
	t.Helper()
	l := lab(t)
	a, b = host(t, l, "a"), host(t, l, "b")
	check(t, l.Link(a, "eth0", netip.MustParsePrefix("10.0.0.1/24"), b, "eth0", netip.MustParsePrefix("10.0.0.2/24")))
	check(t, a.SetMTU("eth0", mtu))
	return a, b
}

func listenOn(t *testing.T, h *netlab.Host, addr string) (c udpio.Conn) {
	t.Helper()
	check(t, h.Do(func() (err error) {
		c, err = udpio.Listen(t.Context(), netip.MustParseAddrPort(addr), udpio.Options{})
		return err
	}))
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}
