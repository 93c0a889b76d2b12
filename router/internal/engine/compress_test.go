package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
	"twinkey/proto/esp"
	"twinkey/proto/gso"
	"twinkey/proto/ip"
	"twinkey/router/internal/calls"
)

// packing is the way of packets from ra to rb where each compresses, or does not.
func packing(t testing.TB, takes calls.Capabilities, packs [2]bool) (c *company, w *wire, pass func()) {
	n := udptest.NewNetwork()
	c = newCompanyThat(t, &company{net: n, takes: [2]calls.Capabilities{takes, takes}, packs: packs, listen: func(i int) udpio.Conn {
		return must(n.Listen(netip.MustParseAddrPort(fmt.Sprintf("198.18.0.%d:1701", i))))
	}})
	w, pass = pathOf(t, c)
	if packs[0] && packs[1] {
		until(t, "compression at ra's end", func() bool { return c.ra.calls(t)[0].Active.Call.Out().Compress })
	}
	return c, w, pass
}

// text is what compresses to about a third.
func text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "GET /site/%d/index.html HTTP/1.1\r\nHost: intranet.example\r\nAccept: text/html\r\n\r\n", i)
	}
	return b.String()[:n]
}

func random(n int) string {
	r, b := rand.New(rand.NewPCG(1, 2)), make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// textTrain is tcpTrain with text in it.
func textTrain(size, n int) (gso.Header, []byte) {
	h, b := tcpTrain(size, n)
	copy(b[52:], text(n))
	return h, b
}

// What pays is compressed, what does not is left alone, and out comes what went in, in whichever form it
// travelled.
func TestCompression(t *testing.T) {
	src, dst := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	for _, form := range []struct {
		name  string
		takes calls.Capabilities
	}{
		{"short", everything}, {"bare", calls.Bare | calls.ImplicitIV}, {"full", calls.Checksums},
	} {
		for _, tt := range []struct {
			name, text string
			packed     bool
		}{
			{"text", text(1300), true}, {"random", random(1300), false}, {"zeros", string(make([]byte, 1300)), true},
			{"short text", strings.Repeat("a", minPack-21), false}, {"just long enough", strings.Repeat("a", minPack-20), true},
		} {
			t.Run(form.name+"/"+tt.name, func(t *testing.T) {
				c, w, pass := packing(t, form.takes, [2]bool{true, true})
				plain := packet(src, dst, tt.text)
				w.train = bytes.Clone(plain)
				pass()
				if !bytes.Equal(w.got, plain) {
					t.Fatalf("% x came out", w.got)
				}
				out, in := &c.ra.calls(t)[0].Active.Call.Counters, &c.rb.calls(t)[0].Active.Call.Counters
				want := uint64(0)
				if tt.packed {
					want = 1
				}
				if out.TxPacked.Load() != want || in.RxPacked.Load() != want {
					t.Errorf("%d went compressed, %d came, want %d", out.TxPacked.Load(), in.RxPacked.Load(), want)
				}
				if shorter := w.size < len(plain)-minSaved; shorter != tt.packed {
					t.Errorf("%d bytes went in %d", len(plain), w.size)
				}
				if tt.packed && (out.TxSaved.Load() < minSaved || in.RxSaved.Load() < minSaved) {
					t.Errorf("%d bytes saved at one end, %d at the other", out.TxSaved.Load(), in.RxSaved.Load())
				}
			})
		}
	}
}

// Trains come out whole although their segments travel in datagrams of many lengths.
func TestCompressedTrain(t *testing.T) {
	_, w, pass := packing(t, everything, [2]bool{true, true})
	h, train := textTrain(1340, 40*1340)
	w.header, w.train = h, bytes.Clone(train)
	pass()
	if w.count != 1 || !bytes.Equal(w.got, train) {
		t.Errorf("%d writes, %d bytes of %d, or not the same", w.count, len(w.got), len(train))
	}
}

// A router that does not compress has nothing compressed sent to it, and the call is none the worse.
func TestCompressionOneSided(t *testing.T) {
	for _, packs := range [][2]bool{{true, false}, {false, true}} {
		c, w, pass := packing(t, everything, packs)
		p := packet(netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), text(1300))
		w.train = bytes.Clone(p)
		pass()
		if !bytes.Equal(w.got, p) || c.ra.calls(t)[0].Active.Call.TxPacked.Load() != 0 {
			t.Errorf("%v: %d bytes came out, or compressed ones", packs, len(w.got))
		}
	}
}

// What does not shrink is tried ever more rarely, flow by flow.
func TestCompressionGivesUp(t *testing.T) {
	p, out := newPacker(1400), &calls.Outbound{Bare: true, Compress: true}
	noise, words := []byte(random(1300)), []byte(text(1300))
	var tried []int
	for i := range 3000 {
		f := &p.flows[1]
		before := f.skip
		p.flow = 1
		if _, ok := p.pack(out, noise, noise, esp.NextIPv4); ok {
			t.Fatal("noise shrank")
		}
		if before == 0 {
			tried = append(tried, i)
		}
		p.flow = 2
		if _, ok := p.pack(out, words, words, esp.NextIPv4); !ok {
			t.Fatalf("text did not shrink beside %d packets of noise", i)
		}
	}
	want := []int{0, 1, 2, 3, 4, 5, 6, 7, 24, 57, 122, 251, 508, 1021, 2046}
	if fmt.Sprint(tried) != fmt.Sprint(want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
	p.flow = 1
	p.flows[1].skip = 0
	if _, ok := p.pack(out, words, words, esp.NextIPv4); !ok || p.flows[1] != (thrift{}) {
		t.Errorf("text in a flow of noise: %v, %+v", ok, p.flows[1])
	}
}

// Both directions without an allocation, and text as well as what does not shrink.
func TestCompressionAllocatesNothing(t *testing.T) {
	_, w, pass := packing(t, everything, [2]bool{true, true})
	h, train := textTrain(1340, 40*1340)
	work := bytes.Clone(train)
	if n := testing.AllocsPerRun(100, func() {
		w.header, w.train = h, work[:copy(work, train)]
		pass()
		if !bytes.Equal(w.got, train) {
			t.Fatalf("%d bytes came out, %d went in", len(w.got), len(train))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzExpand: whatever an authentic peer says is a compressed packet, what comes of it is a packet of this call
// no longer than the MRU, or is counted.
func FuzzExpand(f *testing.F) {
	p := newPacker(1400)
	plain := packet(netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("10.1.0.1"), text(1200))
	n, _ := p.pack(&calls.Outbound{Bare: true}, plain, plain, esp.NextIPv4)
	f.Add(uint8(esp.NextIPv4), bytes.Clone(p.buf[headroom+1:headroom+n]))
	f.Add(uint8(esp.NextShortIPv4), []byte{0x1f, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(uint8(esp.NextIPv6), []byte{})
	f.Add(uint8(esp.NextIPv4), []byte{0xf0, 0xff, 0xff, 0xff})
	w := &worker{lz4: p}
	w.in.init(true)
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	f.Fuzz(func(t *testing.T, form uint8, block []byte) {
		if len(block) > maxPacket {
			return
		}
		c := calls.New(1, calls.SiteLink, calls.Bounds{Local: all, Remote: all})
		c.Takes, c.Expands = everything, true
		for _, frame := range [][]byte{append([]byte{form}, block...), block} {
			kind, b, ok := packed(c, frame, esp.NextCompressed)
			if !ok {
				continue
			}
			slot := w.in.join.Slot(0)
			pkt := w.expand(c, slot, kind, b)
			if pkt == nil {
				if c.Malformed.Load() == 0 {
					t.Error("dropped and not counted")
				}
				w.in.join.Drop()
				continue
			}
			if q, err := ip.Parse(pkt); err != nil || q.Len() != len(pkt) || len(pkt) > p.longest {
				t.Errorf("% x came of it: %v", pkt, err)
			}
			w.in.join.Put(pkt, true, true)
			w.in.join.Flush()
		}
	})
}

// BenchmarkCompression is 64 KiB of TCP through both routers: text and noise, compressed and not. Beside the time
// stands what travels for a byte of it.
func BenchmarkCompression(b *testing.B) {
	for _, data := range []struct {
		name string
		fill string
	}{{"text", text(47 * 1340)}, {"random", random(47 * 1340)}} {
		for _, mode := range []string{"off", "lz4"} {
			b.Run("data="+data.name+"/compression="+mode, func(b *testing.B) {
				c, w, pass := packing(b, everything, [2]bool{mode == "lz4", mode == "lz4"})
				h, train := tcpTrain(1340, 47*1340)
				copy(train[52:], data.fill)
				work := bytes.Clone(train)
				b.SetBytes(int64(len(train)))
				b.ReportAllocs()
				for b.Loop() {
					w.header, w.train = h, work[:copy(work, train)]
					binary.BigEndian.PutUint32(w.train[24:], 0)
					pass()
				}
				k := &c.ra.calls(b)[0].Active.Call.Counters
				b.ReportMetric(1-float64(k.TxSaved.Load())/float64(max(k.TxBytes.Load(), 1)), "sent/byte")
			})
		}
	}
}
