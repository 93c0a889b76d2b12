package native

import (
	"net/netip"
	"time"

	"twinkey/proto/esp"
	"twinkey/proto/ip"
	"twinkey/proto/pmtu"
	"twinkey/router/internal/calls"
)

// NextPath is the next header of path MTU probes and their answers in a control SA: 253, for
// experimentation (RFC 3692). Peers that do not know it drop it.
const NextPath = 253

const (
	outerV4 = 20 + udpHeader // bytes in front of an ESP packet
	outerV6 = 40 + udpHeader

	// InnerFull is UDP, L2TP and PPP without compression, the most that stands before a private packet.
	InnerFull = udpHeader + 6 + 4

	// answersASecond bounds what a peer can have us say: a search takes less.
	answersASecond = 64
)

func outer(v6 bool) int {
	if v6 {
		return outerV6
	}
	return outerV4
}

// Fits is the longest private packet, in bytes, that leaves in one IP packet of size bytes over IPv6 or IPv4, behind
// inner bytes of inner headers, sealed in this form of a suite; 0 if there is none.
func Fits(size int, v6 bool, form esp.Suite, inner int) int {
	return max(0, form.Fits(size-outer(v6))-inner)
}

// sizeOf is the inverse: how long the IP packet is that carries a payload of n bytes, inner headers included.
func sizeOf(n int, v6 bool, form esp.Suite) int { return outer(v6) + form.Overhead(n) + n }

// over6 says whether datagrams to a leave over IPv6.
func over6(a netip.Addr) bool { return !a.Unmap().Is4() }

// path is what a tunnel knows of how much its path carries. The zero value knows nothing.
type path struct {
	m       *pmtu.Machine // nil: the tunnel is not up
	mtu     int           // that the calls know
	packets uint64        // that calls had sent when we looked last
	second  time.Time     // in which answers are counted
	answers int
}

// MTU is the longest IP packet that the path is taken to carry, in bytes.
func (p *path) MTU() int {
	if p.m == nil {
		return pmtu.Ethernet
	}
	return p.m.MTU()
}

func (p *path) state() pmtu.State {
	if p.m == nil {
		return pmtu.Base
	}
	return p.m.State()
}

// pathConfig says what is searched for: the ordinary sizes, and greater ones only where the interface hands us
// packets that need them.
func (t *tunnelState) pathConfig() pmtu.Config {
	v6, most := over6(t.to.Addr()), pmtu.Ethernet
	ordinary := 0
	for _, s := range t.e.c.Suites {
		ordinary = max(ordinary, Fits(pmtu.Ethernet, false, s.ImplicitIV(), 0)+ip.ShortBy)
	}
	if n := int(t.e.c.MRU); n > ordinary {
		for _, s := range t.e.c.Suites {
			most = max(most, sizeOf(n+InnerFull, v6, s))
		}
	}
	c := pmtu.For(v6, most)
	c.Fit = func(size int) int { return sizeOf(t.ctl.suite.Fits(size-outer(v6)), v6, t.ctl.suite) }
	return c
}

// search begins to look how much the path carries.
func (t *tunnelState) search(now time.Time) {
	t.path.m = pmtu.New(now, t.pathConfig())
	t.probe(now)
}

// research does so anew, on another path.
func (t *tunnelState) research(now time.Time) {
	if t.path.m != nil {
		t.path.m.Moved(now, t.pathConfig())
		t.probe(now)
	}
}

// probe sends what the search has to send, and tells the calls what came of it.
func (t *tunnelState) probe(now time.Time) {
	for {
		p, ok := t.path.m.Poll()
		if !ok {
			break
		}
		v6, suite := over6(t.to.Addr()), t.ctl.suite
		n := max(pmtu.HeaderLen, suite.Fits(p.Size-outer(v6)))
		t.sendPath(now, pmtu.AppendProbe(make([]byte, 0, n), p, n))
	}
	if n := t.path.MTU(); n != t.path.mtu {
		t.path.mtu = n
		for _, s := range t.sessions {
			s.publish()
		}
	}
}

func (t *tunnelState) sendPath(now time.Time, payload []byte) {
	t.lastTx = now
	t.e.out = append(t.e.out, Output{To: t.to, SA: t.ctl.out, Payload: payload, Next: NextPath})
}

// advancePath does what is due, at every turn of the tunnel's.
func (t *tunnelState) advancePath(now time.Time) {
	var n uint64
	for _, s := range t.sessions {
		n += s.call.TxPackets.Load()
	}
	if n != t.path.packets {
		t.path.packets = n
		t.path.m.Sent()
	}
	t.path.m.Advance(now)
	t.probe(now)
}

// pathDeadline is when advancePath has something to do.
func (t *tunnelState) pathDeadline() time.Time {
	if t.path.m == nil {
		return time.Time{}
	}
	return t.path.m.Deadline()
}

// mayAnswer counts the answers of this second.
func (p *path) mayAnswer(now time.Time) bool {
	if now.Sub(p.second) >= time.Second {
		p.second, p.answers = now, 0
	}
	p.answers++
	return p.answers <= answersASecond
}

// PathProbe takes the payload of a packet that a tunnel's control SA opened and whose next header is NextPath.
func (e *Endpoint) PathProbe(now time.Time, from netip.AddrPort, in *calls.Inbound, payload []byte) {
	t := e.tunnels[in.Tunnel]
	m, err := pmtu.Parse(payload)
	if t == nil || err != nil {
		e.Counters.Malformed++
		return
	}
	t.authentic(now, from, in)
	t.m.Heard(now) // whatever becomes of its HELLO, it lives
	switch {
	case m.Type == pmtu.TypeAnswer:
		t.path.m.Answer(now, m.ID, m.Size)
		t.probe(now)
	case t.path.mayAnswer(now):
		t.sendPath(now, pmtu.AppendAnswer(nil, m.ID, sizeOf(len(payload), over6(from.Addr()), t.ctl.suite)))
	}
	t.settle(now)
}

// TooBig notes that a datagram to an address did not pass, and how long an IP packet is said to; 0: that was
// not said. It may come from ICMP that somebody forged.
func (e *Endpoint) TooBig(now time.Time, to netip.AddrPort, mtu int) {
	for _, t := range e.tunnels {
		if t.to == to && t.path.m != nil {
			t.path.m.TooBig(now, mtu)
			t.probe(now)
			t.schedule(now)
		}
	}
}
