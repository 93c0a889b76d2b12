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

// SignatureDigest is what the initiator of a tunnel signs with its router's TLS key:
// SHA-256 over a label, the handshake hash after message 2 (which covers both ephemeral
// keys, the terminator's control key and certificate, and everything offered and chosen)
// and the initiator's control key.
func SignatureDigest(hash, control [32]byte) [32]byte {
	b := append([]byte(labelSignature), 0)
	b = append(b, hash[:]...)
	return sha256.Sum256(append(b, control[:]...))
}

// appendPart adds a part of a prologue so that no two lists of parts look alike.
func appendPart(b, part []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // a prologue is far below 4 GiB
	return append(b, part...)
}
