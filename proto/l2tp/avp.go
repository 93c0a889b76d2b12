package l2tp

import (
	"encoding/binary"
	"fmt"

	"twinkey/proto/wire"
)

// VendorTwinkey is the vendor ID under which our own messages and AVPs go. It is assigned
// to nobody; both ends are ours and meet only after a handshake of our own.
const VendorTwinkey uint16 = 0xFFFE

// AVPType is the attribute type of an AVP; the constants are those of vendor ID 0.
type AVPType uint16

// The AVPs of RFC 2661 4.4. Type 20 was never assigned.
const (
	AVPMessageType            AVPType = 0
	AVPResultCode             AVPType = 1
	AVPProtocolVersion        AVPType = 2
	AVPFramingCapabilities    AVPType = 3
	AVPBearerCapabilities     AVPType = 4
	AVPTieBreaker             AVPType = 5
	AVPFirmwareRevision       AVPType = 6
	AVPHostName               AVPType = 7
	AVPVendorName             AVPType = 8
	AVPAssignedTunnelID       AVPType = 9
	AVPReceiveWindowSize      AVPType = 10
	AVPChallenge              AVPType = 11
	AVPQ931CauseCode          AVPType = 12
	AVPChallengeResponse      AVPType = 13
	AVPAssignedSessionID      AVPType = 14
	AVPCallSerialNumber       AVPType = 15
	AVPMinimumBPS             AVPType = 16
	AVPMaximumBPS             AVPType = 17
	AVPBearerType             AVPType = 18
	AVPFramingType            AVPType = 19
	AVPCalledNumber           AVPType = 21
	AVPCallingNumber          AVPType = 22
	AVPSubAddress             AVPType = 23
	AVPTxConnectSpeed         AVPType = 24
	AVPPhysicalChannelID      AVPType = 25
	AVPInitialReceivedConfReq AVPType = 26
	AVPLastSentConfReq        AVPType = 27
	AVPLastReceivedConfReq    AVPType = 28
	AVPProxyAuthenType        AVPType = 29
	AVPProxyAuthenName        AVPType = 30
	AVPProxyAuthenChallenge   AVPType = 31
	AVPProxyAuthenID          AVPType = 32
	AVPProxyAuthenResponse    AVPType = 33
	AVPCallErrors             AVPType = 34
	AVPACCM                   AVPType = 35
	AVPRandomVector           AVPType = 36
	AVPPrivateGroupID         AVPType = 37
	AVPRxConnectSpeed         AVPType = 38
	AVPSequencingRequired     AVPType = 39
)

const (
	avpHeader    = 6
	avpMandatory = 0x8000
	avpHidden    = 0x4000
	avpReserved  = 0x3c00
	avpLength    = 0x03ff

	// MaxValue is the longest value of an AVP, in bytes: Length has 10 bits.
	MaxValue = avpLength - avpHeader
	// MaxAVPs is how many AVPs a message may have: RFC 2661 defines 40 types.
	MaxAVPs = 64
)

// rule is what RFC 2661 4.4 says of an AVP besides its length.
type rule uint8

const (
	mandatory rule = 1 << iota // the M bit is sent
	hideable                   // the H bit may be set
	nonzero                    // the value 0 is not allowed
	repeats                    // may stand in a message more than once
)

// avpSpec is a row of the registry.
type avpSpec struct {
	name     string
	min, max int // length of the value, in bytes
	rules    rule
}

// avps is the registry: the codepoint is the index.
var avps = [...]avpSpec{
	// 4.4.1 applicable to all control messages; 4.4.2 result and error codes
	AVPMessageType:  {"Message Type", 2, 2, mandatory},
	AVPRandomVector: {"Random Vector", 1, MaxValue, mandatory | repeats},
	AVPResultCode:   {"Result Code", 2, MaxValue, mandatory},
	// 4.4.3 control connection management
	AVPProtocolVersion:     {"Protocol Version", 2, 2, mandatory},
	AVPFramingCapabilities: {"Framing Capabilities", 4, 4, mandatory | hideable},
	AVPBearerCapabilities:  {"Bearer Capabilities", 4, 4, mandatory | hideable},
	AVPTieBreaker:          {"Tie Breaker", 8, 8, 0},
	AVPFirmwareRevision:    {"Firmware Revision", 2, 2, hideable},
	AVPHostName:            {"Host Name", 1, MaxValue, mandatory},
	AVPVendorName:          {"Vendor Name", 0, MaxValue, hideable},
	AVPAssignedTunnelID:    {"Assigned Tunnel ID", 2, 2, mandatory | hideable | nonzero},
	AVPReceiveWindowSize:   {"Receive Window Size", 2, 2, mandatory | nonzero},
	AVPChallenge:           {"Challenge", 1, MaxValue, mandatory | hideable},
	AVPChallengeResponse:   {"Challenge Response", 16, 16, mandatory | hideable},
	// 4.4.4 call management
	AVPQ931CauseCode:      {"Q.931 Cause Code", 3, MaxValue, mandatory},
	AVPAssignedSessionID:  {"Assigned Session ID", 2, 2, mandatory | hideable | nonzero},
	AVPCallSerialNumber:   {"Call Serial Number", 4, 4, mandatory | hideable},
	AVPMinimumBPS:         {"Minimum BPS", 4, 4, mandatory | hideable},
	AVPMaximumBPS:         {"Maximum BPS", 4, 4, mandatory | hideable},
	AVPBearerType:         {"Bearer Type", 4, 4, mandatory | hideable},
	AVPFramingType:        {"Framing Type", 4, 4, mandatory | hideable},
	AVPCalledNumber:       {"Called Number", 0, MaxValue, mandatory | hideable},
	AVPCallingNumber:      {"Calling Number", 0, MaxValue, mandatory | hideable},
	AVPSubAddress:         {"Sub-Address", 0, MaxValue, mandatory | hideable},
	AVPTxConnectSpeed:     {"(Tx) Connect Speed", 4, 4, mandatory | hideable},
	AVPRxConnectSpeed:     {"Rx Connect Speed", 4, 4, hideable},
	AVPPhysicalChannelID:  {"Physical Channel ID", 4, 4, hideable},
	AVPPrivateGroupID:     {"Private Group ID", 0, MaxValue, hideable},
	AVPSequencingRequired: {"Sequencing Required", 0, 0, mandatory},
	// 4.4.5 proxy LCP and authentication
	AVPInitialReceivedConfReq: {"Initial Received LCP CONFREQ", 0, MaxValue, hideable},
	AVPLastSentConfReq:        {"Last Sent LCP CONFREQ", 0, MaxValue, hideable},
	AVPLastReceivedConfReq:    {"Last Received LCP CONFREQ", 0, MaxValue, hideable},
	AVPProxyAuthenType:        {"Proxy Authen Type", 2, 2, hideable},
	AVPProxyAuthenName:        {"Proxy Authen Name", 0, MaxValue, hideable},
	AVPProxyAuthenChallenge:   {"Proxy Authen Challenge", 1, MaxValue, hideable},
	AVPProxyAuthenID:          {"Proxy Authen ID", 2, 2, hideable},
	AVPProxyAuthenResponse:    {"Proxy Authen Response", 0, MaxValue, hideable},
	// 4.4.6 call status
	AVPCallErrors: {"Call Errors", 26, 26, mandatory | hideable},
	AVPACCM:       {"ACCM", 10, 10, mandatory | hideable},
}

// spec returns the registry's row of a type of vendor ID 0; nil: not recognized.
func (t AVPType) spec() *avpSpec {
	if int(t) >= len(avps) || avps[t].name == "" {
		return nil
	}
	return &avps[t]
}

func (t AVPType) String() string {
	if s := t.spec(); s != nil {
		return s.name
	}
	return fmt.Sprintf("AVP %d", uint16(t))
}

// AVP is one attribute-value pair.
type AVP struct {
	Mandatory bool   // M: who does not know the AVP must end the session or tunnel
	Hidden    bool   // H: Value is a Hidden AVP Subformat, enciphered (see Hide)
	Vendor    uint16 // SMI enterprise code; 0: Type is one of the constants
	Type      AVPType
	Value     []byte // at most MaxValue bytes

	at uint16 // where it was found, in bytes from the start of the message
}

// ParseAVP reads one AVP from the front of p. Value is a part of p. Reserved bits are not
// looked at; Message.Parse does.
func ParseAVP(p []byte) (a AVP, rest []byte, err error) {
	a, _, rest, err = parseAVP(p)
	return a, rest, err
}

func parseAVP(p []byte) (a AVP, reserved bool, rest []byte, err error) {
	r := wire.NewReader("L2TP AVP", p)
	flags := r.Uint16("flags and Length")
	n := int(flags & avpLength)
	if n < avpHeader {
		r.Fail("Length", wire.ErrLength)
	}
	a.Mandatory, a.Hidden = flags&avpMandatory != 0, flags&avpHidden != 0
	a.Vendor = r.Uint16("Vendor ID")
	a.Type = AVPType(r.Uint16("Attribute Type"))
	a.Value = r.Bytes("Attribute Value", n-avpHeader)
	if err := r.Err(); err != nil {
		return AVP{}, false, nil, err
	}
	return a, flags&avpReserved != 0, p[n:], nil
}

// Append appends the AVP. A value above MaxValue, which Check refuses, is cut.
func (a AVP) Append(b []byte) []byte {
	v := a.Value[:min(len(a.Value), MaxValue)]
	flags := uint16(avpHeader + len(v))
	if a.Mandatory {
		flags |= avpMandatory
	}
	if a.Hidden {
		flags |= avpHidden
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, a.Vendor)
	b = binary.BigEndian.AppendUint16(b, uint16(a.Type))
	return append(b, v...)
}

// Check says whether avps fit one message; the error is a *wire.ParseError.
func Check(avps ...AVP) error {
	n := ControlHeaderLen + avpHeader + 2 // with Message Type
	for _, a := range avps {
		if len(a.Value) > MaxValue {
			return &wire.ParseError{Layer: "L2TP", Field: a.Type.String(), Offset: n, Err: wire.ErrLength}
		}
		n += avpHeader + len(a.Value)
	}
	if n > MaxMessage || len(avps) > MaxAVPs {
		return &wire.ParseError{Layer: "L2TP", Field: "message", Offset: n, Err: wire.ErrLength}
	}
	return nil
}

// Bytes makes an AVP of vendor ID 0 with the M bit that RFC 2661 gives it. It keeps v.
func Bytes(t AVPType, v []byte) AVP {
	s := t.spec()
	return AVP{Mandatory: s != nil && s.rules&mandatory != 0, Type: t, Value: v}
}

// Text makes an AVP of text.
func Text(t AVPType, v string) AVP { return Bytes(t, []byte(v)) }

// Uint16 makes an AVP of two bytes.
func Uint16(t AVPType, v uint16) AVP { return Bytes(t, binary.BigEndian.AppendUint16(nil, v)) }

// Uint32 makes an AVP of four bytes.
func Uint32(t AVPType, v uint32) AVP { return Bytes(t, binary.BigEndian.AppendUint32(nil, v)) }
