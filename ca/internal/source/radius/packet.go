package radius

import (
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // RFC 2865 is made of it
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"layeh.com/radius"
)

// Attributes (RFC 2865, 2866, 2868, 2869, 3162, 3576, 6911).
const (
	typeUserName             radius.Type = 1
	typeUserPassword         radius.Type = 2
	typeNASIPAddress         radius.Type = 4
	typeServiceType          radius.Type = 6
	typeFramedIPAddress      radius.Type = 8
	typeFilterID             radius.Type = 11
	typeReplyMessage         radius.Type = 18
	typeClass                radius.Type = 25
	typeVendorSpecific       radius.Type = 26
	typeSessionTimeout       radius.Type = 27
	typeCalledStationID      radius.Type = 30
	typeNASIdentifier        radius.Type = 32
	typeProxyState           radius.Type = 33
	typeAcctStatusType       radius.Type = 40
	typeAcctDelayTime        radius.Type = 41
	typeAcctInputOctets      radius.Type = 42
	typeAcctOutputOctets     radius.Type = 43
	typeAcctSessionID        radius.Type = 44
	typeAcctAuthentic        radius.Type = 45
	typeAcctSessionTime      radius.Type = 46
	typeAcctInputPackets     radius.Type = 47
	typeAcctOutputPackets    radius.Type = 48
	typeAcctTerminateCause   radius.Type = 49
	typeAcctInputGigawords   radius.Type = 52
	typeAcctOutputGigawords  radius.Type = 53
	typeEventTimestamp       radius.Type = 55
	typeNASPortType          radius.Type = 61
	typeMessageAuthenticator radius.Type = 80
	typeTunnelPrivateGroupID radius.Type = 81
	typeNASIPv6Address       radius.Type = 95
	typeErrorCause           radius.Type = 101
	typeFramedIPv6Address    radius.Type = 168
)

// Values of attributes.
const (
	serviceFramed   = 2
	portVirtual     = 5
	authenticRADIUS = 1
)

// The header (RFC 2865 3): Code, Identifier, Length, Authenticator.
const (
	headerLen = 20
	authAt    = 4
	authLen   = md5.Size
	avpHead   = 2 // Type, Length
	maxPacket = radius.MaxPacketLength
)

// Why a packet is not believed.
var (
	errMalformed     = errors.New("it is malformed")
	errStray         = errors.New("it answers nothing that was asked")
	errAuthenticator = errors.New("its authenticator is wrong")
	errNoSignature   = errors.New("it has no Message-Authenticator, so whoever is on the way can have made it (CVE-2024-3596); the server has to be newer or told to add one")
	errSignature     = errors.New("its Message-Authenticator is wrong")
	errProxyState    = errors.New("it carries a Proxy-State that was not sent")
)

// packet is one that was received, with the bytes that it came in.
type packet struct {
	radius.Attributes
	code radius.Code
	id   byte
	wire []byte // without padding
}

// parse reads a packet and believes nothing of it. It keeps b.
func parse(b []byte) (packet, error) {
	if len(b) < headerLen {
		return packet{}, errMalformed
	}
	n := int(binary.BigEndian.Uint16(b[2:])) // what lies behind is padding (RFC 2865 3)
	if n < headerLen || n > maxPacket || n > len(b) {
		return packet{}, errMalformed
	}
	attrs, err := radius.ParseAttributes(b[headerLen:n])
	if err != nil {
		return packet{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return packet{Attributes: attrs, code: radius.Code(b[0]), id: b[1], wire: b[:n]}, nil
}

// signature finds the Message-Authenticator: where its value begins in the packet; 0 if there is none.
func (p packet) signature() (at int, err error) {
	off := headerLen
	for _, a := range p.Attributes {
		if a.Type == typeMessageAuthenticator {
			if at != 0 || len(a.Attribute) != authLen {
				return 0, errSignature // two of them, of which one might be right
			}
			at = off + avpHead
		}
		off += avpHead + len(a.Attribute)
	}
	return at, nil
}

// sum is the authenticator that p ought to have: MD5 over Code, Identifier, Length, the request's authenticator, attributes and
// secret (RFC 2865 3 for responses; RFC 2866 3 and RFC 5176 2.3 for requests, whose own counts as zeros).
func sum(wire []byte, authenticator [authLen]byte, secret []byte) [authLen]byte {
	h := md5.New() //nolint:gosec // RFC 2865 3
	h.Write(wire[:authAt])
	h.Write(authenticator[:])
	h.Write(wire[headerLen:])
	h.Write(secret)
	return [authLen]byte(h.Sum(nil))
}

// mac is the Message-Authenticator of a packet, whose value begins at: HMAC-MD5 over the packet with that value zeroed and the
// authenticator of the request in its place (RFC 3579 3.2, RFC 5176 3.4).
func mac(wire []byte, at int, authenticator [authLen]byte, secret []byte) []byte {
	h := hmac.New(md5.New, secret)
	h.Write(wire[:authAt])
	h.Write(authenticator[:])
	h.Write(wire[headerLen:at])
	h.Write(make([]byte, authLen))
	h.Write(wire[at+authLen:])
	return h.Sum(nil)
}

// request is one that is sent, as often as it takes.
type request struct {
	wire   []byte
	auth   [authLen]byte
	secret []byte
}

// newRequest makes one of a code; fill adds its attributes, behind the Message-Authenticator of an Access-Request.
func newRequest(code radius.Code, id byte, secret []byte, fill func(*radius.Packet) error) (*request, error) {
	p := &radius.Packet{Code: code, Identifier: id, Secret: secret}
	if code == radius.CodeAccessRequest {
		if _, err := rand.Read(p.Authenticator[:]); err != nil {
			return nil, fmt.Errorf("making a Request Authenticator: %w", err)
		}
		p.Add(typeMessageAuthenticator, make(radius.Attribute, authLen))
	}
	if err := fill(p); err != nil {
		return nil, err
	}
	wire, err := p.Encode()
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	if code == radius.CodeAccessRequest {
		const at = headerLen + avpHead
		copy(wire[at:], mac(wire, at, p.Authenticator, secret))
	}
	return &request{wire: wire, auth: [authLen]byte(wire[authAt:headerLen]), secret: secret}, nil
}

// believe reads the answer to r from b, or says why it is none.
func (r *request) believe(b []byte) (packet, error) {
	p, err := parse(b)
	if err != nil {
		return packet{}, err
	}
	asked := radius.Code(r.wire[0])
	if p.id != r.wire[1] || !answers(asked, p.code) {
		return packet{}, errStray
	}
	want := sum(p.wire, r.auth, r.secret)
	if !hmac.Equal(want[:], p.wire[authAt:headerLen]) {
		return packet{}, errAuthenticator
	}
	at, err := p.signature()
	switch {
	case err != nil:
		return packet{}, err
	case at == 0 && asked == radius.CodeAccessRequest:
		return packet{}, errNoSignature
	case at != 0 && !hmac.Equal(mac(p.wire, at, r.auth, r.secret), p.wire[at:at+authLen]):
		return packet{}, errSignature
	}
	if _, ok := p.Lookup(typeProxyState); ok {
		return packet{}, errProxyState
	}
	return p, nil
}

// answers says whether a packet of a code can answer one of another.
func answers(asked, code radius.Code) bool {
	switch asked { //nolint:exhaustive // we ask nothing else
	case radius.CodeAccessRequest:
		return code == radius.CodeAccessAccept || code == radius.CodeAccessReject || code == radius.CodeAccessChallenge
	case radius.CodeAccountingRequest:
		return code == radius.CodeAccountingResponse
	}
	return false
}

// add appends strings that are not empty, cut to what an attribute holds.
func add(p *radius.Packet, t radius.Type, s string) {
	if s != "" {
		p.Add(t, radius.Attribute(s[:min(len(s), maxString)]))
	}
}

func addNumber(p *radius.Packet, t radius.Type, n uint32) { p.Add(t, radius.NewInteger(n)) }

// number reads an attribute that is an integer; false if there is none or it is malformed.
func (p packet) number(t radius.Type) (uint32, bool) {
	a, ok := p.Lookup(t)
	if !ok {
		return 0, false
	}
	n, err := radius.Integer(a)
	return n, err == nil
}
