package gcm

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"math/bits"
	"slices"

	"golang.org/x/sys/cpu"
)

// wide says whether this processor, and the system on it, has what the assembly needs.
var wide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ &&
	cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasBMI2

const (
	highest = 17 // power of H: sixteen blocks at the end and the lengths
	spare   = 3  // read beyond H^1 by the last vector, and multiplied by zero
)

// wideGCM is laid out as wide_amd64.s expects it.
type wideGCM struct {
	rounds uint64
	keys   [15][blockSize]byte
	// powers are H^17 down to H^1, their bytes reversed and multiplied by x, so that products need no shift.
	powers [highest + spare][blockSize]byte
}

//go:noescape
func subWord(w uint32) uint32

//go:noescape
func encryptBlock(c *wideGCM, block *[blockSize]byte)

//go:noescape
func raise(powers *[highest + spare][blockSize]byte)

//go:noescape
func seal(c *wideGCM, dst, src *byte, n int, j0, ad *[blockSize]byte, adLen int, tag *[tagSize]byte)

//go:noescape
func open(c *wideGCM, dst, src *byte, n int, j0, ad *[blockSize]byte, adLen int, tag *[tagSize]byte)

func newWide(key []byte) cipher.AEAD {
	c := new(wideGCM)
	c.expand(key)
	var h [blockSize]byte
	encryptBlock(c, &h)
	hi, lo := binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
	carry := -(hi >> 63)
	hi, lo = hi<<1|lo>>63, lo<<1
	first := &c.powers[highest-1]
	binary.LittleEndian.PutUint64(first[:], lo^carry&1)
	binary.LittleEndian.PutUint64(first[8:], hi^carry&0xc200000000000000)
	raise(&c.powers)
	clear(h[:])
	return c
}

// expand makes the round keys (FIPS 197 section 5.2).
func (c *wideGCM) expand(key []byte) {
	words := len(key) / 4
	c.rounds = uint64(words + 6) //nolint:gosec // 10 or 14
	var w [4 * 15]uint32
	for i := range words {
		w[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	rcon := uint32(1)
	for i := words; i < 4*(words+7); i++ {
		t := w[i-1]
		switch {
		case i%words == 0:
			t = subWord(bits.RotateLeft32(t, -8)) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case words == 8 && i%words == 4:
			t = subWord(t)
		}
		w[i] = w[i-words] ^ t
	}
	for i, v := range w[:4*(words+7)] {
		binary.LittleEndian.PutUint32(c.keys[i/4][i%4*4:], v)
	}
	clear(w[:])
}

func (c *wideGCM) NonceSize() int { return nonceSize }

func (c *wideGCM) Overhead() int { return tagSize }

// begin returns J0, and the associated data as a block.
func begin(nonce, ad []byte) (j0, block [blockSize]byte) {
	if len(nonce) != nonceSize || len(ad) > blockSize {
		panic("gcm: wrong length of nonce or associated data")
	}
	copy(j0[:], nonce)
	j0[blockSize-1] = 1
	copy(block[:], ad)
	return j0, block
}

func (c *wideGCM) Seal(dst, nonce, plaintext, ad []byte) []byte {
	if len(plaintext) > maxPlain {
		panic("gcm: message too long")
	}
	j0, block := begin(nonce, ad)
	n := len(plaintext)
	ret := slices.Grow(dst, n+tagSize)[:len(dst)+n+tagSize]
	out := ret[len(dst):]
	var src *byte
	if n > 0 {
		src = &plaintext[0]
	}
	var tag [tagSize]byte
	seal(c, &out[0], src, n, &j0, &block, len(ad), &tag)
	copy(out[n:], tag[:])
	return ret
}

func (c *wideGCM) Open(dst, nonce, ciphertext, ad []byte) ([]byte, error) {
	n := len(ciphertext) - tagSize
	if n < 0 || n > maxPlain {
		return nil, errOpen
	}
	j0, block := begin(nonce, ad)
	ret := slices.Grow(dst, n)[:len(dst)+n]
	out := ret[len(dst):]
	var want [tagSize]byte // before the plaintext may be written over it
	copy(want[:], ciphertext[n:])
	var tag [tagSize]byte
	var to, src *byte
	if n > 0 {
		to, src = &out[0], &ciphertext[0]
	}
	open(c, to, src, n, &j0, &block, len(ad), &tag)
	if subtle.ConstantTimeCompare(tag[:], want[:]) != 1 {
		clear(out)
		return nil, errOpen
	}
	return ret, nil
}
