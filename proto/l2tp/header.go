package l2tp

import (
	"encoding/binary"

	"twinkey/proto/wire"
)

// Flags of the first 16 bits (RFC 2661 3.1).
const (
	flagType     = 0x8000 // T: control message
	flagLength   = 0x4000 // L: Length is present
	flagSequence = 0x0800 // S: Ns and Nr are present
	flagOffset   = 0x0200 // O: Offset Size is present
	flagPriority = 0x0100 // P
	versionMask  = 0x000f
	version2     = 2
)

const (
	// ControlHeaderLen is the length of a control message's header, bytes.
	ControlHeaderLen = 12
	// MinimalHeader is the length of a data header without options, bytes.
	MinimalHeader = 6
	// MaxMessage is the longest control message that is read, bytes.
	MaxMessage = 4096
)

// ControlHeader is the header of a control message (RFC 2661 3.1, with T, L and S set).
type ControlHeader struct {
	TunnelID, SessionID uint16 // the receiver's
	Ns, Nr              uint16
}

// ParseControlHeader reads and checks the header of msg, of which nothing may follow the
// length that it states.
func ParseControlHeader(msg []byte) (h ControlHeader, err error) {
	r := wire.NewReader("L2TP", msg)
	flags := r.Uint16("flags")
	if r.Err() == nil && flags&(flagType|flagLength|flagSequence|flagOffset|flagPriority|versionMask) != flagType|flagLength|flagSequence|version2 {
		r.Fail("flags", wire.ErrValue)
	}
	if n := int(r.Uint16("Length")); r.Err() == nil && (n != len(msg) || n > MaxMessage) {
		r.Fail("Length", wire.ErrLength)
	}
	h.TunnelID = r.Uint16("Tunnel ID")
	h.SessionID = r.Uint16("Session ID")
	h.Ns = r.Uint16("Ns")
	h.Nr = r.Uint16("Nr")
	return h, r.Err()
}

// Append appends the header of a message whose body has n bytes.
func (h ControlHeader) Append(b []byte, n int) []byte {
	b = binary.BigEndian.AppendUint16(b, flagType|flagLength|flagSequence|version2)
	b = binary.BigEndian.AppendUint16(b, uint16(ControlHeaderLen+n))
	b = binary.BigEndian.AppendUint16(b, h.TunnelID)
	b = binary.BigEndian.AppendUint16(b, h.SessionID)
	b = binary.BigEndian.AppendUint16(b, h.Ns)
	return binary.BigEndian.AppendUint16(b, h.Nr)
}

// DataHeader is the header of a data message.
type DataHeader struct {
	TunnelID, SessionID uint16
	Priority            bool
	HasLength           bool
	Sequenced           bool
	Ns, Nr              uint16 // with Sequenced
	HasOffset           bool
	OffsetSize          uint16 // bytes of padding in front of the payload
}

// ParseData reads a data header in all its forms and returns the payload, a part of msg.
func ParseData(msg []byte) (h DataHeader, payload []byte, err error) {
	r := wire.NewReader("L2TP", msg)
	flags := r.Uint16("flags")
	if r.Err() == nil && flags&(flagType|versionMask) != version2 {
		r.Fail("flags", wire.ErrValue)
	}
	end := len(msg)
	if h.HasLength = flags&flagLength != 0; h.HasLength {
		if end = int(r.Uint16("Length")); r.Err() == nil && end > len(msg) {
			r.Fail("Length", wire.ErrLength)
		}
	}
	h.Priority = flags&flagPriority != 0
	h.TunnelID = r.Uint16("Tunnel ID")
	h.SessionID = r.Uint16("Session ID")
	if h.Sequenced = flags&flagSequence != 0; h.Sequenced {
		h.Ns, h.Nr = r.Uint16("Ns"), r.Uint16("Nr")
	}
	if h.HasOffset = flags&flagOffset != 0; h.HasOffset {
		h.OffsetSize = r.Uint16("Offset Size")
		r.Bytes("Offset Pad", int(h.OffsetSize))
	}
	payload = r.Bytes("payload", end-r.Offset())
	return h, payload, r.Err()
}

// AppendMinimal appends the data header of 6 bytes: no length, sequence, offset, priority.
func AppendMinimal(b []byte, tunnel, session uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, version2)
	b = binary.BigEndian.AppendUint16(b, tunnel)
	return binary.BigEndian.AppendUint16(b, session)
}
