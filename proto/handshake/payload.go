package handshake

import (
	"crypto/mlkem"
	"encoding/binary"
	"fmt"
	"slices"

	"twinkey/proto/esp"
	"twinkey/proto/wire"
)

// Limits on what a payload may carry, in bytes.
const (
	MaxMessage     = 8192 // a whole message, as Split takes and Assembler yields it
	MaxCertificate = 3072 // a twin certificate is about 450
	MaxRouter      = 3072 // the TLS certificate of a router is about 600
	MaxExtra       = 1024 // what the owner adds
	MaxBound       = 64   // what a tunnel is held to
	maxSignature   = 256  // ECDSA P-256 in ASN.1 is at most 72
	maxSuites      = 16
	minSPI         = 256 // 1 to 255 are reserved (RFC 4303 section 2.1)
)

// Caps are optional abilities, one bit each, of whoever sends them. Their meaning is the
// owner's; an unknown bit is no error.
type Caps uint64

// fieldType is a field's type without the critical bit.
type fieldType uint16

const (
	fieldSuites fieldType = iota + 1
	fieldSuite
	fieldSPI
	fieldCertificate
	fieldRouter
	fieldSignature
	fieldCaps
	fieldKEMKey
	fieldKEMText
	fieldSession
	fieldExtra
	fieldBound
	fieldEnd
)

const criticalBit = 0x8000

// spec is what the codec knows of a field.
type spec struct {
	name     string
	min, max int // bytes of value
	critical bool
}

// registry is indexed by fieldType.
var registry = [fieldEnd]spec{
	fieldSuites:      {"Suites", 1, maxSuites, true},
	fieldSuite:       {"Suite", 1, 1, true},
	fieldSPI:         {"SPI", 4, 4, true},
	fieldCertificate: {"Certificate", 1, MaxCertificate, true},
	fieldRouter:      {"Router", 1, MaxRouter, true},
	fieldSignature:   {"Signature", 1, maxSignature, true},
	fieldCaps:        {"Caps", 8, 8, false},
	fieldKEMKey:      {"KEM key", mlkem.EncapsulationKeySize768, mlkem.EncapsulationKeySize768, true},
	fieldKEMText:     {"KEM ciphertext", mlkem.CiphertextSize768, mlkem.CiphertextSize768, true},
	fieldSession:     {"Session", 2, 2, true},
	fieldExtra:       {"Extra", 1, MaxExtra, true},
	fieldBound:       {"Bound", 1, MaxBound, true},
}

// fieldSet has bit t set for each fieldType t in it.
type fieldSet uint16

func setOf(types ...fieldType) (s fieldSet) {
	for _, t := range types {
		s |= 1 << t
	}
	return s
}

func (s fieldSet) has(t fieldType) bool { return s&(1<<t) != 0 }

// rule says which fields a message must and may carry.
type rule struct{ must, may fieldSet }

// The rules of each message, as doc.go draws them.
var (
	tunnelRules = [...]rule{
		1: {must: setOf(fieldSuites), may: setOf(fieldKEMKey)},
		2: {must: setOf(fieldSuite, fieldSPI, fieldCertificate), may: setOf(fieldCaps, fieldKEMText)},
		3: {must: setOf(fieldSPI, fieldCertificate, fieldRouter, fieldSignature), may: setOf(fieldCaps, fieldBound)},
	}
	callRules = [...]rule{
		1: {must: setOf(fieldSuites, fieldSPI), may: setOf(fieldCertificate, fieldKEMKey, fieldExtra)},
		2: {must: setOf(fieldSuite, fieldSPI, fieldSession), may: setOf(fieldExtra)},
	}
)

// payload is one message's fields. Slices alias what was parsed.
type payload struct {
	set                                                    fieldSet
	suites                                                 []esp.Suite
	suite                                                  esp.Suite
	spi                                                    uint32
	certificate, router, signature, kemKey, kemText, extra []byte
	bound                                                  []byte
	caps                                                   Caps
	session                                                uint16
}

// blob is where a field of opaque bytes lives, nil for the others.
func (p *payload) blob(t fieldType) *[]byte {
	switch t {
	case fieldCertificate:
		return &p.certificate
	case fieldRouter:
		return &p.router
	case fieldSignature:
		return &p.signature
	case fieldKEMKey:
		return &p.kemKey
	case fieldKEMText:
		return &p.kemText
	case fieldExtra:
		return &p.extra
	case fieldBound:
		return &p.bound
	default:
		return nil
	}
}

// parsePayload reads b by rule. It fails with *wire.ParseError.
func parsePayload(b []byte, by rule) (payload, error) {
	var p payload
	r := wire.NewReader("handshake", b)
	for r.Len() > 0 {
		head := r.Uint16("Type")
		value := wire.NewReader("handshake", r.Bytes("Value", int(r.Uint16("Length"))))
		if r.Err() != nil {
			break
		}
		t := fieldType(head &^ criticalBit)
		critical := head&criticalBit != 0
		switch {
		case t == 0 || t >= fieldEnd:
			if critical {
				r.Fail(fmt.Sprintf("field %d", t), wire.ErrValue)
			}
			continue
		case !(by.must | by.may).has(t) || p.set.has(t) || critical != registry[t].critical:
			r.Fail(registry[t].name, wire.ErrValue)
		case value.Len() < registry[t].min || value.Len() > registry[t].max:
			r.Fail(registry[t].name, wire.ErrLength)
		case !p.read(t, &value):
			r.Fail(registry[t].name, wire.ErrValue)
		}
		p.set |= 1 << t
	}
	if missing := by.must &^ p.set; missing != 0 {
		for t := range fieldEnd {
			if missing.has(t) {
				r.Fail(registry[t].name, wire.ErrTruncated)
			}
		}
	}
	return p, r.Err()
}

// read takes the value of t, whose length is right, and says whether it is allowed.
func (p *payload) read(t fieldType, v *wire.Reader) bool {
	if b := p.blob(t); b != nil {
		*b = v.Rest()
		return true
	}
	switch t {
	case fieldSuites:
		for v.Len() > 0 {
			// A suite that we do not know is the other's business; none, or one twice, is a fault.
			s := esp.Suite(v.Uint8("Suites"))
			if s == 0 || slices.Contains(p.suites, s) {
				return false
			}
			p.suites = append(p.suites, s)
		}
		return true
	case fieldSuite:
		p.suite = esp.Suite(v.Uint8("Suite"))
		return known(p.suite)
	case fieldSPI:
		p.spi = v.Uint32("SPI")
		return p.spi >= minSPI
	case fieldCaps:
		p.caps = Caps(v.Uint64("Caps"))
		return true
	case fieldSession:
		p.session = v.Uint16("Session")
		return true
	default:
		return false
	}
}

// encode returns the fields that are in p.set, in the order of their types.
func (p *payload) encode() []byte {
	var b []byte
	for t := range fieldEnd {
		if !p.set.has(t) {
			continue
		}
		head := uint16(t)
		if registry[t].critical {
			head |= criticalBit
		}
		b = binary.BigEndian.AppendUint16(b, head)
		at := len(b)
		b = p.appendValue(append(b, 0, 0), t)
		binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2)) //nolint:gosec // every value is at most MaxCertificate long
	}
	return b
}

func (p *payload) appendValue(b []byte, t fieldType) []byte {
	if v := p.blob(t); v != nil {
		return append(b, *v...)
	}
	switch t {
	case fieldSuites:
		for _, s := range p.suites {
			b = append(b, byte(s))
		}
	case fieldSuite:
		b = append(b, byte(p.suite))
	case fieldSPI:
		b = binary.BigEndian.AppendUint32(b, p.spi)
	case fieldCaps:
		b = binary.BigEndian.AppendUint64(b, uint64(p.caps))
	case fieldSession:
		b = binary.BigEndian.AppendUint16(b, p.session)
	default: // blob has them
	}
	return b
}

// put adds a field of opaque bytes, unless v is empty.
func (p *payload) put(t fieldType, v []byte) {
	if len(v) > 0 {
		*p.blob(t) = v
		p.set |= 1 << t
	}
}

// known says whether s is a suite; its value is its number on the wire.
func known(s esp.Suite) bool { return slices.Contains(esp.Suites(), s) }
