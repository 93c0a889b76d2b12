package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"twinkey/pkg/udpio"
	"twinkey/proto/esp"
	"twinkey/proto/ip"
	"twinkey/router/internal/calls"
)

const (
	// headroom holds ESP header and IV (at most 24 bytes), UDP (8), L2TP (6), PPP (4).
	headroom = 48
	// tailroom holds padding, trailer and the longest ICV.
	tailroom = 48
	maxFrame = 65535
	udpLen   = 4 // offset of the length in a UDP header
)

// outbound carries packets from the LAN into their calls until the interface closes.
func (e *Engine) outbound() error {
	n := e.c.Device.BatchSize()
	bufs, sizes := make([][]byte, n), make([]int, n)
	for i := range bufs {
		bufs[i] = make([]byte, headroom+maxFrame+tailroom)
	}
	out := make([][]byte, 0, n)
	for {
		k, err := e.c.Device.Read(bufs, sizes, headroom)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("reading from %s: %w", e.c.Device.Name(), err)
		}
		routes := e.table.Routes()
		var to netip.AddrPort
		for i := range k {
			pkt, dst := e.seal(routes, bufs[i], sizes[i])
			if pkt == nil {
				continue
			}
			if dst != to && len(out) > 0 {
				e.write(out, to)
				out = out[:0]
			}
			to, out = dst, append(out, pkt)
		}
		if len(out) > 0 {
			e.write(out, to)
			out = out[:0]
		}
	}
}

// seal puts the packet buf[headroom:headroom+n] into its call; nil: it was dropped and counted.
func (e *Engine) seal(routes *calls.Routes, buf []byte, n int) ([]byte, netip.AddrPort) {
	h, err := ip.Parse(buf[headroom : headroom+n])
	if err != nil {
		e.drops.BadPacket.Add(1)
		return nil, netip.AddrPort{}
	}
	src, dst := h.Src(), h.Dst()
	c := routes.Lookup(src, dst)
	if c == nil {
		e.drops.NoCall.Add(1)
		select {
		case e.demand <- dst:
		default: // asked often enough
		}
		return nil, netip.AddrPort{}
	}
	if !c.MaySend(src) {
		c.ForeignSource.Add(1)
		return nil, netip.AddrPort{}
	}
	o := c.Out()
	if o == nil {
		e.drops.NotUp.Add(1)
		return nil, netip.AddrPort{}
	}
	prefix := o.Prefix4
	if src.Is6() {
		prefix = o.Prefix6
	}
	if len(prefix) == 0 {
		e.drops.NotUp.Add(1)
		return nil, netip.AddrPort{}
	}
	head := headroom - len(prefix)
	copy(buf[head:], prefix)
	binary.BigEndian.PutUint16(buf[head+udpLen:], uint16(len(prefix)+n))
	pkt, err := o.SA.Seal(buf, head, len(prefix)+n, esp.NextUDP)
	if err != nil {
		e.drops.Exhausted.Add(1)
		return nil, netip.AddrPort{}
	}
	c.TxPackets.Add(1)
	c.TxBytes.Add(uint64(n))
	return pkt, o.To
}

// write sends a batch to one destination. Trouble with a destination is no failure.
func (e *Engine) write(out [][]byte, to netip.AddrPort) {
	if err := e.c.Conn.Write(out, to); err != nil {
		if _, transient := errors.AsType[*udpio.PathError](err); transient || !errors.Is(err, net.ErrClosed) {
			e.drops.SendFailed.Add(1)
		}
	}
}
