package ppp

import (
	"encoding/binary"
	"fmt"

	"twinkey/proto/wire"
)

// Code says what a control packet is (RFC 1661 section 5). Codes 1 to 7 belong to every
// control protocol, 8 to 11 to LCP alone, 14 and 15 to CCP alone.
type Code uint8

// Codes of control packets.
const (
	ConfigureRequest Code = 1  // section 5.1
	ConfigureAck     Code = 2  // section 5.2
	ConfigureNak     Code = 3  // section 5.3
	ConfigureReject  Code = 4  // section 5.4
	TerminateRequest Code = 5  // section 5.5
	TerminateAck     Code = 6  // section 5.5
	CodeReject       Code = 7  // section 5.6
	ProtocolReject   Code = 8  // section 5.7
	EchoRequest      Code = 9  // section 5.8
	EchoReply        Code = 10 // section 5.8
	DiscardRequest   Code = 11 // section 5.9
	ResetRequest     Code = 14 // RFC 1962 section 4.1
	ResetAck         Code = 15 // RFC 1962 section 4.1
)

var codeNames = [...]string{
	ConfigureRequest: "Configure-Request",
	ConfigureAck:     "Configure-Ack",
	ConfigureNak:     "Configure-Nak",
	ConfigureReject:  "Configure-Reject",
	TerminateRequest: "Terminate-Request",
	TerminateAck:     "Terminate-Ack",
	CodeReject:       "Code-Reject",
	ProtocolReject:   "Protocol-Reject",
	EchoRequest:      "Echo-Request",
	EchoReply:        "Echo-Reply",
	DiscardRequest:   "Discard-Request",
	ResetRequest:     "Reset-Request",
	ResetAck:         "Reset-Ack",
}

// String names the code, or prints its number.
func (c Code) String() string {
	if int(c) < len(codeNames) && codeNames[c] != "" {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// PacketHeader is the length in bytes of Code, Identifier and Length.
const PacketHeader = 4

// Packet is a control packet of LCP, IPCP, IPV6CP or CCP (RFC 1661 section 5).
type Packet struct {
	Code Code
	ID   uint8
	Data []byte // what follows the Length field, at most 65531 bytes
}

// ParsePacket reads a control packet. Octets behind Length are padding and ignored
// (RFC 1661 section 5); Data aliases b. The error is a *wire.ParseError.
func ParsePacket(b []byte) (Packet, error) {
	r := wire.NewReader("PPP", b)
	p := Packet{Code: Code(r.Uint8("Code")), ID: r.Uint8("Identifier")}
	p.Data = r.Bytes("Data", int(r.Uint16("Length"))-PacketHeader)
	if err := r.Err(); err != nil {
		return Packet{}, err
	}
	return p, nil
}

// Append appends the packet. Data beyond 65531 bytes is cut off, as the RFC has it for
// the packets that quote another.
func (p Packet) Append(b []byte) []byte {
	data := p.Data[:min(len(p.Data), 0xffff-PacketHeader)]
	b = append(b, byte(p.Code), p.ID)
	b = binary.BigEndian.AppendUint16(b, uint16(PacketHeader+len(data)))
	return append(b, data...)
}

// Magic splits the Data of an Echo-Request, Echo-Reply or Discard-Request into the
// Magic-Number and what follows it.
func (p Packet) Magic() (magic uint32, data []byte, err error) {
	r := wire.NewReader(p.Code.String(), p.Data)
	magic = r.Uint32("Magic-Number")
	data = r.Rest()
	return magic, data, r.Err()
}

// Rejected splits the Data of a Protocol-Reject into the protocol that the peer does
// not know and the information field that it quotes.
func (p Packet) Rejected() (proto Protocol, info []byte, err error) {
	r := wire.NewReader(p.Code.String(), p.Data)
	proto = Protocol(r.Uint16("Rejected-Protocol"))
	info = r.Rest()
	return proto, info, r.Err()
}
