package calls

import (
	"bytes"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"net/netip"
	"testing"
)

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func reserve(t *testing.T, tb *Table) uint32 {
	t.Helper()
	spi, err := tb.Reserve(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return spi
}

// Only the SPI that was given out finds the association: another generation of the same
// slot, which a late packet of a former owner or a guess carries, finds nothing.
func TestGenerationMustMatch(t *testing.T) {
	tb := NewTable()
	spi := reserve(t, tb)
	if tb.Inbound(spi) != nil {
		t.Error("something is found before Install")
	}
	in := &Inbound{SPI: spi}
	tb.Install(in)
	if tb.Inbound(spi) != in {
		t.Error("what was installed is not found")
	}
	for bit := 16; bit < 32; bit++ {
		if tb.Inbound(spi^1<<bit) != nil {
			t.Errorf("found under another generation, bit %d", bit)
		}
	}
	tb.Release(spi)
	if tb.Inbound(spi) != nil {
		t.Error("found after Release")
	}
}

// RFC 4303 section 2.1 reserves SPIs 1 to 255; 0 stands for a control message (RFC 3948).
func TestGenerationIsNeverZero(t *testing.T) {
	spi, err := NewTable().Reserve(bytes.NewReader([]byte{0, 0, 0, 0, 0x12, 0x34}))
	if err != nil || spi>>16 != 0x1234 {
		t.Errorf("SPI %#08x, %v", spi, err)
	}
	if _, err := NewTable().Reserve(bytes.NewReader(nil)); err == nil {
		t.Error("an SPI without randomness")
	}
}

// All 65,536 slots can be taken, each once; then Reserve fails until one is released,
// and those that were released first are used again first.
func TestSlotsRunOutAndComeBack(t *testing.T) {
	tb := NewTable()
	rng := mrand.NewChaCha8([32]byte{1})
	seen := make([]bool, Slots)
	spis := make([]uint32, Slots)
	for i := range spis {
		spi, err := tb.Reserve(rng)
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
		if seen[uint16(spi)] {
			t.Fatalf("slot %d given out twice", uint16(spi))
		}
		spis[i], seen[uint16(spi)] = spi, true
		tb.Install(&Inbound{SPI: spi})
	}
	if _, err := tb.Reserve(rng); !errors.Is(err, ErrFull) {
		t.Fatalf("the 65,537th: %v", err)
	}
	old := []uint32{spis[700], spis[3], spis[65535]}
	for _, spi := range old {
		tb.Release(spi)
	}
	for _, was := range old {
		spi := reserve(t, tb)
		if uint16(spi) != uint16(was) {
			t.Errorf("slot %d, want %d", uint16(spi), uint16(was))
		}
		tb.Install(&Inbound{SPI: spi})
		if spi != was && tb.Inbound(was) != nil {
			t.Error("the former owner's SPI finds the new association")
		}
	}
	if _, err := tb.Reserve(rng); !errors.Is(err, ErrFull) {
		t.Errorf("full again: %v", err)
	}
}

func TestFirstUseIsOne(t *testing.T) {
	in := &Inbound{}
	if !in.FirstUse() || in.FirstUse() {
		t.Error("first use is not told exactly once")
	}
}

func TestBounds(t *testing.T) {
	c := New(1, SiteLink, Bounds{Local: prefixes("10.1.0.0/24"), Remote: prefixes("10.2.0.0/24", "2001:db8::/64")})
	tests := []struct {
		addr          string
		send, receive bool
	}{
		{"10.1.0.7", true, false},
		{"10.2.0.7", false, true},
		{"2001:db8::9", false, true},
		{"10.1.1.7", false, false},
		{"::ffff:10.1.0.7", false, false}, // no v4-mapped address is on a wire
	}
	for _, tt := range tests {
		a := netip.MustParseAddr(tt.addr)
		if c.MaySend(a) != tt.send || c.MayReceive(a) != tt.receive {
			t.Errorf("%s: send %v, receive %v", tt.addr, c.MaySend(a), c.MayReceive(a))
		}
	}
	c.SetBounds(Bounds{})
	if c.MaySend(netip.MustParseAddr("10.1.0.7")) {
		t.Error("bounds that were withdrawn still hold")
	}
}
