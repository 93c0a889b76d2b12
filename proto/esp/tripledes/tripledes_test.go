package tripledes_test

import (
	"bytes"
	"crypto/cipher"
	"crypto/des" // the reference
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"twinkey/proto/esp/tripledes"
)

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// The standard library agrees, for any key, IV and length, one packet or four.
func TestAgainstTheStandardLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		key, iv := random(rng, 24), random(rng, 8)
		c, err := tripledes.New(key)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := des.NewTripleDESCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		var plain, got, want [tripledes.Lanes][]byte
		var ivs [tripledes.Lanes]uint64
		for i := range plain {
			plain[i] = random(rng, 8*rng.IntN(30))
			got[i], want[i] = bytes.Clone(plain[i]), bytes.Clone(plain[i])
			ivs[i] = binary.BigEndian.Uint64(iv) + uint64(i)
			cipher.NewCBCEncrypter(ref, binary.BigEndian.AppendUint64(nil, ivs[i])).CryptBlocks(want[i], want[i])
		}
		c.EncryptLanes(&got, &ivs)
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("lane %d, %d octets: % x, want % x", i, len(got[i]), got[i], want[i])
			}
			one := bytes.Clone(plain[i])
			c.Encrypt(one, ivs[i])
			if !bytes.Equal(one, want[i]) {
				t.Fatalf("alone, %d octets", len(one))
			}
			into := make([]byte, len(one))
			c.Decrypt(into, one, ivs[i])
			c.Decrypt(one, one, ivs[i])
			if !bytes.Equal(one, plain[i]) || !bytes.Equal(into, plain[i]) {
				t.Fatalf("decrypted, %d octets: % x, want % x", len(one), one, plain[i])
			}
		}
	}
	if _, err := tripledes.New(make([]byte, 16)); err == nil {
		t.Error("a key of 16 octets")
	}
}

func BenchmarkCBC(b *testing.B) {
	key := random(rand.New(rand.NewPCG(1, 2)), 24)
	c, err := tripledes.New(key)
	if err != nil {
		b.Fatal(err)
	}
	ref, err := des.NewTripleDESCipher(key)
	if err != nil {
		b.Fatal(err)
	}
	var lanes [tripledes.Lanes][]byte
	for i := range lanes {
		lanes[i] = make([]byte, 1400)
	}
	var ivs [tripledes.Lanes]uint64
	iv := make([]byte, 8)
	b.Run("encrypt four", func(b *testing.B) {
		b.SetBytes(4 * 1400)
		for b.Loop() {
			c.EncryptLanes(&lanes, &ivs)
		}
	})
	b.Run("encrypt one", func(b *testing.B) {
		b.SetBytes(1400)
		for b.Loop() {
			c.Encrypt(lanes[0], 0)
		}
	})
	b.Run("decrypt", func(b *testing.B) {
		b.SetBytes(1400)
		for b.Loop() {
			c.Decrypt(lanes[0], lanes[0], 0)
		}
	})
	b.Run("standard library, encrypt", func(b *testing.B) {
		b.SetBytes(1400)
		for b.Loop() {
			cipher.NewCBCEncrypter(ref, iv).CryptBlocks(lanes[0], lanes[0])
		}
	})
	b.Run("standard library, decrypt", func(b *testing.B) {
		b.SetBytes(1400)
		for b.Loop() {
			cipher.NewCBCDecrypter(ref, iv).CryptBlocks(lanes[0], lanes[0])
		}
	})
}
