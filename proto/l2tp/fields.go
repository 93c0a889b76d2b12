package l2tp

import (
	"bytes"
	"encoding/binary"
)

// Get returns the value of an AVP of vendor ID 0, a part of the message; false: it is not
// there, or still hidden.
func (m *Message) Get(t AVPType) ([]byte, bool) { return m.find(0, t) }

// Vendor returns the value of the first AVP of ours (VendorTwinkey) of a type.
func (m *Message) Vendor(t uint16) ([]byte, bool) { return m.find(VendorTwinkey, AVPType(t)) }

func (m *Message) find(vendor uint16, t AVPType) ([]byte, bool) {
	for i := range m.AVPs {
		if a := &m.AVPs[i]; a.Type == t && a.Vendor == vendor && !a.Hidden {
			return a.Value, true
		}
	}
	return nil, false
}

// Uint16 returns the value of an AVP of two bytes; 0: it is not there.
func (m *Message) Uint16(t AVPType) uint16 {
	if b, ok := m.Get(t); ok && len(b) == 2 {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// Uint32 returns the value of an AVP of four bytes; 0: it is not there.
func (m *Message) Uint32(t AVPType) uint32 {
	if b, ok := m.Get(t); ok && len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Text returns the value of an AVP of text; empty: it is not there. It comes from the
// peer and may hold any byte.
func (m *Message) Text(t AVPType) string {
	b, _ := m.Get(t)
	return string(b)
}

// Has says whether an AVP of vendor ID 0 is there and revealed: Sequencing Required has
// nothing else to say.
func (m *Message) Has(t AVPType) bool {
	_, ok := m.Get(t)
	return ok
}

// ProtocolVersion is the version of the sender's protocol: 0x0100 is the one of RFC 2661.
func (m *Message) ProtocolVersion() uint16 { return m.Uint16(AVPProtocolVersion) }

// HostName is the sender's name.
func (m *Message) HostName() string { return m.Text(AVPHostName) }

// AssignedTunnelID is the ID that the sender wants in headers to it; 0: none is given.
func (m *Message) AssignedTunnelID() uint16 { return m.Uint16(AVPAssignedTunnelID) }

// AssignedSessionID is the ID that the sender gives its end of a session; 0: none is given.
func (m *Message) AssignedSessionID() uint16 { return m.Uint16(AVPAssignedSessionID) }

// defaultWindow is what a peer can take that does not say (RFC 2661 4.4.3).
const defaultWindow = 4

// ReceiveWindow is how many messages the sender takes without an acknowledgement.
func (m *Message) ReceiveWindow() uint16 {
	if w := m.Uint16(AVPReceiveWindowSize); w != 0 {
		return w
	}
	return defaultWindow
}

// ProtocolVersion is what RFC 2661 4.4.3 has everybody say: version 1, revision 0.
const ProtocolVersion uint16 = 0x0100

// Bits of Framing Capabilities and Framing Type, Bearer Capabilities and Bearer Type.
const (
	FramingSync   uint32 = 1 << 0
	FramingAsync  uint32 = 1 << 1
	BearerDigital uint32 = 1 << 0
	BearerAnalog  uint32 = 1 << 1
)

// Proxy Authen Type (RFC 2661 4.4.5).
const (
	ProxyText     uint16 = 1 // textual user name and password
	ProxyCHAP     uint16 = 2
	ProxyPAP      uint16 = 3
	ProxyNone     uint16 = 4
	ProxyMSCHAPv1 uint16 = 5
)

// Tie is how a collision of two SCCRQs ends (RFC 2661 4.4.3, Tie Breaker).
type Tie uint8

// The ends of a collision.
const (
	TieNone Tie = iota // neither cares: both tunnels are opened
	TieWon             // ours goes on, the peer discards its own
	TieLost            // ours is discarded in silence
	TieEven            // both are discarded
)

// BreakTie compares the Tie Breakers of our own SCCRQ and of the peer's; nil: it has none.
func BreakTie(ours, theirs []byte) Tie {
	switch {
	case ours == nil && theirs == nil:
		return TieNone
	case theirs == nil:
		return TieWon
	case ours == nil:
		return TieLost
	}
	switch bytes.Compare(ours, theirs) { // the lower one wins
	case -1:
		return TieWon
	case 1:
		return TieLost
	default:
		return TieEven
	}
}

// CallErrors are the counters of a WEN since its call began (RFC 2661 4.4.6).
type CallErrors struct {
	CRC, Framing, HardwareOverruns, BufferOverruns, Timeouts, Alignment uint32
}

// AVP encodes the counters behind 2 reserved bytes.
func (c CallErrors) AVP() AVP {
	b := make([]byte, 2, 26)
	for _, v := range [...]uint32{c.CRC, c.Framing, c.HardwareOverruns, c.BufferOverruns, c.Timeouts, c.Alignment} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return Bytes(AVPCallErrors, b)
}

// CallErrors returns the counters of a WEN; false: it has none.
func (m *Message) CallErrors() (c CallErrors, ok bool) {
	b, ok := m.Get(AVPCallErrors)
	if !ok {
		return c, false
	}
	for i, p := range [...]*uint32{&c.CRC, &c.Framing, &c.HardwareOverruns, &c.BufferOverruns, &c.Timeouts, &c.Alignment} {
		*p = binary.BigEndian.Uint32(b[2+4*i:])
	}
	return c, true
}

// ACCM is what an SLI says of the async control character maps (RFC 2661 4.4.6).
type ACCM struct{ Send, Receive uint32 }

// AVP encodes the maps behind 2 reserved bytes.
func (a ACCM) AVP() AVP {
	b := make([]byte, 2, 10)
	b = binary.BigEndian.AppendUint32(b, a.Send)
	return Bytes(AVPACCM, binary.BigEndian.AppendUint32(b, a.Receive))
}

// ACCM returns the maps of an SLI; false: it has none.
func (m *Message) ACCM() (a ACCM, ok bool) {
	b, ok := m.Get(AVPACCM)
	if !ok {
		return a, false
	}
	return ACCM{Send: binary.BigEndian.Uint32(b[2:]), Receive: binary.BigEndian.Uint32(b[6:])}, true
}

// Q931Cause is why the telephone network ended a call (RFC 2661 4.4.4).
type Q931Cause struct {
	Cause    uint16
	Message  uint8  // Q.931 message code
	Advisory string // ASCII; may be empty
}

// AVP encodes the cause.
func (q Q931Cause) AVP() AVP {
	b := append(binary.BigEndian.AppendUint16(nil, q.Cause), q.Message)
	return Bytes(AVPQ931CauseCode, append(b, q.Advisory...))
}

// Q931Cause returns the cause in a CDN; false: it has none.
func (m *Message) Q931Cause() (q Q931Cause, ok bool) {
	b, ok := m.Get(AVPQ931CauseCode)
	if !ok {
		return q, false
	}
	return Q931Cause{Cause: binary.BigEndian.Uint16(b), Message: b[2], Advisory: string(b[3:])}, true
}
