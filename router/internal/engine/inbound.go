package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"twinkey/pkg/udpio"
	"twinkey/proto/esp"
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
	data []byte // owned
}

const (
	ordinary = 2048 // bytes that hold a datagram of any ordinary path
	around   = 256  // bytes of headers, padding and ICV around a private packet, at the most
)

type kind uint8

const (
	clearControl  kind = iota // L2TP control message behind the non-ESP marker
	sealedControl             // payload of a control SA
	pppFrame                  // PPP frame of a call that is no network packet
	firstUse                  // first packet of a new association
	peerMoved                 // authentic packets come from another address
)

// inbound carries datagrams from the WAN to the LAN until the socket closes.
func (e *Engine) inbound() error {
	bufs, sizes, from := make([][]byte, udpio.BatchSize), make([]int, udpio.BatchSize), make([]netip.AddrPort, udpio.BatchSize)
	for i := range bufs { // datagrams leave unfragmented: none is larger than its path, or what we told the peer to send
		bufs[i] = make([]byte, max(ordinary, int(e.c.Native.MRU)+around))
	}
	out := make([][]byte, 0, len(bufs))
	for {
		k, err := e.c.Conn.Read(bufs, sizes, from)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if _, transient := errors.AsType[*udpio.PathError](err); transient {
				continue
			}
			return fmt.Errorf("reading from UDP %s: %w", e.c.Conn.LocalAddr(), err)
		}
		heard := time.Since(e.epoch)
		for i := range k {
			if pkt := e.open(bufs[i][:sizes[i]], from[i], heard); pkt != nil {
				out = append(out, pkt)
			}
		}
		if len(out) > 0 {
			if _, err := e.c.Device.Write(out, 0); err != nil {
				e.drops.DeviceFailed.Add(1)
			}
			out = out[:0]
		}
	}
}

// open returns the IP packet that a datagram carries, a part of it; nil: it carried
// none, or was dropped and counted.
func (e *Engine) open(datagram []byte, from netip.AddrPort, heard time.Duration) []byte {
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
	payload, next, err := in.SA.Open(datagram)
	if err != nil {
		return nil // the association has counted it
	}
	if in.FirstUse() {
		e.queue(message{kind: firstUse, in: in})
	}
	if next != esp.NextUDP {
		return nil // a dummy packet
	}
	if in.Call == nil {
		e.queue(message{kind: sealedControl, from: from, in: in, data: payload})
		return nil
	}
	in.Call.Heard(heard)
	if o := in.Call.Out(); o != nil && o.To != from {
		e.queue(message{kind: peerMoved, in: in, from: from})
	}
	return e.data(in, payload)
}

// data unwraps UDP, L2TP and PPP and checks who the packet claims to come from.
func (e *Engine) data(in *calls.Inbound, payload []byte) []byte {
	c := in.Call
	frame, ok := dataFrame(c, payload)
	if !ok {
		c.Malformed.Add(1)
		return nil
	}
	proto, pkt, err := ppp.ParseFrame(frame)
	if err != nil {
		c.Malformed.Add(1)
		return nil
	}
	if proto != ppp.ProtoIPv4 && proto != ppp.ProtoIPv6 {
		e.queue(message{kind: pppFrame, in: in, data: frame})
		return nil
	}
	h, err := ip.Parse(pkt)
	if err != nil || h.Src().Is4() != (proto == ppp.ProtoIPv4) {
		c.Malformed.Add(1)
		return nil
	}
	if !c.MayReceive(h.Src()) {
		c.ForeignSource.Add(1)
		return nil
	}
	if !c.MaySend(h.Dst()) { // it would leave on our LAN towards somebody who is not behind this call
		c.ForeignSource.Add(1)
		return nil
	}
	c.RxPackets.Add(1)
	c.RxBytes.Add(uint64(len(pkt)))
	return h.Bytes()
}

// dataFrame returns the PPP frame behind the inner UDP and the L2TP data header, which
// must name this call.
func dataFrame(c *calls.Call, p []byte) ([]byte, bool) {
	const udpHeader = 8
	if len(p) < udpHeader || int(binary.BigEndian.Uint16(p[udpLen:])) != len(p) {
		return nil, false
	}
	h, frame, err := l2tp.ParseData(p[udpHeader:])
	if err != nil || h.TunnelID != c.LocalTunnel || h.SessionID != c.LocalSession {
		return nil, false
	}
	return frame, true
}

// queue hands something authentic to the control loop, or drops it where that is behind.
func (e *Engine) queue(m message) { e.queueTo(e.control, m) }

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
