package gso

import (
	"bytes"
	"encoding/binary"

	"twinkey/proto/ip"
)

const (
	// Room is what a Joiner leaves free in front of a train, for a virtio-net header.
	Room = 64
	// maxTrain is the longest IP packet.
	maxTrain = 0xffff
	// maxDatagrams bounds a train of UDP (UDP_MAX_SEGMENTS of older kernels).
	maxDatagrams = 64
	// MaxLead bounds what lies between the start of a slot and the IP packet.
	MaxLead = 32
)

// Train is what a Joiner made: Buf[At:] is the packet, with at least HeaderLen bytes of
// room before it.
type Train struct {
	Header Header
	Buf    []byte
	At     int
	Count  int // packets in it
}

// Joiner puts packets together, one train at a time. Use NewJoiner.
type Joiner struct {
	// Alone keeps every packet by itself, for an interface that takes no trains.
	Alone bool

	bufs   [2][]byte
	cur    int
	at     int // the train is bufs[cur][at:end]; empty if count is 0
	end    int
	count  int
	closed bool // takes no more

	kind    Kind // None: the first packet is not of a kind that joins
	v6      bool
	proto   ip.Protocol
	l4, hdr int
	sumAt   int // of the transport checksum, from the packet's start
	size    int // payload bytes of the first packet
	partial bool
	known   bool // the first packet's checksum has been looked at
	seq     uint32
	id      uint16
	push    bool
	headers [maxHeaders]byte // of the first packet: a slot behind short ones lies over them

	slot     slot
	covered  [maxHeaders + MaxLead]byte // what the slot lies over
	coverLen int
}

// slot is where the packet that comes next was said to go.
type slot struct {
	buf  int
	at   int // of the packet in bufs[buf], behind the lead
	over bool
}

// NewJoiner makes a Joiner for packets whose plaintext, lead and trailer included, has at most most bytes.
func NewJoiner(most int) *Joiner {
	n := Room + maxTrain + most
	return &Joiner{bufs: [2][]byte{make([]byte, n), make([]byte, n)}}
}

// Slot returns where the next packet is to be put: lead bytes of anything, then the IP packet,
// then whatever follows it. Put or Drop must come next. lead is at most MaxLead.
func (j *Joiner) Slot(lead int) []byte {
	s := slot{buf: j.cur, at: Room}
	if j.count == 1 && !j.closed && !j.known {
		j.known = true
		j.closed = !j.sumOK(j.bufs[j.cur][j.at:j.end])
	}
	switch {
	case j.count > 0 && !j.closed:
		s.at, s.over = j.end-j.hdr, true
		from := s.at - lead
		j.coverLen = copy(j.covered[:], j.bufs[j.cur][from:j.end])
	case j.count > 0:
		s.buf = 1 - j.cur
	}
	j.slot = s
	return j.bufs[s.buf][s.at-lead:]
}

// Drop says that nothing came of the slot.
func (j *Joiner) Drop() { j.uncover() }

func (j *Joiner) uncover() {
	if j.slot.over {
		copy(j.bufs[j.cur][j.end-j.coverLen:], j.covered[:j.coverLen])
		j.slot.over = false
	}
}

// Put takes the packet that was written to the slot. In place says that it stands exactly lead
// bytes into it; otherwise it is copied from wherever it is. With partial
// allowed, a checksum field that holds the pseudo-header's sum is taken to be left to us.
// If a train is complete because of it, that is returned, to be used before the next Slot.
func (j *Joiner) Put(pkt []byte, inPlace, partial bool) (done Train, ok bool) {
	if j.slot.over && inPlace {
		if payload, push, joins := j.joins(pkt, partial); joins {
			j.uncover()
			j.extend(payload, push)
			return Train{}, false
		}
	}
	to, at := j.slot.buf, j.slot.at
	if j.slot.over || !inPlace {
		if j.count > 0 {
			to = 1 - j.cur
		}
		at = Room
		n := copy(j.bufs[to][at:], pkt)
		pkt = j.bufs[to][at : at+n]
		j.uncover()
	}
	done, ok = j.Flush()
	j.cur = to
	j.begin(at, pkt, partial)
	return done, ok
}

// Flush returns the train as it is, if there is one.
func (j *Joiner) Flush() (done Train, ok bool) {
	if j.count == 0 {
		return Train{}, false
	}
	done = j.finish()
	j.count = 0
	return done, true
}

// begin makes pkt, which stands at at in the present buffer, the first of a train.
func (j *Joiner) begin(at int, pkt []byte, partial bool) {
	j.at, j.end, j.count = at, at+len(pkt), 1
	j.kind, j.partial, j.known, j.push, j.closed = None, false, false, false, true
	l4, proto, ok := Plain(pkt)
	if !ok || j.Alone {
		return
	}
	j.l4, j.proto, j.v6, j.sumAt = l4, proto, pkt[0]>>4 == 6, l4+udpSum
	if proto == ip.TCP {
		j.sumAt = l4 + tcpSum
	}
	field := binary.BigEndian.Uint16(pkt[j.sumAt:])
	if partial && field == ^ip.Checksum(j.pseudo(pkt)) {
		j.partial, j.known = true, true
	}
	if proto == ip.UDP {
		j.hdr = l4 + udpLen
		if field == 0 || int(binary.BigEndian.Uint16(pkt[l4+udpLength:])) != len(pkt)-l4 {
			return
		}
		j.kind = UDP
	} else {
		tcp := pkt[l4:]
		j.hdr = l4 + int(tcp[tcpOffset]>>4)*4
		if tcp[tcpFlags] != flagACK { // PSH ends a train before it began
			return
		}
		j.kind = TCP4
		if j.v6 {
			j.kind = TCP6
		}
		j.seq = binary.BigEndian.Uint32(tcp[tcpSeq:])
	}
	j.size = len(pkt) - j.hdr
	if j.size <= 0 || !j.v6 && pkt[v4Flags] != flagDF && pkt[v4Flags] != 0 {
		j.kind = None
		return
	}
	j.seq += uint32(j.size)
	if !j.v6 {
		j.id = binary.BigEndian.Uint16(pkt[v4ID:])
	}
	j.closed = copy(j.headers[:], pkt[:j.hdr]) < j.hdr
}

// pseudo is the sum of the pseudo-header.
func (j *Joiner) pseudo(pkt []byte) uint64 {
	sum := uint64(len(pkt)-j.l4) + uint64(j.proto)
	if j.v6 {
		return ip.Sum(sum, pkt[v6Addresses:v6Min])
	}
	return ip.Sum(sum, pkt[v4Addresses:v4Min])
}

// joins says whether pkt comes next in the train, and how much it brings.
func (j *Joiner) joins(pkt []byte, partial bool) (payload int, push, ok bool) {
	first := j.headers[:j.hdr]
	payload = len(pkt) - j.hdr
	if payload <= 0 || payload > j.size || j.end-j.at+payload > maxTrain {
		return 0, false, false
	}
	if !j.sameIP(first, pkt) {
		return 0, false, false
	}
	a, b := first[j.l4:j.hdr], pkt[j.l4:j.hdr]
	if j.kind == UDP {
		if j.count >= maxDatagrams || !bytes.Equal(a[:udpLength], b[:udpLength]) || int(binary.BigEndian.Uint16(b[udpLength:])) != len(pkt)-j.l4 || b[udpSum]|b[udpSum+1] == 0 {
			return 0, false, false
		}
	} else {
		push = b[tcpFlags]&flagPSH != 0
		if b[tcpFlags]&^flagPSH != flagACK || binary.BigEndian.Uint32(b[tcpSeq:]) != j.seq ||
			!bytes.Equal(a[:tcpSeq], b[:tcpSeq]) || !bytes.Equal(a[tcpAck:tcpFlags], b[tcpAck:tcpFlags]) ||
			!bytes.Equal(a[tcpWindow:tcpSum], b[tcpWindow:tcpSum]) || !bytes.Equal(a[tcpSum+2:], b[tcpSum+2:]) {
			return 0, false, false
		}
	}
	return payload, push, j.sound(pkt, partial)
}

// sameIP compares IP headers but for lengths, checksum and identification. The latter counts
// up, as it will when the train is taken apart again, or does not matter (RFC 6864 section 4.1).
func (j *Joiner) sameIP(a, b []byte) bool {
	if j.v6 {
		return bytes.Equal(a[:v6Length], b[:v6Length]) && bytes.Equal(a[v6Length+2:v6Min], b[v6Length+2:v6Min])
	}
	return a[0] == b[0] && a[1] == b[1] && bytes.Equal(a[v4Flags:v4Sum], b[v4Flags:v4Sum]) && bytes.Equal(a[v4Addresses:v4Min], b[v4Addresses:v4Min]) &&
		(a[v4Flags] == flagDF || binary.BigEndian.Uint16(b[v4ID:]) == j.id+uint16(j.count))
}

// sound says whether the packet's transport checksum fits, or is left to us.
func (j *Joiner) sound(pkt []byte, partial bool) bool {
	return partial && binary.BigEndian.Uint16(pkt[j.sumAt:]) == ^ip.Checksum(j.pseudo(pkt)) || j.sumOK(pkt)
}

func (j *Joiner) sumOK(pkt []byte) bool {
	return ip.Checksum(ip.Sum(j.pseudo(pkt), pkt[j.l4:])) == 0
}

// extend counts in the payload that lies behind the train already.
func (j *Joiner) extend(payload int, push bool) {
	j.end += payload
	j.seq += uint32(payload)
	j.count++
	j.push = push
	j.closed = push || payload < j.size
}

// finish writes the headers of the whole.
func (j *Joiner) finish() Train {
	buf := j.bufs[j.cur]
	pkt := buf[j.at:j.end]
	t := Train{Buf: buf[:j.end], At: j.at, Count: j.count}
	if j.count == 1 {
		if j.partial {
			t.Header = Header{Partial: true, ChecksumFrom: uint16(j.l4), ChecksumAt: uint16(j.sumAt - j.l4)}
		}
		return t
	}
	t.Header = Header{
		Kind: j.kind, Partial: true, Headers: uint16(j.hdr), Size: uint16(j.size),
		ChecksumFrom: uint16(j.l4), ChecksumAt: uint16(j.sumAt - j.l4),
	}
	if j.v6 {
		binary.BigEndian.PutUint16(pkt[v6Length:], uint16(len(pkt)-v6Min))
	} else {
		binary.BigEndian.PutUint16(pkt[v4Length:], uint16(len(pkt)))
		binary.BigEndian.PutUint16(pkt[v4Sum:], 0)
		binary.BigEndian.PutUint16(pkt[v4Sum:], ip.Checksum(ip.Sum(0, pkt[:j.l4])))
	}
	if j.kind == UDP {
		binary.BigEndian.PutUint16(pkt[j.l4+udpLength:], uint16(len(pkt)-j.l4))
	} else if j.push {
		pkt[j.l4+tcpFlags] |= flagPSH
	}
	binary.BigEndian.PutUint16(pkt[j.sumAt:], ^ip.Checksum(j.pseudo(pkt)))
	return t
}

// Plain says whether pkt, whose lengths have been checked, is a whole TCP or UDP packet without IP
// options or extension headers, and where its transport header begins. Only such packets join, and
// only in such a packet may a checksum be left partial for the far end: it can recognize it.
func Plain(pkt []byte) (l4 int, proto ip.Protocol, ok bool) {
	if len(pkt) < v4Min {
		return 0, 0, false
	}
	switch pkt[0] {
	case 0x45:
		if pkt[v4Flags]&0x3f|pkt[v4Flags+1] != 0 { // a fragment
			return 0, 0, false
		}
		l4, proto = v4Min, ip.Protocol(pkt[9])
	default:
		if pkt[0]>>4 != 6 || len(pkt) < v6Min {
			return 0, 0, false
		}
		l4, proto = v6Min, ip.Protocol(pkt[6])
	}
	switch proto {
	case ip.TCP:
		if len(pkt) < l4+tcpMin {
			return 0, 0, false
		}
		n := int(pkt[l4+tcpOffset]>>4) * 4
		return l4, proto, n >= tcpMin && l4+n <= len(pkt)
	case ip.UDP:
		return l4, proto, len(pkt) >= l4+udpLen
	default:
		return 0, 0, false
	}
}
