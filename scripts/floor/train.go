package main

import (
	"encoding/binary"
	"net/netip"

	"twinkey/proto/ip"
)

// struct virtio_net_hdr as a TUN interface has it, in the machine's own byte order:
//
//	flags(1) gso_type(1) hdr_len(2) gso_size(2) csum_start(2) csum_offset(2)
const (
	vnetSize      = 10
	needsCSUM     = 1 // the checksum field holds the sum of the pseudo-header, the rest is still to be added
	gsoNone       = 0
	gsoTCPv4      = 1
	gsoTCPv6      = 4
	gsoUDPL4      = 5
	ipv4Header    = 20
	ipv6Header    = 40
	tcpHeader     = 20
	udpHeader     = 8
	tcpChecksum   = 16 // offset in the TCP header
	udpChecksum   = 6
	tcpDataOffset = 12
	tcpACK        = 0x10
)

// shape is a kind of packet.
type shape struct {
	name     string
	gso      byte // what the header calls it
	v6       bool
	proto    ip.Protocol
	segments int // of packetSize bytes with their headers
}

// shapes are what a TUN interface is read and written with.
var shapes = []shape{
	{"packet of 1,400 bytes", gsoNone, false, ip.UDP, 1},
	{"TCP train of 46", gsoTCPv4, false, ip.TCP, 46},
	{"TCP train of 46, IPv6", gsoTCPv6, true, ip.TCP, 46},
	{"UDP train of 46", gsoUDPL4, false, ip.UDP, 46},
}

// headers is the length of what each segment begins with.
func (s shape) headers() (network, transport int) {
	network, transport = ipv4Header, tcpHeader
	if s.v6 {
		network = ipv6Header
	}
	if s.proto == ip.UDP {
		transport = udpHeader
	}
	return network, transport
}

// build makes a packet of this shape with its virtio-net header in front. The payload is zero, and so the
// checksum is left to the reader of the header.
func (s shape) build(from, to netip.Addr) []byte {
	network, transport := s.headers()
	payload := s.segments * (packetSize - network - transport)
	b := make([]byte, vnetSize+network+transport+payload)
	csum := tcpChecksum
	if s.proto == ip.UDP {
		csum = udpChecksum
	}
	b[0], b[1] = needsCSUM, s.gso
	binary.NativeEndian.PutUint16(b[6:], uint16(network))
	binary.NativeEndian.PutUint16(b[8:], uint16(csum))
	if s.gso != gsoNone {
		binary.NativeEndian.PutUint16(b[2:], uint16(network+transport))
		binary.NativeEndian.PutUint16(b[4:], uint16(packetSize-network-transport))
	}
	s.network(b[vnetSize:], from, to)

	segment := b[vnetSize+network:]
	binary.BigEndian.PutUint16(segment, 40000)
	binary.BigEndian.PutUint16(segment[2:], 9) // discard
	if s.proto == ip.UDP {
		binary.BigEndian.PutUint16(segment[4:], uint16(len(segment)))
	} else {
		segment[tcpDataOffset], segment[tcpDataOffset+1] = tcpHeader/4<<4, tcpACK
		binary.BigEndian.PutUint16(segment[14:], 0xffff) // window
	}
	sum := ip.Sum(ip.Sum(uint64(s.proto)+uint64(len(segment)), from.AsSlice()), to.AsSlice())
	binary.BigEndian.PutUint16(segment[csum:], ^ip.Checksum(sum))
	return b
}

// network writes the IP header of p.
func (s shape) network(p []byte, from, to netip.Addr) {
	if s.v6 {
		p[0] = 6 << 4
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ipv6Header))
		p[6], p[7] = byte(s.proto), 64
		copy(p[8:], from.AsSlice())
		copy(p[24:], to.AsSlice())
		return
	}
	p[0] = 4<<4 | ipv4Header/4
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[6] = 0x40 // don't fragment
	p[8], p[9] = 64, byte(s.proto)
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	binary.BigEndian.PutUint16(p[10:], ip.Checksum(ip.Sum(0, p[:ipv4Header])))
}
