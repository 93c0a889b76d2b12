package sealedlogin

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
)

const (
	// Signer is who says which login keys there are.
	Signer = identity.Scheme + "://ca"
	// MaxStatement bounds a statement, bytes: a handful of certificates.
	MaxStatement = 16 << 10
	maxChain     = 8

	statementContext = "twinkey login key 1\x00"
	// skew is how far the clocks of the CA and of whoever believes it may differ.
	skew = 5 * time.Minute
)

// Errors.
var (
	ErrStatement = errors.New("what should be the CA's word for a login key is not")
	ErrExpired   = errors.New("the login key has expired (is this machine's clock right?)")
)

// Statement is the CA's word for a login key.
type Statement struct {
	Key       Key
	NotAfter  time.Time // whole seconds
	Signature []byte
	Chain     [][]byte // DER, the signer's first
}

// Sign makes a statement by the key of a TLS certificate, which has to be the CA's.
func Sign(key Key, notAfter time.Time, by tls.Certificate) (Statement, error) {
	s := Statement{Key: key, NotAfter: notAfter.Truncate(time.Second).UTC(), Chain: by.Certificate}
	signer, ok := by.PrivateKey.(crypto.Signer)
	if !ok {
		return s, fmt.Errorf("signing a login key: %w", twincert.ErrKey)
	}
	var err error
	digest := s.digest()
	if s.Signature, err = twincert.SignLowS(rand.Reader, signer, digest[:]); err != nil {
		return s, fmt.Errorf("signing a login key: %w", err)
	}
	return s, nil
}

// digest is what is signed.
func (s Statement) digest() [sha256.Size]byte {
	b := []byte(statementContext)
	for _, part := range [][]byte{s.Key[:], binary.BigEndian.AppendUint64(nil, uint64(s.NotAfter.Unix()))} { //nolint:gosec // the bits, whatever they say
		b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // 32 and 8
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}

// Bytes is how it goes over the wire. It fails for what Parse would refuse.
func (s Statement) Bytes() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint8(version)
	b.AddBytes(s.Key[:])
	b.AddUint64(uint64(s.NotAfter.Unix())) //nolint:gosec // the bits, whatever they say
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s.Signature) })
	b.AddUint8(uint8(min(len(s.Chain), maxChain+1))) //nolint:gosec // nine at the most
	for _, der := range s.Chain {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(der) })
	}
	out, err := b.Bytes()
	if err == nil {
		_, err = ParseStatement(out)
	}
	if err != nil {
		return nil, fmt.Errorf("writing a login key's statement: %w", err)
	}
	return out, nil
}

// ParseStatement reads a statement and believes nothing of it: see Verify.
func ParseStatement(b []byte) (s Statement, err error) {
	var (
		v, count       uint8
		notAfter       uint64
		signature, der cryptobyte.String
		in             = cryptobyte.String(b)
	)
	if len(b) > MaxStatement || !in.ReadUint8(&v) || v != version || !in.CopyBytes(s.Key[:]) || !in.ReadUint64(&notAfter) ||
		!in.ReadUint16LengthPrefixed(&signature) || !in.ReadUint8(&count) || count == 0 || count > maxChain {
		return Statement{}, fmt.Errorf("%w: it cannot be read", ErrStatement)
	}
	s.NotAfter, s.Signature = time.Unix(int64(notAfter), 0).UTC(), signature //nolint:gosec // the bits, whatever they say
	for range count {
		if !in.ReadUint16LengthPrefixed(&der) {
			return Statement{}, fmt.Errorf("%w: a certificate cannot be read", ErrStatement)
		}
		s.Chain = append(s.Chain, der)
	}
	if !in.Empty() {
		return Statement{}, fmt.Errorf("%w: something follows it", ErrStatement)
	}
	return s, nil
}

// Verify says whether a statement is the CA's, under one of these roots alone, and its key one to seal to now: ErrStatement,
// ErrExpired.
func (s Statement) Verify(roots *x509.CertPool, now time.Time) error {
	var chain []*x509.Certificate
	for _, der := range s.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStatement, err)
		}
		chain = append(chain, c)
	}
	if err := identity.VerifyBearer(chain, roots, Signer, now); err != nil {
		return fmt.Errorf("%w: %w", ErrStatement, err)
	}
	key, ok := chain[0].PublicKey.(*ecdsa.PublicKey)
	digest := s.digest()
	if !ok || !twincert.VerifyLowS(key, digest[:], s.Signature) {
		return fmt.Errorf("%w: the signature does not fit", ErrStatement)
	}
	if now.After(s.NotAfter.Add(skew)) {
		return ErrExpired
	}
	return nil
}
