package enroll

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"twinkey/ca/client"
)

// Lifetime of a challenge.
const Lifetime = 2 * time.Minute

// maxSpent bounds the cookies that are remembered. Each costs its redeemer an X25519 and
// passes a rate limit, so this many in two minutes is an attack.
const maxSpent = 1 << 16

const (
	cookieVersion = 1
	keyLen        = 32
	cookieLen     = 1 + chacha20poly1305.NonceSizeX + keyLen + 8 + chacha20poly1305.Overhead
)

// Errors.
var (
	ErrChallenge = errors.New("the challenge is unknown, too old, or was used before")
	ErrBusy      = errors.New("too many enrolments at once")
)

// Challenger makes challenges and knows its own. Safe for concurrent use.
type Challenger struct {
	seal cipher.AEAD

	mu    sync.Mutex
	spent map[[chacha20poly1305.NonceSizeX]byte]time.Time // until when to remember
}

// NewChallenger draws the key under which cookies are sealed.
func NewChallenger() (*Challenger, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("drawing a cookie key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("preparing the cookie key: %w", err)
	}
	return &Challenger{seal: aead, spent: make(map[[chacha20poly1305.NonceSizeX]byte]time.Time)}, nil
}

// New makes a challenge that is good until now + Lifetime.
func (c *Challenger) New(now time.Time) (client.Challenge, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return client.Challenge{}, fmt.Errorf("making a challenge: %w", err)
	}
	expires := now.Add(Lifetime)
	cookie := make([]byte, 1+c.seal.NonceSize(), cookieLen)
	cookie[0] = cookieVersion
	if _, err := io.ReadFull(rand.Reader, cookie[1:]); err != nil {
		return client.Challenge{}, fmt.Errorf("making a challenge: %w", err)
	}
	plain := binary.BigEndian.AppendUint64(k.Bytes(), uint64(expires.Unix())) //nolint:gosec // after 1970
	defer clear(plain)
	cookie = c.seal.Seal(cookie, cookie[1:], plain, cookie[:1]) //nolint:gosec // the nonce was drawn above; only the version before it is constant
	return client.Challenge{Public: k.PublicKey().Bytes(), Cookie: cookie, Expires: expires.UTC()}, nil
}

// Redeem opens a cookie, once.
func (c *Challenger) Redeem(cookie []byte, now time.Time) (*ecdh.PrivateKey, error) {
	if len(cookie) != cookieLen || cookie[0] != cookieVersion {
		return nil, ErrChallenge
	}
	n := 1 + c.seal.NonceSize()
	plain, err := c.seal.Open(nil, cookie[1:n], cookie[n:], cookie[:1])
	if err != nil {
		return nil, ErrChallenge
	}
	defer clear(plain)
	expires := time.Unix(int64(binary.BigEndian.Uint64(plain[keyLen:])), 0) //nolint:gosec // we wrote it
	// A challenge from the future is one from before the clock was set back.
	if now.After(expires) || expires.After(now.Add(2*Lifetime)) {
		return nil, ErrChallenge
	}
	if err := c.spend([chacha20poly1305.NonceSizeX]byte(cookie[1:n]), expires, now); err != nil {
		return nil, err
	}
	k, err := ecdh.X25519().NewPrivateKey(plain[:keyLen])
	if err != nil {
		return nil, ErrChallenge
	}
	return k, nil
}

func (c *Challenger) spend(nonce [chacha20poly1305.NonceSizeX]byte, expires, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.spent[nonce]; ok {
		return ErrChallenge
	}
	if len(c.spent) >= maxSpent {
		for n, until := range c.spent {
			if now.After(until) {
				delete(c.spent, n)
			}
		}
		if len(c.spent) >= maxSpent {
			return ErrBusy
		}
	}
	// Twice the lifetime, because a clock that is set back makes expiry come later.
	c.spent[nonce] = expires.Add(2 * Lifetime)
	return nil
}
