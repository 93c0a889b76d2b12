package handshake

import (
	"crypto/ecdh"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/flynn/noise"

	"twinkey/proto/secret"
)

// KeyPair is a static X25519 key (RFC 7748). Made by NewKeyPair it carries the parsed
// key along, which spares each handshake one scalar multiplication.
type KeyPair struct {
	Private secret.Key // 32 bytes; owned by whoever made the pair
	Public  [32]byte

	key *ecdh.PrivateKey
}

// NewKeyPair computes the public key of private, which must be 32 bytes and stays the
// caller's. What Wipe does to private later does not reach the parsed copy.
func NewKeyPair(private secret.Key) (KeyPair, error) {
	key, err := ecdh.X25519().NewPrivateKey(private.Bytes())
	if err != nil {
		return KeyPair{}, fmt.Errorf("%w: static key: %w", ErrConfig, err)
	}
	return KeyPair{Private: private, Public: [32]byte(key.PublicKey().Bytes()), key: key}, nil
}

// parsed returns k with its private key parsed and its public key known to belong to it.
func (k KeyPair) parsed() (KeyPair, error) {
	if k.key != nil {
		return k, nil
	}
	p, err := NewKeyPair(k.Private)
	if err != nil {
		return KeyPair{}, err
	}
	if subtle.ConstantTimeCompare(p.Public[:], k.Public[:]) != 1 {
		return KeyPair{}, fmt.Errorf("%w: public key does not belong to the private key", ErrConfig)
	}
	return p, nil
}

// curve is Noise's DH function over crypto/ecdh for ONE handshake. It keeps the private
// keys itself and hands flynn/noise a one-byte name for each, so that no private key is
// copied about, none is parsed twice, and a handshake that is run again from the start
// (see exchange) meets the same ephemeral key. A low-order point, whose output is all
// zero, is refused by crypto/ecdh (RFC 7748 section 6.1).
type curve struct{ static, ephemeral *ecdh.PrivateKey }

const (
	namesStatic byte = iota
	namesEphemeral
)

func (c *curve) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	if c.ephemeral == nil {
		var seed [32]byte
		defer clear(seed[:])
		if _, err := io.ReadFull(random, seed[:]); err != nil {
			return noise.DHKey{}, fmt.Errorf("drawing an ephemeral key: %w", err)
		}
		key, err := ecdh.X25519().NewPrivateKey(seed[:])
		if err != nil {
			return noise.DHKey{}, fmt.Errorf("making an ephemeral key: %w", err)
		}
		c.ephemeral = key
	}
	return noise.DHKey{Private: []byte{namesEphemeral}, Public: c.ephemeral.PublicKey().Bytes()}, nil
}

func (c *curve) DH(name, public []byte) ([]byte, error) {
	key := c.static
	if len(name) == 1 && name[0] == namesEphemeral {
		key = c.ephemeral
	}
	if key == nil {
		return nil, ErrDead
	}
	peer, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return key.ECDH(peer)
}

func (c *curve) DHLen() int     { return 32 }
func (c *curve) DHName() string { return "25519" }

func (c *curve) wipe() { c.static, c.ephemeral = nil, nil }

func (c *curve) staticPair() noise.DHKey {
	return noise.DHKey{Private: []byte{namesStatic}, Public: c.static.PublicKey().Bytes()}
}
