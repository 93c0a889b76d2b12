package client

import (
	"net/netip"
	"strings"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

// Site is a router as its peers see it. A router that has not announced itself yet has
// neither endpoint nor prefixes.
type Site struct {
	Name        string         `json:"name"`
	Endpoint    string         `json:"endpoint,omitempty"` // "ip:port"; empty: cannot be dialled
	Prefixes    []netip.Prefix `json:"prefixes,omitempty"` // announced, each covered by Certificate
	Certificate []byte         `json:"certificate"`        // current twin certificate, DER
	ID          twincert.ID    `json:"id"`                 // of Certificate
	Updated     time.Time      `json:"updated"`            // by the directory's clock
}

// Revision counts the changes that the directory has committed.
type Revision = uint64

// EventKind says which field of an Event is set.
type EventKind string

// The kinds of events.
const (
	KindSync        EventKind = "sync"        // first of every watch, later only with Reset
	KindHeartbeat   EventKind = "heartbeat"   // nothing happened, the directory lives
	KindSite        EventKind = "site"        // Site: announced, or has a new certificate
	KindCertificate EventKind = "certificate" // Certificate: a twin certificate became known
	KindRevoked     EventKind = "revoked"     // Revoked; a revoked router certificate takes its site away
	KindCRL         EventKind = "crl"         // there is a new CRL to fetch
)

// Event is one thing that changed.
type Event struct {
	// Revision is where the stream stands: whoever has taken this event in resumes here.
	Revision Revision  `json:"revision"`
	Current  Revision  `json:"current,omitempty"` // with KindSync: newest there is
	Time     time.Time `json:"time"`              // of the change, by the directory's clock
	Kind     EventKind `json:"kind"`
	// Reset, with KindSync: what happened since the revision asked for is no longer
	// known; sites, revocations and CRL must be fetched anew.
	Reset bool `json:"reset,omitempty"`
	// More says that further events of the same revision follow. Client.Watch holds them
	// back until all are there, its callers need not look at it.
	More        bool        `json:"more,omitempty"`
	Site        *Site       `json:"site,omitempty"`
	Certificate *Notice     `json:"certificate,omitempty"`
	Revoked     *Revocation `json:"revoked,omitempty"`
}

// Notice names a certificate. A user's reaches only routers in whose scope the user is.
type Notice struct {
	ID    twincert.ID   `json:"id"`
	Role  twincert.Role `json:"role"`
	Name  string        `json:"name"`
	Group string        `json:"group,omitempty"`
}

// Revocation withdraws one certificate, twin or TLS, for good.
type Revocation struct {
	ID     twincert.ID   `json:"id"`
	Name   string        `json:"name"`          // of the bearer
	Role   twincert.Role `json:"role,omitzero"` // zero: neither a router's nor a user's
	Time   time.Time     `json:"time"`
	Reason string        `json:"reason,omitempty"`
}

// Change is all that one operation of the CA alters: applied as a whole, once, or not at
// all. The same ChangeID with the same content again is a success that alters nothing,
// with other content ErrConflict.
type Change struct {
	ChangeID string `json:"change_id"` // 1 to 128 printable ASCII characters
	Actor    string `json:"actor"`     // who asked the CA for it; goes into the audit record

	Certificates []CertRecord   `json:"certificates,omitempty"`
	Groups       []GroupRecord  `json:"groups,omitempty"`
	Users        []UserRecord   `json:"users,omitempty"`
	Bundles      []BundleRecord `json:"bundles,omitempty"`
	// Successors come after the bundles that they go on from, known or in the same change.
	Successors  []SuccessorRecord `json:"successors,omitempty"`
	Routers     []RouterRecord    `json:"routers,omitempty"`
	Disable     []string          `json:"disable,omitempty"` // UIDs who may not log in any more; what is kept of them stays as it is. Unknown ones are no failure
	Revocations []Revocation      `json:"revocations,omitempty"`
	CRL         []byte            `json:"crl,omitempty"` // DER; left alone if older than the one stored
	// Sources, if it is there, says whether the CA has sources that may know users whom the directory does not: see
	// LoginParams.
	Sources *bool `json:"sources,omitempty"`
}

// The kinds of a CertRecord.
const (
	KindTwin = "twin"
	KindTLS  = "tls"
)

// CertRecord is one certificate that the CA issued.
type CertRecord struct {
	ID   twincert.ID `json:"id"` // must be that of DER
	DER  []byte      `json:"der"`
	Kind string      `json:"kind"` // KindTwin or KindTLS
}

// GroupRecord is a tunnel group: users whose certificates share one control key.
type GroupRecord struct {
	Name    string `json:"name"`
	Control []byte `json:"control"` // X25519 public key, 32 bytes
}

// UserRecord is what a password login is checked against. Group must be known or in the
// same change.
type UserRecord struct {
	UID      string           `json:"uid"`
	Group    string           `json:"group,omitempty"`
	Params   keybundle.Params `json:"params"`
	Verifier []byte           `json:"verifier"` // keybundle.Verifier of the user's proof
	Disabled bool             `json:"disabled,omitempty"`
	Source   string           `json:"source,omitempty"` // who says whether the password is right; empty: the verifier alone
	// Own says that the keys were made on the user's machine: there is no password here, neither Params nor Verifier nor
	// sealed keys, and no login at a router by password.
	Own bool `json:"own,omitempty"`
}

// BundleRecord is a user's sealed private keys. Each user has at most one; a new one
// replaces it. ID names a user's twin certificate, known or in the same change.
type BundleRecord struct {
	UID    string      `json:"uid"`
	ID     twincert.ID `json:"id"`
	Sealed []byte      `json:"sealed"`
}

// SuccessorRecord makes the twin certificate ID the current one of a user whose bundle stays as it
// is: it has the data key of the bundle's certificate, and the group of the user's record, known or in
// the same change. A new one replaces it, and a new bundle does away with it.
type SuccessorRecord struct {
	UID    string      `json:"uid"`
	ID     twincert.ID `json:"id"`
	Sealed []byte      `json:"sealed"` // control key; see keybundle.SealControl
}

// RouterRecord makes the twin certificate ID, known or in the same change, the current
// one of router Name.
type RouterRecord struct {
	Name string      `json:"name"`
	ID   twincert.ID `json:"id"`
}

// LoginParams say how a password is to be stretched, and whether the CA has to be asked about it first: it is the one that
// can ask the user's source, and after that the parameters may be others.
type LoginParams struct {
	keybundle.Params
	AskCA bool `json:"ask_ca,omitempty"`
}

// Vouch is the CA's word that a source has just accepted a user's password at a router. For VouchLife the sealed keys that
// belong to ID may be released to that router.
type Vouch struct {
	UID    string      `json:"uid"`
	Router string      `json:"router"`
	Source string      `json:"source"`
	ID     twincert.ID `json:"id"`
}

// Refusal is a login that the CA has refused, for the audit records.
type Refusal struct {
	UID    string `json:"uid"`
	Router string `json:"router"`
	Cause  string `json:"cause"`
}

// Unlock releases locks after failed logins before their time: all that have the user's name, that on all logins at a router, or both.
type Unlock struct {
	UID    string `json:"uid,omitempty"`
	Router string `json:"router,omitempty"`
	Actor  string `json:"actor,omitempty"` // who asked the CA for it; goes into the audit record
	// AtCA is what the CA has released of its own, to be noted with the rest.
	AtCA []lockout.Lock `json:"at_ca,omitempty"`
}

// VouchLife is how long a Vouch holds: what a router needs to derive a proof and to ask, several times over.
const VouchLife = time.Minute

// Release is what a router gets for a user who proved the password.
type Release struct {
	Certificate []byte `json:"certificate"` // user's twin certificate, DER; the ad of Sealed
	Sealed      []byte `json:"sealed"`      // opens with keybundle.Open and the user's seal key
	Group       string `json:"group,omitempty"`
	// Successor is what to go on with if it is there: Certificate is an older one then, and may be revoked.
	Successor *Successor `json:"successor,omitempty"`
	// Source says that the user is one of a source: the CA has just vouched for them, and knows how long the login may last.
	Source bool `json:"source,omitempty"`
}

// Successor is a user's current certificate over the data key of an older one.
type Successor struct {
	Certificate []byte `json:"certificate"` // DER
	Sealed      []byte `json:"sealed"`      // control key; opens with keybundle.OpenControl and the data key
}

// Holding is a user's certificate that a router holds.
type Holding struct {
	UID string      `json:"uid"`
	ID  twincert.ID `json:"id"`
}

// The answers to a Holding.
const (
	HoldingCurrent   = "current"   // there is nothing newer
	HoldingSucceeded = "succeeded" // Successor is
	HoldingReplaced  = "replaced"  // the user has new keys, or another password: only a login brings them
	HoldingNone      = "none"      // no such user in the router's scope, or one without a valid certificate
)

// Held is the answer to one Holding.
type Held struct {
	UID       string     `json:"uid"`
	State     string     `json:"state"` // one of the Holding constants
	Successor *Successor `json:"successor,omitempty"`
}

// OwnLogin is what a router tells of a user who has proved to it the keys of a certificate of their own.
type OwnLogin struct {
	UID string      `json:"uid"`
	ID  twincert.ID `json:"id"` // of the certificate
}

// Reseal changes a user's password: the same keys for the same certificate, sealed anew. All that the new
// password yields was derived by the router; neither password comes here.
type Reseal struct {
	UID      string           `json:"uid"`
	Auth     []byte           `json:"auth"` // proves the old password
	ID       twincert.ID      `json:"id"`   // of the certificate that was released with the keys
	Params   keybundle.Params `json:"params"`
	Verifier []byte           `json:"verifier"`
	Sealed   []byte           `json:"sealed"`
}

// What a CallRecord tells.
const (
	CallUp      = "up"
	CallInterim = "interim" // it is still up; only what it carried so far is new
	CallDown    = "down"
	CallsLost   = "lost" // so many records could not be kept
)

// CallRecord is what a router tells of one of its calls.
type CallRecord struct {
	Seq       uint64      `json:"seq"`   // greater than that of the record before, in a run of the router
	Time      time.Time   `json:"time"`  // by the router's clock
	Event     string      `json:"event"` // CallUp, CallInterim, CallDown or CallsLost
	Call      uint64      `json:"call,omitempty"`
	User      string      `json:"user,omitempty"` // empty: a site link
	Peer      string      `json:"peer,omitempty"`
	Initiator bool        `json:"initiator,omitempty"`
	Address   netip.Addr  `json:"address,omitzero"` // the user's
	ID        twincert.ID `json:"id,omitzero"`      // certificate that the call stands on
	Suite     string      `json:"suite,omitempty"`
	// Of CallInterim and CallDown: since when it was up, what it carried, seen from this router. Of CallDown: why it ended, for
	// people and as one of the Cause constants.
	Since     time.Time `json:"since,omitzero"`
	RxBytes   uint64    `json:"rx_bytes,omitempty"`
	TxBytes   uint64    `json:"tx_bytes,omitempty"`
	RxPackets uint64    `json:"rx_packets,omitempty"`
	TxPackets uint64    `json:"tx_packets,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	Cause     string    `json:"cause,omitempty"`
	Lost      uint64    `json:"lost,omitempty"` // of CallsLost
}

// Why a call ended, as far as it is told apart. Empty: none of these.
const (
	CauseLogout   = "logout"
	CauseLost     = "lost" // the network or the peer went away
	CauseIdle     = "idle"
	CauseSession  = "session" // its time was over, or that of the certificate
	CauseRevoked  = "revoked"
	CauseShutdown = "shutdown" // of this router
)

// UserCall is what a router told of the call of a user of a source who is logged in there.
type UserCall struct {
	Seq    uint64     `json:"seq"` // of the source, from 1
	Router string     `json:"router"`
	Run    string     `json:"run"` // of the router
	Record CallRecord `json:"record"`
}

// maxReason bounds the Reason of a CallRecord, in bytes.
const maxReason = 256

// CutReason is what of s a CallRecord may say: valid UTF-8, and not too much of it.
func CutReason(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	return strings.ToValidUTF8(s, "?")
}
