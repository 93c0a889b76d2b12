package api

import (
	"net/netip"
	"time"

	"twinkey/ca/internal/source"
	"twinkey/pkg/keybundle"
)

// The states of users, routers and tokens.
const (
	StateActive  = "active"
	StateExpired = "expired"
	StateRevoked = "revoked"
	StateClosed  = "closed" // a user whose certificate was revoked at the end of a session, and who has no other yet
	StateUnused  = "unused"
	StateUsed    = "used"
	StatePending = "pending"
)

// Where a user's private keys are.
const (
	KeysSealed = "sealed" // in the directory, under the password
	KeysOwn    = "own"    // on the user's machine and nowhere else
)

// User is a user as the operator sees one.
type User struct {
	UID      string    `json:"uid"`
	Group    string    `json:"group"`
	Keys     string    `json:"keys"`             // KeysSealed or KeysOwn
	Source   string    `json:"source,omitempty"` // who says whether the password is right; empty: the CA's operator gave it
	State    string    `json:"state"`
	Barred   bool      `json:"barred,omitempty"` // revoked by the operator, whatever the source says
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	Created  time.Time `json:"created"`
	Revoked  time.Time `json:"revoked,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

// UserDetail is a user with all certificates, the newest first.
type UserDetail struct {
	User
	Certificates []CertState `json:"certificates"`
}

// CertState is a certificate that was issued, and how it stands.
type CertState struct {
	Serial   string    `json:"serial"`
	Kind     string    `json:"kind"` // twin or tls
	Role     string    `json:"role"`
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Current  bool      `json:"current"` // the bearer's present one
	NotAfter time.Time `json:"not_after"`
	Reason   string    `json:"reason,omitempty"`
}

// Group is a tunnel group as the operator sees one.
type Group struct {
	Name        string    `json:"name"`
	Members     int       `json:"members"`     // users who are not revoked
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the control public key, hex
	Since       time.Time `json:"since"`       // of the control key
	Left        int       `json:"left"`        // members whose certificate is still over an older control key
	Old         int       `json:"old"`         // living certificates over older control keys
	// While certificates over older control keys go on: whether users are still being given others, and when the
	// first of the old ones are revoked.
	Rotating bool      `json:"rotating"`
	RevokeAt time.Time `json:"revoke_at,omitzero"`
}

// NewGroup asks for a tunnel group.
type NewGroup struct {
	Name string `json:"name"`
}

// Rotate asks for another control key of a group.
type Rotate struct {
	Grace string `json:"grace"` // a duration, such as 1h
}

// Router is a router as the operator sees one.
type Router struct {
	Name     string         `json:"name"`
	State    string         `json:"state"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Scope    []string       `json:"scope"`
	Profile  string         `json:"profile"`
	Twin     string         `json:"twin"` // serials
	TLS      string         `json:"tls"`
	NotAfter time.Time      `json:"not_after"` // of the one that ends first
	Enrolled time.Time      `json:"enrolled"`
	Renewed  time.Time      `json:"renewed,omitzero"`
	Revoked  time.Time      `json:"revoked,omitzero"`
	Reason   string         `json:"reason,omitempty"`
}

// AddUser asks for a user, or with Renew for new keys of one. The password stays with
// whoever asks; Seal is wiped after use.
type AddUser struct {
	UID      string           `json:"uid"`
	Group    string           `json:"group"`
	Params   keybundle.Params `json:"params"`
	Verifier []byte           `json:"verifier"`
	Seal     []byte           `json:"seal"`
	Renew    bool             `json:"renew,omitempty"`
}

// Reason goes with a revocation.
type Reason struct {
	Reason string `json:"reason"`
}

// Revoked is the outcome of a revocation; it holds whatever Told says.
type Revoked struct {
	Certificates int    `json:"certificates"`
	Told         bool   `json:"told"`
	Pending      string `json:"pending,omitempty"` // why the directory was not told yet
}

// NewToken asks for an enrolment token.
type NewToken struct {
	Role     string         `json:"role"`
	Name     string         `json:"name,omitempty"`
	Group    string         `json:"group,omitempty"` // of a user
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Scope    []string       `json:"scope,omitempty"`
	Hosts    []string       `json:"hosts,omitempty"`
	TTL      string         `json:"ttl"` // a duration, such as 1h
	Overlap  bool           `json:"overlap,omitempty"`
}

// Token is an enrolment token. Secret is the whole of it, shown once.
type Token struct {
	Secret      string         `json:"token,omitempty"`
	ID          string         `json:"id"`
	Role        string         `json:"role"`
	Name        string         `json:"name,omitempty"`
	Group       string         `json:"group,omitempty"`
	State       string         `json:"state"`
	Prefixes    []netip.Prefix `json:"prefixes,omitempty"`
	Scope       []string       `json:"scope,omitempty"`
	Expires     time.Time      `json:"expires"`
	CA          string         `json:"ca,omitempty"` // URL, with the secret
	Fingerprint string         `json:"fingerprint,omitempty"`
}

// NewSignToken asks for a token that the step command takes.
type NewSignToken struct {
	Name string   `json:"name"`
	SANs []string `json:"sans"`
	TTL  string   `json:"ttl"`
}

// SignToken is one.
type SignToken struct {
	Token string `json:"token"`
}

// Cert is a certificate that was issued.
type Cert struct {
	Serial  string    `json:"serial"`
	Kind    string    `json:"kind"` // twin or tls
	Role    string    `json:"role"`
	Name    string    `json:"name"`
	DER     []byte    `json:"der"`
	Revoked time.Time `json:"revoked,omitzero"`
	Reason  string    `json:"reason,omitempty"`
}

// Status is how the CA does.
type Status struct {
	Name         string         `json:"name"`
	URL          string         `json:"url"`
	Fingerprint  string         `json:"fingerprint"`
	Certificates []OwnCert      `json:"certificates"`
	CRL          CRL            `json:"crl"`
	Directory    DirectoryState `json:"directory"`
	Clock        string         `json:"clock,omitempty"` // what is wrong with it
	Users        int            `json:"users"`           // active
	Routers      int            `json:"routers"`
	Pending      []Pending      `json:"pending"`
	Expiring     []Expiring     `json:"expiring"`
	Rotating     []Group        `json:"rotating"` // groups with certificates over an older control key
	Sources      []source.State `json:"sources,omitempty"`
	Warnings     []string       `json:"warnings"`
}

// OwnCert is a certificate of the CA itself.
type OwnCert struct {
	What     string    `json:"what"` // root, intermediate, tls
	NotAfter time.Time `json:"not_after"`
}

// CRL is how fresh the revocation list is.
type CRL struct {
	Number int64     `json:"number"`
	Next   time.Time `json:"next_update"`
}

// CRLFile is the list itself.
type CRLFile struct {
	CRL
	DER []byte `json:"der"`
}

// DirectoryState is whether the directory answers.
type DirectoryState struct {
	URL   string `json:"url,omitempty"`
	Error string `json:"error,omitempty"`
}

// Pending is an operation that is not done yet.
type Pending struct {
	What       string    `json:"what"`
	Since      time.Time `json:"since"`
	Withdrawn  bool      `json:"withdrawn"`
	LastFailed string    `json:"last_failed,omitempty"`
}

// Expiring is a certificate that ends soon.
type Expiring struct {
	Role     string    `json:"role"`
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
}
