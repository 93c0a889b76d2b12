package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/udpio/udptest"
	"twinkey/proto/esp"
	"twinkey/proto/l2tp"
)

// In a bubble of testing/synctest an hour costs nothing, and a goroutine that outlives
// the engines fails the test.

// catch lets everything pass but the next ESP packet from from, which comes later, and
// returns what gives a copy of that.
func (c *company) catch(from netip.AddrPort, later time.Duration) (caught func() []byte) {
	var kept []byte
	c.net.Script(func(d udptest.Datagram) []time.Duration {
		if kept == nil && d.From == from && esp.Classify(d.Data) == esp.Packet {
			kept = bytes.Clone(d.Data)
			return []time.Duration{later}
		}
		return []time.Duration{0}
	})
	return func() []byte {
		synctest.Wait()
		return kept
	}
}

// collect gathers what arrives at a site until wait has passed without anything.
func (s *site) collect(t testing.TB, wait time.Duration) map[string]int {
	got := map[string]int{}
	for {
		p := s.delivered(t, wait)
		if p == nil {
			return got
		}
		got[string(p)]++
	}
}

// An authentic peer may put an offset of any length between L2TP's header and PPP's (RFC 2661 section 3.1):
// wherever a packet stands, it comes out, and so does what comes after it.
func TestOffsetsOfAnyLength(t *testing.T) {
	c := newCompany(t)
	c.linked()
	call := c.ra.calls(t)[0].Active.Call
	w := &wire{Conn: c.ra.c.Ports[0].Conn, room: make([]byte, 256<<10), all: [][]byte{}}
	worker := newWorker(c.rb.Engine, Port{Queue: end{w}, Conn: w})
	pkt := packet(c.ra.host, c.rb.host, "behind an offset")
	for offset := range 300 {
		for _, length := range []int{offset, offset, offset * 100} {
			h := l2tp.DataHeader{TunnelID: call.PeerTunnel, SessionID: call.PeerSession, HasOffset: true, OffsetSize: uint16(length)} //nolint:gosec // below 30,000
			frame := l2tp.AppendData(nil, h, append([]byte{0xff, 3, 0, 0x21}, pkt...))
			inner := []byte{1701 >> 8, 1701 & 0xff, 1701 >> 8, 1701 & 0xff}
			inner = binary.BigEndian.AppendUint16(inner, uint16(8+len(frame))) //nolint:gosec // likewise
			inner = append(append(inner, 0, 0), frame...)
			buf := make([]byte, headroom+len(inner)+tailroom)
			copy(buf[headroom:], inner)
			d, err := call.Out().SA.Seal(buf, headroom, len(inner), esp.NextUDP)
			if err != nil {
				t.Fatal(err)
			}
			w.all = w.all[:0]
			if err := worker.open(d, c.ra.peer.Endpoint, 0); err != nil {
				t.Fatal(err)
			}
			if err := worker.deliver(worker.in.join.Flush()); err != nil {
				t.Fatal(err)
			}
			if len(w.all) != 1 || !bytes.Equal(w.all[0], pkt) {
				t.Fatalf("offset %d: % x came out", length, w.all)
			}
		}
	}
}

// What a stranger who hears the path makes of data packets costs him bandwidth and us a
// counter: nothing of it is delivered, and what comes between is.
func TestDamagedAndReplayedDatagramsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		stranger := must(c.net.Listen(netip.MustParseAddrPort("203.0.113.9:4500")))
		caught := c.catch(c.ra.peer.Endpoint, 2*time.Second)
		good := packet(c.ra.host, c.rb.host, "good")
		c.ra.inject(t, good)
		orig, before := caught(), c.rb.calls(t)[0]

		var bad [][]byte
		for bit := range 8 * len(orig) {
			b := bytes.Clone(orig)
			b[bit/8] ^= 1 << (bit % 8)
			bad = append(bad, b)
		}
		for n := range len(orig) {
			bad = append(bad, orig[:n])
		}
		bad = append(bad, append(bytes.Clone(orig), 0), append(bytes.Clone(orig), make([]byte, 9000)...), append(bytes.Clone(orig[:20]), make([]byte, 65000)...))
		rng := rand.NewChaCha8([32]byte{1})
		for n := range 300 {
			noise := make([]byte, n)
			_, _ = rng.Read(noise)
			bad = append(bad, noise, append(esp.AppendMarker(nil), noise...), append(bytes.Clone(orig[:4]), noise...))
		}
		for i, b := range bad {
			if err := stranger.Write([][]byte{b}, c.rb.peer.Endpoint); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				p := packet(c.ra.host, c.rb.host, fmt.Sprint("between ", i))
				c.ra.inject(t, p)
				c.rb.arrives(t, p)
			}
		}
		c.rb.nothingArrives(t)
		c.rb.arrives(t, good) // the true one, late
		for range 3 {
			if err := stranger.Write([][]byte{orig}, c.rb.peer.Endpoint); err != nil {
				t.Fatal(err)
			}
		}
		c.rb.nothingArrives(t)
		c.rb.inject(t, packet(c.rb.host, c.ra.host, "back")) // still goes to ra, not to the stranger
		c.ra.arrives(t, packet(c.rb.host, c.ra.host, "back"))

		after := c.rb.calls(t)
		if len(after) != 1 || after[0].Active.Call != before.Active.Call {
			t.Fatalf("the call was lost: %+v", after)
		}
		s := c.rb.table.Inbound(uint32(orig[0])<<24 | uint32(orig[1])<<16 | uint32(orig[2])<<8 | uint32(orig[3])).SA.Stats()
		if s.Replayed < 3 || s.Forged < uint64(8*(len(orig)-12)) { // all but SPI and number, which may name what came already
			t.Errorf("association: %+v", s)
		}
		d := must(c.rb.Status(t.Context())).Drops
		if d["unknown_spi"] == 0 || d["not_esp"] == 0 || d["malformed_control"] == 0 {
			t.Errorf("drops: %v", d)
		}
	})
}

// Reordering and duplication within the replay window lose nothing and double nothing.
func TestReorderedPacketsAllArriveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		c.net.Script(udptest.Weather{Duplicate: 0.3, Delay: time.Millisecond, Jitter: 50 * time.Millisecond}.Script(3))
		const n = 500
		for i := range n {
			c.ra.inject(t, packet(c.ra.host, c.rb.host, fmt.Sprint(i)))
			time.Sleep(100 * time.Microsecond)
		}
		got := c.rb.collect(t, time.Second)
		if len(got) != n {
			t.Errorf("%d of %d packets arrived", len(got), n)
		}
		for p, times := range got {
			if times != 1 {
				t.Errorf("%q arrived %d times", p, times)
			}
		}
	})
}

// StopCCN and CDN that no key protects, with the right tunnel and session IDs and the
// peer's address as their source, end nothing.
func TestForgedTeardown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		for _, s := range []struct{ victim, as *site }{{c.ra, c.rb}, {c.rb, c.ra}} {
			call := s.victim.calls(t)[0].Active.Call
			worker := newWorker(s.victim.Engine, s.victim.c.Ports[0])
			for ns := range uint16(16) {
				for _, typ := range []l2tp.MessageType{l2tp.StopCCN, l2tp.CDN, l2tp.HELLO} {
					for _, session := range []uint16{0, call.LocalSession} {
						h := l2tp.ControlHeader{TunnelID: call.LocalTunnel, SessionID: session, Ns: ns, Nr: ns}
						msg := l2tp.AppendMessage(esp.AppendMarker(nil), h, 0, typ, l2tp.Result{Code: 1}.AVP(),
							l2tp.Uint16(l2tp.AVPAssignedTunnelID, call.PeerTunnel), l2tp.Uint16(l2tp.AVPAssignedSessionID, call.PeerSession))
						if err := worker.open(msg, s.as.peer.Endpoint, time.Minute); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			time.Sleep(time.Minute)
			now := s.victim.calls(t)
			if len(now) != 1 || now[0].Active.Call != call {
				t.Fatalf("%s lost its call: %+v", s.victim.name, now)
			}
			if d := must(s.victim.Status(t.Context())).Drops; d["unprotected"] != 16*3*2 {
				t.Errorf("%s: drops %v", s.victim.name, d)
			}
		}
		p := packet(c.ra.host, c.rb.host, "still here")
		c.ra.inject(t, p)
		c.rb.arrives(t, p)
	})
}

// A stranger who floods the queue for strangers does not displace what a peer says: calls
// live through an hour of it, rekeying included.
func TestFloodOfStrangersLeavesCallsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		call := c.rb.calls(t)[0].Active.Call
		stranger := must(c.net.Listen(netip.MustParseAddrPort("203.0.113.9:4500")))
		h := l2tp.ControlHeader{}
		sccrq := l2tp.AppendMessage(esp.AppendMarker(nil), h, 0, l2tp.SCCRQ, l2tp.Uint16(l2tp.AVPAssignedTunnelID, 7))
		for i := range 120 {
			for range 200 {
				_ = stranger.Write([][]byte{sccrq}, c.rb.peer.Endpoint)
			}
			p := packet(c.ra.host, c.rb.host, fmt.Sprint(i))
			c.ra.inject(t, p)
			c.rb.arrives(t, p)
			time.Sleep(20 * time.Second)
		}
		if now := c.rb.calls(t); len(now) != 1 || now[0].Active.Call != call {
			t.Errorf("calls: %+v", now)
		}
		if n := len(must(c.rb.Status(t.Context())).Tunnels); n != 1 {
			t.Errorf("%d tunnels", n)
		}
	})
}
