package enroll

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"twinkey/ca/client"
	"twinkey/pkg/strictjson"
	"twinkey/pkg/twincert"
)

// ErrRequest says that a request can never succeed as it stands.
var ErrRequest = errors.New("malformed request")

// ErrPossession says that a key was not proved.
var ErrPossession = errors.New("possession of a key is not proved")

const (
	maxToken = 256
	proofLen = 32
)

// Parse reads a request strictly: nothing unknown, nothing twice as long as it can be,
// nothing behind it. Errors are ErrRequest.
func Parse(b []byte) (*client.Request, error) {
	bad := func(what string, err error) (*client.Request, error) {
		return nil, fmt.Errorf("%w: %s: %w", ErrRequest, what, err)
	}
	if len(b) > client.MaxRequest {
		return bad("body", errors.New("too long"))
	}
	var r client.Request
	if err := strictjson.Decode(b, &r); err != nil {
		return bad("body", err)
	}
	user := r.Name != ""
	if err := twincert.CheckName(r.Name); user && err != nil {
		return bad("name", err)
	}
	keys, proofs, leastCSR, mostCSR := 0, 0, 1, client.MaxCSR
	if user || len(r.Control) > 0 || len(r.Data) > 0 {
		keys, proofs = keyLen, proofLen
	}
	mostOld, oldProofs := 0, 0
	if user {
		leastCSR, mostCSR, mostOld = 0, 0, client.MaxCSR
	}
	if len(r.Old) > 0 {
		oldProofs = proofLen
	}
	for _, f := range []struct {
		name     string
		got      int
		min, max int
	}{
		{"token", len(r.Token), 0, maxToken},
		{"csr", len(r.CSR), leastCSR, mostCSR},
		{"cookie", len(r.Cookie), cookieLen, cookieLen},
		{"control", len(r.Control), keys, keys},
		{"data", len(r.Data), keys, keys},
		{"control_proof", len(r.ControlProof), proofs, proofs},
		{"data_proof", len(r.DataProof), proofs, proofs},
		{"old", len(r.Old), 0, mostOld},
		{"old_control_proof", len(r.OldControlProof), oldProofs, oldProofs},
		{"old_data_proof", len(r.OldDataProof), oldProofs, oldProofs},
	} {
		if f.got < f.min || f.got > f.max {
			return bad(f.name, fmt.Errorf("%d bytes", f.got))
		}
	}
	return &r, nil
}

// Proved are keys whose possession was proved.
type Proved struct {
	CSR  *x509.CertificateRequest // nil: a user's
	Twin twincert.Keys            // zero unless both were named
	User string                   // UserID; empty: a box's
	Old  *twincert.Certificate    // of a user who renews: its keys are proved too. Whether it is good is not said
}

// Check verifies all proofs in r and uses its challenge up. Errors are ErrRequest,
// ErrPossession, ErrChallenge or ErrBusy.
func (c *Challenger) Check(r *client.Request, now time.Time) (Proved, error) {
	p := Proved{User: r.Name}
	var err error
	if p.User == "" {
		if p.CSR, err = parseCSR(r.CSR); err != nil {
			return Proved{}, err
		}
	}
	if len(r.Old) > 0 {
		if p.Old, err = twincert.Parse(r.Old); err != nil {
			return Proved{}, fmt.Errorf("%w: old: %w", ErrRequest, err)
		}
	}
	own, err := c.Redeem(r.Cookie, now)
	if err != nil {
		return Proved{}, err
	}
	if len(r.Control) == 0 {
		return p, nil
	}
	if bytes.Equal(r.Control, r.Data) {
		return Proved{}, fmt.Errorf("%w: control and data key are the same", ErrRequest)
	}
	transcript := r.Transcript(own.PublicKey().Bytes())
	type proved struct {
		public, proof []byte
		label         string
	}
	all := []proved{{r.Control, r.ControlProof, client.LabelControl}, {r.Data, r.DataProof, client.LabelData}}
	if p.Old != nil {
		all = append(all, proved{p.Old.Keys.Control[:], r.OldControlProof, client.LabelOldControl}, proved{p.Old.Keys.Data[:], r.OldDataProof, client.LabelOldData})
	}
	for _, k := range all {
		public, err := ecdh.X25519().NewPublicKey(k.public)
		if err != nil {
			return Proved{}, fmt.Errorf("%w: %w", ErrRequest, err)
		}
		want, err := client.Proof(own, public, k.label, transcript)
		if err != nil { // a point of low order
			return Proved{}, fmt.Errorf("%w: %w", ErrPossession, err)
		}
		if !hmac.Equal(want, k.proof) {
			return Proved{}, ErrPossession
		}
	}
	p.Twin = twincert.Keys{Control: [keyLen]byte(r.Control), Data: [keyLen]byte(r.Data)}
	return p, nil
}

// parseCSR reads a PKCS#10 request and checks its own signature, which proves the TLS key.
func parseCSR(der []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: csr: %w", ErrRequest, err)
	}
	k, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: csr: its key is no ECDSA key on P-256", ErrRequest)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: csr: %w", ErrPossession, err)
	}
	return csr, nil
}
