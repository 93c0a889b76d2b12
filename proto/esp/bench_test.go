package esp_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"testing"

	"twinkey/proto/esp"
)

// payloadSize is what a full call's packet carries on a path with an MTU of 1,500.
const payloadSize = 1400

func BenchmarkSeal(b *testing.B) {
	for _, s := range esp.Suites() {
		b.Run(s.String(), func(b *testing.B) {
			out, _ := pair(b, s, esp.Limits{})
			buf := make([]byte, 2048)
			b.SetBytes(payloadSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := out.Seal(buf, 64, payloadSize, esp.NextUDP); err == esp.ErrExhausted {
					out, _ = pair(b, s, esp.Limits{}) // 3DES after 1 GiB
				} else if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTogether is BenchmarkSeal where packets are sealed side by side, a train of 44.
func BenchmarkTogether(b *testing.B) {
	const n = 44
	out, _ := pair(b, esp.TripleDESSHA1, esp.Limits{})
	src, bufs, ps := make([]byte, payloadSize), make([][2048]byte, n), make([]esp.Pending, 0, n)
	b.SetBytes(n * payloadSize)
	b.ReportAllocs()
	for b.Loop() {
		ps = ps[:0]
		for i := range bufs {
			p, err := out.Prepare(bufs[i][:], src, payloadSize, esp.NextIPv4)
			if err == esp.ErrExhausted {
				out, _ = pair(b, esp.TripleDESSHA1, esp.Limits{})
				break
			}
			ps = append(ps, p)
		}
		if err := out.Finish(ps); err != nil {
			b.Fatal(err)
		}
	}
}

// train is how many packets the Open benchmarks have ready. Open works in place, so each is copied to where
// it is opened; the copy is measured with it, in BenchmarkBareOpen too.
const train = 4096

func sealTrain(b *testing.B, s esp.Suite) [][]byte {
	out, _ := pair(b, s, esp.Limits{})
	pkts := make([][]byte, train)
	for i := range pkts {
		pkts[i] = seal(b, out, make([]byte, payloadSize), esp.NextUDP)
	}
	b.SetBytes(payloadSize)
	b.ReportAllocs()
	return pkts
}

func BenchmarkOpen(b *testing.B) {
	for _, s := range esp.Suites() {
		b.Run(s.String(), func(b *testing.B) {
			pkts := sealTrain(b, s)
			_, in := pair(b, s, esp.Limits{})
			buf := make([]byte, len(pkts[0]))
			i := 0
			for b.Loop() {
				if i == train { // the same packets to a receiver that has seen none
					i = 0
					_, in = pair(b, s, esp.Limits{})
				}
				copy(buf, pkts[i])
				i++
				if _, _, err := in.Open(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// bare is the yardstick: the cipher.AEAD inside AES256GCM, with its nonce (salt first) and associated data.
func bare(b *testing.B) (aead cipher.AEAD, nonce, aad []byte) {
	key := testKey(esp.AES256GCM).Bytes()
	block, err := aes.NewCipher(key[:32])
	if err != nil {
		b.Fatal(err)
	}
	if aead, err = cipher.NewGCM(block); err != nil {
		b.Fatal(err)
	}
	nonce, aad = make([]byte, 12), make([]byte, 12)
	copy(nonce, key[32:])
	binary.BigEndian.PutUint32(aad, testSPI)
	return aead, nonce, aad
}

func BenchmarkBareSeal(b *testing.B) {
	aead, nonce, aad := bare(b)
	buf := make([]byte, 2048)
	b.SetBytes(payloadSize)
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		seq++
		binary.BigEndian.PutUint64(nonce[4:], seq)
		binary.BigEndian.PutUint64(aad[4:], seq)
		aead.Seal(buf[64:64], nonce, buf[64:64+payloadSize+4], aad) // padding and trailer are 4 octets
	}
}

// BenchmarkBareOpen opens the very packets of BenchmarkOpen.
func BenchmarkBareOpen(b *testing.B) {
	pkts := sealTrain(b, esp.AES256GCM)
	aead, nonce, aad := bare(b)
	buf := make([]byte, len(pkts[0]))
	i := 0
	for b.Loop() {
		if i == train {
			i = 0
		}
		copy(buf, pkts[i])
		i++
		copy(nonce[4:], buf[8:16])
		copy(aad[4:], buf[8:16])
		if _, err := aead.Open(buf[16:16], nonce, buf[16:], aad); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealParallel(b *testing.B) {
	out, _ := pair(b, esp.AES256GCM, esp.Limits{})
	b.SetBytes(payloadSize)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		buf := make([]byte, 2048)
		for p.Next() {
			if _, err := out.Seal(buf, 64, payloadSize, esp.NextUDP); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	eachSuite(t, func(t *testing.T, s esp.Suite) {
		out, in := pair(t, s, esp.Limits{})
		buf := make([]byte, 2048)
		bad := make([]byte, 64)
		if n := testing.AllocsPerRun(500, func() {
			pkt, err := out.Seal(buf, 64, payloadSize, esp.NextUDP)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := in.Open(pkt); err != nil {
				t.Fatal(err)
			}
			if _, _, err := in.Open(bad); err == nil {
				t.Fatal("nonsense accepted")
			}
		}); n != 0 {
			t.Errorf("%v allocations a packet", n)
		}
	})
}
