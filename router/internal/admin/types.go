package admin

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"twinkey/router/internal/trust"
)

// Status is what `twinkey-router status` shows.
type Status struct {
	Name         string        `json:"name"`
	Version      string        `json:"version"`
	Since        time.Time     `json:"since"`
	Listen       string        `json:"listen"`
	Public       string        `json:"public,omitempty"`
	Device       Device        `json:"device"`
	Directory    Directory     `json:"directory"`
	Certificates []Certificate `json:"certificates"`
	Links        []Link        `json:"links"`
	Tunnels      []Tunnel      `json:"tunnels"`
	Calls        []Call        `json:"calls"`
	Refused      []Refusal     `json:"refused,omitempty"`
	// Withheld is what a user's own machine sends nowhere, rather than in the clear, since no call carries it.
	Withheld []netip.Prefix    `json:"withheld,omitempty"`
	Drops    map[string]uint64 `json:"drops"`
	KeyLog   string            `json:"keylog,omitempty"`
	Closing  *Closing          `json:"closing,omitempty"`
	// Connections are those refused, beyond what an address or all may have, by each listener of the LAN that there is: clients, portal.
	Connections map[string]uint64 `json:"connections_refused,omitempty"`
	// Clients are users whose own machines encrypt, and that this router vouches for.
	Clients []Guest `json:"clients,omitempty"`
	// Self says that this is such a machine.
	Self *Self `json:"client,omitempty"`
}

// Closing is how it stands with certificates that the CA is to revoke because sessions have ended (revoke-on-close).
type Closing struct {
	Waiting int       `json:"waiting"` // that the CA has not been told of
	Since   time.Time `json:"since,omitzero"`
	Problem string    `json:"problem,omitempty"` // why not
	Refused uint64    `json:"refused"`           // by the CA, since the start
	Lost    uint64    `json:"lost"`              // for want of room, since the start
}

// Guest is a user's own machine, as the router in front of it sees it.
type Guest struct {
	User     string     `json:"user"`
	Group    string     `json:"group,omitempty"`
	Address  netip.Addr `json:"address"`
	Since    time.Time  `json:"since"`
	NotAfter time.Time  `json:"certificate_not_after"`
	Ending   string     `json:"certificate_warning,omitempty"` // it ends soon, and why there is no newer one
	Closing  bool       `json:"revoke_on_close"`               // its certificate is revoked when the session ends, which the machine has proved beforehand
}

// Self is a user's own machine, as it sees itself.
type Self struct {
	User    string     `json:"user"`
	Router  string     `json:"router"`    // name of the one in front
	At      string     `json:"router_at"` // where it listens
	Address netip.Addr `json:"address"`   // that calls have
	Until   time.Time  `json:"until"`     // end of the session
}

// Device is the interface that carries private packets.
type Device struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // back end: offload or water
	MTU  int    `json:"mtu"`  // bytes
}

// Directory is what is known of the directory.
type Directory struct {
	URL       string    `json:"url"`
	LastHeard time.Time `json:"last_heard,omitzero"`
	Fresh     bool      `json:"fresh"` // new calls are admitted
	// Revocations says by what these are known: directory, crl (what was revoked after it was made is not) or none.
	Revocations string    `json:"revocations_by"`
	Until       time.Time `json:"new_calls_until,omitzero"` // they are refused then if nothing more is heard, or since then
	Problem     string    `json:"problem,omitempty"`
}

// DirectoryOf is what a store knows of the directory at url.
func DirectoryOf(url string, s trust.Standing) Directory {
	return Directory{URL: url, LastHeard: s.Heard, Fresh: s.Word != trust.None, Revocations: s.Word.String(), Until: s.Until}
}

// Certificate is one that this box lives by.
type Certificate struct {
	Kind     string    `json:"kind"` // tls, twin, intermediate, root
	Subject  string    `json:"subject"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	RenewAt  time.Time `json:"renew_at,omitzero"`
	Problem  string    `json:"problem,omitempty"`
}

// Link is a call that this router wants to have up.
type Link struct {
	Peer     string    `json:"peer"`
	User     string    `json:"user,omitempty"`
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	Next     time.Time `json:"next,omitzero"`
	Attempts int       `json:"attempts,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// Tunnel is one L2TP control connection.
type Tunnel struct {
	ID        uint16    `json:"id"`
	PeerID    uint16    `json:"peer_id"`
	Peer      string    `json:"peer"`
	Name      string    `json:"name"` // of the certificate whose control key the initiator used
	Group     string    `json:"group,omitempty"`
	Initiator bool      `json:"initiator"`
	Endpoint  string    `json:"endpoint"`
	State     string    `json:"state"`
	Suite     string    `json:"suite"`
	Hybrid    bool      `json:"post_quantum"`
	Since     time.Time `json:"since"`
	Calls     int       `json:"calls"`
	Rekeys    uint64    `json:"rekeys"`
	PathMTU   int       `json:"path_mtu"` // bytes of IP packet on the public path
	Path      string    `json:"path"`     // search for it: base (the peer answers no probes), searching, complete, error
	// SPIs of the control SA pair.
	SPIIn  string `json:"spi_in"`
	SPIOut string `json:"spi_out"`
}

// Call is one L2TP session.
type Call struct {
	ID        uint64         `json:"id"`
	Kind      string         `json:"kind"` // site or user
	Peer      string         `json:"peer"`
	User      string         `json:"user,omitempty"`
	Tunnel    uint16         `json:"tunnel"`
	Session   uint16         `json:"session"`
	Initiator bool           `json:"initiator"`
	State     string         `json:"state"`
	Suite     string         `json:"suite"`
	Hybrid    bool           `json:"post_quantum"`
	Local     []netip.Prefix `json:"local"`
	Remote    []netip.Prefix `json:"remote"`
	Since     time.Time      `json:"since"`
	Cert      string         `json:"certificate"` // serial and issuer that the call stands on
	NotAfter  time.Time      `json:"certificate_not_after"`
	Ending    string         `json:"certificate_warning,omitempty"` // it ends soon, and why there is no newer one
	SPIIn     string         `json:"spi_in"`
	SPIOut    string         `json:"spi_out"`
	Rekeys    uint64         `json:"rekeys"`
	RxPackets uint64         `json:"rx_packets"`
	RxBytes   uint64         `json:"rx_bytes"`
	TxPackets uint64         `json:"tx_packets"`
	TxBytes   uint64         `json:"tx_bytes"`
	Packing   bool           `json:"compression"`   // what goes may be compressed
	RxPacked  uint64         `json:"rx_compressed"` // packets that came compressed
	RxSaved   uint64         `json:"rx_saved"`      // bytes that this spared
	TxPacked  uint64         `json:"tx_compressed"`
	TxSaved   uint64         `json:"tx_saved"`
	Denied    uint64         `json:"denied"`         // packets that the policy did not let through
	Foreign   uint64         `json:"foreign_source"` // packets dropped for their source address
	Replayed  uint64         `json:"replayed"`
	Forged    uint64         `json:"forged"` // packets that failed authentication
}

// Refusal is something in the site map that was not taken over, and why.
type Refusal struct {
	Peer   string `json:"peer"`
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// Login asks for a user's call. The password is the caller's to wipe: the client's, and at the other end the server's.
type Login struct {
	User     string     `json:"user"`
	Password []byte     `json:"password,omitempty"` //nolint:gosec // it arrives here and goes no further than the key derivation
	Address  netip.Addr `json:"address"`            // the user's address on this router's LAN
	Peer     string     `json:"peer"`
}

// Passwd asks for another password of a user. Both are wiped as that of Login is.
type Passwd struct {
	User     string `json:"user"`
	Password []byte `json:"password,omitempty"` //nolint:gosec // like that of Login
	New      []byte `json:"new,omitempty"`
}

// secret is what of a request is wiped once it is answered. The server decodes into it, so nobody else has a copy.
func (l Login) secret() [][]byte  { return [][]byte{l.Password} }
func (p Passwd) secret() [][]byte { return [][]byte{p.Password, p.New} }

// Hangup names calls to end: by ID, or all of a user's.
type Hangup struct {
	ID   uint64 `json:"id,omitempty"`
	User string `json:"user,omitempty"`
}

// Ended says what a Hangup ended.
type Ended struct {
	Calls   []uint64 `json:"calls"`
	Clients int      `json:"clients,omitempty"` // users' own machines that were logged out
}

// Portal is what `twinkey-router portal` shows.
type Portal struct {
	URL         string             `json:"url"`
	Listen      string             `json:"listen"`
	HTTP        string             `json:"http,omitempty"`    // where browsers are sent on from
	Names       []string           `json:"names"`             // in the certificate
	Captive     string             `json:"captive,omitempty"` // URL of the RFC 8908 API
	Certificate *PortalCertificate `json:"certificate,omitempty"`
	Problem     string             `json:"problem,omitempty"` // why there is none, or no newer one
	Root        string             `json:"root_sha256"`
	Refused     uint64             `json:"connections_refused"`
	Sessions    []PortalSession    `json:"sessions"`
}

// PortalCertificate is what browsers see.
type PortalCertificate struct {
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	RenewAt  time.Time `json:"renew_at"`
	SHA256   string    `json:"sha256"`
}

// PortalSession is a browser that somebody has logged in with.
type PortalSession struct {
	User    string     `json:"user"`
	Address netip.Addr `json:"address"`
	Since   time.Time  `json:"since"`
	Seen    time.Time  `json:"seen"`
}

// Router is what the socket speaks for.
type Router interface {
	Status(context.Context) (Status, error)
	Portal(context.Context) (Portal, error)
	Login(context.Context, Login) (Call, error)
	Hangup(context.Context, Hangup) (Ended, error)
	Passwd(context.Context, Passwd) error
	Reload(context.Context) error
}

// Error is a failure with what to do about it.
type Error struct {
	What string `json:"error"`
	Hint string `json:"hint,omitempty"`
	Kind Kind   `json:"kind,omitempty"`
	Err  error  `json:"-"` // one of the errors below, or nil
}

// Kind says what kind of failure an Error is; a command's exit code depends on it.
type Kind string

// Kinds of failures. The empty one is any other.
const (
	KindConfig      Kind = "config"
	KindUnavailable Kind = "unavailable"
	KindDenied      Kind = "denied"
	KindNotFound    Kind = "not-found"
	KindConflict    Kind = "conflict"
)

func (e *Error) Error() string { return e.What }

func (e *Error) Unwrap() error { return e.Err }

// Why a router cannot be asked.
var (
	ErrNotRunning = errors.New("no router is running")
	ErrDenied     = errors.New("may not open the control socket")
	// ErrInUse is why a second router cannot start.
	ErrInUse = errors.New("another router is running on it")
)
