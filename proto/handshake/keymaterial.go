package handshake

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"twinkey/proto/esp"
	"twinkey/proto/secret"
)

// Labels separate what is derived or signed here from everything else that anybody
// derives or signs with the same keys.
const (
	labelTunnel    = "twinkey tunnel v1"
	labelCall      = "twinkey call v1"
	labelSA        = "twinkey esp sa v1"
	labelSignature = "twinkey router signature v1"
	labelBound     = "twinkey router signature for one user v1"
)

// keyMaterial is the key material of an SA pair.
type keyMaterial struct{ out, in secret.Key }

func (k *keyMaterial) wipe() { k.out.Wipe(); k.in.Wipe() }

// derive computes the SA pair's key material when the last message has passed:
//
//	HKDF-Expand(SHA-256, Noise key of the sender,
//	    label | 0 | 'i' or 'r', the sender | suite (1) | SPI, the receiver's (4) | handshake hash (32))
func (m *machine) derive() error {
	fromInitiator, fromResponder := m.remote, m.spi
	if !m.initiator {
		fromInitiator, fromResponder = m.spi, m.remote
	}
	m.hash = m.x.hash()
	i, err := expand(m.x.initiatorKey[:], 'i', m.suite, fromInitiator, m.hash)
	if err != nil {
		return err
	}
	r, err := expand(m.x.responderKey[:], 'r', m.suite, fromResponder, m.hash)
	if err != nil {
		return err
	}
	m.keys = keyMaterial{out: i, in: r}
	if !m.initiator {
		m.keys = keyMaterial{out: r, in: i}
	}
	m.x.wipe() // nothing more is to be written or read
	return nil
}

func expand(key []byte, sender byte, s esp.Suite, spi uint32, hash [32]byte) (secret.Key, error) {
	info := append([]byte(labelSA), 0, sender, byte(s))
	info = binary.BigEndian.AppendUint32(info, spi)
	info = append(info, hash[:]...)
	b, err := hkdf.Expand(sha256.New, key, string(info), s.KeyLen())
	if err != nil {
		return secret.Key{}, fmt.Errorf("deriving the key of an SA: %w", err)
	}
	return secret.New(b), nil
}

// Statement is what a router signs with its TLS key: that the holder of a control key begins a tunnel for it.
type Statement struct {
	// Hash is that of the handshake after message 2; it covers both ephemeral keys, the terminator's control
	// key and certificate, and everything offered and chosen.
	Hash    [32]byte
	Control [32]byte // the initiator's control key
	// Bound is what the router holds the tunnel to, in the owners' words; where it is not empty the signature covers it, and
	// Certificate, the twin certificate that the initiator shows. So who may have statements signed for one user cannot
	// pass them off for another.
	Certificate, Bound []byte
}

// Voucher is what a router adds to a handshake.
type Voucher struct {
	Router    []byte // its TLS certificate, DER, at most MaxRouter bytes
	Bound     []byte // of the Statement, at most MaxBound bytes; empty: nothing
	Signature []byte // over the Statement's Digest
}

// Digest is SHA-256 over a label, hash and control key; of a bound statement over another label, and each of its parts with its length.
func (s Statement) Digest() [32]byte {
	if len(s.Bound) == 0 {
		b := append([]byte(labelSignature), 0)
		b = append(b, s.Hash[:]...)
		return sha256.Sum256(append(b, s.Control[:]...))
	}
	b := append([]byte(labelBound), 0)
	for _, part := range [][]byte{s.Hash[:], s.Control[:], s.Certificate, s.Bound} {
		b = appendPart(b, part)
	}
	return sha256.Sum256(b)
}

// appendPart adds a part of a prologue so that no two lists of parts look alike.
func appendPart(b, part []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // a prologue is far below 4 GiB
	return append(b, part...)
}
