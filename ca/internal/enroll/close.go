package enroll

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"twinkey/ca/client"
	"twinkey/pkg/strictjson"
	"twinkey/proto/secret"
)

// maxSerial is the length of the longest serial number: 20 octets (RFC 5280 4.1.2.2), in decimal.
const maxSerial = 49

// CloseKey is the CA's key against which routers prove that a user's session has ended. It follows from the CA's group
// key, so that there is no other file to keep.
func CloseKey(group secret.Key) (*ecdh.PrivateKey, error) {
	b, err := hkdf.Key(sha256.New, group.Bytes(), nil, "twinkey close key", keyLen)
	if err != nil {
		return nil, fmt.Errorf("deriving the key for ends of sessions: %w", err)
	}
	defer clear(b)
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("deriving the key for ends of sessions: %w", err)
	}
	return k, nil
}

// ParseClose reads a request strictly, as Parse does. Errors are ErrRequest.
func ParseClose(b []byte) ([]client.Closed, error) {
	bad := func(format string, args ...any) ([]client.Closed, error) {
		return nil, fmt.Errorf("%w: %w", ErrRequest, fmt.Errorf(format, args...))
	}
	if len(b) > client.MaxRequest {
		return bad("body: too long")
	}
	var r client.CloseRequest
	if err := strictjson.Decode(b, &r); err != nil {
		return bad("body: %w", err)
	}
	if len(r.Closed) == 0 || len(r.Closed) > client.MaxClosed {
		return bad("%d certificates, 1 to %d are taken", len(r.Closed), client.MaxClosed)
	}
	seen := make(map[string]bool, len(r.Closed))
	for _, c := range r.Closed {
		if !decimal(c.Serial) || len(c.Serial) > maxSerial || seen[c.Serial] || len(c.Proof) != proofLen {
			return bad("certificate %.60q: no serial number, or twice, or a proof of %d bytes", c.Serial, len(c.Proof))
		}
		seen[c.Serial] = true
	}
	return r.Closed, nil
}

func decimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && s[0] != '0'
}

// CheckClose says whether router has proved that it held the data key of a user's certificate. The error is ErrPossession.
func CheckClose(own *ecdh.PrivateKey, router string, certificate []byte, data [keyLen]byte, proof []byte) error {
	public, err := ecdh.X25519().NewPublicKey(data[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPossession, err)
	}
	want, err := client.CloseProof(own, public, router, certificate)
	if err != nil { // a point of low order
		return fmt.Errorf("%w: %w", ErrPossession, err)
	}
	if !hmac.Equal(want, proof) {
		return ErrPossession
	}
	return nil
}
