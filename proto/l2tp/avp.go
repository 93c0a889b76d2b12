package l2tp

import (
	"encoding/binary"
	"fmt"

	"twinkey/proto/wire"
)

// VendorTwinkey is the SMI code under which our own messages and AVPs go. It is not
// assigned to anybody; both ends are ours and meet only after a handshake of our own.
const VendorTwinkey uint16 = 0xFFFE

// AVPType is the attribute type of an AVP with vendor ID 0 (RFC 2661 4.4).
type AVPType uint16

// The AVPs of RFC 2661.
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
	avpHeader                         = 6
	maxAVP                            = 1023 // Length has 10 bits
	maxAVPs                           = 64   // in one message
	avpMandatory                      = 0x8000
	avpHidden                         = 0x4000
	avpReserved                       = 0x3c00
)

// avpSpec is one row of the registry.
type avpSpec struct {
	name     string
	min, max int // length of the value, bytes
	hideable bool
}

// avps is the registry; the codepoint is the index (RFC 2661 4.4.1 to 4.4.6).
var avps = [...]avpSpec{
	AVPMessageType:            {"Message Type", 2, 2, false},
	AVPResultCode:             {"Result Code", 2, maxAVP, false},
	AVPProtocolVersion:        {"Protocol Version", 2, 2, false},
	AVPFramingCapabilities:    {"Framing Capabilities", 4, 4, true},
	AVPBearerCapabilities:     {"Bearer Capabilities", 4, 4, true},
	AVPTieBreaker:             {"Tie Breaker", 8, 8, false},
	AVPFirmwareRevision:       {"Firmware Revision", 2, 2, true},
	AVPHostName:               {"Host Name", 1, maxAVP, false},
	AVPVendorName:             {"Vendor Name", 0, maxAVP, true},
	AVPAssignedTunnelID:       {"Assigned Tunnel ID", 2, 2, true},
	AVPReceiveWindowSize:      {"Receive Window Size", 2, 2, false},
	AVPChallenge:              {"Challenge", 1, maxAVP, true},
	AVPQ931CauseCode:          {"Q.931 Cause Code", 3, maxAVP, false},
	AVPChallengeResponse:      {"Challenge Response", 16, 16, true},
	AVPAssignedSessionID:      {"Assigned Session ID", 2, 2, true},
	AVPCallSerialNumber:       {"Call Serial Number", 4, 4, true},
	AVPMinimumBPS:             {"Minimum BPS", 4, 4, true},
	AVPMaximumBPS:             {"Maximum BPS", 4, 4, true},
	AVPBearerType:             {"Bearer Type", 4, 4, true},
	AVPFramingType:            {"Framing Type", 4, 4, true},
	AVPCalledNumber:           {"Called Number", 0, maxAVP, true},
	AVPCallingNumber:          {"Calling Number", 0, maxAVP, true},
	AVPSubAddress:             {"Sub-Address", 0, maxAVP, true},
	AVPTxConnectSpeed:         {"(Tx) Connect Speed", 4, 4, true},
	AVPPhysicalChannelID:      {"Physical Channel ID", 4, 4, true},
	AVPInitialReceivedConfReq: {"Initial Received LCP CONFREQ", 0, maxAVP, true},
	AVPLastSentConfReq:        {"Last Sent LCP CONFREQ", 0, maxAVP, true},
	AVPLastReceivedConfReq:    {"Last Received LCP CONFREQ", 0, maxAVP, true},
	AVPProxyAuthenType:        {"Proxy Authen Type", 2, 2, true},
	AVPProxyAuthenName:        {"Proxy Authen Name", 0, maxAVP, true},
	AVPProxyAuthenChallenge:   {"Proxy Authen Challenge", 0, maxAVP, true},
	AVPProxyAuthenID:          {"Proxy Authen ID", 2, 2, true},
	AVPProxyAuthenResponse:    {"Proxy Authen Response", 0, maxAVP, true},
	AVPCallErrors:             {"Call Errors", 26, 26, true},
	AVPACCM:                   {"ACCM", 10, 10, true},
	AVPRandomVector:           {"Random Vector", 1, maxAVP, false},
	AVPPrivateGroupID:         {"Private Group ID", 0, maxAVP, true},
	AVPRxConnectSpeed:         {"Rx Connect Speed", 4, 4, true},
	AVPSequencingRequired:     {"Sequencing Required", 0, 0, false},
}

func (t AVPType) String() string {
	if int(t) < len(avps) && avps[t].name != "" {
		return avps[t].name
	}
	return fmt.Sprintf("AVP %d", uint16(t))
}

// AVP is one attribute-value pair:
//
//	|M|H| rsvd  |      Length       |           Vendor ID           |
//	|         Attribute Type        |        Attribute Value...
type AVP struct {
	Mandatory, Hidden bool
	Vendor            uint16
	Type              AVPType
	Value             []byte
}

// ParseAVP reads one AVP from the front of p; Value is a part of p.
func ParseAVP(p []byte) (a AVP, rest []byte, err error) {
	r := wire.NewReader("L2TP AVP", p)
	flags := r.Uint16("flags and Length")
	n := int(flags & maxAVP)
	if r.Err() == nil && n < avpHeader {
		r.Fail("Length", wire.ErrLength)
	}
	a.Mandatory, a.Hidden = flags&avpMandatory != 0, flags&avpHidden != 0
	a.Vendor = r.Uint16("Vendor ID")
	a.Type = AVPType(r.Uint16("Attribute Type"))
	a.Value = r.Bytes("Attribute Value", n-avpHeader)
	if err := r.Err(); err != nil {
		return AVP{}, nil, err
	}
	return a, p[n:], nil
}

// Append appends the AVP. Value has at most 1017 bytes.
func (a AVP) Append(b []byte) []byte {
	flags := uint16(avpHeader + len(a.Value))
	if a.Mandatory {
		flags |= avpMandatory
	}
	if a.Hidden {
		flags |= avpHidden
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, a.Vendor)
	b = binary.BigEndian.AppendUint16(b, uint16(a.Type))
	return append(b, a.Value...)
}

// Uint16 makes a mandatory AVP of two bytes, Uint32 one of four, String one of text.
func Uint16(t AVPType, v uint16) AVP {
	return AVP{Mandatory: true, Type: t, Value: binary.BigEndian.AppendUint16(nil, v)}
}

// Uint32 makes a mandatory AVP of four bytes.
func Uint32(t AVPType, v uint32) AVP {
	return AVP{Mandatory: true, Type: t, Value: binary.BigEndian.AppendUint32(nil, v)}
}
