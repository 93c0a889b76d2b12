//go:build !amd64

package gcm

import "crypto/cipher"

const wide = false

func newWide([]byte) cipher.AEAD { panic("gcm: not on this processor") }
