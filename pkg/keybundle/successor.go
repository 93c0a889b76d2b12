package keybundle

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"fmt"

	"twinkey/proto/secret"
)

// SuccessorLen is the length of a sealed control key, bytes.
const SuccessorLen = 1 + encLen + keyLen + tagLen

const (
	encLen = 32 // an X25519 public key
	tagLen = 16
)

// ErrSuccessor says that a sealed control key does not open.
var ErrSuccessor = errors.New("the successor does not open with this data key, or belongs to another certificate")

// successorInfo binds what is sealed to its certificate.
func successorInfo(cert []byte) []byte { return append([]byte("twinkey successor\x00"), cert...) }

// SealControl encrypts a control key to the data public key of the certificate cert, DER.
func SealControl(control secret.Key, data [32]byte, cert []byte) ([]byte, error) {
	if control.Len() != keyLen {
		return nil, fmt.Errorf("sealing a control key: it has %d bytes, not %d", control.Len(), keyLen)
	}
	pub, err := ecdh.X25519().NewPublicKey(data[:])
	if err != nil {
		return nil, fmt.Errorf("sealing a control key: %w", err)
	}
	to, err := hpke.NewDHKEMPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("sealing a control key: %w", err)
	}
	sealed, err := hpke.Seal(to, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), successorInfo(cert), control.Bytes())
	if err != nil {
		return nil, fmt.Errorf("sealing a control key: %w", err)
	}
	return append([]byte{version}, sealed...), nil
}

// OpenControl is the inverse of SealControl; data is the private key. Whatever is wrong it fails with
// ErrSuccessor. Whether the key is that of the certificate is for the caller to see.
func OpenControl(sealed []byte, data secret.Key, cert []byte) (secret.Key, error) {
	if len(sealed) != SuccessorLen || sealed[0] != version {
		return secret.Key{}, ErrSuccessor
	}
	priv, err := ecdh.X25519().NewPrivateKey(data.Bytes())
	if err != nil {
		return secret.Key{}, ErrSuccessor
	}
	k, err := hpke.NewDHKEMPrivateKey(priv)
	if err != nil {
		return secret.Key{}, ErrSuccessor
	}
	control, err := hpke.Open(k, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), successorInfo(cert), sealed[1:])
	if err != nil {
		return secret.Key{}, ErrSuccessor
	}
	return secret.New(control), nil
}
