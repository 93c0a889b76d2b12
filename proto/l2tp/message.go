package l2tp

import (
	"encoding/binary"
	"fmt"

	"twinkey/proto/wire"
)

// MessageType is the type of a control message (RFC 2661 3.2).
type MessageType uint16

// The control messages.
const (
	SCCRQ   MessageType = 1
	SCCRP   MessageType = 2
	SCCCN   MessageType = 3
	StopCCN MessageType = 4
	HELLO   MessageType = 6
	OCRQ    MessageType = 7
	OCRP    MessageType = 8
	OCCN    MessageType = 9
	ICRQ    MessageType = 10
	ICRP    MessageType = 11
	ICCN    MessageType = 12
	CDN     MessageType = 14
	WEN     MessageType = 15
	SLI     MessageType = 16
)

var messageNames = map[MessageType]string{
	SCCRQ: "SCCRQ", SCCRP: "SCCRP", SCCCN: "SCCCN", StopCCN: "StopCCN", HELLO: "HELLO", OCRQ: "OCRQ", OCRP: "OCRP",
	OCCN: "OCCN", ICRQ: "ICRQ", ICRP: "ICRP", ICCN: "ICCN", CDN: "CDN", WEN: "WEN", SLI: "SLI",
}

func (t MessageType) String() string {
	if s, ok := messageNames[t]; ok {
		return s
	}
	return fmt.Sprintf("message %d", uint16(t))
}

// AVPError says which AVP of a message is wrong. Fatal: it had the M bit, so the tunnel
// (or, in a session's message, the session) must go (RFC 2661 4.1).
type AVPError struct {
	Vendor uint16
	Type   AVPType
	Offset int // bytes from the start of the message
	Fatal  bool
	Result Result // what the peer is told if Fatal
	Err    error
}

func (e *AVPError) Error() string {
	return fmt.Sprintf("L2TP: AVP %v (vendor %d) at offset %d: %v", e.Type, e.Vendor, e.Offset, e.Err)
}

func (e *AVPError) Unwrap() error { return e.Err }

// Message is a parsed control message. Its slices are parts of what was parsed.
type Message struct {
	Header   ControlHeader
	ZLB      bool   // no body: an acknowledgement
	VendorID uint16 // of the Message Type AVP
	Type     MessageType
	// Mandatory is the M bit of the Message Type AVP: a type that is not known and has it
	// ends the tunnel or session.
	Mandatory bool
	AVPs      []AVP
}

// ParseMessage reads a control message. Unknown AVPs without the M bit are passed over.
func ParseMessage(msg []byte) (*Message, error) {
	m := &Message{}
	return m, m.Parse(msg)
}

// Parse reads msg into m, whose AVPs slice is used again.
func (m *Message) Parse(msg []byte) error {
	h, err := ParseControlHeader(msg)
	*m = Message{Header: h, AVPs: m.AVPs[:0]}
	if err != nil {
		return err
	}
	body := msg[ControlHeaderLen:]
	if len(body) == 0 {
		m.ZLB = true
		return nil
	}
	for first := true; len(body) > 0; first = false {
		at := len(msg) - len(body)
		a, rest, err := ParseAVP(body)
		if err != nil {
			return err
		}
		body = rest
		if first {
			if a.Type != AVPMessageType || len(a.Value) != 2 || a.Hidden {
				return &wire.ParseError{Layer: "L2TP", Field: "Message Type", Offset: at, Err: wire.ErrValue}
			}
			m.VendorID, m.Type, m.Mandatory = a.Vendor, MessageType(binary.BigEndian.Uint16(a.Value)), a.Mandatory
			continue
		}
		if err := m.take(a, at); err != nil {
			return err
		}
	}
	return nil
}

// take checks an AVP against the registry; vendor first, then type (RFC 2661 4.1).
func (m *Message) take(a AVP, at int) error {
	fail := func(r Result, err error) error {
		return &AVPError{Vendor: a.Vendor, Type: a.Type, Offset: at, Fatal: a.Mandatory, Result: r, Err: err}
	}
	switch {
	case len(m.AVPs) == maxAVPs:
		return &wire.ParseError{Layer: "L2TP", Field: "AVP", Offset: at, Err: wire.ErrLength}
	case a.Vendor == VendorTwinkey:
	case a.Vendor != 0:
		if !a.Mandatory {
			return nil
		}
		return fail(Result{Code: 2, Error: 8, Message: "unknown vendor's mandatory AVP"}, wire.ErrValue)
	case int(a.Type) >= len(avps) || avps[a.Type].name == "":
		if !a.Mandatory {
			return nil
		}
		return fail(Result{Code: 2, Error: 8, Message: "unknown mandatory AVP"}, wire.ErrValue)
	case !a.Hidden && (len(a.Value) < avps[a.Type].min || len(a.Value) > avps[a.Type].max):
		return fail(Result{Code: 2, Error: 2, Message: "AVP length"}, wire.ErrLength)
	}
	m.AVPs = append(m.AVPs, a)
	return nil
}

// Get returns the value of the first AVP of a type that is not hidden.
func (m *Message) Get(t AVPType) ([]byte, bool) { return m.find(0, t) }

// Vendor returns the value of the first AVP of ours of a type.
func (m *Message) Vendor(t uint16) ([]byte, bool) { return m.find(VendorTwinkey, AVPType(t)) }

func (m *Message) find(vendor uint16, t AVPType) ([]byte, bool) {
	for _, a := range m.AVPs {
		if a.Vendor == vendor && a.Type == t && !a.Hidden {
			return a.Value, true
		}
	}
	return nil, false
}

func (m *Message) uint16(t AVPType) uint16 {
	if b, ok := m.Get(t); ok && len(b) == 2 {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// AssignedTunnelID is the ID that the sender wants in headers to it; 0: none is given.
func (m *Message) AssignedTunnelID() uint16 { return m.uint16(AVPAssignedTunnelID) }

// AssignedSessionID is the same for a session.
func (m *Message) AssignedSessionID() uint16 { return m.uint16(AVPAssignedSessionID) }

// ReceiveWindow is the sender's window; where it says none, 4 (RFC 2661 4.4.3).
func (m *Message) ReceiveWindow() uint16 {
	if w := m.uint16(AVPReceiveWindowSize); w != 0 {
		return w
	}
	return 4
}

// Result is the Result Code AVP of StopCCN and CDN (RFC 2661 4.4.2).
type Result struct {
	Code    uint16
	Error   uint16 // with Code 2
	Message string
}

// Result returns what the message says; a Result Code AVP may lack the error code.
func (m *Message) Result() (r Result) {
	b, _ := m.Get(AVPResultCode)
	if len(b) >= 2 {
		r.Code = binary.BigEndian.Uint16(b)
	}
	if len(b) >= 4 {
		r.Error, r.Message = binary.BigEndian.Uint16(b[2:]), string(b[4:])
	}
	return r
}

// AVP encodes the result; the text is cut to 200 bytes.
func (r Result) AVP() AVP {
	b := binary.BigEndian.AppendUint16(nil, r.Code)
	b = binary.BigEndian.AppendUint16(b, r.Error)
	return AVP{Mandatory: true, Type: AVPResultCode, Value: append(b, r.Message[:min(len(r.Message), 200)]...)}
}

// AppendBody appends the body of a message: its type, then avps.
func AppendBody(b []byte, vendor uint16, t MessageType, avps ...AVP) []byte {
	b = AVP{Mandatory: vendor == 0, Vendor: vendor, Type: AVPMessageType, Value: []byte{byte(t >> 8), byte(t)}}.Append(b)
	for _, a := range avps {
		b = a.Append(b)
	}
	return b
}

// AppendMessage appends a whole message.
func AppendMessage(b []byte, h ControlHeader, vendor uint16, t MessageType, avps ...AVP) []byte {
	at := len(b)
	b = AppendBody(h.Append(b, 0), vendor, t, avps...)
	binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
	return b
}

// PeekType returns vendor and type of a message without parsing the rest; false: it has none.
func PeekType(msg []byte) (vendor, typ uint16, ok bool) {
	if len(msg) < ControlHeaderLen+avpHeader+2 {
		return 0, 0, false
	}
	b := msg[ControlHeaderLen:]
	return binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[6:]), true
}
