package native_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"twinkey/proto/esp"
	"twinkey/proto/pmtu"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

const ipv4UDP = 20 + 8

// narrow has every path lose datagrams whose IP packet would be longer, without a word.
func (w *world) narrow(mtu int) {
	w.weather = func(_ *box, d []byte) int {
		if ipv4UDP+len(d) > mtu {
			return 0
		}
		return 1
	}
}

// tunnelOf is a box's only tunnel.
func (b *box) tunnelOf() native.TunnelStatus {
	b.w.t.Helper()
	all := b.e.Tunnels()
	if len(all) != 1 {
		b.w.t.Fatalf("%s has %d tunnels", b.name, len(all))
	}
	return all[0]
}

// The arithmetic, once by hand: ESP header and IV, payload, pad length and next header up to a whole
// block, ICV (RFC 4303 section 2), behind 28 or 48 bytes of IP and UDP.
func TestFits(t *testing.T) {
	const full = 8 + 6 + 1 // UDP, L2TP, PPP with address and control left out and the protocol in one byte
	for _, tt := range []struct {
		suite          esp.Suite
		v4, v6         int // on 1,500 bytes, bare
		narrow, header int // on 1,280 over IPv4; on 1,500 over IPv4 with all headers
	}{
		{esp.AES256GCM, 1438, 1418, 1218, 1423},        // 1472-8-8-16 = 1440, less 2
		{esp.ChaCha20Poly1305, 1438, 1418, 1218, 1423}, // as above
		{esp.AES128GCM, 1438, 1418, 1218, 1423},        // as above
		{esp.AES256GCMIIV, 1446, 1426, 1226, 1431},     // 1472-8-16 = 1448, less 2
		{esp.ChaCha20Poly1305IIV, 1446, 1426, 1226, 1431},
		{esp.AES128GCMIIV, 1446, 1426, 1226, 1431},
		{esp.AES256CBCSHA256, 1422, 1406, 1198, 1407}, // 1472-8-16-16 = 1432, 89 blocks of 16, less 2
		{esp.TripleDESSHA1, 1438, 1422, 1222, 1423},   // 1472-8-8-12 = 1444, 180 blocks of 8, less 2
		{esp.NullSHA256, 1446, 1426, 1226, 1431},      // as an implicit IV
	} {
		t.Run(tt.suite.String(), func(t *testing.T) {
			for _, x := range []struct {
				what         string
				size         int
				v6           bool
				inner, wants int
			}{
				{"1500 over IPv4", 1500, false, 0, tt.v4},
				{"1500 over IPv6", 1500, true, 0, tt.v6},
				{"1280 over IPv4", 1280, false, 0, tt.narrow},
				{"1500 over IPv4, all headers", 1500, false, full, tt.header},
				{"nothing", 60, true, full, 0},
			} {
				if got := native.Fits(x.size, x.v6, tt.suite, x.inner); got != x.wants {
					t.Errorf("%s: %d bytes, want %d", x.what, got, x.wants)
				}
			}
		})
	}
}

// It is exact for every suite and size: one byte more would not fit. Seal itself is asked.
func TestFitsIsWhatSealMakes(t *testing.T) {
	sa := func(s esp.Suite) *esp.Outbound {
		key := make([]byte, s.KeyLen())
		for i := range key {
			key[i] = byte(i * 7)
		}
		return must(esp.NewOutbound(4711, s, secret.New(key), esp.Limits{}))
	}
	for _, s := range append(esp.Suites(), esp.AES256GCMIIV, esp.ChaCha20Poly1305IIV, esp.AES128GCMIIV) {
		o := sa(s)
		sealed := func(n int) int {
			buf := make([]byte, 64+n+64)
			return ipv4UDP + len(must(o.Seal(buf, 64, n, esp.NextIPv4)))
		}
		for size := 576; size <= 1500; size++ {
			n := native.Fits(size, false, s, 0)
			if sealed(n) > size || sealed(n+1) <= size {
				t.Errorf("%s: %d bytes in %d make %d, one more %d", s, n, size, sealed(n), sealed(n+1))
			}
		}
	}
}

// What both routers find out, and what they tell the data path; the next-but-one call knows it from its first packet.
func TestPathMTU(t *testing.T) {
	for _, mtu := range []int{1500, 1492, 1400, 1280} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			w := newWorld(t)
			w.narrow(mtu)
			a, b := w.router("ra", 1), w.router("rb", 2)
			all := calls.Bare | calls.Checksums | calls.ImplicitIV
			for _, x := range []*box{a, b} {
				x.start(func(c *native.Config) { c.Capabilities, c.MRU = all, 1446 })
			}
			out := w.link(a, b)
			in := b.up(links.Key{Peer: "ra"})
			want := native.Fits(mtu, false, esp.AES256GCMIIV, 0)
			for _, x := range []struct {
				*box
				c *calls.Call
			}{{a, out}, {b, in}} {
				if s := x.tunnelOf(); s.PathMTU != mtu || s.Path != pmtu.SearchComplete {
					t.Errorf("%s: path %d (%v)", x.name, s.PathMTU, s.Path)
				}
				if got := x.c.Out().MTU; got != want {
					t.Errorf("%s: private packets of up to %d bytes, want %d", x.name, got, want)
				}
			}
			second := w.place(a, native.Wish{Key: links.Key{Peer: "rb"}, Cred: a.self.Credentials})
			if second == out || second.Out().MTU != want {
				t.Errorf("second call: %d", second.Out().MTU)
			}
		})
	}
}

// A path that becomes narrow while data flows, and says nothing.
func TestPathBecomesNarrow(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	c := w.link(a, b)
	before := c.Out()
	if n := a.tunnelOf().PathMTU; n != 1500 {
		t.Fatalf("path %d", n)
	}
	w.narrow(1400)
	for range 20 {
		c.TxPackets.Add(1) // only who sends asks
		w.pass(time.Second)
	}
	after := c.Out()
	if n := a.tunnelOf().PathMTU; n != 1400 || after.MTU >= before.MTU || after.MTU > native.Fits(1400, false, esp.AES256GCM, 0) {
		t.Errorf("path %d, private packets of up to %d bytes", n, after.MTU)
	}
	if n := b.tunnelOf().PathMTU; n != 1500 {
		t.Errorf("rb sent nothing, and its path is %d", n)
	}
	if after.SA != before.SA || after.To != before.To {
		t.Error("more than the MTU has changed")
	}
	if !a.say(c, "still here") {
		t.Error("nothing seals any more")
	}
}

// A hint is a reason to look, no more, whoever it is from and about whom.
func TestTooBig(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	c := w.link(a, b)
	for _, mtu := range []int{0, -1, 68, 1199, 1200, 1300, 1499, 1500, 65535} {
		a.e.TooBig(w.now, b.addr, mtu)
		a.e.TooBig(w.now, netip.MustParseAddrPort("203.0.113.9:1701"), mtu)
		w.settle()
		w.pass(5 * time.Second)
		if n := a.tunnelOf().PathMTU; n != 1500 {
			t.Fatalf("forged hint %d: path %d", mtu, n)
		}
	}
	w.narrow(1388)
	a.e.TooBig(w.now, b.addr, 1388)
	w.settle()
	w.pass(5 * time.Second)
	if n := a.tunnelOf().PathMTU; n != 1388 {
		t.Errorf("true hint: path %d", n)
	}
	if c.Out().MTU != native.Fits(1388, false, esp.AES256GCM, 8+6+1) {
		t.Errorf("private packets of up to %d bytes", c.Out().MTU)
	}
}

// A peer of before drops probes: its path is taken to be ordinary, and the tunnel is as it was.
func TestOlderPeer(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	b.older = true
	c := w.link(a, b)
	w.pass(5 * time.Minute)
	if s := a.tunnelOf(); s.PathMTU != 1500 || s.Path != pmtu.Base || !s.Up {
		t.Errorf("path %d (%v), up: %v", s.PathMTU, s.Path, s.Up)
	}
	a.say(c, "hello")
	w.settle()
	if got := b.texts(); len(got) != 1 {
		t.Errorf("rb got %q", got)
	}
}

// Probes are no control messages: L2TP's numbers go on as if there were none, also where all are lost.
func TestProbesTouchNoNumbers(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.narrow(1250) // the control messages pass
	w.link(a, b)
	w.pass(10 * time.Minute)
	if s := a.tunnelOf(); !s.Up || s.PathMTU != 1200 {
		t.Errorf("path %d, up: %v", s.PathMTU, s.Up)
	}
	if downs := find[native.TunnelDown](a); len(downs) > 0 {
		t.Errorf("%+v", downs)
	}
}

// Whoever has keys and asks without end is answered within reason.
func TestAnswersAreBounded(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.link(a, b)
	in := b.table.Inbound(b.tunnelOf().SPIIn)
	answers := 0
	for i := range 10_000 {
		b.e.PathProbe(w.now, a.addr, in, pmtu.AppendProbe(nil, pmtu.Probe{ID: uint32(i), Size: 100}, 8)) //nolint:gosec // a count
	}
	for {
		o, ok := b.e.Poll()
		if !ok {
			break
		}
		if o.Next == native.NextPath {
			answers++
			if len(o.Payload) != pmtu.HeaderLen {
				t.Fatalf("an answer of %d bytes", len(o.Payload))
			}
		}
	}
	if answers == 0 || answers > 100 {
		t.Errorf("%d answers in one moment", answers)
	}
	malformed := b.e.Counters.Malformed
	for _, p := range [][]byte{nil, {1}, {9, 0, 0, 0, 0, 0, 0, 0}} {
		b.e.PathProbe(w.now, a.addr, in, p)
	}
	if b.e.Counters.Malformed != malformed+3 {
		t.Error("what is no probe was not counted")
	}
}

// Greater sizes are looked for where the interface takes packets that need them, and only there.
func TestJumboPath(t *testing.T) {
	for _, tt := range []struct {
		mru        uint16
		path, want int // bytes that the path carries; the longest private packet
	}{
		{8900, 9000, 8900},
		{8900, 1500, native.Fits(1500, false, esp.AES256GCM, 8+6+1)},
		{1500, 9000, 1500},
		{1446, 9000, native.Fits(1500, false, esp.AES256GCM, 8+6+1)},
	} {
		t.Run(fmt.Sprintf("%d over %d", tt.mru, tt.path), func(t *testing.T) {
			w := newWorld(t)
			w.narrow(tt.path)
			a, b := w.router("ra", 1), w.router("rb", 2)
			for _, x := range []*box{a, b} {
				x.start(func(c *native.Config) { c.MRU = tt.mru })
			}
			if got := w.link(a, b).Out().MTU; got != tt.want {
				t.Errorf("private packets of up to %d bytes, want %d; path %d", got, tt.want, a.tunnelOf().PathMTU)
			}
		})
	}
}

// A peer that comes from another address comes by another path: it is searched anew. Another port alone is
// the same path behind a translator that has forgotten.
func TestMovedPeerIsProbedAnew(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	c := w.link(a, b)
	for _, tt := range []struct {
		to      string
		carries int
		want    int
	}{
		{"198.18.0.2:4500", 1400, 1500},
		{"198.18.7.2:4500", 1400, 1400},
		{"198.18.7.3:4500", 1500, 1500},
	} {
		to := netip.MustParseAddrPort(tt.to)
		delete(w.byAddr, b.addr)
		b.addr = to
		w.byAddr[to] = b
		w.narrow(tt.carries)
		a.e.Moved(w.now, a.tunnelOf().ID, to)
		w.settle()
		w.pass(5 * time.Second)
		if n := a.tunnelOf().PathMTU; n != tt.want || c.Out().To != to {
			t.Errorf("at %s: path %d, want %d; sends to %s", tt.to, n, tt.want, c.Out().To)
		}
	}
}
