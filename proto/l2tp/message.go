package l2tp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"twinkey/proto/wire"
)

// MessageType is the type of a control message of vendor ID 0 (RFC 2661 3.2).
type MessageType uint16

// The control messages. 0, 5 and 13 are reserved.
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

// messageSpec is a row of the registry of messages.
type messageSpec struct {
	name    string
	session bool      // belongs to a session, not to the tunnel
	must    []AVPType // what it must carry besides Message Type
}

// messages is the registry: the codepoint is the index (RFC 2661 6.1 to 6.14).
var messages = [...]messageSpec{
	SCCRQ:   {"SCCRQ", false, []AVPType{AVPProtocolVersion, AVPHostName, AVPFramingCapabilities, AVPAssignedTunnelID}},
	SCCRP:   {"SCCRP", false, []AVPType{AVPProtocolVersion, AVPFramingCapabilities, AVPHostName, AVPAssignedTunnelID}},
	SCCCN:   {"SCCCN", false, nil},
	StopCCN: {"StopCCN", false, []AVPType{AVPAssignedTunnelID, AVPResultCode}},
	HELLO:   {"HELLO", false, nil},
	OCRQ: {"OCRQ", true, []AVPType{
		AVPAssignedSessionID, AVPCallSerialNumber, AVPMinimumBPS, AVPMaximumBPS, AVPBearerType, AVPFramingType, AVPCalledNumber,
	}},
	OCRP: {"OCRP", true, []AVPType{AVPAssignedSessionID}},
	OCCN: {"OCCN", true, []AVPType{AVPTxConnectSpeed, AVPFramingType}},
	ICRQ: {"ICRQ", true, []AVPType{AVPAssignedSessionID, AVPCallSerialNumber}},
	ICRP: {"ICRP", true, []AVPType{AVPAssignedSessionID}},
	ICCN: {"ICCN", true, []AVPType{AVPTxConnectSpeed, AVPFramingType}},
	CDN:  {"CDN", true, []AVPType{AVPResultCode, AVPAssignedSessionID}},
	WEN:  {"WEN", true, []AVPType{AVPCallErrors}},
	SLI:  {"SLI", true, []AVPType{AVPACCM}},
}

// Known says whether RFC 2661 defines the type.
func (t MessageType) Known() bool { return int(t) < len(messages) && messages[t].name != "" }

// OfSession says whether messages of this type belong to a session.
func (t MessageType) OfSession() bool { return t.Known() && messages[t].session }

func (t MessageType) String() string {
	if t.Known() {
		return messages[t].name
	}
	return "message " + strconv.Itoa(int(t))
}

// Causes of an AVPError besides those of package wire.
var (
	ErrUnknownAVP = errors.New("not recognized, and marked mandatory")
	ErrMissing    = errors.New("missing")
	ErrTwice      = errors.New("given twice")
	ErrHidden     = errors.New("hidden, but not to be revealed")
)

// AVPError says which AVP makes a message unacceptable: the session that the message
// belongs to, or the tunnel, must end (RFC 2661 4.1, 7.1).
type AVPError struct {
	Vendor uint16
	Type   AVPType
	Offset int    // bytes from the start of the message; of a missing one: its length
	Code   uint16 // general error code for the peer, see Result
	Err    error
}

func (e *AVPError) name() string {
	if e.Vendor != 0 {
		return fmt.Sprintf("AVP %d of vendor %d", uint16(e.Type), e.Vendor)
	}
	if e.Type.spec() != nil {
		return "AVP " + e.Type.String()
	}
	return e.Type.String()
}

func (e *AVPError) Error() string {
	return fmt.Sprintf("L2TP: %s at offset %d: %v", e.name(), e.Offset, e.Err)
}

func (e *AVPError) Unwrap() error { return e.Err }

// Result is what the peer is told: StopError and CallError are the same number, and the
// text names the AVP (RFC 2661 4.4.2, error code 8).
func (e *AVPError) Result() Result {
	return Result{Code: StopError, Error: e.Code, Message: e.name() + " " + e.Err.Error()}
}

// Message is a parsed control message. Its slices are parts of what was parsed.
type Message struct {
	Header ControlHeader
	ZLB    bool // no body: nothing but an acknowledgement
	// VendorID and Type are those of the Message Type AVP; Mandatory is its M bit: who
	// does not know the type must clear the tunnel (RFC 2661 4.4.1).
	VendorID  uint16
	Type      MessageType
	Mandatory bool
	// AVPs are those that are recognized and well-formed, without Message Type, in order.
	// Hidden ones have still to be revealed (see Unhide).
	AVPs []AVP
	// Ignored is how many AVPs were passed over.
	Ignored int

	length int
	seen   uint64 // types of vendor ID 0 that were met, a bit each
	fault  *AVPError
}

// ParseMessage reads a control message; the error is a *wire.ParseError, or an *AVPError
// and the message beside it.
func ParseMessage(msg []byte) (*Message, error) {
	m := new(Message)
	return m, m.Parse(msg)
}

// Parse reads msg into m. The array behind m.AVPs is used again: no allocation without an
// error, once it has grown.
func (m *Message) Parse(msg []byte) error {
	h, err := ParseControlHeader(msg)
	*m = Message{Header: h, AVPs: m.AVPs[:0], length: len(msg)}
	if err != nil {
		return err
	}
	rest := msg[ControlHeaderLen:]
	if m.ZLB = len(rest) == 0; m.ZLB {
		return nil
	}
	if rest, err = m.parseType(rest); err != nil {
		return err
	}
	for n := 1; len(rest) > 0; n++ {
		at := len(msg) - len(rest)
		a, reserved, after, err := parseAVP(rest)
		a.at = uint16(at)
		switch {
		case err != nil:
			return shift(err, at)
		case n > MaxAVPs:
			return &wire.ParseError{Layer: "L2TP", Field: "AVPs", Offset: at, Err: wire.ErrLength}
		case reserved: // "MUST be treated as an unrecognized AVP" (RFC 2661 4.1)
			m.reject(a, ErrorUnknownAVP, ErrUnknownAVP)
		default:
			m.take(a)
		}
		rest = after
	}
	if m.fault != nil {
		return m.fault
	}
	return nil
}

// parseType reads the Message Type AVP, which must come first and cannot be hidden.
func (m *Message) parseType(p []byte) (rest []byte, err error) {
	a, _, rest, err := parseAVP(p)
	if err != nil {
		return nil, shift(err, ControlHeaderLen)
	}
	if a.Type != AVPMessageType || len(a.Value) != 2 || a.Hidden {
		return nil, &wire.ParseError{Layer: "L2TP", Field: "Message Type", Offset: ControlHeaderLen, Err: wire.ErrValue}
	}
	m.VendorID, m.Type, m.Mandatory = a.Vendor, MessageType(binary.BigEndian.Uint16(a.Value)), a.Mandatory
	return rest, nil
}

// shift makes the offset in a ParseError of an AVP one in its message.
func shift(err error, by int) error {
	if pe, ok := errors.AsType[*wire.ParseError](err); ok {
		pe.Offset += by
	}
	return err
}

// take checks an AVP: the vendor first, only then the type (RFC 2661 4.1).
func (m *Message) take(a AVP) {
	switch {
	case a.Vendor == VendorTwinkey:
		if a.Hidden && !m.vectored() {
			m.reject(a, ErrorValue, ErrHidden)
			return
		}
		m.AVPs = append(m.AVPs, a)
	case a.Vendor != 0 || a.Type.spec() == nil:
		m.reject(a, ErrorUnknownAVP, ErrUnknownAVP)
	default:
		m.takeKnown(a)
	}
}

// takeKnown checks an AVP of RFC 2661 against its row.
func (m *Message) takeKnown(a AVP) {
	s, bit := a.Type.spec(), uint64(1)<<a.Type
	switch {
	case m.seen&bit != 0 && s.rules&repeats == 0 || a.Type == AVPMessageType:
		m.reject(a, ErrorValue, ErrTwice)
		return
	case a.Hidden && (s.rules&hideable == 0 || !m.vectored()):
		m.reject(a, ErrorValue, ErrHidden)
		return
	case a.Hidden:
	default:
		if code, err := s.check(a.Value); err != nil {
			m.reject(a, code, err)
			return
		}
	}
	m.seen |= bit
	m.AVPs = append(m.AVPs, a)
}

// vectored says whether a Random Vector came already.
func (m *Message) vectored() bool { return m.seen&(1<<AVPRandomVector) != 0 }

// check looks at a value in the clear; the code is a general error code.
func (s *avpSpec) check(v []byte) (code uint16, err error) {
	switch {
	case len(v) < s.min || len(v) > s.max:
		return ErrorLength, wire.ErrLength
	case s.rules&nonzero != 0 && v[0] == 0 && v[1] == 0: // all of these have two bytes
		return ErrorValue, wire.ErrValue
	}
	return 0, nil
}

// reject passes an AVP over, or notes the fault that ends the session or tunnel.
func (m *Message) reject(a AVP, code uint16, err error) {
	m.Ignored++
	if a.Mandatory && m.fault == nil {
		m.fault = &AVPError{Vendor: a.Vendor, Type: a.Type, Offset: int(a.at), Code: code, Err: err}
	}
}

// Missing returns an *AVPError for the first AVP that a message of this type must carry
// and does not, or nil (RFC 2661 6.1 to 6.14).
func (m *Message) Missing() error {
	if m.VendorID != 0 || !m.Type.Known() || m.ZLB {
		return nil
	}
	for _, t := range messages[m.Type].must {
		if _, ok := m.Get(t); !ok {
			return &AVPError{Type: t, Offset: m.length, Code: ErrorValue, Err: ErrMissing}
		}
	}
	return nil
}

// AppendMessage appends a whole control message: header, Message Type, then avps, which
// Check must let pass. The M bit of Message Type is set for RFC 2661's own messages and
// clear for a vendor's.
func AppendMessage(b []byte, h ControlHeader, vendor uint16, t MessageType, avps ...AVP) []byte {
	at := len(b)
	b = h.Append(b, 0)
	b = appendType(b, vendor, t)
	for _, a := range avps {
		b = a.Append(b)
	}
	binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
	return b
}

func appendType(b []byte, vendor uint16, t MessageType) []byte {
	flags := uint16(avpHeader + 2)
	if vendor == 0 {
		flags |= avpMandatory
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, vendor)
	b = binary.BigEndian.AppendUint16(b, uint16(AVPMessageType))
	return binary.BigEndian.AppendUint16(b, uint16(t))
}

// AppendZLB appends an acknowledgement: h.Nr, and h.Ns of the message that comes next.
func AppendZLB(b []byte, h ControlHeader) []byte { return h.Append(b, 0) }

// PeekType returns vendor and type of a message without looking at the rest; false: it is
// a ZLB, or too short.
func PeekType(msg []byte) (vendor, typ uint16, ok bool) {
	if len(msg) < ControlHeaderLen+avpHeader+2 {
		return 0, 0, false
	}
	b := msg[ControlHeaderLen:]
	return binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[6:]), true
}
