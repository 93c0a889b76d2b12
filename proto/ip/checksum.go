package ip

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds b to a ones' complement sum of 16-bit words (RFC 1071), begun with 0. Only the
// last of several parts may have an odd length.
func Sum(sum uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 64 { // one chain of carries: the compiler keeps it in the flag
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[56:]), carry)
		sum, carry = bits.Add64(sum, 0, carry)
		sum += carry
		b = b[64:]
	}
	carry = 0
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	sum, carry = bits.Add64(sum, 0, carry)
	sum += carry
	// What is left is less than 8 bytes: it is folded first, so nothing overflows.
	sum = sum>>32 + sum&0xffffffff
	if len(b) >= 4 {
		sum += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// Checksum is the Internet checksum of a sum: folded to 16 bits and complemented.
func Checksum(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Update is the checksum after a 16-bit word has changed from old to now (RFC 1624,
// equation 3). A field at an odd offset is given with its bytes swapped.
func Update(checksum, old, now uint16) uint16 {
	return Checksum(uint64(^checksum) + uint64(^old) + uint64(now))
}

// PseudoSum is the sum of the pseudo-header of a payload of n bytes (RFC 9293 section
// 3.1, RFC 8200 section 8.1).
func (p Packet) PseudoSum(proto Protocol, n int) uint64 {
	from, to := 8, headerV6
	if p.Version() == 4 {
		from, to = 12, headerV4
	}
	return Sum(0, p.b[from:to]) + uint64(proto) + uint64(n)
}

// HeaderOK verifies the header checksum of an IPv4 packet; true for IPv6, which has none.
func (p Packet) HeaderOK() bool {
	return p.Version() == 6 || Checksum(Sum(0, p.b[:p.l4])) == 0
}
