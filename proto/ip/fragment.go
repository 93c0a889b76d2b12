package ip

import (
	"encoding/binary"
	"iter"
)

const (
	flagMore    = 0x2000 // of the 16 bits at offset 6
	flagDF      = 0x4000
	offsetMask  = 0x1fff
	fragUnit    = 8    // bytes that the offset counts (RFC 791 section 3.1)
	optionCopy  = 0x80 // of an IPv4 option's type: it belongs into every fragment
	maxHeaderV4 = 60
)

// Fragment cuts an IPv4 packet without DF into fragments of at most mtu bytes (RFC 791 section 3.2), which are
// built one after the other in buf; each is valid until the next is taken. buf holds mtu bytes. A packet that
// fits is yielded as it is. Nothing is yielded of IPv6, of a packet with DF, or where mtu leaves no
// room for eight bytes behind the header.
func Fragment(p Packet, mtu int, buf []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if p.Len() <= mtu {
			yield(p.b)
			return
		}
		ihl := int(p.l4)
		room := (mtu - ihl) &^ (fragUnit - 1)
		if p.Version() != 4 || p.DontFragment() || room < fragUnit || len(buf) < mtu {
			return
		}
		word := binary.BigEndian.Uint16(p.b[6:])
		payload := p.b[ihl:]
		first := true
		for at := 0; at < len(payload); at += room {
			n := min(room, len(payload)-at)
			head := copyHeader(buf, p.b[:ihl], first)
			first = false
			out := buf[: head+n : head+n]
			copy(out[head:], payload[at:at+n])
			w := word&offsetMask + uint16(at/fragUnit) | word&flagMore
			if at+n < len(payload) {
				w |= flagMore
			}
			binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
			binary.BigEndian.PutUint16(out[6:], w)
			out[10], out[11] = 0, 0
			binary.BigEndian.PutUint16(out[10:], Checksum(Sum(0, out[:head])))
			if !yield(out) {
				return
			}
		}
	}
}

// copyHeader puts header h into buf and returns its length; of the options those that are to be copied, unless
// it is the first fragment's. Options that cannot be read are left out.
func copyHeader(buf, h []byte, first bool) int {
	if first || len(h) == headerV4 {
		return copy(buf, h)
	}
	n := copy(buf, h[:headerV4])
	for o := h[headerV4:]; len(o) > 0 && o[0] != optionEnd; {
		if o[0] == optionNop {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			break
		}
		if o[0]&optionCopy != 0 {
			n += copy(buf[n:maxHeaderV4], o[:o[1]])
		}
		o = o[o[1]:]
	}
	for n%4 != 0 {
		buf[n] = optionEnd
		n++
	}
	buf[0] = 4<<4 | byte(n/4)
	return n
}
