//go:build linux

package udpio_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/pkg/udpio"
	"twinkey/proto/ip"
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
	return listenAs(t, addr, udpio.Options{RcvBuf: 4 << 20, SndBuf: 4 << 20})[0]
}

func listenAs(t testing.TB, addr string, o udpio.Options) []udpio.Conn {
	t.Helper()
	cs, err := udpio.Listen(netip.MustParseAddrPort(addr), o)
	check(t, err)
	for _, c := range cs {
		t.Cleanup(func() { check(t, c.Close()) })
	}
	return cs
}

// wait is until c can be read, or has trouble.
func wait(t testing.TB, c udpio.Conn) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(c.FD()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		check(t, err)
		if n == 0 {
			t.Fatal("nothing within 10 s")
		}
		return
	}
}

// batch is room for n trains, and the datagrams that came.
type batch struct {
	trains []udpio.Train
	got    [][]byte
	from   []netip.AddrPort
}

func newBatch(n int) *batch {
	b := &batch{trains: make([]udpio.Train, n)}
	for i := range b.trains {
		b.trains[i].Buf = make([]byte, 1<<16)
	}
	return b
}

// read waits for datagrams and takes trains apart.
func (b *batch) read(t testing.TB, c udpio.Conn) int {
	t.Helper()
	b.got, b.from = b.got[:0], b.from[:0]
	for len(b.got) == 0 {
		wait(t, c)
		n, err := c.Receive(b.trains)
		check(t, err)
		for _, tr := range b.trains[:n] {
			for d := tr.Buf[:tr.N]; ; d = d[tr.Size:] {
				b.got, b.from = append(b.got, d[:min(tr.Size, len(d))]), append(b.from, tr.Addr)
				if len(d) <= tr.Size {
					break
				}
			}
		}
	}
	return len(b.got)
}

// train is n datagrams of size bytes, the last shorter, each of its own byte.
func train(n, size, last int, to netip.AddrPort) udpio.Train {
	var b []byte
	for i := range n {
		b = append(b, slices.Repeat([]byte{byte(i + 1)}, size)...)
	}
	b = b[:len(b)-size+last]
	return udpio.Train{Buf: b, N: len(b), Size: size, Addr: to}
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
					if got := in.got[k]; !slices.Equal(got, bufs[i]) {
						t.Fatalf("datagram %d: % x", i, got)
					}
					if in.from[k] != netip.AddrPortFrom(netip.MustParseAddr(c.from), a.LocalAddr().Port()) {
						t.Fatalf("datagram %d: from %v", i, in.from[k])
					}
					i++
				}
			}
			check(t, b.Write([][]byte{[]byte("answer")}, in.from[0])) // what Receive said is good for Write
			if n := in.read(t, a); n != 1 || string(in.got[0]) != "answer" {
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
			if want := []int{0, 3000}[got]; len(in.got[k]) != want {
				t.Errorf("datagram %d: %d bytes, want %d", got, len(in.got[k]), want)
			}
			got++
		}
	}
}

func TestClose(t *testing.T) {
	c := listen(t, "127.0.0.1:0")
	check(t, c.Close())
	if _, err := c.Receive(newBatch(1).trains); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive: %v", err)
	}
	if err := c.Write([][]byte{{1}}, netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if _, err := c.Send([]udpio.Train{train(1, 1, 1, netip.MustParseAddrPort("127.0.0.1:9"))}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send: %v", err)
	}
	if c.Trouble() != nil {
		t.Error("trouble of a closed socket")
	}
	check(t, c.Close())
}

// trouble waits for an ICMP error.
func trouble(t testing.TB, c udpio.Conn) *udpio.PathError {
	t.Helper()
	for range 1000 {
		wait(t, c)
		if n, err := c.Receive(newBatch(1).trains); n != 0 || err != nil {
			t.Fatalf("received %d, %v", n, err)
		}
		if pe := c.Trouble(); pe != nil {
			return pe
		}
	}
	t.Fatal("no trouble")
	return nil
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
	pe := trouble(t, a)
	if pe.To != dead || !pe.Refused() || !pe.ICMP || pe.TooBig() || !errors.Is(pe, syscall.ECONNREFUSED) {
		t.Fatalf("got %+v", pe)
	}
	if n := in.read(t, b); n != 1 || in.got[0][0] != 2 {
		t.Error("the datagram to the other destination is lost")
	}
	check(t, b.Write([][]byte{{3}}, a.LocalAddr()))
	if n := in.read(t, a); n != 1 || in.got[0][0] != 3 {
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
	var mtu int
	for range 2 {
		mtu = max(mtu, trouble(t, a).MTU)
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
		pe := trouble(t, ca)
		if !pe.TooBig() || !pe.ICMP || pe.MTU != 1300 || pe.To != cb.LocalAddr() {
			t.Fatalf("got %+v", pe)
		}
	}
	check(t, ca.Write([][]byte{make([]byte, 1272)}, cb.LocalAddr()))
	if n := in.read(t, cb); n != 1 || len(in.got[0]) != 1272 {
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
	if _, err := udpio.Listen(netip.AddrPort{}, udpio.Options{}); err == nil {
		t.Error("listening on nothing")
	}
	if _, err := udpio.Listen(c4.LocalAddr(), udpio.Options{}); !errors.Is(err, syscall.EADDRINUSE) {
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

// Control messages and packets leave by one socket at once; none is lost, each train stays in order.
func TestSendersAtOnce(t *testing.T) {
	a, b := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	const each = 100
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range each {
				if err := a.Write([][]byte{{0}, {0}}, b.LocalAddr()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range each {
			if n, err := a.Send([]udpio.Train{train(10, 100, 50, b.LocalAddr())}); n != 1 || err != nil {
				t.Errorf("sent %d, %v", n, err)
			}
		}
	})
	wg.Wait()
	in, next := newBatch(16), 1
	for got := 0; got < 3*each*2+each*10; {
		got += in.read(t, b)
		for _, d := range in.got {
			if d[0] == 0 {
				continue
			}
			if int(d[0]) != next {
				t.Fatalf("datagram %d where %d was due", d[0], next)
			}
			next = next%10 + 1
		}
	}
}

// A train arrives as its datagrams, and as a train where the kernel keeps it together; likewise where the
// device cannot, in either direction.
func TestTrains(t *testing.T) {
	for _, c := range []struct {
		name        string
		off         []string // of the sender's device
		noOffload   bool
		whole, sent bool // received as one train; Offload afterwards
	}{
		{"whole", nil, false, true, true},
		{"segmented by the kernel", []string{"tx-udp-segmentation", "gso"}, false, false, true},
		{"the device sums no checksums", []string{"tx-checksumming"}, false, false, true},
		{"switched off", nil, true, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath("ethtool"); err != nil && c.off != nil && os.Getenv("TWINKEY_NO_SKIP") != "1" {
				t.Skip("needs ethtool (Debian: apt-get install ethtool)")
			}
			ha, hb := twoHosts(t, 1500)
			for _, f := range c.off {
				if out, err := ha.Command(t.Context(), "ethtool", "-K", "eth0", f, "off").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			a, b := listenOn(t, ha, "10.0.0.1:0", udpio.Options{NoOffload: c.noOffload}), listenOn(t, hb, "10.0.0.2:0", udpio.Options{RcvBuf: 8 << 20})
			for _, shape := range [][3]int{{44, 1472, 1472}, {44, 1472, 1}, {64, 100, 50}, {2, 1, 1}, {1, 1400, 1400}} {
				n, err := a.Send([]udpio.Train{train(shape[0], shape[1], shape[2], b.LocalAddr())})
				if n != 1 || err != nil {
					t.Fatalf("%v: sent %d, %v", shape, n, err)
				}
				in := newBatch(64)
				for i := 0; i < shape[0]; {
					k := in.read(t, b)
					if c.whole && k != shape[0] {
						t.Errorf("%v: %d datagrams at once", shape, k)
					}
					for _, d := range in.got {
						want := shape[1]
						if i == shape[0]-1 {
							want = shape[2]
						}
						if len(d) != want || d[0] != byte(i+1) || d[want-1] != byte(i+1) {
							t.Fatalf("%v: datagram %d: %d bytes of %d", shape, i, len(d), d[0])
						}
						i++
					}
				}
			}
			if a.Offload() != c.sent {
				t.Errorf("offload: %v", a.Offload())
			}
		})
	}
}

// ICMP errors of every kind about datagrams that were never sent, as many as a stranger likes: hardly anything that was to be
// sent is lost, and the socket does not unlearn what its device can.
func TestForgedICMP(t *testing.T) {
	ha, hb := twoHosts(t, 1500)
	a, b := listenOn(t, ha, "10.0.0.1:0"), listenOn(t, hb, "10.0.0.2:0", udpio.Options{RcvBuf: 8 << 20})
	raw := -1
	check(t, hb.Do(func() (err error) {
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	}))
	var stop atomic.Bool
	var forged atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for code := byte(0); !stop.Load(); code = (code + 1) % 16 {
			m := []byte{3, 5, 0, 0, 0, 0, 0, 0} // "source route failed", which the kernel tells as "not supported"
			if forged.Load()%4 == 0 {
				m[1] = code
			}
			m = append(m, 0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 9, 9, 9, 9)
			m = binary.BigEndian.AppendUint16(m, a.LocalAddr().Port())
			m = append(m, 1701>>8, 1701&0xff, 0, 80, 0, 0)
			binary.BigEndian.PutUint16(m[2:], ip.Checksum(ip.Sum(0, m)))
			if unix.Sendto(raw, m, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 0, 0, 1}}) == nil && forged.Add(1)%4 == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	in, trains, lost := newBatch(64), 0, 0
	for ; forged.Load() < 1000; trains++ {
		ts := []udpio.Train{train(3, 1000, 1000, b.LocalAddr())}
		n, err := a.Send(ts)
		for ; n == 0 && err == nil; n, err = a.Send(ts) {
		}
		if err != nil {
			lost++
		}
		for arrived := 0; arrived < 3 && err == nil; {
			arrived += in.read(t, b)
		}
		for range udpio.BatchSize {
			if a.Trouble() == nil {
				break
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	check(t, unix.Close(raw))
	t.Logf("%d forged messages, %d of %d trains lost", forged.Load(), lost, trains)
	if !a.Offload() {
		t.Error("a stranger has switched segmentation off")
	}
	if lost > trains/100 {
		t.Errorf("%d of %d trains lost", lost, trains)
	}
}

// A full socket takes a part. What it took and what it has left are all, in order.
func TestFullSocket(t *testing.T) {
	for _, noOffload := range []bool{false, true} {
		ha, hb := twoHosts(t, 1500)
		check(t, ha.Shape("eth0", 20<<20))
		a := listenOn(t, ha, "10.0.0.1:0", udpio.Options{SndBuf: 64 << 10, NoOffload: noOffload})
		b := listenOn(t, hb, "10.0.0.2:0", udpio.Options{RcvBuf: 8 << 20})
		var trains []udpio.Train
		for range 20 {
			trains = append(trains, train(40, 1000, 1000, b.LocalAddr()))
		}
		full, refused := 0, 0
		for left := trains; len(left) > 0; {
			n, err := a.Send(left)
			if err != nil { // the shaper's queue is short, too
				refused++
			}
			if left = left[n:]; len(left) > 0 && n == 0 {
				full++
				_, err := unix.Poll([]unix.PollFd{{Fd: int32(a.FD()), Events: unix.POLLOUT}}, 1000)
				check(t, err)
			}
		}
		if full == 0 {
			t.Error("it was never full")
		}
		if refused > 0 {
			t.Logf("%d refusals", refused)
			continue // what the queue behind the socket drops is lost
		}
		in, next := newBatch(64), 0
		for got := 0; got < 20*40; {
			got += in.read(t, b)
			for _, d := range in.got {
				if int(d[0]) != next%40+1 {
					t.Fatalf("datagram %d where %d was due", d[0], next%40+1)
				}
				next++
			}
		}
	}
}

// Sockets that share a port: the low half of the first word decides, whoever sends; what has none reaches the first.
func TestSteering(t *testing.T) {
	conns := listenAs(t, "127.0.0.1:0", udpio.Options{Sockets: 3})
	to := conns[0].LocalAddr()
	for _, c := range conns {
		if c.LocalAddr() != to {
			t.Fatalf("%v, %v", c.LocalAddr(), to)
		}
	}
	in := newBatch(8)
	for _, tt := range []struct {
		data []byte
		want int
	}{
		{[]byte{0xaa, 1, 0, 0, 9}, 0}, {[]byte{0xbb, 2, 0, 1, 9}, 1}, {[]byte{0, 3, 0, 5, 9}, 2}, {[]byte{7, 7, 1, 0, 9}, 256 % 3},
		{[]byte{0, 0, 0, 0, 0xc8, 2}, 0}, {[]byte{0xff}, 0}, {[]byte{1, 2, 3}, 0}, {nil, 0},
	} {
		for range 3 {
			from := listen(t, "127.0.0.1:0")
			check(t, from.Write([][]byte{tt.data}, to))
			if n := in.read(t, conns[tt.want]); n != 1 || !slices.Equal(in.got[0], tt.data) {
				t.Errorf("% x: % x", tt.data, in.got)
			}
		}
	}
	if _, err := udpio.Listen(to, udpio.Options{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("somebody else listens there too: %v", err)
	}
}

func TestNoAllocations(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		a, b := listen(t, addr), listen(t, addr)
		in := newBatch(2).trains
		out := []udpio.Train{train(20, 1000, 10, b.LocalAddr()), train(1, 1000, 1000, b.LocalAddr())}
		round := func() {
			if n, err := a.Send(out); n != 2 || err != nil {
				t.Fatal(n, err)
			}
			for got := 0; got < 20*1000-990+1000; {
				n, err := b.Receive(in)
				check(t, err)
				for _, tr := range in[:n] {
					got += tr.N
				}
			}
		}
		if n := testing.AllocsPerRun(200, round); n != 0 {
			t.Errorf("%s: %v allocations for two trains there", addr, n)
		}
	}
}

// BenchmarkSendReceive is bytes over loopback, by trains and by datagrams.
func BenchmarkSendReceive(b *testing.B) {
	for _, n := range []int{1, 8, 44} {
		for _, noOffload := range []bool{false, true} {
			b.Run(fmt.Sprintf("datagrams=%d/offload=%v", n, !noOffload), func(b *testing.B) {
				o := udpio.Options{RcvBuf: 4 << 20, SndBuf: 4 << 20, NoOffload: noOffload}
				x, y := listenAs(b, "127.0.0.1:0", o)[0], listenAs(b, "127.0.0.1:0", o)[0]
				whole := train(n, 1400, 1400, y.LocalAddr())
				in := newBatch(udpio.BatchSize).trains
				b.SetBytes(int64(whole.N))
				b.ReportAllocs()
				for b.Loop() {
					out := [1]udpio.Train{whole}
					if _, err := x.Send(out[:]); err != nil {
						b.Fatal(err)
					}
					for got := 0; got < whole.N; {
						k, err := y.Receive(in)
						check(b, err)
						for _, tr := range in[:k] {
							got += tr.N
						}
					}
				}
			})
		}
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

func listenOn(t *testing.T, h *netlab.Host, addr string, o ...udpio.Options) udpio.Conn {
	t.Helper()
	var cs []udpio.Conn
	check(t, h.Do(func() (err error) {
		cs, err = udpio.Listen(netip.MustParseAddrPort(addr), append(o, udpio.Options{})[0])
		return err
	}))
	t.Cleanup(func() { check(t, cs[0].Close()) })
	return cs[0]
}
