package l2tp

import (
	"crypto/md5" //nolint:gosec // RFC 2661 4.3 says MD5
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"

	"twinkey/proto/secret"
	"twinkey/proto/wire"
)

// Hiding (RFC 2661 4.3) enciphers an AVP's value, with its length in front and padding
// behind, in a chain of MD5 over the secret that the tunnel's ends share:
//
//	Subformat   | Length of Original Value (2) | Original Value | Padding |
//	b1 = MD5(Attribute Type + S + Random Vector)    c1 = p1 xor b1
//	bi = MD5(S + c(i-1))                            ci = pi xor bi
//
// It is no encryption to rely on, and does not authenticate.

const (
	randomVector  = 16 // bytes, as RFC 2661 4.4.1 recommends
	hidingPad     = 16 // the subformat is padded to a multiple of this, to veil its length
	subformatHead = 2
	// MaxHidden is the longest value that can be hidden, in bytes.
	MaxHidden = MaxValue - subformatHead
)

// Hide returns a Random Vector AVP and, behind it, avps hidden with it. Vector and padding
// come from rand. An AVP that may not be hidden, or is too long for it, is an error.
func Hide(rand io.Reader, s secret.Key, avps ...AVP) ([]AVP, error) {
	rv := make([]byte, randomVector)
	if _, err := io.ReadFull(rand, rv); err != nil {
		return nil, fmt.Errorf("drawing a random vector: %w", err)
	}
	hidden := append(make([]AVP, 0, len(avps)+1), Bytes(AVPRandomVector, rv))
	for _, a := range avps {
		if spec := a.Type.spec(); a.Vendor == 0 && (spec == nil || spec.rules&hideable == 0) || s.Len() == 0 {
			return nil, fmt.Errorf("hiding %v: %w", a.Type, ErrHidden)
		}
		if len(a.Value) > MaxHidden {
			return nil, fmt.Errorf("hiding %v: %w", a.Type, wire.ErrLength)
		}
		n := subformatHead + len(a.Value)
		v := make([]byte, min((n+hidingPad-1)/hidingPad*hidingPad, MaxValue))
		binary.BigEndian.PutUint16(v, uint16(len(a.Value)))
		copy(v[subformatHead:], a.Value)
		if _, err := io.ReadFull(rand, v[n:]); err != nil {
			return nil, fmt.Errorf("drawing padding: %w", err)
		}
		cipherAVP(v, v, a.Type, s.Bytes(), rv, true)
		a.Hidden, a.Value = true, v
		hidden = append(hidden, a)
	}
	return hidden, nil
}

// cipherAVP writes the chained xor of src to dst, which may be the same. The chain is
// over the ciphertext: dst when enciphering, else src.
func cipherAVP(dst, src []byte, t AVPType, s, rv []byte, enciphering bool) {
	h := md5.New() //nolint:gosec // RFC 2661 4.3 says MD5
	h.Write([]byte{byte(t >> 8), byte(t)})
	h.Write(s)
	h.Write(rv)
	var b, c [md5.Size]byte
	for len(src) > 0 {
		n := min(len(src), md5.Size)
		h.Sum(b[:0])
		if !enciphering {
			copy(c[:], src[:n])
		}
		subtle.XORBytes(dst, src[:n], b[:])
		if enciphering {
			copy(c[:], dst[:n])
		}
		h.Reset()
		h.Write(s)
		h.Write(c[:n])
		src, dst = src[n:], dst[n:]
	}
}

// HasHidden says whether an AVP waits to be revealed.
func (m *Message) HasHidden() bool {
	for i := range m.AVPs {
		if m.AVPs[i].Hidden {
			return true
		}
	}
	return false
}

// Unhide reveals the hidden AVPs with the secret of the tunnel, in memory of their own,
// and checks them as Parse does those in the clear. One that cannot be revealed (no
// secret, the wrong one as far as that shows, an Original Value longer than what is
// there) is passed over, or ends in an *AVPError where it is mandatory.
func (m *Message) Unhide(s secret.Key) error {
	if !m.HasHidden() {
		return nil
	}
	var rv []byte
	kept := m.AVPs[:0]
	for _, a := range m.AVPs {
		if a.Vendor == 0 && a.Type == AVPRandomVector {
			rv = a.Value // the one most closely preceding counts (RFC 2661 4.4.1)
		}
		if !a.Hidden {
			kept = append(kept, a)
			continue
		}
		v, code, err := reveal(a, s.Bytes(), rv)
		if err != nil {
			m.reject(a, code, err)
		} else {
			a.Value, a.Hidden = v, false
			kept = append(kept, a)
		}
	}
	m.AVPs = kept
	if m.fault != nil {
		return m.fault
	}
	return nil
}

// reveal returns the original value of a hidden AVP; code is a general error code.
func reveal(a AVP, s, rv []byte) (v []byte, code uint16, err error) {
	if len(s) == 0 {
		return nil, ErrorUnknownAVP, ErrHidden
	}
	if len(a.Value) < subformatHead {
		return nil, ErrorLength, wire.ErrLength
	}
	sub := make([]byte, len(a.Value))
	cipherAVP(sub, a.Value, a.Type, s, rv, false)
	n := int(binary.BigEndian.Uint16(sub))
	if n > len(sub)-subformatHead { // CVE-2020-15173 and its kin began here
		return nil, ErrorLength, wire.ErrLength
	}
	v = sub[subformatHead : subformatHead+n : subformatHead+n]
	if a.Vendor != 0 {
		return v, 0, nil
	}
	if code, err := a.Type.spec().check(v); err != nil {
		return nil, code, err
	}
	return v, 0, nil
}
