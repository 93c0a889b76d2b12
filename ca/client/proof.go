package client

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Labels that keep proofs apart.
const (
	LabelControl    = "twinkey possession of control key"
	LabelData       = "twinkey possession of data key"
	LabelOldControl = "twinkey possession of old control key"
	LabelOldData    = "twinkey possession of old data key"
	labelClose      = "twinkey end of a session"

	LabelLoginControl = "twinkey login by control key"
	LabelLoginData    = "twinkey login by data key"
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

// CloseProof says that whoever has a user's data key saw the user's last call at a router end. Both ends compute it:
// the router with the data key and the CA's key for this purpose (FetchCloseKey), the CA the other way round. It needs
// no answer of the CA, so that the data key can be wiped at once, and names the router and the certificate, so that it
// is good for nothing else. Showing it twice does no harm: a revocation is for good.
func CloseProof(own *ecdh.PrivateKey, peer *ecdh.PublicKey, router string, certificate []byte) ([]byte, error) {
	return Proof(own, peer, labelClose, hash([]byte("twinkey close 1"), []byte(router), certificate))
}

// LoginTranscript is what the proofs of a login by keys of a user's own are over (labels LabelLogin...): the router by its name, the user,
// the certificate that is shown, the router's challenge (its X25519 key and its nonce), and what both ends export of the TLS connection
// in which the challenge was given. So they are good for one login, at that router, over that connection.
func LoginTranscript(router, uid string, certificate, public, nonce, channel []byte) []byte {
	return hash([]byte("twinkey login 1"), []byte(router), []byte(uid), certificate, public, nonce, channel)
}

// hash is SHA-256 over parts, each with its length before it.
func hash(parts ...[]byte) []byte {
	h := sha256.New()
	for _, part := range parts {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part))) //nolint:gosec // parts are bounded by MaxRequest
		h.Write(n[:])
		h.Write(part)
	}
	return h.Sum(nil)
}
