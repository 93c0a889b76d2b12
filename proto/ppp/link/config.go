package link

import (
	"errors"
	"io"
	"net/netip"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/automaton"
)

// Config says what a link offers and accepts. Every zero value is a sound choice.
type Config struct {
	// Rand yields magic numbers and interface identifiers. Nil, or a reader that fails:
	// the link offers no magic number and cannot tell a loop.
	Rand io.Reader
	// MRU in bytes that the peer is told; 0 means 1500.
	MRU uint16
	// PFC and ACFC: offer header compression, and accept it.
	PFC, ACFC bool
	// IPv4 and IPv6 are kept, not copied. Nil: the protocol is not offered, and what the
	// peer sends of it gets a Protocol-Reject.
	IPv4 *IPv4Config
	IPv6 *IPv6Config
	// Method is the one method of compression that we take and send, as an option of CCP (RFC 1962
	// section 5); it is kept, not copied. Without Data: none, and CCP gets a Protocol-Reject.
	Method ppp.Option
	// EchoInterval between Echo-Requests; 0 sends none.
	EchoInterval time.Duration
	// EchoFailures: Echo-Requests in a row without an answer that end the link; 0 means 3.
	EchoFailures uint8
	// Restart and the counters of RFC 1661 section 4.6; 0 means the RFC's default.
	Restart      time.Duration
	MaxConfigure uint8
	MaxTerminate uint8
	MaxFailure   uint8
}

func (c *Config) limits() automaton.Limits {
	return automaton.Limits{Restart: c.Restart, MaxConfigure: c.MaxConfigure, MaxTerminate: c.MaxTerminate, MaxFailure: c.MaxFailure}
}

// IPv4Config is what IPCP negotiates.
type IPv4Config struct {
	// Local is our address, insisted on. The zero Addr sends no IP-Address option (an
	// unnumbered link); 0.0.0.0 asks the peer for an address and takes the unicast
	// address that it names.
	Local netip.Addr
	// Allow tells whether the peer may use this address. Nil allows Assign alone. It
	// must be a pure function.
	Allow func(netip.Addr) bool
	// Assign is named to a peer that asks for an address, or for one that it may not
	// use. Without it such a peer's option is rejected. A peer that sends no IP-Address
	// option stays unnumbered.
	Assign netip.Addr
}

// IPv6Config is what IPV6CP negotiates.
type IPv6Config struct {
	// Interface identifier, insisted on; all zero draws one from Rand.
	Interface [8]byte
	// Allow tells whether the peer may use this identifier. Nil allows any that is not
	// zero and not ours. It must be a pure function.
	Allow func(id [8]byte) bool
}

// Why Receive has dropped a frame. Malformed ones yield a *wire.ParseError instead. None
// of them has harmed the link.
var (
	// ErrPhase says that the frame's protocol has no place in the link's phase.
	ErrPhase = errors.New("ppp: frame out of phase")
	// ErrStale says that a reply answers no outstanding request of ours, or not what we
	// asked.
	ErrStale = errors.New("ppp: reply to no outstanding request")
	// ErrNetworkData says that the frame carries a packet of a network protocol, which is
	// the data path's business.
	ErrNetworkData = errors.New("ppp: network data")
	// ErrLooped says that the frame carries our own magic number.
	ErrLooped = errors.New("ppp: our own frame came back")
)

// Phase of a link (RFC 1661 section 3.2).
type Phase uint8

// Phases.
const (
	Dead Phase = iota
	Establish
	Authenticate
	Network
	Terminate
)

// String is the RFC's name of the phase.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "?"
}

var phaseNames = [...]string{"Dead", "Establish", "Authenticate", "Network", "Terminate"}

// EventKind says what has happened to a link.
type EventKind uint8

// Events. Every Up is followed by its Down before the link's own Down.
const (
	NoEvent  EventKind = iota // the Output is a frame
	LCPUp                     // data frames may be sized and headed as PeerMRU and AppendPrefix say
	IPv4Up                    // Local and Peer are set
	IPv4Down                  // no IPv4 packet may pass any more
	IPv6Up                    // Local and Peer are set
	IPv6Down                  // no IPv6 packet may pass any more
	CCPUp                     // MayCompress says whether what we send may be compressed
	CCPDown                   // nothing may be compressed any more
	Down                      // Reason and Text are set; the link is Dead
)

var eventNames = [...]string{"none", "LCPUp", "IPv4Up", "IPv4Down", "IPv6Up", "IPv6Down", "CCPUp", "CCPDown", "Down"}

// String is the constant's name.
func (k EventKind) String() string {
	if int(k) < len(eventNames) {
		return eventNames[k]
	}
	return "?"
}

// Reason says why a link went down.
type Reason uint8

// Reasons.
const (
	NoReason   Reason = iota
	Closed            // Close was called
	ByPeer            // the peer sent a Terminate-Request
	LowerLayer        // Down was called
	NoAnswer          // the peer did not answer, or did not converge, Max-Configure times
	Silent            // the peer did not answer EchoFailures Echo-Requests
	Looped            // the peer is ourselves
	NoNetwork         // no network protocol is left
	Rejected          // the peer rejected what LCP cannot do without
)

var reasonNames = [...]string{"none", "closed", "closed by peer", "lower layer down", "no answer", "peer silent", "looped back", "no network protocol", "rejected by peer"}

// String describes the reason.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "?"
}

// Event is what has happened.
type Event struct {
	Kind EventKind
	// Local and Peer of IPv4Up and IPv6Up: what was acknowledged by the other side. The
	// zero Addr means that none was negotiated. For IPv6 it is the link-local address
	// that the interface identifier makes.
	Local, Peer netip.Addr
	// Reason and Text of Down. Text is what the side that closed has said: printable
	// ASCII, 64 bytes at most, and not to be believed.
	Reason Reason
	Text   string
}

// Output is one thing that the link wants of its owner: a frame sent, or an event heeded.
type Output struct {
	Frame []byte // a whole PPP frame; the owner's from now on; nil for an event
	Event Event
}
