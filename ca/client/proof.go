package client

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// Labels that keep the two proofs apart.
const (
	LabelControl = "twinkey possession of control key"
	LabelData    = "twinkey possession of data key"
)

// Proof computes one proof of possession. Both ends compute it: the box with its private
// key and the challenge's public one, the CA the other way round.
func Proof(own *ecdh.PrivateKey, peer *ecdh.PublicKey, label string, transcript []byte) ([]byte, error) {
	shared, err := own.ECDH(peer) // fails for points of low order
	if err != nil {
		return nil, fmt.Errorf("agreeing on a proof of possession: %w", err)
	}
	defer clear(shared)
	key, err := hkdf.Key(sha256.New, shared, nil, label, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving a proof of possession: %w", err)
	}
	defer clear(key)
	m := hmac.New(sha256.New, key)
	m.Write(transcript)
	return m.Sum(nil), nil
}
