package tripledes

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// Sizes in octets.
const (
	KeySize   = 24
	BlockSize = 8
	// Lanes is how many blocks are worked on at a time.
	Lanes = 4
)

// ErrKeySize says that a key does not have 24 octets.
var ErrKeySize = errors.New("tripledes: a key has 24 octets")

// Cipher holds expanded keys. It is immutable and safe for concurrent use.
type Cipher struct {
	encrypt, decrypt schedule
}

// schedule are the keys of 48 rounds, two words each: those for the odd S-boxes and those for the even.
type schedule [96]uint32

// New expands a key of KeySize octets and keeps no reference to it. Parity bits are ignored.
func New(key []byte) (*Cipher, error) {
	if len(key) != KeySize {
		return nil, ErrKeySize
	}
	c := new(Cipher)
	for i := range 3 {
		rounds := expand(binary.BigEndian.Uint64(key[8*i:]))
		backward := i == 1 // EDE: the one in the middle decrypts
		for r := range 16 {
			there, back := r, 15-r
			if backward {
				there, back = back, there
			}
			copy(c.encrypt[32*i+2*r:], rounds[2*there:2*there+2])
			copy(c.decrypt[32*(2-i)+2*r:], rounds[2*back:2*back+2])
		}
	}
	return c, nil
}

// expand makes the keys of the 16 rounds of DES.
func expand(key uint64) (rounds [32]uint32) {
	var cd uint64
	for _, b := range permutedChoice1 {
		cd = cd<<1 | key>>(64-b)&1
	}
	const half = 1<<28 - 1
	c, d := uint32(cd>>28), uint32(cd&half)
	for r, n := range shifts {
		c, d = (c<<n|c>>(28-n))&half, (d<<n|d>>(28-n))&half
		cd = uint64(c)<<28 | uint64(d)
		var k [8]uint32 // six bits for each S-box
		for i, b := range permutedChoice2 {
			k[i/6] = k[i/6]<<1 | uint32(cd>>(56-b)&1)
		}
		rounds[2*r] = k[0]<<24 | k[2]<<16 | k[4]<<8 | k[6]
		rounds[2*r+1] = k[1]<<24 | k[3]<<16 | k[5]<<8 | k[7]
	}
	return rounds
}

// halves are a block between the initial and the final permutation, each turned left by one bit, so that what
// an S-box takes lies together.
type halves struct{ l, r uint32 }

// swap exchanges the bits of b that m marks with those of a that lie n to the left.
func swap(a, b uint32, n int, m uint32) (uint32, uint32) {
	t := (a>>n ^ b) & m
	return a ^ t<<n, b ^ t
}

// initial is the initial permutation.
func initial(x uint64) halves {
	l, r := uint32(x>>32), uint32(x)
	l, r = swap(l, r, 4, 0x0f0f0f0f)
	l, r = swap(l, r, 16, 0x0000ffff)
	r, l = swap(r, l, 2, 0x33333333)
	r, l = swap(r, l, 8, 0x00ff00ff)
	l, r = swap(l, r, 1, 0x55555555)
	return halves{bits.RotateLeft32(l, 1), bits.RotateLeft32(r, 1)}
}

// final is its inverse, of the halves exchanged, as they are after the last round.
func (h halves) final() uint64 {
	l, r := bits.RotateLeft32(h.r, -1), bits.RotateLeft32(h.l, -1)
	l, r = swap(l, r, 1, 0x55555555)
	r, l = swap(r, l, 8, 0x00ff00ff)
	r, l = swap(r, l, 2, 0x33333333)
	l, r = swap(l, r, 16, 0x0000ffff)
	l, r = swap(l, r, 4, 0x0f0f0f0f)
	return uint64(l)<<32 | uint64(r)
}

// odd and even are the function f of a round, in two parts small enough to be inlined.
func odd(r, k uint32) uint32 {
	t := bits.RotateLeft32(r, -4) ^ k
	return boxes[0][t>>24&63] ^ boxes[2][t>>16&63] ^ boxes[4][t>>8&63] ^ boxes[6][t&63]
}

func even(r, k uint32) uint32 {
	t := r ^ k
	return boxes[1][t>>24&63] ^ boxes[3][t>>16&63] ^ boxes[5][t>>8&63] ^ boxes[7][t&63]
}

// one works on one block.
func (s *schedule) one(x uint64) uint64 {
	h := initial(x)
	for i := 0; i < len(s); i += 32 {
		for k := i; k < i+32; k += 4 {
			h.l ^= odd(h.r, s[k]) ^ even(h.r, s[k+1])
			h.r ^= odd(h.l, s[k+2]) ^ even(h.l, s[k+3])
		}
		h.l, h.r = h.r, h.l
	}
	h.l, h.r = h.r, h.l // final exchanges them once more
	return h.final()
}

// four works on four blocks.
func (s *schedule) four(x *[Lanes]uint64) {
	a, b, c, d := initial(x[0]), initial(x[1]), initial(x[2]), initial(x[3])
	for i := 0; i < len(s); i += 32 {
		for k := i; k < i+32; k += 4 {
			k0, k1, k2, k3 := s[k], s[k+1], s[k+2], s[k+3]
			a.l ^= odd(a.r, k0) ^ even(a.r, k1)
			b.l ^= odd(b.r, k0) ^ even(b.r, k1)
			c.l ^= odd(c.r, k0) ^ even(c.r, k1)
			d.l ^= odd(d.r, k0) ^ even(d.r, k1)
			a.r ^= odd(a.l, k2) ^ even(a.l, k3)
			b.r ^= odd(b.l, k2) ^ even(b.l, k3)
			c.r ^= odd(c.l, k2) ^ even(c.l, k3)
			d.r ^= odd(d.l, k2) ^ even(d.l, k3)
		}
		a.l, a.r, b.l, b.r, c.l, c.r, d.l, d.r = a.r, a.l, b.r, b.l, c.r, c.l, d.r, d.l
	}
	a.l, a.r, b.l, b.r, c.l, c.r, d.l, d.r = a.r, a.l, b.r, b.l, c.r, c.l, d.r, d.l
	x[0], x[1], x[2], x[3] = a.final(), b.final(), c.final(), d.final()
}

// Decrypt decrypts whole blocks of src into dst, which has as much room and is either the same memory or apart.
func (c *Cipher) Decrypt(dst, src []byte, iv uint64) {
	get, put := binary.BigEndian.Uint64, binary.BigEndian.PutUint64
	var x, was [Lanes]uint64
	for len(src) >= Lanes*BlockSize {
		for i := range x {
			x[i] = get(src[i*BlockSize:])
		}
		was = x
		c.decrypt.four(&x)
		put(dst, x[0]^iv)
		for i := 1; i < Lanes; i++ {
			put(dst[i*BlockSize:], x[i]^was[i-1])
		}
		iv = was[Lanes-1]
		dst, src = dst[Lanes*BlockSize:], src[Lanes*BlockSize:]
	}
	for ; len(src) >= BlockSize; dst, src = dst[BlockSize:], src[BlockSize:] {
		y := get(src)
		put(dst, c.decrypt.one(y)^iv)
		iv = y
	}
}

// Encrypt encrypts whole blocks in place.
func (c *Cipher) Encrypt(b []byte, iv uint64) {
	for ; len(b) >= BlockSize; b = b[BlockSize:] {
		iv = c.encrypt.one(binary.BigEndian.Uint64(b) ^ iv)
		binary.BigEndian.PutUint64(b, iv)
	}
}

// EncryptLanes is Encrypt of Lanes buffers at once, which may differ in length.
func (c *Cipher) EncryptLanes(b *[Lanes][]byte, iv *[Lanes]uint64) {
	get, put := binary.BigEndian.Uint64, binary.BigEndian.PutUint64
	n := len(b[0])
	for _, x := range b[1:] {
		n = min(n, len(x))
	}
	n &^= BlockSize - 1
	x := *iv
	for at := 0; at < n; at += BlockSize {
		for i := range x {
			x[i] ^= get(b[i][at:])
		}
		c.encrypt.four(&x)
		for i := range x {
			put(b[i][at:], x[i])
		}
	}
	for i := range b {
		c.Encrypt(b[i][n:], x[i])
	}
}
