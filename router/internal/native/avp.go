package native

import (
	"encoding/binary"
	"errors"
	"slices"

	"twinkey/proto/handshake"
	"twinkey/proto/l2tp"
	"twinkey/proto/ppp"
	"twinkey/router/internal/calls"
)

// Vendor-specific message types (see the package's documentation).
const (
	msgMore uint16 = iota + 1
	msgReady
	msgRekeyRequest
	msgRekeyReply
	msgCookie
)

// Vendor-specific AVP types.
const (
	avpFlight uint16 = iota + 1
	avpCookie
	avpSession
	avpGeneration
	avpPadding
	avpCapabilities
)

// lz4Block is the method of compression that we negotiate: each packet is one block of LZ4 by itself. It
// has no number of its own, so the option names a vendor's (RFC 1962 section 5.1): a locally administered OUI,
// subtype 1.
var lz4Block = ppp.Option{Type: ppp.OptOUI, Data: []byte{0x02, 't', 'k', 1}}

// maxPart is the largest part of a flight in one AVP: with the other AVPs of an SCCRQ
// and all headers it stays below 1,200 bytes of UDP payload.
const maxPart = 960

// minFirst is the smallest SCCRQ that we answer, in bytes of L2TP message: a stranger
// must spend about as much as it makes us send.
const minFirst = 400

var errMissing = errors.New("a vendor-specific AVP is missing or has the wrong length")

// results that close a tunnel or a call (RFC 2661 4.4.2).
var (
	resultShutdown   = l2tp.Result{Code: 6} // requester is being shut down
	resultTunnelAuth = l2tp.Result{Code: 4} // requester is not authorized
	resultAdmin      = l2tp.Result{Code: 3} // CDN: disconnected for administrative reasons
	// CDN: likewise, because a certificate is revoked. The peer may not have heard of that, and may have a newer one.
	resultRevoked    = l2tp.Result{Code: 3, Error: l2tp.ErrorVendor}
	resultLost       = l2tp.Result{Code: 1} // CDN: loss of carrier
	resultNoResource = l2tp.Result{Code: 4} // CDN: no facilities, temporarily
)

// flight yields the AVPs of the message that carries the first part, and those of each
// More message that carries the rest: each begins with of, which says whose flight it
// is. The tunnel's own handshake has none, and is thereby known.
func flight(msg []byte, of ...l2tp.AVP) (first []l2tp.AVP, more [][]l2tp.AVP, err error) {
	parts, err := handshake.Split(msg, maxPart)
	if err != nil {
		return nil, nil, err
	}
	first = append(first, vendorAVP(avpFlight, parts[0]))
	for _, p := range parts[1:] {
		more = append(more, append(slices.Clip(of), vendorAVP(avpFlight, p)))
	}
	return first, more, nil
}

func vendorAVP(typ uint16, value []byte) l2tp.AVP {
	return l2tp.AVP{Vendor: l2tp.VendorTwinkey, Type: l2tp.AVPType(typ), Mandatory: true, Value: value}
}

func sessionAVP(id uint16) l2tp.AVP {
	return vendorAVP(avpSession, binary.BigEndian.AppendUint16(nil, id))
}

func generationAVP(g uint32) l2tp.AVP {
	return vendorAVP(avpGeneration, binary.BigEndian.AppendUint32(nil, g))
}

// capabilitiesAVP says what we take in a call. A peer that does not know it may pass over it.
func capabilitiesAVP(c calls.Capabilities) l2tp.AVP {
	a := vendorAVP(avpCapabilities, binary.BigEndian.AppendUint32(nil, uint32(c)))
	a.Mandatory = false
	return a
}

// getCapabilities is what the sender of m takes; nothing if it does not say.
func getCapabilities(m *l2tp.Message) calls.Capabilities {
	b, ok := m.Vendor(avpCapabilities)
	if !ok || len(b) != 4 {
		return 0
	}
	return calls.Capabilities(binary.BigEndian.Uint32(b))
}

func getSession(m *l2tp.Message) (uint16, error) {
	b, ok := m.Vendor(avpSession)
	if !ok || len(b) != 2 {
		return 0, errMissing
	}
	return binary.BigEndian.Uint16(b), nil
}

func getGeneration(m *l2tp.Message) (uint32, error) {
	b, ok := m.Vendor(avpGeneration)
	if !ok || len(b) != 4 {
		return 0, errMissing
	}
	return binary.BigEndian.Uint32(b), nil
}

// Inside ESP in transport mode stands a UDP header with both ports 1701 (RFC 3193 2).
// Its checksum is 0, which RFC 768 allows and ESP's ICV makes superfluous.
const (
	portL2TP  = 1701
	udpHeader = 8 // bytes
)

// appendInnerUDP appends the header for n bytes that will follow it.
func appendInnerUDP(b []byte, n int) []byte {
	b = binary.BigEndian.AppendUint16(b, portL2TP)
	b = binary.BigEndian.AppendUint16(b, portL2TP)
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeader+n))
	return append(b, 0, 0)
}

var errInnerUDP = errors.New("inner UDP header is not that of L2TP")

// innerUDP checks the header and returns what follows it.
func innerUDP(p []byte) ([]byte, error) {
	if len(p) < udpHeader || binary.BigEndian.Uint16(p[2:]) != portL2TP || int(binary.BigEndian.Uint16(p[4:])) != len(p) {
		return nil, errInnerUDP
	}
	return p[udpHeader:], nil
}
