package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
)

const (
	nonceSize = 12
	tagSize   = 16
	blockSize = 16
	// maxPlain is far below what SP 800-38D section 5.2.1.1 allows; no packet is longer.
	maxPlain = 1 << 20
)

// errOpen says that the tag is wrong, or that there is none.
var errOpen = errors.New("gcm: message authentication failed")

// New returns AES-GCM under a key of 16 or 32 octets; an aes.KeySizeError for any other.
// Nonces have 12 octets, and at most 16 of associated data are taken: with others Seal and Open may panic. Source and
// destination must be the same memory or apart.
func New(key []byte) (cipher.AEAD, error) {
	if n := len(key); n != 16 && n != 32 {
		return nil, aes.KeySizeError(n)
	}
	if wide {
		return newWide(key), nil
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}
