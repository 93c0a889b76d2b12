package gso

import (
	"encoding/binary"
	"errors"

	"twinkey/proto/ip"
)

// What is wrong with a train. They are returned bare: they are counted, not shown.
var (
	// ErrHeader says that the virtio-net header contradicts the packet behind it.
	ErrHeader = errors.New("gso: header and packet contradict each other")
	// ErrKind says that the train is of a kind that was not asked for.
	ErrKind = errors.New("gso: unknown kind of train")
)

// maxHeaders bounds what is kept of a train's headers: IPv6 with some extension headers, and
// the longest TCP header.
const maxHeaders = 256

// TCP header: offsets and flags (RFC 9293 section 3.1).
const (
	tcpSeq, tcpAck, tcpOffset, tcpFlags, tcpWindow, tcpSum, tcpMin = 4, 8, 12, 13, 14, 16, 20

	flagFIN, flagPSH, flagACK, flagCWR = 0x01, 0x08, 0x10, 0x80
)

// UDP header (RFC 768).
const udpLength, udpSum, udpLen = 4, 6, 8

// IPv4 and IPv6 headers (RFC 791 section 3.1, RFC 8200 section 3).
const (
	v4Length, v4ID, v4Flags, v4Sum, v4Addresses, v4Min = 2, 4, 6, 10, 12, 20
	v6Length, v6Addresses, v6Min                       = 4, 8, 40

	flagDF = 0x40 // of the byte at v4Flags
)

// Splitter takes one train apart. The zero value is ready for Reset; it may be used
// again and again and does not allocate.
type Splitter struct {
	buf      []byte
	at       int // where the packet that comes next begins
	end      int // of the train
	size     int // payload bytes of a packet
	l4, hdr  int // lengths: of the IP header, of all headers
	sumAt    int // of the transport checksum, from the packet's start
	kind     Kind
	v6       bool
	partial  bool // the checksum of what is not a train is still partial
	complete bool
	first    bool
	seq      uint32
	id       uint16
	flags    byte // of the last packet
	ipSum    uint64
	pseudo   uint64
	headers  [maxHeaders]byte
}

// Reset takes the train buf[at:at+n] that h describes. With complete the transport
// checksums are completed in every packet, otherwise they are left partial where they came
// so and a far end can recognize it. Headroom before at is the caller's: nothing is written there.
// It fails with ErrHeader or ErrKind; buf is unchanged then.
func (s *Splitter) Reset(h Header, buf []byte, at, n int, complete bool) error {
	if at < 0 || n < v4Min || at+n > len(buf) {
		return ErrHeader
	}
	pkt := buf[at : at+n]
	s.buf, s.at, s.end, s.complete, s.first = buf, at, at+n, complete, true
	s.kind, s.partial = h.Kind, h.Partial
	s.l4 = int(h.ChecksumFrom)
	s.sumAt = s.l4 + int(h.ChecksumAt)
	if h.Partial && !s.recognizable(pkt) {
		s.complete = true
	}
	if h.Kind == None {
		s.hdr, s.size = 0, n
		if h.Partial && s.sumAt+2 > n {
			return ErrHeader
		}
		return nil
	}
	s.v6 = pkt[0]>>4 == 6
	switch h.Kind {
	case TCP4, TCP6:
		if s.v6 != (h.Kind == TCP6) || s.l4+tcpMin > n || h.ChecksumAt != tcpSum {
			return ErrHeader
		}
		length := int(pkt[s.l4+tcpOffset]>>4) * 4
		if length < tcpMin {
			return ErrHeader
		}
		s.hdr = s.l4 + length
	case UDP:
		if h.ChecksumAt != udpSum {
			return ErrHeader
		}
		s.hdr = s.l4 + udpLen
	default:
		return ErrKind
	}
	s.size = int(h.Size)
	least := v4Min
	if s.v6 {
		least = v6Min
	}
	if !h.Partial || s.size == 0 || s.l4 < least || s.hdr > n || s.hdr > maxHeaders {
		return ErrHeader
	}
	s.prepare(pkt)
	return nil
}

// recognizable says whether a far end can see that the checksum was left to it.
func (s *Splitter) recognizable(pkt []byte) bool {
	l4, proto, ok := Plain(pkt)
	return ok && l4 == s.l4 && (proto == ip.TCP && s.sumAt == l4+tcpSum || proto == ip.UDP && s.sumAt == l4+udpSum)
}

// prepare keeps the headers and sums what is the same in every packet.
func (s *Splitter) prepare(pkt []byte) {
	headers := s.headers[:s.hdr]
	copy(headers, pkt)
	if s.v6 {
		s.pseudo = ip.Sum(0, headers[v6Addresses:v6Min])
	} else {
		s.id = binary.BigEndian.Uint16(headers[v4ID:])
		clear(headers[v4Length : v4ID+2])
		clear(headers[v4Sum : v4Sum+2])
		s.ipSum = ip.Sum(0, headers[:s.l4])
		s.pseudo = ip.Sum(0, headers[v4Addresses:v4Min])
	}
	if s.kind == UDP {
		s.pseudo += uint64(ip.UDP)
		return
	}
	s.pseudo += uint64(ip.TCP)
	tcp := headers[s.l4:]
	s.seq = binary.BigEndian.Uint32(tcp[tcpSeq:])
	s.flags = tcp[tcpFlags]
	tcp[tcpFlags] &^= flagFIN | flagPSH // both are the last packet's (linux/net/ipv4/tcp_offload.c does so)
}

// Largest is the length of the longest packet in bytes.
func (s *Splitter) Largest() int { return min(s.hdr+s.size, s.end-s.at) }

// Next lays the next packet bare: it is buf[at:at+n]. The bytes before it are no longer
// needed and may be written to; those behind it must be as they are when Next is called again.
func (s *Splitter) Next() (at, n int, ok bool) {
	if s.at >= s.end {
		return 0, 0, false
	}
	if s.kind == None {
		at, n = s.at, s.end-s.at
		s.at = s.end
		if s.partial && s.complete {
			sum := ip.Checksum(ip.Sum(0, s.buf[at+s.l4:at+n]))
			putSum(s.buf[at+s.sumAt:], sum)
		}
		return at, n, true
	}
	at = s.at
	payload := min(s.size, s.end-at-s.hdr)
	n = s.hdr + payload
	last := at+n >= s.end
	pkt := s.buf[at : at+n]
	copy(pkt, s.headers[:s.hdr])
	s.lengths(pkt)
	if s.kind != UDP {
		s.segment(pkt[s.l4:], payload, last)
	}
	s.checksum(pkt)
	s.first = false
	if last {
		s.at = s.end
	} else {
		s.at = at + payload
	}
	return at, n, true
}

// lengths writes what differs in the IP header.
func (s *Splitter) lengths(pkt []byte) {
	if s.v6 {
		binary.BigEndian.PutUint16(pkt[v6Length:], uint16(len(pkt)-v6Min))
		return
	}
	binary.BigEndian.PutUint16(pkt[v4Length:], uint16(len(pkt)))
	binary.BigEndian.PutUint16(pkt[v4ID:], s.id)
	binary.BigEndian.PutUint16(pkt[v4Sum:], ip.Checksum(s.ipSum+uint64(len(pkt))+uint64(s.id)))
	s.id++
}

// segment writes what differs in the TCP header.
func (s *Splitter) segment(tcp []byte, payload int, last bool) {
	binary.BigEndian.PutUint32(tcp[tcpSeq:], s.seq)
	s.seq += uint32(payload)
	if last {
		tcp[tcpFlags] |= s.flags & (flagFIN | flagPSH)
	}
	if !s.first {
		tcp[tcpFlags] &^= flagCWR // it is said once (RFC 3168 section 6.1.2)
	}
}

func (s *Splitter) checksum(pkt []byte) {
	l4 := pkt[s.l4:]
	if s.kind == UDP {
		binary.BigEndian.PutUint16(l4[udpLength:], uint16(len(l4)))
	}
	sum := s.pseudo + uint64(len(l4))
	field := pkt[s.sumAt:]
	binary.BigEndian.PutUint16(field, ^ip.Checksum(sum))
	if s.complete {
		putSum(field, ip.Checksum(ip.Sum(0, l4)))
	}
}

// putSum writes a complete checksum. In UDP a sum of zero is sent as its other form, because
// zero says that there is none; TCP takes either.
func putSum(field []byte, sum uint16) {
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}
