package gcm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// The vectors of McGrew and Viega, "The Galois/Counter Mode of Operation", that fit: AES-128 (1, 2, 3) and AES-256
// (13, 14, 15).
func TestVectors(t *testing.T) {
	const (
		key128 = "feffe9928665731c6d6a8f9467308308"
		plain  = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
	)
	for _, tt := range []struct{ key, nonce, plain, sealed string }{
		{"00000000000000000000000000000000", "000000000000000000000000", "", "58e2fccefa7e3061367f1d57a4e7455a"},
		{"00000000000000000000000000000000", "000000000000000000000000", "00000000000000000000000000000000",
			"0388dace60b6a392f328c2b971b2fe78ab6e47d42cec13bdf53a67b21257bddf"},
		{key128, "cafebabefacedbaddecaf888", plain,
			"42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f59854d5c2af327cd64a62cf35abd2ba6fab4"},
		{"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "00000000000000000000000000000000",
			"cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
		{key128 + key128, "cafebabefacedbaddecaf888", plain,
			"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c"},
	} {
		c, err := New(unhex(t, tt.key))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Seal(nil, unhex(t, tt.nonce), unhex(t, tt.plain), nil); hex.EncodeToString(got) != tt.sealed {
			t.Errorf("sealed %x, want %s", got, tt.sealed)
		}
		if got, err := c.Open(nil, unhex(t, tt.nonce), unhex(t, tt.sealed), nil); err != nil || hex.EncodeToString(got) != tt.plain {
			t.Errorf("opened %x (%v), want %s", got, err, tt.plain)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// both are ours and the standard library's under the same random key.
func both(t testing.TB, r *rand.ChaCha8, size int) (ours, std cipher.AEAD) {
	t.Helper()
	key := random(r, size)
	ours, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	std, err = cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	return ours, std
}

func random(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	r.Read(b) //nolint:errcheck // it never fails
	return b
}

// Every length up to what a jumbo packet has, in place and apart, at every alignment, agrees with the standard
// library, and touches nothing around it.
func TestAgreesWithTheStandardLibrary(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{16, 32} {
		for n := range 2400 {
			ours, std := both(t, r, size)
			nonce, ad, plain := random(r, 12), random(r, n%17), random(r, n)
			want := std.Seal(nil, nonce, plain, ad)
			at := n % 61
			buf := random(r, at+n+tagSize+70)
			around := bytes.Clone(buf)
			got := ours.Seal(buf[at:at], nonce, plain, ad)
			if !bytes.Equal(got, want) {
				t.Fatalf("key of %d, %d octets: sealed otherwise", size, n)
			}
			if !bytes.Equal(buf[:at], around[:at]) || !bytes.Equal(buf[at+n+tagSize:], around[at+n+tagSize:]) {
				t.Fatalf("%d octets: written around the ciphertext", n)
			}
			copy(buf[at:], plain)
			if in := ours.Seal(buf[at:at], nonce, buf[at:at+n], ad); !bytes.Equal(in, want) {
				t.Fatalf("%d octets: sealed otherwise in place", n)
			}
			apart := make([]byte, n+7)
			if back, err := ours.Open(apart[:0], nonce, want, ad); err != nil || !bytes.Equal(back, plain) || !bytes.Equal(apart[n:], make([]byte, 7)) {
				t.Fatalf("%d octets: opened otherwise, or written behind (%v)", n, err)
			}
			if back, err := ours.Open(buf[at:at], nonce, buf[at:at+n+tagSize], ad); err != nil || !bytes.Equal(back, plain) {
				t.Fatalf("%d octets: opened otherwise in place (%v)", n, err)
			}
		}
	}
}

// A bit that is wrong anywhere is seen, and nothing of what was decrypted is left.
func TestForged(t *testing.T) {
	r := rand.NewChaCha8([32]byte{2})
	ours, _ := both(t, r, 32)
	nonce, ad := random(r, 12), random(r, 12)
	for _, n := range []int{0, 1, 15, 16, 17, 64, 255, 256, 257, 600} {
		sealed := ours.Seal(nil, nonce, random(r, n), ad)
		for bit := range len(sealed) * 8 {
			bad := bytes.Clone(sealed)
			bad[bit/8] ^= 1 << (bit % 8)
			into := make([]byte, n)
			if _, err := ours.Open(into[:0], nonce, bad, ad); err == nil || !bytes.Equal(into, make([]byte, n)) {
				t.Fatalf("%d octets, bit %d: %v, or plaintext is left", n, bit, err)
			}
		}
		for bit := range 12 * 8 {
			other, data := bytes.Clone(nonce), bytes.Clone(ad)
			other[bit/8] ^= 1 << (bit % 8)
			data[bit/8] ^= 1 << (bit % 8)
			if _, err := ours.Open(nil, other, sealed, ad); err == nil {
				t.Fatalf("%d octets: another nonce opens it", n)
			}
			if _, err := ours.Open(nil, nonce, sealed, data); err == nil {
				t.Fatalf("%d octets: other data open it", n)
			}
		}
		if _, err := ours.Open(nil, nonce, sealed, ad[:11]); err == nil {
			t.Fatal("less data open it")
		}
	}
	for n := range tagSize {
		if _, err := ours.Open(nil, nonce, make([]byte, n), ad); err == nil {
			t.Fatalf("%d octets are a message", n)
		}
	}
}

func TestWrongLengths(t *testing.T) {
	for _, n := range []int{0, 15, 17, 24, 31, 33, 64} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("a key of %d octets is taken", n)
		}
	}
}

// FuzzAgreement has the standard library say what is right.
func FuzzAgreement(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte("nonce nonce!"), []byte("plaintext"), []byte("twelve bytes"))
	f.Add(make([]byte, 32), make([]byte, 12), make([]byte, 257), []byte{})
	f.Fuzz(func(t *testing.T, key, nonce, plain, ad []byte) {
		if len(key) != 16 && len(key) != 32 || len(nonce) != nonceSize || len(ad) > blockSize {
			return
		}
		ours, err := New(key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		std, err := cipher.NewGCM(b)
		if err != nil {
			t.Fatal(err)
		}
		want := std.Seal(nil, nonce, plain, ad)
		if got := ours.Seal(nil, nonce, plain, ad); !bytes.Equal(got, want) {
			t.Fatalf("sealed %x\n want %x", got, want)
		}
		if got, err := ours.Open(nil, nonce, want, ad); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x (%v)", got, err)
		}
	})
}

func BenchmarkSeal(b *testing.B)     { benchmark(b, true, 1400) }
func BenchmarkOpen(b *testing.B)     { benchmark(b, false, 1400) }
func BenchmarkSeal64(b *testing.B)   { benchmark(b, true, 64) }
func BenchmarkSeal9000(b *testing.B) { benchmark(b, true, 9000) }

// benchmark runs ours beside the standard library.
func benchmark(b *testing.B, sealing bool, n int) {
	r := rand.NewChaCha8([32]byte{3})
	ours, std := both(b, r, 32)
	nonce, ad, plain := random(r, 12), random(r, 12), random(r, n)
	dst := make([]byte, n+tagSize)
	sealed := std.Seal(nil, nonce, plain, ad)
	for _, c := range []struct {
		name string
		aead cipher.AEAD
	}{{"ours", ours}, {"std", std}} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if sealing {
					c.aead.Seal(dst[:0], nonce, plain, ad)
				} else if _, err := c.aead.Open(dst[:0], nonce, sealed, ad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
