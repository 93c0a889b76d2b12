package ledger

import (
	"math/big"
	"net/netip"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
)

// User is a person who logs in at a router. What the password is checked against is not here: users change it at a
// router, and the directory alone knows what holds.
type User struct {
	UID       string    `json:"uid"`
	Group     string    `json:"group"`
	Own       bool      `json:"own,omitempty"`      // the keys were made on the user's machine, and are nowhere else
	Serial    string    `json:"serial"`             // of the newest certificate
	Source    string    `json:"source,omitempty"`   // that says whether the password is right; empty: a local user
	Accepted  *Accepted `json:"accepted,omitempty"` // of a user of a source
	Barred    bool      `json:"barred,omitempty"`   // whatever the source says: the operator revoked a user of a source
	Bound     time.Time `json:"bound,omitzero"`     // the end of the newest certificate, if the source has set it for a session; zero: it has not
	Created   time.Time `json:"created"`
	Revoked   time.Time `json:"revoked,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}

// Accepted is what the password is known by that a source accepted when keys were sealed under it: whether it is another
// one now shows by that.
type Accepted struct {
	Params   keybundle.Params `json:"params"`
	Verifier []byte           `json:"verifier"`
}

// Active says whether the user may log in as far as the CA is concerned.
func (u User) Active() bool { return u.Revoked.IsZero() }

// Group is a tunnel group: its users' certificates share one control key.
type Group struct {
	Name    string       `json:"name"`
	Control []byte       `json:"control"` // X25519 public key
	Sealed  []byte       `json:"sealed"`  // its private key under the CA's group key
	Created time.Time    `json:"created"` // of the key
	Retired []RetiredKey `json:"retired,omitempty"`
}

// RetiredKey is a control key that another took the place of, until all certificates over it are revoked.
type RetiredKey struct {
	Control []byte        `json:"control"` // the public key; the private one is forgotten
	By      string        `json:"by"`      // who asked for the rotation
	Since   time.Time     `json:"since"`
	Grace   time.Duration `json:"grace"`
	// Handed is when the last user who could be had a certificate over a newer key; zero: not yet.
	Handed time.Time `json:"handed,omitzero"`
}

// Router is a box that was enrolled.
type Router struct {
	Name     string         `json:"name"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Scope    []string       `json:"scope"`
	Profile  string         `json:"profile"`
	Twin     string         `json:"twin"` // serials of the newest certificates
	TLS      string         `json:"tls"`
	Enrolled time.Time      `json:"enrolled"`
	Renewed  time.Time      `json:"renewed,omitzero"`
	Revoked  time.Time      `json:"revoked,omitzero"`
	Reason   string         `json:"reason,omitempty"`
}

// Active says whether the router may have certificates.
func (r Router) Active() bool { return r.Revoked.IsZero() }

// Cert is a certificate that was issued to one of ours.
type Cert struct {
	Serial    string    `json:"serial"` // decimal
	Kind      string    `json:"kind"`   // client.KindTwin or client.KindTLS
	Role      string    `json:"role"`   // user, router, directory, ca
	Name      string    `json:"name"`
	DER       []byte    `json:"der"`
	Control   []byte    `json:"control,omitempty"` // of a twin certificate: its control public key
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Revoked   time.Time `json:"revoked,omitzero"`
	Reason    string    `json:"reason,omitempty"`
}

// Number is the serial number; nil if Serial is none.
func (c Cert) Number() *big.Int {
	n, ok := new(big.Int).SetString(c.Serial, 10)
	if !ok {
		return nil
	}
	return n
}

// Token lets one box, or one user on a machine of their own, enrol, once.
type Token struct {
	ID       string         `json:"id"`
	Hash     []byte         `json:"hash"` // SHA-256 of the secret
	Role     string         `json:"role"` // router, directory or user
	Name     string         `json:"name"`
	Group    string         `json:"group,omitempty"` // of a user
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Scope    []string       `json:"scope,omitempty"`
	Hosts    []string       `json:"hosts,omitempty"`
	Profile  string         `json:"profile,omitempty"`
	Created  time.Time      `json:"created"`
	Expires  time.Time      `json:"expires"`
	Intent   uint64         `json:"intent,omitempty"` // under way; counts as used
	Used     *Use           `json:"used,omitempty"`
}

// Use is what a token was used for. The same request again gets the same answer.
type Use struct {
	Request []byte    `json:"request"` // SHA-256 over the keys that were certified
	TLS     string    `json:"tls"`     // serials; a user has none
	Twin    string    `json:"twin,omitempty"`
	Time    time.Time `json:"time"`
}

// Login is what a source said of a user who logged in at a router.
type Login struct {
	UID    string `json:"uid"`
	Router string `json:"router"`
	Source string `json:"source"`
	State  []byte `json:"state,omitempty"` // what it wants back when it is told of calls
	// Session is how long the router was told that the login may last; 0: it was told nothing, or it is not known.
	Session time.Duration `json:"session,omitempty"`
	Time    time.Time     `json:"time"`
}

// Order is the newest of what a source has ordered of its own accord about one of its users.
type Order struct {
	Source string    `json:"source"`
	UID    string    `json:"uid"`
	Said   time.Time `json:"said"` // by the source's clock
	// Heard tells apart what was said at that moment: all of it that has come, in the order in which it came. Done and Refused are of the last.
	Heard   [][]byte `json:"heard"`
	Done    bool     `json:"done,omitempty"`
	Refused bool     `json:"refused,omitempty"` // for good; neither: another try is worth it
}

// OpenCall is a call of which a source was told that it began, and not yet that it ended.
type OpenCall struct {
	Source  string     `json:"source"`
	Name    string     `json:"name"` // among all calls of all routers and days
	UID     string     `json:"uid"`
	Router  string     `json:"router"`
	Run     string     `json:"run"` // of the router
	Address netip.Addr `json:"address,omitzero"`
	State   []byte     `json:"state,omitempty"`
	Since   time.Time  `json:"since"`          // by the router's word, and not before Login
	Login   time.Time  `json:"login,omitzero"` // the last there when the call was first told of; zero: it was not noted, and bounds nothing
	Heard   time.Time  `json:"heard"`          // when it was last told of, by the router's clock

	BytesIn    uint64 `json:"bytes_in,omitempty"`
	BytesOut   uint64 `json:"bytes_out,omitempty"`
	PacketsIn  uint64 `json:"packets_in,omitempty"`
	PacketsOut uint64 `json:"packets_out,omitempty"`
}

// The kinds of intents.
const (
	KindIssue  = "issue"  // done or withdrawn
	KindRevoke = "revoke" // done, however long it takes
	KindCRL    = "crl"    // likewise
)

// Intent is one operation on several databases.
type Intent struct {
	Number     uint64         `json:"number"` // its place in the queue; given by Tx.AddIntent
	Kind       string         `json:"kind"`
	What       string         `json:"what"` // in words, for the log and for people
	Created    time.Time      `json:"created"`
	Withdrawn  bool           `json:"withdrawn,omitempty"` // from now on only its tombstone may be sent
	Change     *client.Change `json:"change,omitempty"`    // for the directory; nil: not its business
	CRLSigned  time.Time      `json:"crl_signed,omitzero"` // when Change.CRL was made
	Effects    Effects        `json:"effects"`
	Reserved   string         `json:"reserved,omitempty"`    // token that it uses
	LastFailed string         `json:"last_failed,omitempty"` // why it is still here
}

// Effects are what an intent writes into this book, each replacing what is there.
type Effects struct {
	Users   []User   `json:"users,omitempty"`
	Groups  []Group  `json:"groups,omitempty"`
	Routers []Router `json:"routers,omitempty"`
	Certs   []Cert   `json:"certs,omitempty"`
	Tokens  []Token  `json:"tokens,omitempty"`
}

// Told is the last change that the directory has acknowledged; zero: none yet.
type Told struct {
	ChangeID string    `json:"change_id"`
	What     string    `json:"what"` // in words
	Time     time.Time `json:"time"`
}

// Setback says that the directory did not know Told any more when it was asked; zero: it did.
type Setback struct {
	Noticed time.Time `json:"noticed"`
	Told    Told      `json:"told"`
}
