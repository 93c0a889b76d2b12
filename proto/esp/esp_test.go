package esp_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"twinkey/proto/esp"
	"twinkey/proto/replay"
	"twinkey/proto/secret"
)

const testSPI = 0x1A2B3C4D

// testKey is key material that differs by suite and has no two equal parts.
func testKey(s esp.Suite) secret.Key {
	var b []byte
	for i := byte(0); len(b) < s.KeyLen(); i++ {
		h := sha256.Sum256([]byte{byte(s), i})
		b = append(b, h[:]...)
	}
	return secret.New(b[:s.KeyLen()])
}

// pair makes both ends of one SA.
func pair(t testing.TB, s esp.Suite, l esp.Limits) (*esp.Outbound, *esp.Inbound) {
	t.Helper()
	out, err := esp.NewOutbound(testSPI, s, testKey(s), l)
	if err != nil {
		t.Fatal(err)
	}
	in, err := esp.NewInbound(testSPI, s, testKey(s), l)
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

// seal copies payload into a buffer with just enough room and seals it.
func seal(t testing.TB, out *esp.Outbound, payload []byte, next uint8) []byte {
	t.Helper()
	buf := append(make([]byte, out.Headroom()), payload...)
	buf = append(buf, make([]byte, out.Tailroom(len(payload)))...)
	pkt, err := out.Seal(buf, out.Headroom(), len(payload), next)
	if err != nil {
		t.Fatal(err)
	}
	if len(pkt) != len(buf) {
		t.Fatalf("packet has %d octets, room was for %d", len(pkt), len(buf))
	}
	return pkt
}

// eachSuite runs f as a subtest of every suite.
func eachSuite(t *testing.T, f func(t *testing.T, s esp.Suite)) {
	for _, s := range append(esp.Suites(), esp.AES256GCMIIV, esp.ChaCha20Poly1305IIV, esp.AES128GCMIIV, esp.AES256CBCSHA256IIV) {
		t.Run(s.String(), func(t *testing.T) { f(t, s) })
	}
}

func TestSealOpenEveryLength(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		for n := range 100 {
			payload := bytes.Repeat([]byte{byte(n)}, n)
			pkt := seal(t, out, payload, byte(n))
			if want := n + s.Overhead(n); len(pkt) != want {
				t.Fatalf("payload of %d: packet of %d, Overhead says %d", n, len(pkt), want)
			}
			if n >= 16 && s != esp.NullSHA256 && bytes.Contains(pkt, payload) {
				t.Fatalf("payload of %d stands in the packet in clear", n)
			}
			if got := binary.BigEndian.Uint32(pkt[4:]); got != uint32(n+1) {
				t.Fatalf("sequence number %d, want %d: the first is 1 (RFC 4303 3.3.3)", got, n+1)
			}
			got, next, err := in.Open(pkt)
			if err != nil || next != byte(n) || !bytes.Equal(got, payload) {
				t.Fatalf("payload of %d: % x, next %d, %v", n, got, next, err)
			}
		}
		if got := in.Stats(); got.Packets != 100 || got.Dummies != 1 || got.Bytes != out.Stats().Bytes {
			t.Errorf("in %+v, out %+v", got, out.Stats())
		}
	})
}

func TestSealTouchesOnlyItsRoom(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, _ := pair(t, s, esp.Limits{})
		const n = 33
		buf := bytes.Repeat([]byte{0x5A}, 300)
		head := s.Headroom() + 40
		pkt, err := out.Seal(buf, head, n, esp.NextUDP)
		if err != nil {
			t.Fatal(err)
		}
		guard := bytes.Repeat([]byte{0x5A}, 300)
		end := head + n + s.Tailroom(n)
		if !bytes.Equal(buf[:40], guard[:40]) || !bytes.Equal(buf[end:], guard[end:]) {
			t.Error("wrote outside of the packet")
		}
		if &pkt[0] != &buf[40] || cap(pkt) != len(pkt) {
			t.Error("the packet is not the part of buf from its header to its ICV")
		}
	})
}

func TestSealRefusesTooLittleRoom(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, _ := pair(t, s, esp.Limits{})
		h, n := s.Headroom(), 10
		full := h + n + s.Tailroom(n)
		tests := []struct {
			name      string
			size      int
			head, len int
		}{
			{"no headroom", full, h - 1, n},
			{"no tailroom", full - 1, h, n},
			{"negative head", full, -1, n},
			{"negative length", full, h, -1},
			{"head behind the buffer", full, full + 1, 0},
			{"length behind the buffer", full, h, full},
			{"huge length", full, h, int(^uint(0) >> 1)},
			{"empty", 0, h, 0},
		}
		for _, tt := range tests {
			if pkt, err := out.Seal(make([]byte, tt.size), tt.head, tt.len, 0); err != esp.ErrRoom || pkt != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if got := out.Stats(); got != (esp.Stats{}) {
			t.Errorf("refusals counted as work: %+v", got)
		}
	})
}

// Every single bit of a packet is protected, and no prefix or extension of it opens.
func TestOpenRefusesEveryChange(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		good := seal(t, out, []byte("thirteen oct."), esp.NextUDP)
		for i := range len(good) * 8 {
			bad := bytes.Clone(good)
			bad[i/8] ^= 1 << (i % 8)
			if _, _, err := in.Open(bad); err == nil {
				t.Fatalf("accepted with bit %d flipped", i)
			}
		}
		for n := range len(good) {
			if _, _, err := in.Open(bytes.Clone(good[:n])); err == nil {
				t.Fatalf("accepted a prefix of %d octets", n)
			}
		}
		for n := range 40 {
			if _, _, err := in.Open(append(bytes.Clone(good), make([]byte, n+1)...)); err == nil {
				t.Fatalf("accepted with %d octets behind it", n+1)
			}
		}
		st := in.Stats()
		if st.Packets != 0 || st.Bytes != 0 || st.Forged+st.Malformed+st.Replayed != uint64(len(good)*9+40) {
			t.Errorf("not every refusal is counted once: %+v", st)
		}
		// None of them moved the window.
		if _, _, err := in.Open(good); err != nil {
			t.Errorf("the packet itself: %v", err)
		}
	})
}

func TestOpenNamesTheCause(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		first := seal(t, out, []byte("first"), esp.NextUDP)
		if _, _, err := in.Open(bytes.Clone(first)); err != nil {
			t.Fatal(err)
		}
		forged := seal(t, out, []byte("second"), esp.NextUDP)
		forged[len(forged)-1] ^= 1
		foreign := bytes.Clone(first)
		foreign[3]++
		shifted := append(seal(t, out, []byte("third"), esp.NextUDP), 0)
		minimum := s.Overhead(0) - s.Tailroom(0) + 1 + (s.Tailroom(0) - pad(s, 0) - 2)
		tests := []struct {
			name string
			pkt  []byte
			want error
		}{
			{"nothing", nil, esp.ErrTruncated},
			{"no room for a trailer", first[:minimum], esp.ErrTruncated},
			{"another SA's", foreign, esp.ErrSPI},
			{"one octet more", shifted, esp.ErrAlignment},
			{"seen before", first, esp.ErrReplay},
			{"forged", forged, esp.ErrAuth},
		}
		for _, tt := range tests {
			if _, _, err := in.Open(tt.pkt); err != tt.want {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		st := in.Stats()
		if st.Malformed != 4 || st.Replayed != 1 || st.Forged != 1 || st.Packets != 1 {
			t.Errorf("counted %+v", st)
		}
	})
}

// pad is the padding behind a payload of n, by the definition of RFC 4303 2.4.
func pad(s esp.Suite, n int) int {
	align := map[esp.Suite]int{esp.AES256CBCSHA256: 16, esp.AES256CBCSHA256IIV: 16, esp.TripleDESSHA1: 8}[s]
	if align == 0 {
		align = 4
	}
	p := 0
	for (n+p+2)%align != 0 {
		p++
	}
	return p
}

func TestOverheadIsExact(t *testing.T) {
	fixed := map[esp.Suite]int{ // header, IV, trailer, ICV
		esp.AES256GCM: 8 + 8 + 2 + 16, esp.ChaCha20Poly1305: 8 + 8 + 2 + 16, esp.AES128GCM: 8 + 8 + 2 + 16,
		esp.AES256CBCSHA256: 8 + 16 + 2 + 16, esp.TripleDESSHA1: 8 + 8 + 2 + 12, esp.NullSHA256: 8 + 0 + 2 + 16,
	}
	keys := map[esp.Suite]int{
		esp.AES256GCM: 36, esp.ChaCha20Poly1305: 36, esp.AES128GCM: 20, esp.AES256CBCSHA256: 64, esp.TripleDESSHA1: 44, esp.NullSHA256: 32,
	}
	for _, s := range esp.Suites() {
		for n := range 2000 {
			if got, want := s.Overhead(n), fixed[s]+pad(s, n); got != want {
				t.Fatalf("%v.Overhead(%d) = %d, want %d", s, n, got, want)
			}
		}
		if s.KeyLen() != keys[s] {
			t.Errorf("%v.KeyLen() = %d, want %d", s, s.KeyLen(), keys[s])
		}
		if back, err := esp.ParseSuite(s.String()); back != s || err != nil {
			t.Errorf("ParseSuite(%v) = %v, %v", s, back, err)
		}
		if s.Legacy() != (s == esp.TripleDESSHA1 || s == esp.NullSHA256) {
			t.Errorf("%v.Legacy() = %v", s, s.Legacy())
		}
	}
	if _, err := esp.ParseSuite("rot13"); !errors.Is(err, esp.ErrSuite) {
		t.Errorf("rot13: %v", err)
	}
}

func TestNewRefusesBadArguments(t *testing.T) {
	weak := bytes.Repeat([]byte("8 octets"), 6)[:esp.TripleDESSHA1.KeyLen()]
	weak[0] ^= 1 // the parity bit makes no difference
	tests := []struct {
		name  string
		spi   uint32
		suite esp.Suite
		key   secret.Key
		want  error
	}{
		{"no suite", testSPI, 0, testKey(esp.AES256GCM), esp.ErrSuite},
		{"unknown suite", testSPI, 200, testKey(esp.AES256GCM), esp.ErrSuite},
		{"the non-ESP marker", 0, esp.AES256GCM, testKey(esp.AES256GCM), esp.ErrSPI},
		{"reserved SPI", 255, esp.AES256GCM, testKey(esp.AES256GCM), esp.ErrSPI},
		{"short key", testSPI, esp.AES256GCM, testKey(esp.AES128GCM), esp.ErrKey},
		{"no key", testSPI, esp.NullSHA256, secret.Key{}, esp.ErrKey},
		{"3DES that is DES", testSPI, esp.TripleDESSHA1, secret.New(weak), esp.ErrKey},
	}
	for _, tt := range tests {
		if _, err := esp.NewOutbound(tt.spi, tt.suite, tt.key, esp.Limits{}); !errors.Is(err, tt.want) {
			t.Errorf("outbound, %s: %v", tt.name, err)
		}
		if _, err := esp.NewInbound(tt.spi, tt.suite, tt.key, esp.Limits{}); !errors.Is(err, tt.want) {
			t.Errorf("inbound, %s: %v", tt.name, err)
		}
	}
}

// The caller may wipe the key at once, also if the SA later needs more than one state.
func TestKeyIsNotKept(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		key := testKey(s)
		out, err := esp.NewOutbound(testSPI, s, key, esp.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		_, in := pair(t, s, esp.Limits{})
		if _, _, err := in.Open(seal(t, out, []byte("x"), esp.NextUDP)); err != nil {
			t.Error(err)
		}
	})
}

func TestHardLimitsFailClosed(t *testing.T) {
	const n = 14 // with the trailer 16 octets in every suite
	tests := []struct {
		name   string
		limits esp.Limits
		sealed int
		soft   int // packets after which Soft is true
	}{
		{"packets", esp.Limits{SoftPackets: 3, HardPackets: 5}, 5, 3},
		{"bytes", esp.Limits{SoftBytes: 32, HardBytes: 64}, 4, 2},
		{"bytes, not a multiple", esp.Limits{HardBytes: 79}, 4, -1},
		{"soft above hard", esp.Limits{SoftPackets: 99, HardPackets: 2}, 2, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			eachSuite(t, func(t *testing.T, s esp.Suite) {
				out, in := pair(t, s, tt.limits)
				for i := range tt.sealed {
					if out.Soft() != (tt.soft >= 0 && i >= tt.soft) || in.Soft() != out.Soft() {
						t.Errorf("after %d packets: soft is %v out, %v in", i, out.Soft(), in.Soft())
					}
					if _, _, err := in.Open(seal(t, out, make([]byte, n), esp.NextUDP)); err != nil {
						t.Fatalf("packet %d: %v", i+1, err)
					}
				}
				for range 3 { // and it stays so
					buf := make([]byte, 200)
					if pkt, err := out.Seal(buf, 100, n, esp.NextUDP); err != esp.ErrExhausted || pkt != nil {
						t.Fatalf("behind the limit: %v", err)
					}
					if !bytes.Equal(buf, make([]byte, 200)) {
						t.Error("the buffer was written to")
					}
				}
				if st := out.Stats(); st.Packets != uint64(tt.sealed) || st.Exhausted != 3 {
					t.Errorf("counted %+v", st)
				}
			})
		})
	}
}

// A peer that goes on behind the limit is not listened to.
func TestInboundHasLimitsToo(t *testing.T) {
	for _, l := range []esp.Limits{{HardPackets: 2}, {HardBytes: 32}} {
		out, _ := pair(t, esp.AES256GCM, esp.Limits{})
		_, in := pair(t, esp.AES256GCM, l)
		for i := range 3 {
			_, _, err := in.Open(seal(t, out, make([]byte, 14), esp.NextUDP))
			if want := error(nil); i == 2 && err != esp.ErrExhausted || i < 2 && err != want {
				t.Errorf("%+v, packet %d: %v", l, i+1, err)
			}
		}
		if in.Stats().Exhausted != 1 || in.Stats().Packets != 2 {
			t.Errorf("%+v: counted %+v", l, in.Stats())
		}
	}
}

// Nobody gets more than the suite allows, whatever they ask for.
func TestLimitsAreCutToTheBound(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		b := s.Bound()
		if b.HardPackets == 0 || b.HardBytes == 0 || b.SoftPackets >= b.HardPackets || b.SoftBytes >= b.HardBytes {
			t.Errorf("bound %+v leaves no time to rekey", b)
		}
		if b.HardPackets >= 1<<60 {
			t.Errorf("bound %+v lets the sequence number near its end", b)
		}
	})
	if b := esp.TripleDESSHA1.Bound(); b.HardBytes > 8<<32/8 {
		t.Errorf("3DES may encrypt %d octets under one key", b.HardBytes)
	}
}

func TestReorderedAndReplayed(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		pkts := make([][]byte, replay.Size+1)
		for i := range pkts {
			pkts[i] = seal(t, out, []byte{byte(i), byte(i >> 8)}, esp.NextUDP)
		}
		for i := len(pkts) - 1; i > 0; i-- { // backwards through the whole window
			got, _, err := in.Open(bytes.Clone(pkts[i]))
			if err != nil || got[0] != byte(i) || got[1] != byte(i>>8) {
				t.Fatalf("packet %d: % x, %v", i+1, got, err)
			}
		}
		for i, p := range pkts { // the first has left the window, the others were seen
			if _, _, err := in.Open(bytes.Clone(p)); err != esp.ErrReplay {
				t.Fatalf("packet %d again: %v", i+1, err)
			}
		}
		if st := in.Stats(); st.Replayed != uint64(len(pkts)) || st.Packets != replay.Size {
			t.Errorf("counted %+v", st)
		}
	})
}

// Many goroutines seal at one end and open at the other, every packet twice: each is accepted once.
func TestConcurrentUse(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		const workers, each = 16, 200 // together within the window, more workers than free states
		out, in := pair(t, s, esp.Limits{})
		var accepted [workers * each]sync.Once
		var wg sync.WaitGroup
		pkts := make(chan []byte, workers*each*2)
		for w := range workers {
			wg.Go(func() {
				for i := range each {
					pkt := seal(t, out, binary.BigEndian.AppendUint32(nil, uint32(w*each+i)), esp.NextUDP)
					pkts <- pkt
					pkts <- bytes.Clone(pkt)
				}
			})
		}
		wg.Wait()
		close(pkts)
		for range workers {
			wg.Go(func() {
				for pkt := range pkts {
					payload, _, err := in.Open(pkt)
					if err == esp.ErrReplay {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					id, first := binary.BigEndian.Uint32(payload), false
					if accepted[id].Do(func() { first = true }); !first {
						t.Errorf("payload %d was accepted twice", id)
					}
				}
			})
		}
		wg.Wait()
		if st := in.Stats(); st.Packets != workers*each || st.Replayed != workers*each {
			t.Errorf("counted %+v", st)
		}
	})
}

func TestClassify(t *testing.T) {
	tests := []struct {
		name     string
		datagram []byte
		want     esp.Kind
	}{
		{"keepalive", esp.AppendKeepalive(nil), esp.Keepalive},
		{"control", append(esp.AppendMarker(nil), 0xC8, 0x02), esp.Control},
		{"marker alone", esp.AppendMarker(nil), esp.Control},
		{"packet", []byte{0, 0, 1, 0, 0, 0, 0, 1}, esp.Packet},
		{"SPI alone", []byte{0, 0, 1, 0}, esp.Invalid},
		{"SPI and half a number", []byte{0, 0, 1, 0, 0, 0, 0}, esp.Invalid},
		{"empty", nil, esp.Invalid},
		{"one octet that is no keepalive", []byte{0xFE}, esp.Invalid},
		{"two keepalives", []byte{0xFF, 0xFF}, esp.Invalid},
		{"half a marker", []byte{0, 0, 0}, esp.Invalid},
	}
	for _, tt := range tests {
		if got := esp.Classify(tt.datagram); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		spi, ok := esp.SPI(tt.datagram)
		if ok != (tt.want == esp.Packet) || ok && spi != 256 {
			t.Errorf("%s: SPI %d, %v", tt.name, spi, ok)
		}
	}
}
