package twincert

import (
	"bytes"
	"encoding/asn1"
	"math/bits"
	"net/netip"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// RFC 3779 2.2.3:
//
//	IPAddrBlocks     ::= SEQUENCE OF IPAddressFamily
//	IPAddressFamily  ::= SEQUENCE { addressFamily OCTET STRING (SIZE (2..3)),
//	                                CHOICE { inherit NULL, SEQUENCE OF IPAddressOrRange } }
//	IPAddressOrRange ::= CHOICE { addressPrefix BIT STRING,
//	                              addressRange SEQUENCE { min BIT STRING, max BIT STRING } }
//
// There is one canonical form (2.2.3.6): families and addresses ascend, what touches is
// one, and what a prefix can say is no range. Nothing else is written or read. Inheritance
// and families with a SAFI are refused.

// Address family numbers (RFC 3779 2.2.3.3).
const (
	afiIPv4 = 1
	afiIPv6 = 2
)

// span is a range of addresses of one family, both ends in it.
type span struct{ lo, hi netip.Addr }

// lastOf is the highest address in p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// spansOf merges prefixes into the fewest spans, IPv4 first, ascending.
func spansOf(ps []netip.Prefix) (out []span) {
	for _, p := range slices.SortedFunc(slices.Values(ps), netip.Prefix.Compare) {
		s := span{p.Addr(), lastOf(p)}
		n := len(out) - 1
		if n < 0 || out[n].hi.BitLen() != s.lo.BitLen() || out[n].hi.Next().IsValid() && out[n].hi.Next().Less(s.lo) {
			out = append(out, s)
			continue
		}
		if out[n].hi.Less(s.hi) {
			out[n].hi = s.hi
		}
	}
	return out
}

// appendPrefixes says s in the fewest prefixes, and false where these would be more than
// a certificate may hold.
func (s span) appendPrefixes(ps []netip.Prefix) ([]netip.Prefix, bool) {
	for a := s.lo; len(ps) < maxPrefixes; {
		p := netip.PrefixFrom(a, a.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(a, p.Bits()-1)
			if wider.Masked().Addr() != a || s.hi.Less(lastOf(wider)) {
				break
			}
			p = wider
		}
		ps = append(ps, p)
		if lastOf(p) == s.hi {
			return ps, true
		}
		a = lastOf(p).Next()
	}
	return nil, false
}

// addBlocks writes the canonical form of ps.
func addBlocks(b *cryptobyte.Builder, ps []netip.Prefix) {
	all := spansOf(ps)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, f := range []struct {
			afi  byte
			size int
		}{{afiIPv4, 32}, {afiIPv6, 128}} {
			family := slices.DeleteFunc(slices.Clone(all), func(s span) bool { return s.lo.BitLen() != f.size })
			if len(family) == 0 {
				continue
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1OctetString([]byte{0, f.afi})
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, s := range family {
						s.add(b)
					}
				})
			})
		}
	})
}

// add writes an IPAddressOrRange. Of a range's ends the trailing bits that go without
// saying are left out (2.2.3.9): zeros of the lower, ones of the upper.
func (s span) add(b *cryptobyte.Builder) {
	if p, ok := s.appendPrefixes(nil); ok && len(p) == 1 {
		addBits(b, s.lo.AsSlice(), p[0].Bits())
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		lo, hi := s.lo.AsSlice(), s.hi.AsSlice()
		addBits(b, lo, 8*len(lo)-trailing(lo, 0x00))
		addBits(b, hi, 8*len(hi)-trailing(hi, 0xff))
	})
}

// trailing counts the bits at the end of b that are those of fill.
func trailing(b []byte, fill byte) (n int) {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != fill {
			return n + bits.TrailingZeros8(b[i]^fill)
		}
		n += 8
	}
	return n
}

func addBits(b *cryptobyte.Builder, addr []byte, n int) {
	octets := (n + 7) / 8
	unused := 8*octets - n
	b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) {
		b.AddUint8(uint8(unused)) //nolint:gosec // 0 to 7
		if octets > 0 {
			b.AddBytes(addr[:octets-1])
			b.AddUint8(addr[octets-1] >> unused << unused)
		}
	})
}

// parseBlocks reads IPAddrBlocks and says ranges in prefixes.
func parseBlocks(v []byte) ([]netip.Prefix, error) {
	in := cryptobyte.String(v)
	var families cryptobyte.String
	if !in.ReadASN1(&families, cbasn1.SEQUENCE) || !in.Empty() || families.Empty() {
		return nil, ErrEncoding
	}
	var all []netip.Prefix
	for !families.Empty() {
		var family, afi, list cryptobyte.String
		if !families.ReadASN1(&family, cbasn1.SEQUENCE) || !family.ReadASN1(&afi, cbasn1.OCTET_STRING) || !family.ReadASN1(&list, cbasn1.SEQUENCE) || !family.Empty() {
			return nil, ErrEncoding
		}
		size := 0
		switch {
		case bytes.Equal(afi, []byte{0, afiIPv4}):
			size = 32
		case bytes.Equal(afi, []byte{0, afiIPv6}):
			size = 128
		default:
			return nil, ErrEncoding
		}
		for !list.Empty() {
			s, ok := readSpan(&list, size)
			if !ok {
				return nil, ErrEncoding
			}
			if all, ok = s.appendPrefixes(all); !ok {
				return nil, ErrSize
			}
		}
	}
	var b cryptobyte.Builder
	addBlocks(&b, all)
	if canonical, err := b.Bytes(); err != nil || !bytes.Equal(canonical, v) {
		return nil, ErrEncoding
	}
	return all, nil
}

func readSpan(list *cryptobyte.String, size int) (s span, ok bool) {
	var lo, hi asn1.BitString
	if list.PeekASN1Tag(cbasn1.BIT_STRING) {
		ok = list.ReadASN1BitString(&lo)
		hi = lo
	} else {
		var ends cryptobyte.String
		ok = list.ReadASN1(&ends, cbasn1.SEQUENCE) && ends.ReadASN1BitString(&lo) && ends.ReadASN1BitString(&hi) && ends.Empty()
	}
	if !ok || lo.BitLength > size || hi.BitLength > size {
		return span{}, false
	}
	s = span{padded(lo, size).Addr(), lastOf(padded(hi, size))}
	return s, !s.hi.Less(s.lo)
}

// padded is the prefix that bits begin.
func padded(begin asn1.BitString, size int) netip.Prefix {
	b := make([]byte, size/8)
	copy(b, begin.Bytes)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, begin.BitLength)
}
