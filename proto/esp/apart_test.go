package esp_test

import (
	"bytes"
	"testing"

	"twinkey/proto/esp"
)

// Out of place and in place are one format; neither source nor what lies around the destination is
// touched, so that segments of one buffer can be sealed one after the other, and opened likewise.
func TestOutOfPlace(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		for n := range 200 {
			src := bytes.Repeat([]byte{0xa5, byte(n)}, 150)
			want := bytes.Clone(src)
			dst := bytes.Repeat([]byte{0xee}, 400)
			pkt, err := out.SealTo(dst, src, n, esp.NextUDP)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(src, want) {
				t.Fatalf("%d octets: the source was changed", n)
			}
			if len(pkt) != out.Headroom()+n+out.Tailroom(n) || &pkt[0] != &dst[0] || !bytes.Equal(dst[len(pkt):], bytes.Repeat([]byte{0xee}, 400-len(pkt))) {
				t.Fatalf("%d octets: packet of %d, or written behind it", n, len(pkt))
			}
			sealed := bytes.Clone(pkt)
			into := bytes.Repeat([]byte{0xdd}, 400)
			payload, next, err := in.OpenTo(into, pkt)
			if err != nil || next != esp.NextUDP || !bytes.Equal(payload, want[:n]) {
				t.Fatalf("%d octets: opened % x, %d, %v", n, payload, next, err)
			}
			if room := n + out.Tailroom(n); !bytes.Equal(into[room:], bytes.Repeat([]byte{0xdd}, 400-room)) {
				t.Fatalf("%d octets: written behind the room", n)
			}
			if !bytes.Equal(pkt, sealed) {
				t.Fatalf("%d octets: the packet was changed", n)
			}
		}
	})
}

func TestOutOfPlaceRefusesTooLittleRoom(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		size := out.Headroom() + 100 + out.Tailroom(100)
		src := make([]byte, size)
		if _, err := out.SealTo(make([]byte, size-1), src, 100, esp.NextUDP); err != esp.ErrRoom {
			t.Errorf("destination too short: %v", err)
		}
		if _, err := out.SealTo(make([]byte, size), src[:101], 100, esp.NextUDP); err != esp.ErrRoom {
			t.Errorf("no tailroom in the source: %v", err)
		}
		pkt, err := out.SealTo(make([]byte, size), src, 100, esp.NextUDP)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := in.OpenTo(make([]byte, 100), pkt); err != esp.ErrRoom {
			t.Errorf("destination too short to open: %v", err)
		}
		if _, _, err := in.OpenTo(make([]byte, size), pkt); err != nil {
			t.Errorf("then with room: %v", err)
		}
		for n := range out.Headroom() + 2 {
			if _, _, err := in.OpenTo(make([]byte, size), pkt[:n]); err != esp.ErrTruncated {
				t.Errorf("%d octets: %v", n, err)
			}
		}
	})
}

// A packet with an implicit IV is the one with an explicit IV, but for the IV: both ends that wrote
// the sequence number there can leave it out.
func TestImplicitIV(t *testing.T) {
	for _, s := range []esp.Suite{esp.AES256GCM, esp.ChaCha20Poly1305, esp.AES128GCM} {
		with, _ := pair(t, s, esp.Limits{})
		without, in := pair2(t, s, s.ImplicitIV())
		a := seal(t, with, []byte("payload"), esp.NextIPv4)
		b := seal(t, without, []byte("payload"), esp.NextIPv4)
		if !bytes.Equal(append(bytes.Clone(a[:8]), a[16:]...), b) {
			t.Errorf("%v: % x\nwithout IV % x", s, a, b)
		}
		if got, _, err := in.Open(b); err != nil || string(got) != "payload" {
			t.Errorf("%v: opened %q, %v", s, got, err)
		}
	}
	if s := esp.TripleDESSHA1; s.ImplicitIV() != s {
		t.Errorf("%v has the form %v", s, s.ImplicitIV())
	}
}

// With CBC the IV that is left out is the one that would have been sent, which nobody else can predict; the ICV, which
// covered it, differs.
func TestImplicitIVOfCBC(t *testing.T) {
	s := esp.AES256CBCSHA256
	with, _ := pair(t, s, esp.Limits{})
	without, in := pair2(t, s, s.ImplicitIV())
	var last []byte
	for n := range 3 {
		a := seal(t, with, make([]byte, 46), esp.NextIPv4)
		b := seal(t, without, make([]byte, 46), esp.NextIPv4)
		if !bytes.Equal(append(bytes.Clone(a[:8]), a[24:24+48]...), b[:8+48]) || len(b) != 8+48+16 {
			t.Errorf("packet %d: % x\nwithout IV % x", n, a, b)
		}
		if bytes.Equal(b[8:8+48], last) {
			t.Error("two packets begin alike: one IV for both")
		}
		last = bytes.Clone(b[8 : 8+48])
		if got, _, err := in.Open(b); err != nil || !bytes.Equal(got, make([]byte, 46)) {
			t.Errorf("packet %d: opened % x, %v", n, got, err)
		}
	}
}

// pair2 is a pair of one suite with the key of another.
func pair2(t *testing.T, key, s esp.Suite) (*esp.Outbound, *esp.Inbound) {
	t.Helper()
	out, err := esp.NewOutbound(testSPI, s, testKey(key), esp.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	in, err := esp.NewInbound(testSPI, s, testKey(key), esp.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

func TestFitsIsTheInverseOfOverhead(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		for size := range 2000 {
			n := s.Fits(size)
			if n > 0 && n+s.Overhead(n) > size {
				t.Errorf("%d octets do not fit %d", n, size)
			}
			if n+1+s.Overhead(n+1) <= size {
				t.Errorf("%d octets would fit %d, too", n+1, size)
			}
		}
	})
}

// Packets that are sealed together are what they would have been one by one.
func TestTogether(t *testing.T) {
	alone, _ := pair(t, esp.TripleDESSHA1, esp.Limits{})
	out, in := pair(t, esp.TripleDESSHA1, esp.Limits{})
	if !out.Together() {
		t.Fatal("3DES works on one packet at a time")
	}
	for round := range 12 {
		var ps []esp.Pending
		var want [][]byte
		for i := range round {
			payload := bytes.Repeat([]byte{byte(i)}, 100+i%3*37)
			p, err := out.Prepare(make([]byte, 400), payload, len(payload), esp.NextIPv4)
			if err != nil {
				t.Fatal(err)
			}
			ps, want = append(ps, p), append(want, seal(t, alone, payload, esp.NextIPv4))
		}
		if err := out.Finish(ps); err != nil {
			t.Fatal(err)
		}
		for i, p := range ps {
			if !bytes.Equal(p.Pkt, want[i]) {
				t.Fatalf("packet %d of %d", i, round)
			}
			if _, _, err := in.Open(p.Pkt); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := out.Prepare(make([]byte, 20), make([]byte, 100), 100, esp.NextIPv4); err != esp.ErrRoom {
		t.Errorf("too little room: %v", err)
	}
}
