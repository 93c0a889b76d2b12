package ppp

import (
	"fmt"

	"twinkey/proto/wire"
)

// Protocol is a PPP Data Link Layer protocol number (RFC 1661 section 2).
type Protocol uint16

// Protocol numbers. The first hex digit tells the class: 0 to 3 network data, 8 to b its
// control protocol, c to f a protocol of the link itself.
const (
	ProtoIPv4   Protocol = 0x0021 // RFC 1332
	ProtoIPv6   Protocol = 0x0057 // RFC 5072
	ProtoComp   Protocol = 0x00fd // compressed datagram, RFC 1962
	ProtoIPCP   Protocol = 0x8021 // RFC 1332
	ProtoIPv6CP Protocol = 0x8057 // RFC 5072
	ProtoCCP    Protocol = 0x80fd // RFC 1962
	ProtoLCP    Protocol = 0xc021 // RFC 1661
	ProtoPAP    Protocol = 0xc023 // RFC 1334
	ProtoLQR    Protocol = 0xc025 // RFC 1989
	ProtoCHAP   Protocol = 0xc223 // RFC 1994
	ProtoEAP    Protocol = 0xc227 // RFC 3748
)

// Address and Control of an uncompressed frame: all stations, unnumbered information.
const (
	address = 0xff
	control = 0x03
)

// MaxHeader is the length in bytes of a header with nothing compressed.
const MaxHeader = 4

// DefaultMRU is the Maximum-Receive-Unit in bytes that every peer takes without being
// asked, and that a link uses until LCP has opened (RFC 1661 section 6.1).
const DefaultMRU = 1500

// String names the protocol, or prints its number.
func (p Protocol) String() string {
	switch p {
	case ProtoIPv4:
		return "IPv4"
	case ProtoIPv6:
		return "IPv6"
	case ProtoComp:
		return "Compressed"
	case ProtoIPCP:
		return "IPCP"
	case ProtoIPv6CP:
		return "IPV6CP"
	case ProtoCCP:
		return "CCP"
	case ProtoLCP:
		return "LCP"
	case ProtoPAP:
		return "PAP"
	case ProtoLQR:
		return "LQR"
	case ProtoCHAP:
		return "CHAP"
	case ProtoEAP:
		return "EAP"
	}
	return fmt.Sprintf("protocol %#04x", uint16(p))
}

// Assignable tells whether the number keeps the rule of RFC 1661 section 2 that makes
// one-octet numbers recognisable: first octet even, second odd. A frame that breaks it
// "must be treated as having an unrecognized Protocol", so ParseFrame lets it through.
func (p Protocol) Assignable() bool { return p&0x0101 == 0x0001 }

// short tells whether PFC may send one octet. 00ff is reserved: alone it would look
// like the Address (RFC 1661 section 6.6).
func (p Protocol) short() bool { return p < 0xff && p.Assignable() }

// ParseFrame splits a frame into its protocol and its information field, which aliases
// b and may end in padding. It takes every mixture of compressed fields, negotiated or
// not: what the peer sent early or late costs nobody a packet. The error is a
// *wire.ParseError.
func ParseFrame(b []byte) (Protocol, []byte, error) {
	off := 0
	if len(b) >= 2 && b[0] == address && b[1] == control {
		off = 2
	}
	if len(b) > off && b[off]&1 == 1 {
		return Protocol(b[off]), b[off+1:], nil
	}
	if len(b) < off+2 {
		return 0, nil, &wire.ParseError{Layer: "PPP", Field: "Protocol", Offset: off, Err: wire.ErrTruncated}
	}
	return Protocol(b[off])<<8 | Protocol(b[off+1]), b[off+2:], nil
}

// AppendHeader appends the header of a frame of protocol p: with acfc without Address
// and Control, with pfc with one octet of Protocol where p has a short form. LCP is
// never compressed (RFC 1661 sections 6.5 and 6.6).
func AppendHeader(b []byte, p Protocol, acfc, pfc bool) []byte {
	if !acfc || p == ProtoLCP {
		b = append(b, address, control)
	}
	if !pfc || p == ProtoLCP || !p.short() {
		b = append(b, byte(p>>8))
	}
	return append(b, byte(p))
}

// AppendFrame appends a whole frame, see AppendHeader.
func AppendFrame(b []byte, p Protocol, acfc, pfc bool, info []byte) []byte {
	return append(AppendHeader(b, p, acfc, pfc), info...)
}
