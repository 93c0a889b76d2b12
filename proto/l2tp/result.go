package l2tp

import (
	"encoding/binary"
	"fmt"
)

// Result codes of StopCCN (RFC 2661 4.4.2).
const (
	StopRequest     uint16 = 1 // general request to clear the control connection
	StopError       uint16 = 2 // general error, see the error code
	StopExists      uint16 = 3 // control channel already exists
	StopNotAllowed  uint16 = 4 // requester is not authorized
	StopVersion     uint16 = 5 // protocol version not supported; the error code says which is
	StopShutdown    uint16 = 6 // requester is being shut down
	StopStateEngine uint16 = 7 // finite state machine error
)

// Result codes of CDN (RFC 2661 4.4.2).
const (
	CallLostCarrier     uint16 = 1  // loss of carrier
	CallError           uint16 = 2  // see the error code
	CallAdministrative  uint16 = 3  // disconnected for administrative reasons
	CallNoFacilities    uint16 = 4  // lack of facilities, temporary
	CallNeverFacilities uint16 = 5  // lack of facilities, permanent
	CallDestination     uint16 = 6  // invalid destination
	CallNoCarrier       uint16 = 7  // no carrier detected
	CallBusy            uint16 = 8  // busy signal
	CallNoDialTone      uint16 = 9  // lack of a dial tone
	CallTimeout         uint16 = 10 // not established within the time allotted
	CallNoFraming       uint16 = 11 // no appropriate framing was detected
)

// General error codes, with StopError and CallError (RFC 2661 4.4.2).
const (
	ErrorNone       uint16 = 0
	ErrorNoControl  uint16 = 1 // no control connection exists yet
	ErrorLength     uint16 = 2 // length is wrong
	ErrorValue      uint16 = 3 // a field was out of range, or reserved and not zero
	ErrorResources  uint16 = 4 // insufficient resources
	ErrorSession    uint16 = 5 // the Session ID is invalid in this context
	ErrorVendor     uint16 = 6 // vendor-specific error
	ErrorTryAnother uint16 = 7
	ErrorUnknownAVP uint16 = 8 // unknown AVP with the M bit set
)

// maxResultText bounds the text that we send, in bytes.
const maxResultText = 200

// Result says why a tunnel (StopCCN) or a session (CDN) ends.
type Result struct {
	Code    uint16
	Error   uint16 // with StopError, CallError and StopVersion
	Message string // for people; may be empty
}

func (r Result) String() string {
	s := fmt.Sprintf("result %d", r.Code)
	if r.Error != 0 {
		s += fmt.Sprintf(", error %d", r.Error)
	}
	if r.Message != "" {
		s += fmt.Sprintf(": %q", r.Message)
	}
	return s
}

// AVP encodes the result in the shortest of its three forms: code alone, with an error
// code, with a text, which is cut to 200 bytes.
func (r Result) AVP() AVP {
	b := binary.BigEndian.AppendUint16(nil, r.Code)
	if r.Error != 0 || r.Message != "" {
		b = binary.BigEndian.AppendUint16(b, r.Error)
	}
	return Bytes(AVPResultCode, append(b, r.Message[:min(len(r.Message), maxResultText)]...))
}

// Result returns what StopCCN or CDN says. An AVP of 8 bytes, without error code, is as
// good as one with (RFC 2661 4.4.2; peers were refused for it).
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
