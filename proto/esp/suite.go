package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"

	"twinkey/proto/esp/gcm"
	"twinkey/proto/esp/tripledes" // RFC 2451, offered only where an operator allows legacy suites
)

// ErrSuite says that a suite is not one of Suites.
var ErrSuite = errors.New("no such suite")

// Suite names a pair of cipher and integrity algorithm. The values are part of the
// handshake and never change; 0 is no suite.
type Suite uint8

// The suites, strongest first.
const (
	AES256GCM        Suite = 1 // RFC 4106, 16-octet ICV
	ChaCha20Poly1305 Suite = 2 // RFC 7634
	AES128GCM        Suite = 3 // RFC 4106, 16-octet ICV
	AES256CBCSHA256  Suite = 4 // RFC 3602 with HMAC-SHA-256-128, RFC 4868
	TripleDESSHA1    Suite = 5 // legacy: RFC 2451 with HMAC-SHA-1-96, RFC 2404
	NullSHA256       Suite = 6 // legacy: RFC 2410 with HMAC-SHA-256-128; encrypts nothing

	// The forms whose IV is not sent: it is the extended sequence number (RFC 8750), or with CBC that number
	// encrypted under a key of its own (SP 800-38A appendix C). They are not offered: who has agreed on a
	// suite may agree on its form, see ImplicitIV.
	AES256GCMIIV        Suite = 7
	ChaCha20Poly1305IIV Suite = 8
	AES128GCMIIV        Suite = 9
	AES256CBCSHA256IIV  Suite = 10
)

// spec is what the rest of the package knows of a suite. Sizes are in octets.
type spec struct {
	name      string
	cipherKey int // encryption key, first in the key material
	salt      int // then the salt of the nonce (RFC 4106 section 8.1, RFC 7634 section 2)
	authKey   int // then the HMAC key
	iv        int // explicit IV in each packet
	align     int // payload, padding and the two trailer octets fill a multiple of this
	icv       int
	legacy    bool
	implicit  bool   // the IV follows from the sequence number, and iv is 0
	bound     Limits // no SA may have more than these
	aead      func(key []byte) (cipher.AEAD, error)
	block     func(key []byte) (cipher.Block, error) // AES-CBC
	mac       func() hash.Hash                       // nil for AEAD
}

const (
	spiSize    = 4
	seqSize    = 4
	headerSize = spiSize + seqSize
	trailer    = 2  // pad length and next header
	align32    = 4  // RFC 4303 section 2.4: the ICV begins on a 4-octet boundary
	cutSHA256  = 16 // RFC 4868 section 2.3
	cutSHA1    = 12 // RFC 2404 section 2
)

// Bounds of the block ciphers, and of those that have none worth naming; see the package comment.
const (
	blockPackets   = 1 << 34
	blockBytes     = 1 << 40
	smallPackets   = 1 << 24
	smallBytes     = 1 << 30
	smallSoftBytes = 1 << 26
	freePackets    = 1 << 48
	freeBytes      = 1 << 56
)

var (
	blockBound = Limits{blockPackets / 4 * 3, blockPackets, blockBytes / 4 * 3, blockBytes}
	smallBound = Limits{smallPackets / 4 * 3, smallPackets, smallSoftBytes, smallBytes}
	freeBound  = Limits{freePackets / 4 * 3, freePackets, freeBytes / 4 * 3, freeBytes}
)

// specs is indexed by Suite; the first is no suite.
var specs = [...]spec{
	AES256GCM: {name: "aes256-gcm", cipherKey: 32, salt: 4, iv: 8, align: align32, icv: 16,
		bound: blockBound, aead: gcm.New},
	ChaCha20Poly1305: {name: "chacha20-poly1305", cipherKey: chacha20poly1305.KeySize, salt: 4, iv: 8, align: align32,
		icv: chacha20poly1305.Overhead, bound: freeBound, aead: chacha20poly1305.New},
	AES128GCM: {name: "aes128-gcm", cipherKey: 16, salt: 4, iv: 8, align: align32, icv: 16,
		bound: blockBound, aead: gcm.New},
	AES256CBCSHA256: {name: "aes256-cbc-sha256", cipherKey: 32, authKey: sha256.Size, iv: aes.BlockSize, align: aes.BlockSize,
		icv: cutSHA256, bound: blockBound, block: aes.NewCipher, mac: sha256.New},
	TripleDESSHA1: {name: "3des-cbc-sha1", cipherKey: tripledes.KeySize, authKey: sha1.Size, iv: tripledes.BlockSize, align: tripledes.BlockSize,
		icv: cutSHA1, legacy: true, bound: smallBound, mac: sha1.New},
	NullSHA256: {name: "null-sha256", authKey: sha256.Size, align: align32, icv: cutSHA256,
		legacy: true, bound: freeBound, mac: sha256.New},
	AES256GCMIIV: {name: "aes256-gcm-iiv", cipherKey: 32, salt: 4, align: align32, icv: 16,
		implicit: true, bound: blockBound, aead: gcm.New},
	ChaCha20Poly1305IIV: {name: "chacha20-poly1305-iiv", cipherKey: chacha20poly1305.KeySize, salt: 4, align: align32,
		icv: chacha20poly1305.Overhead, implicit: true, bound: freeBound, aead: chacha20poly1305.New},
	AES128GCMIIV: {name: "aes128-gcm-iiv", cipherKey: 16, salt: 4, align: align32, icv: 16,
		implicit: true, bound: blockBound, aead: gcm.New},
	AES256CBCSHA256IIV: {name: "aes256-cbc-sha256-iiv", cipherKey: 32, authKey: sha256.Size, align: aes.BlockSize,
		icv: cutSHA256, implicit: true, bound: blockBound, block: aes.NewCipher, mac: sha256.New},
}

// ImplicitIV is the form of s that does not send the IV, 8 or 16 octets less a packet; s itself if it has none.
func (s Suite) ImplicitIV() Suite {
	switch s {
	case AES256GCM:
		return AES256GCMIIV
	case ChaCha20Poly1305:
		return ChaCha20Poly1305IIV
	case AES128GCM:
		return AES128GCMIIV
	case AES256CBCSHA256:
		return AES256CBCSHA256IIV
	default:
		return s
	}
}

// Suites returns every suite that may be agreed on, strongest first.
func Suites() []Suite {
	return []Suite{AES256GCM, ChaCha20Poly1305, AES128GCM, AES256CBCSHA256, TripleDESSHA1, NullSHA256}
}

// ParseSuite is the inverse of String; it fails with ErrSuite.
func ParseSuite(name string) (Suite, error) {
	for _, s := range Suites() {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("parsing ESP suite %q: %w", name, ErrSuite)
}

// Valid reports whether s is one of Suites.
func (s Suite) Valid() bool { return s > 0 && int(s) < len(specs) }

func (s Suite) String() string {
	if !s.Valid() {
		return fmt.Sprintf("suite(%d)", uint8(s))
	}
	return specs[s].name
}

// spec returns the row of s; that of no suite is all zero.
func (s Suite) spec() *spec {
	if !s.Valid() {
		return &specs[0]
	}
	return &specs[s]
}

// Legacy reports whether s is refused unless the operator allows it.
func (s Suite) Legacy() bool { return s.spec().legacy }

// KeyLen is the key material of one direction in octets: cipher key, salt, HMAC key, in
// this order. 0 for no suite.
func (s Suite) KeyLen() int {
	p := s.spec()
	return p.cipherKey + p.salt + p.authKey
}

// Headroom is the number of octets that Seal writes before the payload: SPI, sequence number, IV.
func (s Suite) Headroom() int { return headerSize + s.spec().iv }

// Tailroom is the number of octets that Seal writes behind a payload of n octets:
// padding, pad length, next header, ICV.
func (s Suite) Tailroom(n int) int {
	p := s.spec()
	return p.pad(n) + trailer + p.icv
}

// Overhead is what Seal adds to a payload of n octets: Headroom and Tailroom.
func (s Suite) Overhead(n int) int { return s.Headroom() + s.Tailroom(n) }

// Fits is the longest payload in octets whose packet has at most size octets; 0 if there is none.
func (s Suite) Fits(size int) int {
	p := s.spec()
	return max(0, (size-s.Headroom()-p.icv)&^(p.align-1)-trailer)
}

// Bound returns the limits that no SA of this suite can exceed.
func (s Suite) Bound() Limits { return s.spec().bound }

// pad is the number of padding octets behind a payload of n; align is a power of two.
func (p *spec) pad(n int) int { return -(n + trailer) & (p.align - 1) }
