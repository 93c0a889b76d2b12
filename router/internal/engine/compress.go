package engine

import (
	"encoding/binary"

	"github.com/pierrec/lz4/v4"

	"twinkey/proto/esp"
	"twinkey/proto/ip"
	"twinkey/proto/ppp"
	"twinkey/router/internal/calls"
)

// A compressed packet is one block of LZ4 behind an octet that says what was compressed:
//
//	bare   | ESP | next header 4, 41 or 253   | LZ4 block of the packet, or of its short form |
//	full   | ESP | UDP | L2TP | PPP 00fd | 21 or 57 | LZ4 block of the packet                 |
//
// No block refers to another, so that loss and disorder cost nobody anything (RFC 1962 section 4: no
// history, no reset).
const (
	// minPack is the shortest packet, in bytes, in which anything is looked for.
	minPack = 128
	// minSaved is what must be spared, in bytes, for the trouble at the far end; of a long packet one part in partSaved.
	minSaved, partSaved = 16, 16

	// A flow whose packets did not shrink patience times in a row is left alone for minPause packets, then for
	// twice as many each time, up to maxPause.
	patience, minPause, maxPause = 8, 16, 1024

	packFlows = 512
)

// packer is the half of a worker that compresses and expands.
type packer struct {
	lz      lz4.Compressor
	buf     []byte // what was compressed last stands at headroom
	block   []byte // what is being expanded
	longest int    // of an expanded packet, bytes
	flow    uint32 // of the packet or train in hand
	flows   [packFlows]thrift
}

// thrift is what a flow has taught. Flows whose hash is the same share it.
type thrift struct {
	failed      uint8  // times in a row
	skip, pause uint16 // packets
}

func newPacker(mru int) *packer {
	if mru == 0 {
		mru = ppp.DefaultMRU
	}
	return &packer{
		buf: make([]byte, headroom+1+lz4.CompressBlockBound(maxPacket)+tailroom), block: make([]byte, maxPacket), longest: mru,
	}
}

// flowOf is a hash of call, addresses and ports.
func flowOf(c *calls.Call, p ip.Packet) uint32 {
	const prime = 0x9e3779b97f4a7c15
	h := c.ID
	b := p.Bytes()
	if b[0]>>4 == 4 {
		h = (h ^ binary.BigEndian.Uint64(b[12:])) * prime
	} else {
		for at := 8; at < 40; at += 8 {
			h = (h ^ binary.BigEndian.Uint64(b[at:])) * prime
		}
	}
	if l4 := p.Payload(); !p.Fragment() && len(l4) >= 4 {
		h = (h ^ uint64(binary.BigEndian.Uint32(l4))) * prime
	}
	return uint32(h >> 32) //nolint:gosec // the upper half
}

// pack compresses a packet. payload is what would go into ESP with next header next, pkt the packet in it. If that
// pays, what goes instead, n bytes with what stands in front of it, is in buf, its prefix written.
func (p *packer) pack(out *calls.Outbound, payload, pkt []byte, next uint8) (n int, ok bool) {
	f := &p.flows[p.flow%packFlows]
	if f.skip > 0 {
		f.skip--
		return 0, false
	}
	if len(pkt) < minPack {
		return 0, false
	}
	form, plain := next, payload
	if !out.Bare {
		form, plain = uint8(ppp.ProtoIPv4), pkt
		if pkt[0]>>4 == 6 {
			form = uint8(ppp.ProtoIPv6)
		}
	}
	// With room for less than the bound the compressor gives up as soon as it sees that it does not pay.
	most := len(plain) - 1 - max(minSaved, len(plain)/partSaved)
	m, err := p.lz.CompressBlock(plain, p.buf[headroom+1:headroom+1+most])
	if err != nil || m == 0 {
		f.disappoints()
		return 0, false
	}
	*f = thrift{}
	p.buf[headroom] = form
	n = len(out.PrefixComp) + 1 + m
	if prefix := p.buf[headroom-len(out.PrefixComp):]; len(out.PrefixComp) > 0 {
		copy(prefix, out.PrefixComp)
		binary.BigEndian.PutUint16(prefix[udpLen:], uint16(n)) //nolint:gosec // shorter than a packet
	}
	return n, true
}

func (f *thrift) disappoints() {
	if f.failed++; f.failed < patience {
		return
	}
	f.pause = min(max(2*f.pause, minPause), maxPause)
	f.failed, f.skip = patience-1, f.pause // the next failure is enough
}

// packed says whether a payload holds a compressed packet that we have offered to take, and its parts.
func packed(c *calls.Call, payload []byte, next uint8) (form uint8, block []byte, ok bool) {
	if !c.Expands {
		return 0, nil, false
	}
	switch next {
	case esp.NextCompressed:
		if len(payload) == 0 || !c.Takes.Has(calls.Bare) {
			return 0, nil, false
		}
		return payload[0], payload[1:], true
	case esp.NextUDP:
		proto, frame, ok := dataFrame(c, payload)
		if !ok || proto != ppp.ProtoComp {
			return 0, nil, false
		}
		_, rest, err := ppp.ParseFrame(frame)
		if err != nil || len(rest) == 0 {
			return 0, nil, false
		}
		if p := ppp.Protocol(rest[0]); p == ppp.ProtoIPv4 {
			return esp.NextIPv4, rest[1:], true
		} else if p == ppp.ProtoIPv6 {
			return esp.NextIPv6, rest[1:], true
		}
	}
	return 0, nil, false
}

// expand puts the packet that block holds at the start of slot, of which block may be a part, and returns it; nil:
// it was dropped and counted.
func (w *worker) expand(c *calls.Call, slot []byte, form uint8, block []byte) []byte {
	p := w.lz4
	at := 0
	switch {
	case form == esp.NextIPv4, form == esp.NextIPv6:
	case form == esp.NextShortIPv4 && c.Takes.Has(calls.ShortIPv4):
		at = ip.ShortBy
	default:
		c.Malformed.Add(1)
		return nil
	}
	n, err := lz4.UncompressBlock(p.block[:copy(p.block, block)], slot[at:p.longest])
	if err != nil || at > 0 && ip.Lengthen(slot[:at+n]) != nil {
		c.Malformed.Add(1)
		return nil
	}
	pkt := checked(c, slot[:at+n], form != esp.NextIPv6)
	if pkt != nil {
		c.RxPacked.Add(1)
		c.RxSaved.Add(uint64(max(n-len(block), 0))) //nolint:gosec // not less than 0
	}
	return pkt
}
