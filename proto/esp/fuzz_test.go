package esp_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/secret"
)

// FuzzOpen gives arbitrary bytes to SAs of every suite, as they are and with the right SPI in front: nothing
// panics, nothing is accepted, every refusal is counted once, and a good packet is still accepted afterwards.
func FuzzOpen(f *testing.F) {
	for _, s := range esp.Suites() {
		key := testKey(s) // the seeds are packets of the same SPI under another key
		key.Bytes()[s.KeyLen()-1] ^= 1
		out, err := esp.NewOutbound(testSPI, s, key, esp.Limits{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seal(f, out, []byte("some payload"), esp.NextUDP))
		f.Add(seal(f, out, nil, esp.NextDummy))
	}
	f.Add([]byte{0xFF})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, s := range esp.Suites() {
			out, in := pair(t, s, esp.Limits{})
			own := bytes.Clone(data)
			if len(own) >= 4 {
				binary.BigEndian.PutUint32(own, testSPI)
			}
			for _, pkt := range [][]byte{bytes.Clone(data), own} {
				if payload, _, err := in.Open(pkt); err == nil || payload != nil {
					t.Fatalf("%v: accepted % x", s, pkt)
				}
			}
			if st := in.Stats(); st.Forged+st.Malformed+st.Replayed != 2 || st.Packets+st.Bytes+st.Exhausted != 0 {
				t.Fatalf("%v: counted %+v", s, st)
			}
			if _, _, err := in.Open(seal(t, out, []byte("still open"), esp.NextUDP)); err != nil {
				t.Fatalf("%v: a good packet afterwards: %v", s, err)
			}
		}
	})
}

// FuzzSealOpen: what is sealed under any key opens to the same, once, and not with one bit changed.
func FuzzSealOpen(f *testing.F) {
	f.Add(uint8(0), uint8(esp.NextUDP), uint16(0), uint16(3), []byte("payload"), []byte("key"))
	f.Add(uint8(3), uint8(esp.NextDummy), uint16(100), uint16(200), []byte{}, []byte{})
	f.Add(uint8(4), uint8(0), uint16(1), uint16(77), bytes.Repeat([]byte{1, 2, 3}, 99), []byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, which, next uint8, extra, flip uint16, payload, seed []byte) {
		if len(payload) > 1<<16 {
			return
		}
		s := esp.Suites()[int(which)%len(esp.Suites())]
		key := testKey(s).Bytes()
		for i, b := range seed {
			key[i%len(key)] ^= b
		}
		out, err := esp.NewOutbound(testSPI, s, secret.Copy(key), esp.Limits{})
		if err != nil {
			return // a weak 3DES key
		}
		in, err := esp.NewInbound(testSPI, s, secret.Copy(key), esp.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		head := s.Headroom() + int(extra)
		buf := make([]byte, head+len(payload)+s.Tailroom(len(payload))+int(extra))
		copy(buf[head:], payload)
		pkt, err := out.Seal(buf, head, len(payload), next)
		if err != nil {
			t.Fatal(err)
		}
		if len(pkt) != len(payload)+s.Overhead(len(payload)) {
			t.Fatalf("packet of %d for a payload of %d", len(pkt), len(payload))
		}
		bad, again := bytes.Clone(pkt), bytes.Clone(pkt)
		bad[int(flip)/8%len(bad)] ^= 1 << (flip % 8)
		if _, _, err := in.Open(bad); err == nil {
			t.Fatal("accepted with a bit changed")
		}
		got, n, err := in.Open(pkt)
		if err != nil || n != next || !bytes.Equal(got, payload) {
			t.Fatalf("opened %d octets, next %d, %v", len(got), n, err)
		}
		if _, _, err := in.Open(again); err != esp.ErrReplay {
			t.Fatalf("again: %v", err)
		}
	})
}

// FuzzClassify: exactly one kind, and SPI agrees with it.
func FuzzClassify(f *testing.F) {
	f.Add([]byte{0xFF})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 0, 1, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		kind := esp.Classify(datagram)
		spi, ok := esp.SPI(datagram)
		if ok != (kind == esp.Packet) || ok && spi == 0 {
			t.Fatalf("% x is %v with SPI %08x, %v", datagram, kind, spi, ok)
		}
		if kind == esp.Control && !bytes.HasPrefix(datagram, esp.AppendMarker(nil)) {
			t.Fatalf("% x is %v without the marker", datagram, kind)
		}
	})
}
