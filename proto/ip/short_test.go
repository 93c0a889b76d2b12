package ip_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"twinkey/proto/ip"
	"twinkey/proto/wire"
)

// headed is a packet whose header has these bytes at 1 and at 4 to 10, and a checksum that is right.
func headed(tos byte, middle [6]byte, payload string) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[1] = 0x45, tos
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	copy(b[4:], middle[:])
	copy(b[12:], []byte{10, 1, 0, 1, 10, 2, 0, 9})
	binary.BigEndian.PutUint16(b[10:], ip.Checksum(ip.Sum(0, b)))
	return append(b, payload...)
}

func TestShortenAndLengthen(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tos    byte
		middle [6]byte // identification, flags and offset, TTL, protocol
		load   string
	}{
		{"a segment", 0, [6]byte{0x12, 0x34, 0x40, 0, 63, 6}, "segment"},
		{"no payload", 0, [6]byte{0, 0, 0x40, 0, 1, 253}, ""},
		{"marked", 0xb8 | 3, [6]byte{0xff, 0xff, 0, 0, 255, 17}, "x"},
		{"a fragment", 0, [6]byte{0xab, 0xcd, 0x20, 0xb9, 64, 1}, "the middle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := headed(tt.tos, tt.middle, tt.load)
			b := bytes.Clone(want)
			if p, err := ip.Parse(b); err != nil || !p.CanShorten() || !p.HeaderOK() {
				t.Fatalf("the packet is none: %v", err)
			}
			ip.Shorten(b)
			short := b[ip.ShortBy:]
			if !bytes.Equal(short[7:], want[12:]) || short[0] != tt.tos || [6]byte(short[1:]) != tt.middle {
				t.Errorf("short form % x", short)
			}
			again := append([]byte("?????"), short...)
			if err := ip.Lengthen(again); err != nil || !bytes.Equal(again, want) {
				t.Errorf("% x\ninstead of % x (%v)", again, want, err)
			}
		})
	}
}

func TestWhatHasNoShortForm(t *testing.T) {
	options := append([]byte{0x46, 0, 0, 24}, make([]byte, 20)...)
	six := append([]byte{0x60, 6: 59}, make([]byte, 33)...) // nothing follows
	for _, b := range [][]byte{options, six} {
		if p, err := ip.Parse(b); err != nil || p.CanShorten() {
			t.Errorf("% x: %v", b, err)
		}
	}
	if err := ip.Lengthen(make([]byte, 19)); !errors.Is(err, wire.ErrTruncated) {
		t.Errorf("14 bytes: %v", err)
	}
	if err := ip.Lengthen(make([]byte, 1<<16)); !errors.Is(err, wire.ErrLength) {
		t.Errorf("more than a packet: %v", err)
	}
}

// Whatever comes is refused or becomes a packet whose short form is what came.
func FuzzLengthen(f *testing.F) {
	b := headed(0, [6]byte{0, 1, 0x40, 0, 64, 6}, "payload")
	ip.Shorten(b)
	f.Add(b[ip.ShortBy:])
	f.Add([]byte{})
	f.Add(make([]byte, 14))
	f.Fuzz(func(t *testing.T, short []byte) {
		b := append(make([]byte, ip.ShortBy), short...)
		if ip.Lengthen(b) != nil {
			return
		}
		p, err := ip.Parse(b)
		if err != nil || p.Len() != len(b) || !p.CanShorten() || !p.HeaderOK() {
			t.Fatalf("% x made % x (%v)", short, b, err)
		}
		ip.Shorten(b)
		if !bytes.Equal(b[ip.ShortBy:], short) {
			t.Errorf("% x came back as % x", short, b[ip.ShortBy:])
		}
	})
}
