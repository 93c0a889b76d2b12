package hpketest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sealed is a message to a recipient, and what goes with it.
type Sealed struct {
	To, Enc  []byte // public keys: the recipient's, and the ephemeral one
	Text     []byte // message 0, with its tag
	exporter []byte
}

// Seal seals plain with these private keys.
func Seal(t testing.TB, ephemeral, recipient, info, ad, plain []byte) Sealed {
	t.Helper()
	from, err := ecdh.X25519().NewPrivateKey(ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	to, err := ecdh.X25519().NewPrivateKey(recipient)
	if err != nil {
		t.Fatal(err)
	}
	s := Sealed{To: to.PublicKey().Bytes(), Enc: from.PublicKey().Bytes()}
	dh, err := from.ECDH(to.PublicKey())
	if err != nil {
		t.Fatal(err)
	}

	kem := []byte{'K', 'E', 'M', 0, 0x20}
	shared := expand(t, kem, extract(t, kem, nil, "eae_prk", dh), "shared_secret", append(bytes.Clone(s.Enc), s.To...), 32)

	schedule := append([]byte{0}, extract(t, suite, nil, "psk_id_hash", nil)...) // mode base
	schedule = append(schedule, extract(t, suite, nil, "info_hash", info)...)
	secret := extract(t, suite, shared, "secret", nil)
	aead, err := chacha20poly1305.New(expand(t, suite, secret, "key", schedule, 32))
	if err != nil {
		t.Fatal(err)
	}
	s.Text = aead.Seal(nil, expand(t, suite, secret, "base_nonce", schedule, 12), plain, ad)
	s.exporter = expand(t, suite, secret, "exp", schedule, 32)
	return s
}

// Export is what both ends can derive besides, n bytes.
func (s Sealed) Export(t testing.TB, context []byte, n int) []byte {
	t.Helper()
	return expand(t, suite, s.exporter, "sec", context, n)
}

var suite = []byte{'H', 'P', 'K', 'E', 0, 0x20, 0, 1, 0, 3}

func extract(t testing.TB, suite, salt []byte, label string, ikm []byte) []byte {
	t.Helper()
	in := append(append(append([]byte("HPKE-v1"), suite...), label...), ikm...)
	prk, err := hkdf.Extract(sha256.New, in, salt)
	if err != nil {
		t.Fatal(err)
	}
	return prk
}

func expand(t testing.TB, suite, prk []byte, label string, info []byte, n int) []byte {
	t.Helper()
	in := binary.BigEndian.AppendUint16(nil, uint16(n)) //nolint:gosec // a few bytes
	in = append(append(append(append(in, "HPKE-v1"...), suite...), label...), info...)
	key, err := hkdf.Expand(sha256.New, prk, string(in), n)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
