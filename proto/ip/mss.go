package ip

import (
	"encoding/binary"
	"math/bits"
)

const (
	headerTCP = 20
	flagSYN   = 0x02

	optionEnd = 0 // TCP option kinds, RFC 9293 section 3.1
	optionNop = 1
	optionMSS = 2
	lenMSS    = 4
)

// ClampMSS lowers the Maximum Segment Size that a TCP SYN offers to what fits into mtu
// bytes: less the fixed headers alone, as RFC 6691 counts. The packet is changed in place
// and its checksum with it, by RFC 1624, so a checksum that was wrong stays wrong. It
// tells whether anything was changed. A SYN without the option is left alone, and so is
// everything whose options cannot be read.
func ClampMSS(p Packet, mtu int) bool {
	tcp := p.Payload()
	if p.proto != TCP || p.offset != 0 || len(tcp) < headerTCP || tcp[13]&flagSYN == 0 {
		return false
	}
	header := headerV6
	if p.Version() == 4 {
		header = headerV4
	}
	end, most := int(tcp[12]>>4)*4, mtu-header-headerTCP
	if end < headerTCP || end > len(tcp) || most <= 0 || most > 0xffff {
		return false
	}
	for i := headerTCP; i < end; {
		switch tcp[i] {
		case optionEnd:
			return false
		case optionNop:
			i++
			continue
		}
		if i+1 >= end {
			return false
		}
		n := int(tcp[i+1])
		if n < 2 || i+n > end {
			return false
		}
		if tcp[i] == optionMSS && n == lenMSS {
			return clamp(tcp, i+2, uint16(most))
		}
		i += n
	}
	return false
}

// clamp lowers the 16-bit value at tcp[at:].
func clamp(tcp []byte, at int, most uint16) bool {
	old := binary.BigEndian.Uint16(tcp[at:])
	if old <= most {
		return false
	}
	binary.BigEndian.PutUint16(tcp[at:], most)
	if at%2 == 1 {
		// It lies across two words of the sum, its bytes in the other halves (RFC 1071 2.B).
		old, most = bits.ReverseBytes16(old), bits.ReverseBytes16(most)
	}
	sum := tcp[16:18]
	binary.BigEndian.PutUint16(sum, Update(binary.BigEndian.Uint16(sum), old, most))
	return true
}
