package keybundle

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"twinkey/proto/secret"
)

// Bounds of Params: what a directory may ask a router to spend, and the least that
// protects a password.
const (
	SaltLen   = 16
	minMemory = 8 << 10   // KiB
	maxMemory = 256 << 10 // KiB: what a small box can spare
	maxTime   = 16
	maxCost   = 1 << 20 // KiB times passes: some five times the default
	keyLen    = 32
	version   = 1
)

// What DefaultParams cost: RFC 9106's second recommended option, on one thread.
const (
	DefaultTime      = 3
	DefaultMemoryKiB = 64 << 10
)

// Len is the length of a bundle in bytes.
const Len = 1 + chacha20poly1305.NonceSizeX + 2*keyLen + chacha20poly1305.Overhead

// MinPassword is the least length of a user's password, in bytes. Argon2id makes guessing
// dear, not impossible.
const MinPassword = 8

// MaxPassword is the greatest length of any user's password, bytes: what forms, files and the CA take, and what may be chosen.
const MaxPassword = 256

// Errors.
var (
	ErrParams = errors.New("password parameters out of bounds")
	ErrOpen   = errors.New("the bundle does not open with this password, or belongs to another certificate")
	ErrWeak   = errors.New("the password is too weak")
	ErrLong   = errors.New("the password is too long")
)

// CheckPassword is the rule for new passwords, wherever one is chosen. It fails with ErrWeak or ErrLong.
func CheckPassword(uid string, password []byte) error {
	switch {
	case len(password) < MinPassword:
		return fmt.Errorf("%w: it is shorter than %d bytes", ErrWeak, MinPassword)
	case len(password) > MaxPassword:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrLong, MaxPassword)
	case bytes.EqualFold(password, []byte(uid)):
		return fmt.Errorf("%w: it is the UserID", ErrWeak)
	}
	return nil
}

// Params say how a password becomes a key (RFC 9106).
type Params struct {
	Salt      []byte `json:"salt"`
	Time      uint32 `json:"time"`       // passes
	MemoryKiB uint32 `json:"memory_kib"` // KiB
	Threads   uint8  `json:"threads"`
}

// Check refuses params that cost too little or too much.
func (p Params) Check() error {
	if len(p.Salt) < SaltLen || len(p.Salt) > 64 || p.Time < 1 || p.Time > maxTime || p.MemoryKiB < minMemory || p.MemoryKiB > maxMemory || uint64(p.MemoryKiB)*uint64(p.Time) > maxCost || p.Threads < 1 || p.Threads > 16 {
		return ErrParams
	}
	return nil
}

// Weaker says whether p costs a guesser less time or memory than least does.
func (p Params) Weaker(least Params) bool {
	return p.Time < least.Time || p.MemoryKiB < least.MemoryKiB
}

// Equal says whether p and q make the same of a password.
func (p Params) Equal(q Params) bool {
	return bytes.Equal(p.Salt, q.Salt) && p.Time == q.Time && p.MemoryKiB == q.MemoryKiB && p.Threads == q.Threads
}

// DefaultParams draws a salt for RFC 9106's second recommended option on one thread.
func DefaultParams(rand io.Reader) (Params, error) {
	p := Params{Salt: make([]byte, SaltLen), Time: DefaultTime, MemoryKiB: DefaultMemoryKiB, Threads: 1}
	if _, err := io.ReadFull(rand, p.Salt); err != nil {
		return Params{}, fmt.Errorf("drawing a salt: %w", err)
	}
	return p, nil
}

// Proof is what a password yields.
type Proof struct {
	Auth secret.Key // shown to the directory
	Seal secret.Key // opens the bundle; never leaves
}

// Wipe overwrites both.
func (p Proof) Wipe() { p.Auth.Wipe(); p.Seal.Wipe() }

// Derive computes master = Argon2id(password, salt), auth and seal by HKDF-SHA256.
func Derive(password []byte, p Params) (Proof, error) {
	if err := p.Check(); err != nil {
		return Proof{}, err
	}
	master := argon2.IDKey(password, p.Salt, p.Time, p.MemoryKiB, p.Threads, keyLen)
	defer clear(master)
	auth, err := hkdf.Expand(sha256.New, master, "twinkey auth", keyLen)
	if err != nil {
		return Proof{}, fmt.Errorf("deriving a proof: %w", err)
	}
	seal, err := hkdf.Expand(sha256.New, master, "twinkey seal", keyLen)
	if err != nil {
		return Proof{}, fmt.Errorf("deriving a sealing key: %w", err)
	}
	return Proof{Auth: secret.New(auth), Seal: secret.New(seal)}, nil
}

// Verifier is what the directory stores of auth.
func Verifier(auth []byte) []byte {
	h := sha256.New()
	h.Write([]byte("twinkey verifier\x00"))
	h.Write(auth)
	return h.Sum(nil)
}

// Private are the two private keys of a twin certificate, 32 bytes each.
type Private struct{ Control, Data secret.Key }

// Seal encrypts k: version (1) | nonce (24) | XChaCha20-Poly1305. ad binds the certificate.
func Seal(rand io.Reader, k Private, sealKey secret.Key, ad []byte) ([]byte, error) {
	if k.Control.Len() != keyLen || k.Data.Len() != keyLen {
		return nil, errors.New("sealing keys: each private key has 32 bytes")
	}
	aead, err := chacha20poly1305.NewX(sealKey.Bytes())
	if err != nil {
		return nil, fmt.Errorf("sealing keys: %w", err)
	}
	out := make([]byte, 1+chacha20poly1305.NonceSizeX, Len)
	out[0] = version
	if _, err := io.ReadFull(rand, out[1:]); err != nil {
		return nil, fmt.Errorf("sealing keys: %w", err)
	}
	plain := append(append(make([]byte, 0, 2*keyLen), k.Control.Bytes()...), k.Data.Bytes()...)
	defer clear(plain)
	return aead.Seal(out, out[1:], plain, append([]byte{version}, ad...)), nil
}

// Open is the inverse of Seal. Whatever is wrong it fails with ErrOpen.
func Open(bundle []byte, sealKey secret.Key, ad []byte) (Private, error) {
	const head = 1 + chacha20poly1305.NonceSizeX
	if len(bundle) != Len || bundle[0] != version {
		return Private{}, ErrOpen
	}
	aead, err := chacha20poly1305.NewX(sealKey.Bytes())
	if err != nil {
		return Private{}, ErrOpen
	}
	plain, err := aead.Open(nil, bundle[1:head], bundle[head:], append([]byte{version}, ad...))
	if err != nil {
		return Private{}, ErrOpen
	}
	defer clear(plain)
	return Private{Control: secret.Copy(plain[:keyLen]), Data: secret.Copy(plain[keyLen:])}, nil
}
