package client

import (
	"time"

	"twinkey/pkg/keybundle"
)

// The paths of the API.
const (
	PathRoots     = "/roots"
	PathChallenge = "/twinkey/v1/challenge"
	PathEnroll    = "/twinkey/v1/enroll"
	PathRenew     = "/twinkey/v1/renew"
	PathRenewUser = "/twinkey/v1/renew-user"
	PathTrust     = "/twinkey/v1/trust"
	PathCRL       = "/crl" // named in every certificate
	PathClose     = "/twinkey/v1/close"
	PathLogin     = "/twinkey/v1/login"
	PathLoginKey  = "/twinkey/v1/login-key"
	PathAnswer    = "/twinkey/v1/http-01"
	// PathACME is the ACME directory for the certificates of routers' portals.
	PathACME = "/acme/portal/directory"
)

const (
	// MaxRequest bounds the body of a request: a PKCS#10 request and a few keys.
	MaxRequest = 16 << 10
	// MaxCSR bounds the PKCS#10 request in it.
	MaxCSR = 4 << 10
	// maxAnswer bounds what whoever answers at the CA's address can make us hold.
	maxAnswer = 1 << 20
)

// TokenPrefix begins a token; the role follows, then a dot and the secret.
const TokenPrefix = "twinkey-"

// Challenge is what a proof of possession answers. Cookie is opaque: the CA keeps nothing.
type Challenge struct {
	Public  []byte    `json:"public"` // X25519, made for this challenge
	Cookie  []byte    `json:"cookie"`
	Expires time.Time `json:"expires"` // by the CA's clock
}

// Request asks for certificates. Routers name both keys and prove both, directories neither; both have a TLS key. A
// user who makes the keys on a machine of their own names the UserID, and has no TLS key.
type Request struct {
	Token        string `json:"token,omitempty"` // to enrol; a renewal is known by the old certificate
	CSR          []byte `json:"csr,omitempty"`   // PKCS#10, DER; its key is ECDSA P-256. Of its names only DNS names and addresses count
	Control      []byte `json:"control,omitempty"`
	Data         []byte `json:"data,omitempty"`
	Cookie       []byte `json:"cookie"`
	ControlProof []byte `json:"control_proof,omitempty"`
	DataProof    []byte `json:"data_proof,omitempty"`

	Name            string `json:"name,omitempty"` // UserID
	Old             []byte `json:"old,omitempty"`  // to renew: the user's old certificate, DER, whose keys prove themselves too
	OldControlProof []byte `json:"old_control_proof,omitempty"`
	OldDataProof    []byte `json:"old_data_proof,omitempty"`
}

// Answer is what the CA certified. Certificates are DER.
type Answer struct {
	TLS  [][]byte `json:"tls"` // leaf first, intermediates after it; a user has none
	Twin []byte   `json:"twin,omitempty"`
	Trust
}

// Trust is what everybody may know of the CA. Certificates are DER.
type Trust struct {
	Roots         [][]byte `json:"roots"`
	Intermediates [][]byte `json:"intermediates"`
	Close         []byte   `json:"close,omitempty"` // X25519 key that CloseProof is made for
	Endpoints
}

// ChallengeAnswer is what a router answers an http-01 challenge with (RFC 8555 section 8.3). The CA reaches no LAN, so it lies at
// the CA instead of at the router.
type ChallengeAnswer struct {
	Identifier       string `json:"identifier"` // the DNS name or address to be certified
	Token            string `json:"token"`
	KeyAuthorization string `json:"key_authorization"`
}

// Endpoints are the services of the company.
type Endpoints struct {
	DirectoryURL string `json:"directory_url,omitempty"`
}

// MaxClosed bounds the certificates of one CloseRequest.
const MaxClosed = 100

// Closed names a certificate that the last call at the asking router no longer stands on.
type Closed struct {
	Serial string `json:"serial"` // decimal
	Proof  []byte `json:"proof"`  // CloseProof
}

// CloseRequest asks for certificates of users to be revoked.
type CloseRequest struct {
	Closed []Closed `json:"closed"`
}

// CloseAnswer says what was not revoked, and never will be for this router.
type CloseAnswer struct {
	Refused []string `json:"refused,omitempty"` // serials
}

// Login asks whether the password of a user is right whom a source authenticates: it is here, or sealed.
type Login struct {
	UID      string `json:"uid"`
	Password []byte `json:"password,omitzero"`
	Sealed   []byte `json:"sealed,omitzero"` // to a login key, by the user's own machine (package sealedlogin)
}

// LoginKey is the CA's word for the key that passwords are sealed to (package sealedlogin), good for ten minutes more at the
// least; empty: the CA has no sources, and is to be asked about nobody.
type LoginKey struct {
	Statement []byte `json:"statement,omitempty"`
}

// Admission says that it is: the directory releases the user's keys to the router that asked, for client.VouchLife of
// directory/client.
type Admission struct {
	Params    keybundle.Params `json:"params"`               // under which the keys are sealed now
	SessionMS int64            `json:"session_ms,omitempty"` // how long the login may last; 0: as the policy says
	Confirm   []byte           `json:"confirm,omitempty"`    // of Params, for the machine that has sealed the password (sealedlogin.Confirmed)
}

// Session is how long the login may last; 0: as the policy says.
func (a Admission) Session() time.Duration { return time.Duration(a.SessionMS) * time.Millisecond }

// ErrorBody is a refusal.
type ErrorBody struct {
	Error struct {
		Code         string `json:"code"`
		Message      string `json:"message,omitempty"`
		RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	} `json:"error"`
}

// Transcript hashes all that is asked for, each part with its length before it. public is
// the challenge's key.
func (r *Request) Transcript(public []byte) []byte {
	parts := [][]byte{[]byte("twinkey proof of possession 1"), []byte(r.Token), r.Cookie, public, r.CSR, r.Control, r.Data}
	if r.Name != "" || len(r.Old) > 0 { // boxes' requests hash to what they always did
		parts = append(parts, []byte(r.Name), r.Old)
	}
	return hash(parts...)
}
