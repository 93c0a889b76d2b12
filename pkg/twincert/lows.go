package twincert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ErrKey says that a key is no ECDSA key on P-256.
var ErrKey = errors.New("not an ECDSA key on P-256")

// SignLowS signs a SHA-256 digest with a P-256 key and returns the one of the two valid
// signatures (r, s) and (r, n-s) whose s is low, as ASN.1 SEQUENCE { r, s }. With two
// valid forms a signed object would have two fingerprints.
func SignLowS(rand io.Reader, signer crypto.Signer, digest []byte) ([]byte, error) {
	pub, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, ErrKey
	}
	sig, err := signer.Sign(rand, digest, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	r, s, ok := parseSignature(sig)
	if !ok {
		return nil, fmt.Errorf("signing: %w", ErrEncoding)
	}
	n := elliptic.P256().Params().N
	if s.Cmp(half(n)) > 0 {
		s.Sub(n, s)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}

// VerifyLowS says whether sig is a valid signature over digest, and the low one.
func VerifyLowS(pub *ecdsa.PublicKey, digest, sig []byte) bool {
	return pub.Curve == elliptic.P256() && isLowS(sig) && ecdsa.VerifyASN1(pub, digest, sig)
}

func half(n *big.Int) *big.Int { return new(big.Int).Rsh(n, 1) }

func isLowS(sig []byte) bool {
	_, s, ok := parseSignature(sig)
	return ok && s.Cmp(half(elliptic.P256().Params().N)) <= 0
}

func parseSignature(sig []byte) (r, s *big.Int, ok bool) {
	in := cryptobyte.String(sig)
	var seq cryptobyte.String
	r, s = new(big.Int), new(big.Int)
	ok = in.ReadASN1(&seq, cbasn1.SEQUENCE) && in.Empty() && seq.ReadASN1Integer(r) && seq.ReadASN1Integer(s) && seq.Empty() && r.Sign() > 0 && s.Sign() > 0
	return r, s, ok
}
