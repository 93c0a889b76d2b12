package esp

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"twinkey/proto/replay"
	"twinkey/proto/secret"
)

// What Seal and Open fail with. They are returned bare, so that the packet path allocates nothing.
var (
	// ErrExhausted says that a hard limit is reached; it stays so.
	ErrExhausted = errors.New("esp: hard limit of the SA reached")
	// ErrRoom says that the buffer given to Seal lacks headroom or tailroom.
	ErrRoom = errors.New("esp: buffer too small")
	// ErrTruncated says that a packet is shorter than its suite allows.
	ErrTruncated = errors.New("esp: packet too short")
	// ErrAlignment says that the encrypted part does not fill whole blocks.
	ErrAlignment = errors.New("esp: encrypted part not aligned")
	// ErrSPI says that a packet belongs to another SA, or that an SPI may not be used.
	ErrSPI = errors.New("esp: wrong SPI")
	// ErrReplay says that the sequence number was seen before or lies left of the window.
	ErrReplay = errors.New("esp: replayed or too late")
	// ErrAuth says that the integrity check failed.
	ErrAuth = errors.New("esp: integrity check failed")
	// ErrPadding says that an authentic packet ends in padding that is longer than itself or not 1, 2, 3...
	ErrPadding = errors.New("esp: wrong padding")
	// ErrKey says that key material has the wrong length or is weak.
	ErrKey = errors.New("esp: unusable key material")
)

// Next headers (IANA protocol numbers) that matter here.
const (
	NextIPv4  = 4  // tunnel mode: an IPv4 packet follows
	NextUDP   = 17 // transport mode: an inner UDP header and L2TP follow
	NextIPv6  = 41 // tunnel mode: an IPv6 packet follows
	NextDummy = 59 // RFC 4303 section 2.6: the packet carries nothing, to be dropped by the receiver
	// NextShortIPv4 is for experimentation (RFC 3692): an IPv4 packet in its short form (package ip), between
	// ends that have agreed on it.
	NextShortIPv4 = 253
	// NextCompressed is likewise: the next header of what was compressed in one octet, then the compressed
	// payload, by the method that the ends have agreed on.
	NextCompressed = 254
)

const (
	minSPI     = 256     // RFC 4303 section 2.1: 1 to 255 are reserved, 0 is never sent
	maxPayload = 1 << 16 // no IP packet is longer
	maxTrailer = 15 + trailer
	farAhead   = 1 << 31 // nobody loses so many packets in a row
)

// Outbound seals the packets of one SA. Safe for concurrent use.
type Outbound struct {
	t         *transform
	limits    Limits
	seq       atomic.Uint64 // last number given out
	bytes     atomic.Uint64
	exhausted atomic.Uint64
}

// NewOutbound makes the sending side of an SA. It reads key, of s.KeyLen() octets, and
// keeps no reference: the caller wipes it. The expanded keys live as long as the
// Outbound. spi is at least 256. It fails with ErrSuite, ErrSPI or ErrKey.
func NewOutbound(spi uint32, s Suite, key secret.Key, l Limits) (*Outbound, error) {
	t, err := newTransform(spi, s, key, false)
	if err != nil {
		return nil, err
	}
	return &Outbound{t: t, limits: l.within(s.Bound())}, nil
}

// SPI is the index that the packets carry.
func (o *Outbound) SPI() uint32 { return o.t.spi }

// Headroom is the number of octets that Seal needs before the payload.
func (o *Outbound) Headroom() int { return headerSize + o.t.iv }

// Tailroom is the number of octets that Seal needs behind a payload of n octets.
func (o *Outbound) Tailroom(n int) int { return o.t.pad(n) + trailer + o.t.icv }

// Seal encrypts buf[head:head+n] in place, fills the headroom before and the tailroom behind, and
// returns the ESP packet, a part of buf. It keeps nothing and writes nowhere else in buf. It
// fails with ErrRoom, or with ErrExhausted from the first packet on that would pass a hard limit;
// buf is unchanged then.
func (o *Outbound) Seal(buf []byte, head, n int, next uint8) (pkt []byte, err error) {
	t := o.t
	if head < headerSize+t.iv || n < 0 || n > maxPayload || head > len(buf) {
		return nil, ErrRoom
	}
	pad := t.pad(n)
	encrypted := n + pad + trailer
	if len(buf)-head < encrypted+t.icv {
		return nil, ErrRoom
	}
	seq, err := o.number(uint64(encrypted))
	if err != nil {
		return nil, err
	}
	end := head + encrypted
	writeTrailer(buf[head+n:end], next)
	start := head - headerSize - t.iv
	pkt = buf[start : end+t.icv : end+t.icv]
	if err := t.seal(seq, pkt, buf[head:end]); err != nil {
		return nil, err
	}
	return pkt, nil
}

// SealTo is Seal out of place: it encrypts src[:n] into dst and returns the packet, dst's first
// octets. What follows src[:n] is written to and put back, so src needs Tailroom(n) octets behind
// it (less the ICV), and is as it was afterwards. dst and src do not overlap.
func (o *Outbound) SealTo(dst, src []byte, n int, next uint8) (pkt []byte, err error) {
	t := o.t
	if n < 0 || n > maxPayload {
		return nil, ErrRoom
	}
	start := headerSize + t.iv
	end := start + n + t.pad(n) + trailer
	if len(src) < end-start || len(dst) < end+t.icv {
		return nil, ErrRoom
	}
	pkt = dst[: end+t.icv : end+t.icv]
	if t.aead == nil { // the MAC reads what was encrypted: a copy first is the cheapest part of it
		copy(pkt[start:], src[:n])
		return o.Seal(pkt, start, n, next)
	}
	seq, err := o.number(uint64(end - start))
	if err != nil {
		return nil, err
	}
	var behind [maxTrailer]byte
	tail := src[n : end-start]
	copy(behind[:], tail)
	writeTrailer(tail, next)
	err = t.seal(seq, pkt, src[:end-start])
	copy(tail, behind[:])
	if err != nil {
		return nil, err
	}
	return pkt, nil
}

// Pending is a packet that Prepare has laid out and that Finish is to seal.
type Pending struct {
	Pkt []byte
	seq uint64
}

// Together says whether this SA's cipher works on several packets at a time, so that Prepare and Finish are
// faster than Seal.
func (o *Outbound) Together() bool { return o.t.triple != nil }

// Prepare is the first half of SealTo: it takes a sequence number and lays the packet out in dst, plaintext
// and all. Errors as of SealTo; src is unchanged and needs no room behind it.
func (o *Outbound) Prepare(dst, src []byte, n int, next uint8) (Pending, error) {
	t := o.t
	start := headerSize + t.iv
	if n < 0 || n > maxPayload || len(src) < n {
		return Pending{}, ErrRoom
	}
	end := start + n + t.pad(n) + trailer
	if len(dst) < end+t.icv {
		return Pending{}, ErrRoom
	}
	l, err := t.take()
	if err != nil {
		return Pending{}, err
	}
	defer t.put(l)
	seq, err := o.number(uint64(end - start))
	if err != nil {
		return Pending{}, err
	}
	pkt := dst[: end+t.icv : end+t.icv]
	copy(pkt[start:], src[:n])
	writeTrailer(pkt[start+n:end], next)
	t.head(l, seq, pkt)
	return Pending{pkt, seq}, nil
}

// Finish seals what Prepare has laid out. It is for an SA that works on packets together.
func (o *Outbound) Finish(ps []Pending) error { return o.t.finish(ps) }

// writeTrailer fills padding, pad length and next header (RFC 4303 section 2.4).
func writeTrailer(tail []byte, next uint8) {
	pad := len(tail) - trailer
	for i := range pad {
		tail[i] = byte(i + 1)
	}
	tail[pad], tail[pad+1] = byte(pad), next
}

// number takes the next sequence number for a packet of n encrypted octets. The counters are looked at
// before they are raised, so that they stop soon after a limit and cannot wrap.
func (o *Outbound) number(n uint64) (uint64, error) {
	if o.bytes.Load() <= o.limits.HardBytes && o.seq.Load() < o.limits.HardPackets {
		if o.bytes.Add(n) <= o.limits.HardBytes {
			if seq := o.seq.Add(1); seq <= o.limits.HardPackets {
				return seq, nil
			}
		}
	}
	o.exhausted.Add(1)
	return 0, ErrExhausted
}

// Soft reports whether a soft limit is reached and the SA should be replaced.
func (o *Outbound) Soft() bool {
	return o.seq.Load() >= o.limits.SoftPackets || o.bytes.Load() >= o.limits.SoftBytes
}

// Stats returns the counters.
func (o *Outbound) Stats() Stats {
	return Stats{
		Packets:   min(o.seq.Load(), o.limits.HardPackets),
		Bytes:     min(o.bytes.Load(), o.limits.HardBytes),
		Exhausted: o.exhausted.Load(),
	}
}

// Inbound opens the packets of one SA. Safe for concurrent use.
type Inbound struct {
	t      *transform
	limits Limits
	window replay.Window

	packets, bytes, dummies                atomic.Uint64
	replayed, forged, malformed, exhausted atomic.Uint64
}

// NewInbound makes the receiving side of an SA; key, spi, limits and errors as in NewOutbound.
func NewInbound(spi uint32, s Suite, key secret.Key, l Limits) (*Inbound, error) {
	t, err := newTransform(spi, s, key, true)
	if err != nil {
		return nil, err
	}
	return &Inbound{t: t, limits: l.within(s.Bound())}, nil
}

// SPI is the index of the packets that this SA accepts.
func (i *Inbound) SPI() uint32 { return i.t.spi }

// Open checks pkt, the whole ESP packet, decrypts it in place and returns the payload, a part of pkt, and
// the next header. A dummy packet is returned with NextDummy. It fails with ErrTruncated, ErrSPI,
// ErrAlignment, ErrReplay, ErrExhausted, ErrAuth or ErrPadding, each of them counted; what pkt holds then is of no use.
// Only a packet with a good ICV moves the window.
func (i *Inbound) Open(pkt []byte) (payload []byte, next uint8, err error) {
	if len(pkt) < headerSize+i.t.iv {
		i.malformed.Add(1)
		return nil, 0, ErrTruncated
	}
	return i.OpenTo(pkt[headerSize+i.t.iv:], pkt)
}

// OpenTo is Open out of place: the payload it returns are dst's first octets. dst needs room for as
// many octets as pkt has, less those of header, IV and ICV, or it fails with ErrRoom; those that
// follow the payload, and all of them when it fails, are of no use then. dst and pkt do not overlap.
func (i *Inbound) OpenTo(dst, pkt []byte) (payload []byte, next uint8, err error) {
	t := i.t
	encrypted := len(pkt) - headerSize - t.iv - t.icv
	switch {
	case encrypted < trailer:
		i.malformed.Add(1)
		return nil, 0, ErrTruncated
	case binary.BigEndian.Uint32(pkt) != t.spi:
		i.malformed.Add(1)
		return nil, 0, ErrSPI
	case encrypted&(t.align-1) != 0:
		i.malformed.Add(1)
		return nil, 0, ErrAlignment
	case len(dst) < encrypted:
		return nil, 0, ErrRoom
	}
	seq := i.window.Infer(binary.BigEndian.Uint32(pkt[spiSize:]))
	if !i.window.Fresh(seq) {
		i.replayed.Add(1)
		return nil, 0, ErrReplay
	}
	if i.bytes.Load() >= i.limits.HardBytes {
		i.exhausted.Add(1)
		return nil, 0, ErrExhausted
	}
	plain := dst[:encrypted:encrypted]
	ok, err := t.open(seq, plain, pkt)
	switch {
	case err != nil:
		return nil, 0, err
	case !ok:
		return nil, 0, i.refuse(seq)
	case seq > i.limits.HardPackets:
		i.exhausted.Add(1)
		return nil, 0, ErrExhausted
	case !i.window.Mark(seq): // another copy was faster
		i.replayed.Add(1)
		return nil, 0, ErrReplay
	}
	return i.accept(plain)
}

// refuse names the cause of a wrong ICV. A packet left of the window is inferred to be nearly 2^32
// ahead (RFC 4303 appendix A2.2), so its ICV is computed over the wrong number: that is no forgery.
func (i *Inbound) refuse(seq uint64) error {
	if top := i.window.Top(); seq > top && seq-top > farAhead {
		i.replayed.Add(1)
		return ErrReplay
	}
	i.forged.Add(1)
	return ErrAuth
}

// accept strips and checks the trailer of an authentic packet.
func (i *Inbound) accept(plain []byte) (payload []byte, next uint8, err error) {
	i.bytes.Add(uint64(len(plain)))
	body, pad, next := plain[:len(plain)-trailer], int(plain[len(plain)-trailer]), plain[len(plain)-1]
	if !padded(body, pad) {
		i.malformed.Add(1)
		return nil, 0, ErrPadding
	}
	i.packets.Add(1)
	if next == NextDummy {
		i.dummies.Add(1)
	}
	return body[:len(body)-pad], next, nil
}

// padded reports whether body ends in pad octets 1, 2, 3... (RFC 4303 section 2.4).
func padded(body []byte, pad int) bool {
	if pad > len(body) {
		return false
	}
	for k, b := range body[len(body)-pad:] {
		if int(b) != k+1 {
			return false
		}
	}
	return true
}

// Soft reports whether a soft limit is reached and the SA should be replaced.
func (i *Inbound) Soft() bool {
	return i.window.Top() >= i.limits.SoftPackets || i.bytes.Load() >= i.limits.SoftBytes
}

// Stats returns the counters.
func (i *Inbound) Stats() Stats {
	return Stats{
		Packets:   i.packets.Load(),
		Bytes:     i.bytes.Load(),
		Exhausted: i.exhausted.Load(),
		Dummies:   i.dummies.Load(),
		Replayed:  i.replayed.Load(),
		Forged:    i.forged.Load(),
		Malformed: i.malformed.Load(),
	}
}
