package sealedlogin

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"twinkey/pkg/keybundle"
	"twinkey/proto/secret"
)

const (
	version = 1
	keyLen  = 32 // X25519
	encLen  = 32
	tagLen  = 16

	// maxPassword is the longest password that can be sealed, bytes. Another one is another version.
	maxPassword = keybundle.MaxPassword
	plainLen    = 2 + maxPassword

	// SealedLen is the length of each sealed password, bytes.
	SealedLen = 1 + keyLen + encLen + plainLen + tagLen
)

const (
	sealedInfo    = "twinkey sealed login 1"
	answerContext = "twinkey sealed answer 1"
	answerLen     = 32
)

// Errors.
var (
	// ErrOpen says that a sealed password does not open: it is altered, or for another login key, router or user.
	ErrOpen = errors.New("the sealed password does not open")
	// ErrAnswer says that how a password is stretched is not the word of whoever has opened it.
	ErrAnswer = errors.New("what should be the CA's answer to the sealed password is not")
)

// Key is a login key, the public half.
type Key [keyLen]byte

// Envelope is what everybody sees of a sealed password.
type Envelope struct {
	To  Key
	Enc [encLen]byte // another one for each
}

// ParseEnvelope reads it; whether the rest opens it does not say.
func ParseEnvelope(sealed []byte) (e Envelope, ok bool) {
	if len(sealed) != SealedLen || sealed[0] != version {
		return e, false
	}
	return Envelope{Key(sealed[1:]), [encLen]byte(sealed[1+keyLen:])}, true
}

// associated is what a sealed password is bound to.
func associated(router, uid string) []byte {
	var b []byte
	for _, s := range []string{router, uid} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s))) //nolint:gosec // names have 64 bytes at the most
		b = append(b, s...)
	}
	return b
}

// Seal encrypts a password of uid, that goes by way of router, to a login key. It is read, not kept. One that is longer than
// any may be no source is asked about: it goes as an empty one, which is refused like any wrong one. answer is for Confirmed, and the
// caller's to wipe.
func Seal(to Key, router, uid string, password []byte) (sealed []byte, answer secret.Key, err error) {
	fail := func(err error) ([]byte, secret.Key, error) {
		return nil, secret.Key{}, fmt.Errorf("sealing the password of %s: %w", uid, err)
	}
	public, err := ecdh.X25519().NewPublicKey(to[:])
	if err != nil {
		return fail(err)
	}
	k, err := hpke.NewDHKEMPublicKey(public)
	if err != nil {
		return fail(err)
	}
	enc, s, err := hpke.NewSender(k, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealedInfo))
	if err != nil {
		return fail(err)
	}
	plain := make([]byte, plainLen)
	defer clear(plain)
	if len(password) <= maxPassword {
		binary.BigEndian.PutUint16(plain, uint16(len(password))) //nolint:gosec // it was just compared
		copy(plain[2:], password)
	}
	text, err := s.Seal(associated(router, uid), plain)
	if err != nil {
		return fail(err)
	}
	exported, err := s.Export(answerContext, answerLen)
	if err != nil {
		return fail(err)
	}
	sealed = append(make([]byte, 0, SealedLen), version)
	sealed = append(sealed, to[:]...)
	return append(append(sealed, enc...), text...), secret.New(exported), nil
}

// Open is the inverse of Seal; private is the login key's other half, router whoever the password came by. Whatever is wrong
// is ErrOpen. The password is the caller's to wipe, and so is answer, which is for Confirm.
func Open(private secret.Key, router, uid string, sealed []byte) (password []byte, answer secret.Key, err error) {
	plain, answer, err := open(private, router, uid, sealed)
	if err != nil {
		return nil, secret.Key{}, ErrOpen
	}
	defer clear(plain)
	n := int(binary.BigEndian.Uint16(plain))
	if n > maxPassword || len(bytes.Trim(plain[2+n:], "\x00")) != 0 { // one password, one form
		answer.Wipe()
		return nil, secret.Key{}, ErrOpen
	}
	return bytes.Clone(plain[2 : 2+n]), answer, nil
}

func open(private secret.Key, router, uid string, sealed []byte) (plain []byte, answer secret.Key, err error) {
	e, ok := ParseEnvelope(sealed)
	if !ok {
		return nil, answer, ErrOpen
	}
	own, err := ecdh.X25519().NewPrivateKey(private.Bytes())
	if err != nil || !bytes.Equal(own.PublicKey().Bytes(), e.To[:]) {
		return nil, answer, ErrOpen
	}
	k, err := hpke.NewDHKEMPrivateKey(own)
	if err != nil {
		return nil, answer, ErrOpen
	}
	r, err := hpke.NewRecipient(e.Enc[:], k, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(sealedInfo))
	if err != nil {
		return nil, answer, ErrOpen
	}
	plain, err = r.Open(associated(router, uid), sealed[1+keyLen+encLen:])
	if err != nil {
		return nil, answer, ErrOpen
	}
	exported, err := r.Export(answerContext, answerLen)
	return plain, secret.New(exported), err
}

// Confirm is the word of whoever has opened a sealed password for how it is stretched.
func Confirm(answer secret.Key, p keybundle.Params) []byte {
	m := hmac.New(sha256.New, answer.Bytes())
	for _, part := range [][]byte{p.Salt, binary.BigEndian.AppendUint32(nil, p.Time), binary.BigEndian.AppendUint32(nil, p.MemoryKiB), {p.Threads}} {
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part)))) //nolint:gosec // a salt has 64 bytes at the most
		m.Write(part)
	}
	return m.Sum(nil)
}

// Confirmed fails with ErrAnswer if word is not that of whoever has opened what was sealed with this answer key.
func Confirmed(answer secret.Key, p keybundle.Params, word []byte) error {
	if answer.Len() != answerLen || !hmac.Equal(Confirm(answer, p), word) {
		return ErrAnswer
	}
	return nil
}
