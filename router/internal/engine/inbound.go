package engine

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"twinkey/pkg/udpio"
	"twinkey/proto/esp"
	"twinkey/proto/gso"
	"twinkey/proto/ip"
	"twinkey/proto/l2tp"
	"twinkey/proto/ppp"
	"twinkey/router/internal/calls"
)

// message is something for the control loop.
type message struct {
	kind kind
	from netip.AddrPort
	in   *calls.Inbound
	next uint8  // of a sealedControl
	mtu  int    // of a pathTooBig
	data []byte // owned
}

type kind uint8

const (
	clearControl  kind = iota // L2TP control message behind the non-ESP marker
	sealedControl             // payload of a control SA
	pppFrame                  // PPP frame of a call that is no network packet
	firstUse                  // first packet of a new association
	peerMoved                 // authentic packets come from another address
	pathTooBig                // datagrams to an address do not pass, or so says somebody
)

const (
	// receives is how many trains a worker takes at once.
	receives = 32
	// stagger keeps the beginnings of the buffers out of one another's places in the caches.
	stagger = 1472
)

// inbox is the receiving half of a worker.
type inbox struct {
	train [receives]udpio.Train
	join  *gso.Joiner
	lead  int // bytes before the IP packet in what was decrypted last; less than 0: so many of its header were not sent
}

func (in *inbox) init(trains bool) {
	room := make([]byte, receives*(maxPacket+1+stagger))
	for i := range in.train {
		in.train[i].Buf = room[:maxPacket+1]
		room = room[maxPacket+1+stagger:]
	}
	in.join = gso.NewJoiner(maxPacket)
	in.join.Alone = !trains
}

// inbound takes what waits in the socket, up to a turn, and writes it to the queue.
func (w *worker) inbound() (did bool, err error) {
	for turn := range turnReceives {
		n, err := w.port.Conn.Receive(w.in.train[:])
		if err != nil {
			return did, err
		}
		if n == 0 {
			break
		}
		did = true
		heard := w.heard()
		for i := range n {
			t := &w.in.train[i]
			w.rest.took(t.N, t.N <= t.Size, turn == turnReceives-1)
			for b := t.Buf[:t.N]; len(b) > 0; b = b[min(len(b), t.Size):] {
				if err := w.open(b[:min(len(b), t.Size)], t.Addr, heard); err != nil {
					return did, err
				}
			}
		}
		if err := w.deliver(w.in.join.Flush()); err != nil {
			return did, err
		}
		if n < len(w.in.train)/2 {
			break
		}
	}
	return did, nil
}

// deliver writes a train that is complete. What the kernel refuses is counted.
func (w *worker) deliver(t gso.Train, ok bool) error {
	if !ok {
		return nil
	}
	if err := w.port.Queue.Write(t.Header, t.Buf, t.At); err != nil {
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		w.e.drops.DeviceFailed.Add(uint64(t.Count)) //nolint:gosec // a count
	}
	return nil
}

// open takes one datagram: a packet joins those that are to be written, what is no data goes
// to the control loop, the rest is dropped and counted.
func (w *worker) open(datagram []byte, from netip.AddrPort, heard time.Duration) error {
	e := w.e
	switch esp.Classify(datagram) {
	case esp.Packet:
	case esp.Control:
		e.queueTo(e.strangers, message{kind: clearControl, from: from, data: datagram[esp.MarkerLen:]})
		return nil
	case esp.Keepalive:
		return nil
	case esp.Invalid:
		e.drops.NotESP.Add(1)
		return nil
	}
	in := e.table.Inbound(binary.BigEndian.Uint32(datagram))
	if in == nil {
		e.drops.UnknownSPI.Add(1)
		return nil
	}
	if in.Call == nil {
		if payload, next, err := in.SA.Open(datagram); err == nil {
			e.used(in)
			if next != esp.NextDummy {
				e.queueTo(e.control, message{kind: sealedControl, from: from, in: in, next: next, data: payload})
			}
		}
		return nil
	}
	join := w.in.join
	slot := join.Slot(max(w.in.lead, 0))
	payload, next, err := in.SA.OpenTo(slot[max(-w.in.lead, 0):], datagram)
	if err != nil { // the association has counted it
		join.Drop()
		return nil
	}
	e.used(in)
	in.Call.Heard(heard)
	if o := in.Call.Out(); o != nil && o.To != from {
		e.queueTo(e.control, message{kind: peerMoved, in: in, from: from})
	}
	var pkt []byte
	lead := -ip.ShortBy
	if form, block, ok := packed(in.Call, payload, next); ok {
		lead = w.in.lead
		pkt = w.expand(in.Call, slot[max(lead, 0):], form, block)
	} else if next == esp.NextShortIPv4 && in.Call.Takes.Has(calls.ShortIPv4) {
		pkt = checked(in.Call, w.lengthen(slot, payload), true)
	} else {
		pkt, lead = e.unwrap(in, payload, next)
	}
	if pkt == nil {
		join.Drop()
		return nil
	}
	done, ok := join.Put(pkt, lead == w.in.lead, in.Call.Takes.Has(calls.Checksums))
	if lead <= gso.MaxLead { // L2TP's Offset may put anything in front: that is copied each time
		w.in.lead = lead
	}
	return w.deliver(done, ok)
}

// lengthen makes a packet of its short form, where the joiner wants it. The result is nil if it makes none.
func (w *worker) lengthen(slot, payload []byte) []byte {
	at, lead := max(w.in.lead, 0), w.in.lead
	pkt := slot[at : at+ip.ShortBy+len(payload)]
	if lead != -ip.ShortBy { // it was expected to be something else
		copy(pkt[ip.ShortBy:], payload)
		w.in.lead = -ip.ShortBy
	}
	if ip.Lengthen(pkt) != nil {
		return nil
	}
	return pkt
}

// used tells the control loop of the first packet in an association.
func (e *Engine) used(in *calls.Inbound) {
	if in.FirstUse() {
		e.queueTo(e.control, message{kind: firstUse, in: in})
	}
}

// unwrap returns the IP packet in the payload of a data association, and how many bytes stood before it;
// nil: it was something else, or was dropped and counted.
func (e *Engine) unwrap(in *calls.Inbound, payload []byte, next uint8) (pkt []byte, lead int) {
	c := in.Call
	var v4 bool
	switch {
	case next == esp.NextDummy:
		return nil, 0
	case next == esp.NextUDP:
		proto, rest, ok := dataFrame(c, payload)
		if !ok {
			c.Malformed.Add(1)
			return nil, 0
		}
		if proto != ppp.ProtoIPv4 && proto != ppp.ProtoIPv6 {
			e.queueTo(e.control, message{kind: pppFrame, in: in, data: rest})
			return nil, 0
		}
		v4, pkt = proto == ppp.ProtoIPv4, rest
	case c.Takes.Has(calls.Bare) && (next == esp.NextIPv4 || next == esp.NextIPv6):
		v4, pkt = next == esp.NextIPv4, payload
	default:
		c.Malformed.Add(1)
		return nil, 0
	}
	return checked(c, pkt, v4), len(payload) - len(pkt)
}

// checked returns the packet at the start of b, which came out of a call, if the call may carry it; nil: it was dropped
// and counted.
func checked(c *calls.Call, b []byte, v4 bool) []byte {
	p, err := ip.Parse(b)
	if err != nil || p.Src().Is4() != v4 {
		c.Malformed.Add(1)
		return nil
	}
	if !carries(c, p) {
		c.ForeignSource.Add(1)
		return nil
	}
	if !c.Filter().Leaves(p) {
		c.Denied.Add(1)
		return nil
	}
	if isSYN(p) {
		if o := c.Out(); o != nil {
			if most := o.Longest(p.CanShorten()); most > 0 {
				ip.ClampMSS(p, most)
			}
		}
	}
	c.RxPackets.Add(1)
	c.RxBytes.Add(uint64(p.Len())) //nolint:gosec // a length
	return p.Bytes()
}

// carries says whether a packet that came out of a call may have: its source is behind the far end, and
// its destination behind ours, or it would leave on our LAN towards somebody who is not behind this call.
func carries(c *calls.Call, p ip.Packet) bool {
	return c.MayReceive(p.Src()) && c.MaySend(p.Dst())
}

// dataFrame returns PPP protocol and payload behind the inner UDP and the L2TP data header, which
// must name this call. Of what is no network packet the whole frame is returned.
func dataFrame(c *calls.Call, p []byte) (proto ppp.Protocol, rest []byte, ok bool) {
	const udpHeader = 8
	if len(p) < udpHeader || int(binary.BigEndian.Uint16(p[udpLen:])) != len(p) {
		return 0, nil, false
	}
	h, frame, err := l2tp.ParseData(p[udpHeader:])
	if err != nil || h.TunnelID != c.LocalTunnel || h.SessionID != c.LocalSession {
		return 0, nil, false
	}
	proto, payload, err := ppp.ParseFrame(frame)
	if err != nil {
		return 0, nil, false
	}
	if proto != ppp.ProtoIPv4 && proto != ppp.ProtoIPv6 {
		return proto, frame, true
	}
	return proto, payload, true
}

// queueTo hands something to the control loop, or drops it where that is behind.
func (e *Engine) queueTo(q chan<- message, m message) {
	if m.data != nil {
		m.data = append(make([]byte, 0, len(m.data)), m.data...) // the buffer is read into again
	}
	select {
	case q <- m:
	default:
		e.drops.ControlFull.Add(1)
	}
}
