package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/pem"
	"errors"
	"fmt"

	"go.step.sm/crypto/jose"
	"go.step.sm/crypto/pemutil"
)

// ErrPassphrase says that a key file does not open.
var ErrPassphrase = errors.New("the key is encrypted, and not with this passphrase")

// EncodeKey writes a P-256 key as PKCS#8 in PEM, encrypted (PBES2, PBKDF2, AES-256-CBC) if
// there is a passphrase. openssl pkey reads it.
func EncodeKey(k *ecdsa.PrivateKey, passphrase []byte) ([]byte, error) {
	opts := []pemutil.Options{pemutil.WithPKCS8(true)}
	if len(passphrase) > 0 {
		opts = append(opts, pemutil.WithPassword(passphrase))
	}
	block, err := pemutil.Serialize(k, opts...)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// ParseKey is the inverse of EncodeKey. It fails with ErrPassphrase.
func ParseKey(b, passphrase []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no key in PEM")
	}
	encrypted := block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != ""
	if encrypted && len(passphrase) == 0 {
		return nil, ErrPassphrase
	}
	var opts []pemutil.Options
	if encrypted {
		opts = append(opts, pemutil.WithPassword(passphrase))
	}
	parsed, err := pemutil.ParseKey(b, opts...)
	if err != nil {
		if encrypted {
			return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
		}
		return nil, fmt.Errorf("parsing a key: %w", err)
	}
	k, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA key on P-256")
	}
	return k, nil
}

// signingKey is k as smallstep's token issuer knows it; the key's name is its thumbprint.
func signingKey(k *ecdsa.PrivateKey) (*jose.JSONWebKey, error) {
	j := &jose.JSONWebKey{Key: k, Algorithm: jose.ES256, Use: "sig"}
	kid, err := jose.Thumbprint(j)
	if err != nil {
		return nil, fmt.Errorf("naming the token key: %w", err)
	}
	j.KeyID = kid
	return j, nil
}
