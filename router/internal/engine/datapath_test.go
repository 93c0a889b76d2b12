package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
	"twinkey/proto/gso"
	"twinkey/proto/ip"
	"twinkey/router/internal/calls"
)

// wire is everything around two workers but the kernel: what is put into it is read from the
// interface of one, what that one sends is received by the other, and what that one
// writes is kept.
type wire struct {
	udpio.Conn // of the sender: for what is not asked here

	header gso.Header
	train  []byte // waits at the interface
	sent   []udpio.Train
	room   []byte
	used   int // of room
	got    []byte
	count  int
	all    [][]byte // what was written, one after the other; nil: not kept
	size   int      // of the datagrams sent last
}

// end is the wire's end in an interface; the wire itself is the socket.
type end struct{ *wire }

func (w end) Trains() bool { return true }

func (w end) Read(buf []byte, at int) (gso.Header, int, error) {
	n := copy(buf[at:], w.train)
	w.train = nil
	return w.header, n, nil
}

func (w end) Write(_ gso.Header, buf []byte, at int) error {
	w.got = append(w.got[:0], buf[at:]...)
	if w.all != nil {
		w.all = append(w.all, bytes.Clone(buf[at:]))
	}
	w.count++
	return nil
}

func (w *wire) Send(ts []udpio.Train) (int, error) {
	for _, t := range ts {
		n := copy(w.room[w.used:], t.Buf[:t.N])
		t.Buf = w.room[w.used : w.used+n]
		w.used += n
		w.sent, w.size = append(w.sent, t), t.Size
	}
	return len(ts), nil
}

func (w *wire) Receive(ts []udpio.Train) (n int, err error) {
	for _, t := range w.sent {
		ts[n].N, ts[n].Size, ts[n].Addr = copy(ts[n].Buf, t.Buf), t.Size, w.LocalAddr()
		n++
	}
	w.sent, w.used = w.sent[:0], 0
	return n, nil
}

// path is the way of packets from ra's LAN to rb's, workers and all.
func path(t testing.TB) (w *wire, pass func()) { return pathOf(t, newCompany(t)) }

func pathOf(t testing.TB, c *company) (w *wire, pass func()) {
	c.linked()
	w = &wire{Conn: c.ra.c.Ports[0].Conn, room: make([]byte, 256<<10), got: make([]byte, 0, 64<<10)}
	a, b := newWorker(c.ra.Engine, Port{Queue: end{w}, Conn: w}), newWorker(c.rb.Engine, Port{Queue: end{w}, Conn: w})
	return w, func() {
		if _, err := a.outbound(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.inbound(); err != nil {
			t.Fatal(err)
		}
	}
}

// tcpTrain is a train of TCP segments of size bytes, n bytes of payload in all, as a kernel hands it out.
func tcpTrain(size, n int) (gso.Header, []byte) {
	b := packet(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), string(make([]byte, 32+n)))
	for i := range n {
		b[52+i] = byte(i * 7)
	}
	b[9], b[6] = byte(ip.TCP), 0x40
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, 1000)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp[12], tcp[13] = 8<<4, 0x10
	p := must(ip.Parse(b))
	binary.BigEndian.PutUint16(tcp[16:], ^ip.Checksum(p.PseudoSum(ip.TCP, len(tcp))))
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ip.Checksum(ip.Sum(0, b[:20])))
	return gso.Header{Kind: gso.TCP4, Partial: true, Headers: 52, Size: uint16(size), ChecksumFrom: 20, ChecksumAt: 16}, b
}

// A train comes out as the train that it was: the segments were cut, sealed, opened and joined.
func TestTrainThroughBothRouters(t *testing.T) {
	w, pass := path(t)
	h, train := tcpTrain(1340, 40*1340)
	w.header, w.train = h, train
	pass()
	if w.count != 1 || !bytes.Equal(w.got, train) {
		t.Errorf("%d writes, %d bytes of %d, or not the same", w.count, len(w.got), len(train))
	}
}

// Each end sends as the other takes it: an old peer, or one that wants full headers, gets full headers
// and complete checksums.
func TestCapabilities(t *testing.T) {
	const bare, sums, short = calls.Bare, calls.Checksums, calls.ShortIPv4
	for _, tt := range []struct {
		ra, rb     calls.Capabilities
		bare, left bool
		size       int // of the first datagram: 1,340 bytes of payload, headers 52, ESP 36
	}{
		{bare | sums, bare | sums, true, true, 1340 + 52 + 36},
		{bare | sums, 0, false, false, 1340 + 52 + 36 + 16},
		{0, bare | sums, false, true, 1340 + 52 + 36 + 16},
		{bare, bare, true, false, 1340 + 52 + 36},
		{bare | 1<<31, bare | 1<<31, true, false, 1340 + 52 + 36},
		{bare | short, bare | short, true, false, 1340 + 52 + 36 - 5},
		{bare | short, bare, true, false, 1340 + 52 + 36},
		{short, short, false, false, 1340 + 52 + 36 + 16},
	} {
		n := udptest.NewNetwork()
		c := newCompanyThat(t, &company{net: n, takes: [2]calls.Capabilities{tt.ra, tt.rb}, listen: func(i int) udpio.Conn {
			return must(n.Listen(netip.MustParseAddrPort(fmt.Sprintf("198.18.0.%d:1701", i))))
		}})
		w, pass := pathOf(t, c)
		o := c.ra.calls(t)[0].Active.Call.Out()
		if o.Bare != tt.bare || o.LeaveChecksums != tt.left {
			t.Errorf("ra takes %b, rb %b: bare %v, left %v", tt.ra, tt.rb, o.Bare, o.LeaveChecksums)
		}
		h, train := tcpTrain(1340, 10*1340)
		w.header, w.train = h, train
		pass()
		if !bytes.Equal(w.got, train) || w.size < tt.size || w.size > tt.size+3 {
			t.Errorf("ra takes %b, rb %b: datagrams of %d bytes, %d bytes came out", tt.ra, tt.rb, w.size, len(w.got))
		}
	}
}

// Short and full forms, packets that join and packets that don't come out as they went in, whatever came before
// them: what is opened is put where the last one made us expect it.
func TestFormsInAnyOrder(t *testing.T) {
	c := newCompany(t)
	c.linked()
	w := &wire{Conn: c.ra.c.Ports[0].Conn, room: make([]byte, 256<<10), all: [][]byte{}}
	a, b := newWorker(c.ra.Engine, Port{Queue: end{w}, Conn: w}), newWorker(c.rb.Engine, Port{Queue: end{w}, Conn: w})
	header, train := tcpTrain(1340, 3*1340)
	src, dst := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	options := packet(src, dst, "\x94\x04\x00\x00router alert") // RFC 2113
	options[0] = 0x46
	options[10], options[11] = 0, 0
	binary.BigEndian.PutUint16(options[10:], ip.Checksum(ip.Sum(0, options[:24])))
	forms := []struct {
		header gso.Header
		pkt    []byte
	}{{header, train}, {gso.Header{}, options}, {gso.Header{}, packet(src, dst, "alone")}, {gso.Header{}, packet(src, dst, "")}}
	for i := range len(forms) * len(forms) * len(forms) {
		w.all = w.all[:0]
		n := len(forms)
		order := []int{i % n, i / n % n, i / n / n}
		for _, k := range order {
			w.header, w.train = forms[k].header, forms[k].pkt
			if _, err := a.outbound(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.inbound(); err != nil {
			t.Fatal(err)
		}
		if len(w.all) != len(order) {
			t.Fatalf("%v: %d packets came out", order, len(w.all))
		}
		for at, k := range order {
			if !bytes.Equal(w.all[at], forms[k].pkt) {
				t.Errorf("%v: at %d came % x", order, at, w.all[at])
			}
		}
	}
}

// A header whose checksum is wrong is not mended by being shortened.
func TestWrongHeaderChecksum(t *testing.T) {
	c := newCompany(t)
	w, pass := pathOf(t, c)
	p := packet(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), "payload")
	p[10] ^= 1
	w.train = p
	pass()
	if n := c.ra.drops.BadPacket.Load(); n != 1 || w.count != 0 {
		t.Errorf("%d counted, %d came out", n, w.count)
	}
}

// Neither a packet nor a train allocates, either way.
func TestDataPathAllocatesNothing(t *testing.T) {
	w, pass := path(t)
	one := packet(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), "payload")
	h, train := tcpTrain(1340, 40*1340)
	for _, tt := range []struct {
		name   string
		header gso.Header
		pkt    []byte
	}{{"one packet", gso.Header{}, one}, {"a train", h, train}} {
		n := testing.AllocsPerRun(200, func() {
			w.header, w.train = tt.header, tt.pkt
			pass()
			if !bytes.Equal(w.got, tt.pkt) {
				t.Fatalf("%s: %d bytes came out, %d went in", tt.name, len(w.got), len(tt.pkt))
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}

// BenchmarkTrain is 64 KiB of TCP through both routers without system calls: taken apart, sealed,
// opened, put together, with all lookups and checks and two copies that stand for the kernel's.
func BenchmarkTrain(b *testing.B) {
	w, pass := path(b)
	h, train := tcpTrain(1340, 47*1340)
	b.SetBytes(int64(len(train)))
	b.ReportAllocs()
	for b.Loop() {
		w.header, w.train = h, train
		pass()
	}
}

// BenchmarkPacket is one packet of 1,400 bytes through both routers, likewise.
func BenchmarkPacket(b *testing.B) {
	w, pass := path(b)
	p := packet(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), string(make([]byte, 1380)))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		w.train = p
		pass()
	}
}
