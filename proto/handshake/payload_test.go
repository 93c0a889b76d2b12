package handshake

import (
	"bytes"
	"crypto/mlkem"
	"errors"
	"reflect"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/wire"
)

// everything is a rule under which each field may stand.
var everything = rule{may: 1<<fieldEnd - 2}

func full() payload {
	p := payload{set: setOf(fieldSuites, fieldSuite, fieldSPI, fieldCaps, fieldSession),
		suites: esp.Suites(), suite: esp.AES128GCM, spi: 0x12345678, caps: 1 << 40, session: 7}
	p.put(fieldCertificate, []byte("certificate"))
	p.put(fieldRouter, []byte("router"))
	p.put(fieldSignature, []byte("signature"))
	p.put(fieldKEMKey, bytes.Repeat([]byte{1}, mlkem.EncapsulationKeySize768))
	p.put(fieldKEMText, bytes.Repeat([]byte{2}, mlkem.CiphertextSize768))
	p.put(fieldExtra, []byte("extra"))
	p.put(fieldBound, []byte("bound"))
	return p
}

func TestPayloadRoundTrip(t *testing.T) {
	want := full()
	b := want.encode()
	got, err := parsePayload(b, everything)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for n := range b {
		if p, err := parsePayload(b[:n], everything); err == nil && p.set == want.set {
			t.Fatalf("%d of %d bytes say the same", n, len(b))
		}
	}
}

func TestPayloadIsStrict(t *testing.T) {
	spi := []byte{0x80, 3, 0, 4, 0, 0, 0x10, 1}
	for _, tt := range []struct {
		name  string
		in    []byte
		rule  rule
		field string
		want  error
	}{
		{"nothing where nothing must be", nil, everything, "", nil},
		{"unknown, not critical", append([]byte{0x70, 0, 0, 2, 9, 9}, spi...), everything, "", nil},
		{"unknown and critical", []byte{0xF0, 0, 0, 0}, everything, "field 28672", wire.ErrValue},
		{"type 0, critical", []byte{0x80, 0, 0, 0}, everything, "field 0", wire.ErrValue},
		{"critical bit missing", append([]byte{0, 3}, spi[2:]...), everything, "SPI", wire.ErrValue},
		{"critical bit on an optional field", []byte{0x80, 7, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}, everything, "Caps", wire.ErrValue},
		{"twice", append(bytes.Clone(spi), spi...), everything, "SPI", wire.ErrValue},
		{"out of place", spi, rule{may: setOf(fieldCaps)}, "SPI", wire.ErrValue},
		{"missing", nil, rule{must: setOf(fieldSPI)}, "SPI", wire.ErrTruncated},
		{"half a head", []byte{0x80}, everything, "Type", wire.ErrTruncated},
		{"no length", []byte{0x80, 3, 0}, everything, "Length", wire.ErrTruncated},
		{"value cut", spi[:7], everything, "Value", wire.ErrTruncated},
		{"length wrong for the field", []byte{0x80, 3, 0, 3, 1, 2, 3}, everything, "SPI", wire.ErrLength},
		{"reserved SPI", []byte{0x80, 3, 0, 4, 0, 0, 0, 255}, everything, "SPI", wire.ErrValue},
		{"suite unknown", []byte{0x80, 2, 0, 1, 99}, everything, "Suite", wire.ErrValue},
		{"suites with one unknown", []byte{0x80, 1, 0, 2, 99, 1}, everything, "", nil},
		{"suites with one twice", []byte{0x80, 1, 0, 3, 1, 2, 1}, everything, "Suites", wire.ErrValue},
		{"suites with none", []byte{0x80, 1, 0, 1, 0}, everything, "Suites", wire.ErrValue},
		{"too many suites", append([]byte{0x80, 1, 0, 17}, make([]byte, 17)...), everything, "Suites", wire.ErrLength},
		{"KEM key short by one", append([]byte{0x80, 8, 0x04, 0x9f}, make([]byte, 0x49f)...), everything, "KEM key", wire.ErrLength},
		{"certificate too long", append([]byte{0x80, 4, 0x0c, 0x01}, make([]byte, 0xc01)...), everything, "Certificate", wire.ErrLength},
		{"empty certificate", []byte{0x80, 4, 0, 0}, everything, "Certificate", wire.ErrLength},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parsePayload(tt.in, tt.rule)
			if !errors.Is(err, tt.want) {
				t.Fatalf("err = %v, want %v", err, tt.want)
			}
			if pe, ok := errors.AsType[*wire.ParseError](err); ok && pe.Field != tt.field {
				t.Errorf("field %q, want %q", pe.Field, tt.field)
			}
		})
	}
}

func TestRegistryIsWhole(t *testing.T) {
	for f := fieldType(1); f < fieldEnd; f++ {
		if s := registry[f]; s.name == "" || s.min < 1 || s.max < s.min {
			t.Errorf("field %d: %+v", f, s)
		}
	}
	for _, rules := range [][]rule{tunnelRules[:], callRules[:]} {
		for n, r := range rules {
			if r.must&r.may != 0 {
				t.Errorf("message %d: a field both must and may be there", n)
			}
		}
	}
}

// What parses appends back and parses the same; no prefix says the same.
func FuzzPayload(f *testing.F) {
	p := full()
	f.Add(p.encode())
	f.Add([]byte{0x70, 0, 0, 2, 9, 9, 0x80, 3, 0, 4, 0, 0, 0x10, 1})
	f.Add([]byte{0x80, 1, 0, 2, 99, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parsePayload(in, everything)
		if err != nil {
			if _, ok := errors.AsType[*wire.ParseError](err); !ok {
				t.Fatalf("err = %v", err)
			}
			return
		}
		b := p.encode()
		again, err := parsePayload(b, everything)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v came back as %+v, %v", p, again, err)
		}
		if len(b) > len(in) {
			t.Fatalf("%d bytes grew to %d", len(in), len(b))
		}
		for n := range b {
			if q, err := parsePayload(b[:n], everything); err == nil && q.set == p.set {
				t.Fatalf("%d of %d bytes say the same", n, len(b))
			}
		}
	})
}
