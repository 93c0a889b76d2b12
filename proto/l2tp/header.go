package l2tp

import (
	"encoding/binary"

	"twinkey/proto/wire"
)

// Flags of the first 16 bits (RFC 2661 3.1). The others are reserved: sent as 0, ignored
// when received.
const (
	flagType     = 0x8000 // T: control message
	flagLength   = 0x4000 // L: Length is present
	flagSequence = 0x0800 // S: Ns and Nr are present
	flagOffset   = 0x0200 // O: Offset Size is present
	flagPriority = 0x0100 // P
	versionMask  = 0x000f
	version2     = 2

	controlFlags = flagType | flagLength | flagSequence | version2
	controlMask  = controlFlags | flagOffset | flagPriority | versionMask
)

const (
	// ControlHeaderLen is the length of a control message's header, in bytes.
	ControlHeaderLen = 12
	// MinimalHeader is the length of a data header without options, in bytes.
	MinimalHeader = 6
	// MaxMessage is the longest control message that is read or written, in bytes. The
	// longest that anybody sends is an ICCN with proxy authentication, below 1,500.
	MaxMessage = 4096

	maxLength = 0xffff // what a Length field can say
)

// ControlHeader is the header of a control message.
type ControlHeader struct {
	TunnelID, SessionID uint16 // the receiver's; 0 as long as the sender does not know it
	Ns                  uint16 // number of this message; of a ZLB: of the next one
	Nr                  uint16 // number that is expected next from the receiver
}

// ParseControlHeader reads and checks the header of msg, which must be as long as the
// Length field says, and not longer than MaxMessage.
func ParseControlHeader(msg []byte) (ControlHeader, error) {
	var h ControlHeader
	r := wire.NewReader("L2TP", msg)
	if r.Uint16("flags")&controlMask != controlFlags {
		r.Fail("flags", wire.ErrValue)
	}
	switch n := int(r.Uint16("Length")); {
	case n > MaxMessage || n < ControlHeaderLen:
		r.Fail("Length", wire.ErrLength)
	case n > len(msg):
		r.Fail("Length", wire.ErrTruncated)
	case n < len(msg):
		r.Fail("Length", wire.ErrTrailing)
	}
	h.TunnelID = r.Uint16("Tunnel ID")
	h.SessionID = r.Uint16("Session ID")
	h.Ns = r.Uint16("Ns")
	h.Nr = r.Uint16("Nr")
	return h, r.Err()
}

// Append appends the header of a message whose AVPs take n bytes in all.
func (h ControlHeader) Append(b []byte, n int) []byte {
	b = binary.BigEndian.AppendUint16(b, controlFlags)
	b = binary.BigEndian.AppendUint16(b, uint16(ControlHeaderLen+n))
	b = binary.BigEndian.AppendUint16(b, h.TunnelID)
	b = binary.BigEndian.AppendUint16(b, h.SessionID)
	b = binary.BigEndian.AppendUint16(b, h.Ns)
	return binary.BigEndian.AppendUint16(b, h.Nr)
}

// DataHeader is the header of a data message.
type DataHeader struct {
	TunnelID, SessionID uint16 // the receiver's
	Priority            bool   // P: to be preferred in queues
	HasLength           bool
	Sequenced           bool
	Ns, Nr              uint16 // with Sequenced; Nr is reserved (RFC 2661 3.1)
	HasOffset           bool
	OffsetSize          uint16 // bytes of padding in front of the payload, with HasOffset
}

// ParseData reads a data header in all its forms and returns the payload, a part of msg.
// What follows the message's Length, if it has one, is padding of a lower layer.
func ParseData(msg []byte) (h DataHeader, payload []byte, err error) {
	r := wire.NewReader("L2TP", msg)
	flags := r.Uint16("flags")
	// A 1 in the version is L2F, a 3 is L2TPv3 (RFC 2661 3.1): neither is for us.
	if flags&(flagType|versionMask) != version2 {
		r.Fail("flags", wire.ErrValue)
	}
	end := len(msg)
	if h.HasLength = flags&flagLength != 0; h.HasLength {
		if end = int(r.Uint16("Length")); end > len(msg) {
			r.Fail("Length", wire.ErrTruncated)
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
		r.Bytes("Offset pad", int(h.OffsetSize))
	}
	payload = r.Bytes("payload", end-r.Offset())
	if err := r.Err(); err != nil {
		return DataHeader{}, nil, err
	}
	return h, payload, nil
}

// Len is the length of the header with its padding, in bytes.
func (h DataHeader) Len() int {
	n := MinimalHeader
	if h.HasLength {
		n += 2
	}
	if h.Sequenced {
		n += 4
	}
	if h.HasOffset {
		n += 2 + int(h.OffsetSize)
	}
	return n
}

// Append appends the header of a message with n bytes of payload. Where the whole does
// not fit a Length field, which is optional, it has none.
func (h DataHeader) Append(b []byte, n int) []byte {
	if h.Len()+n > maxLength {
		h.HasLength = false
	}
	flags := uint16(version2)
	for _, f := range [...]struct {
		set bool
		bit uint16
	}{{h.HasLength, flagLength}, {h.Sequenced, flagSequence}, {h.HasOffset, flagOffset}, {h.Priority, flagPriority}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	if h.HasLength {
		b = binary.BigEndian.AppendUint16(b, uint16(h.Len()+n))
	}
	b = binary.BigEndian.AppendUint16(b, h.TunnelID)
	b = binary.BigEndian.AppendUint16(b, h.SessionID)
	if h.Sequenced {
		b = binary.BigEndian.AppendUint16(b, h.Ns)
		b = binary.BigEndian.AppendUint16(b, h.Nr)
	}
	if h.HasOffset {
		b = binary.BigEndian.AppendUint16(b, h.OffsetSize)
		b = append(b, make([]byte, h.OffsetSize)...)
	}
	return b
}

// AppendData appends a whole data message.
func AppendData(b []byte, h DataHeader, payload []byte) []byte {
	return append(h.Append(b, len(payload)), payload...)
}

// AppendMinimal appends a data header of 6 bytes: no length, sequence, offset, priority.
func AppendMinimal(b []byte, tunnel, session uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, version2)
	b = binary.BigEndian.AppendUint16(b, tunnel)
	return binary.BigEndian.AppendUint16(b, session)
}
