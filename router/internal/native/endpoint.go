package native

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/l2tp"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// Limits on what strangers can make us hold.
const (
	maxTunnels    = 4096 // of all kinds
	maxHalfOpen   = 256  // tunnels that a stranger began and has not finished
	busyHalfOpen  = 32   // above this many, SCCRQ must carry a cookie
	maxSessions   = 16384
	setupTimeout  = 20 * time.Second // from SCCRQ to a keyed tunnel, from ICRQ to a call that is up
	amplification = 3                // clear bytes out per clear byte in, until the return path is proven
	idleTunnel    = time.Minute      // without a call, then the initiator closes it
	tick          = time.Second      // how often lifetimes of a tunnel or call are looked at
)

// Errors of PlaceCall and the reasons in events.
var (
	ErrUnknownPeer = errors.New("no such router in the site map")
	ErrNoEndpoint  = errors.New("the router has no public address in the site map")
	ErrTooMany     = errors.New("too many tunnels or calls")
	ErrNotRouter   = errors.New("the peer is not the router that was dialled")
	ErrScope       = errors.New("the router may not speak for this user")
	ErrAddress     = errors.New("the address is not one that may be bound to this call")
	ErrProof       = errors.New("the router's signature over the handshake is wrong")
)

// Peer is what the site map says of a router.
type Peer struct {
	Name      string
	Endpoint  netip.AddrPort // invalid: cannot be dialled
	Announced []netip.Prefix // what it bridges over site links; each lies in Certified
	Certified []netip.Prefix
	Scope     []string    // whose calls it may place
	ID        twincert.ID // its present twin certificate
}

// Refusal is something of the site map that was not taken over, and why.
type Refusal struct{ Peer, What, Reason string }

// Config is what an Endpoint works with. The functions are called from its methods and
// must not call back into it.
type Config struct {
	Rand  io.Reader
	Epoch time.Time // calls note when they were heard as a duration since then
	Table *calls.Table
	Trust *trust.Store
	Self  func() Self // must not change while one of the methods runs
	Peer  func(name string) (Peer, bool)
	Local func() []netip.Prefix // what we bridge over site links
	// Policy is what users may do, now. Nil allows nothing.
	Policy func() *policy.Policy
	// KeyLog is told of every association that is made; nil: nobody is.
	KeyLog func(spi uint32, s esp.Suite, key secret.Key)

	Suites       []esp.Suite
	Hybrid       bool
	Capabilities calls.Capabilities // what peers may send us in calls
	MRU          uint16             // largest PPP payload we receive, bytes
	Compression  bool               // offer LZ4 in CCP
	Hello        time.Duration
	Echo         time.Duration
	NAT          time.Duration
	RekeyTime    time.Duration
	RekeyBytes   uint64 // 0: the suite's own limit; RekeyPackets likewise
	RekeyPackets uint64
	RekeyGrace   time.Duration
}

// Credentials are a twin certificate and its private keys: the router's own, or a user's.
type Credentials struct {
	Certificate   *twincert.Certificate
	Control, Data handshake.KeyPair
}

// Self is who we are.
type Self struct {
	Credentials // none: a user's own machine, which answers nobody
	Signer      Signer
}

// Wish is a call to be placed.
type Wish struct {
	Key     links.Key
	Cred    Credentials
	Address netip.Addr // the user's; invalid for a site link
	Since   time.Time  // when the user logged in; zero: the session begins with the call
	// Session is how long the login may last, whatever the policy says; 0: as it says.
	Session time.Duration
}

// Output is one thing to send, or one event.
type Output struct {
	To netip.AddrPort
	// SA seals Payload, with the next header Next; nil: Payload goes behind the non-ESP
	// marker, or, when it is empty, a NAT keepalive is meant.
	SA      *esp.Outbound
	Next    uint8
	Payload []byte
	Event   Event
}

// Event is something that the owner acts on or logs.
type Event interface{ event() }

// The events.
type (
	// TunnelUp says that a tunnel is keyed and both ends know.
	TunnelUp struct {
		ID                     uint16
		Peer, Certificate      string
		Initiator, PostQuantum bool
		Suite                  esp.Suite
		To                     netip.AddrPort
	}
	// TunnelDown says that a tunnel, or the attempt at one, has ended.
	TunnelDown struct {
		ID     uint16
		Peer   string
		Reason string
	}
	// CallUp says that packets flow: routes may point at the call.
	CallUp struct {
		Call        *calls.Call
		Key         links.Key
		Initiator   bool
		Suite       esp.Suite
		PostQuantum bool
	}
	// CallDown says that a call, or the attempt at one, has ended.
	CallDown struct {
		Call      *calls.Call // nil: it never got so far
		Key       links.Key
		Cert      twincert.ID // that it stood on, or was to stand on; zero: it is not known
		Initiator bool
		Reason    string
		Cause     calls.Cause
		// Final says that somebody ended it; otherwise it was lost, or never came up.
		Final bool
		// Revoked says that it was the peer, who holds our certificate for revoked.
		Revoked bool
	}
	// Rekeyed says that a call (or, without Call, a tunnel) has new keys.
	Rekeyed struct {
		Tunnel     uint16
		Call       *calls.Call
		Generation uint32
		Suite      esp.Suite
	}
	// Refused says that a stranger's or peer's attempt was turned down.
	Refused struct {
		From   netip.AddrPort
		Peer   string
		Reason string
	}
)

func (TunnelUp) event()   {}
func (TunnelDown) event() {}
func (CallUp) event()     {}
func (CallDown) event()   {}
func (Rekeyed) event()    {}
func (Refused) event()    {}

// Counters of what was dropped on the control path.
type Counters struct {
	Unprotected uint64 // clear messages that named a keyed tunnel
	Stray       uint64 // clear messages that named nothing we know, or came from elsewhere
	Malformed   uint64
	Cookies     uint64 // cookies demanded
	Overload    uint64 // first messages dropped because too many attempts were open
	Amplified   uint64 // clear messages held back from an address that had not proven itself
}

// Endpoint owns all native tunnels and calls of a router. It is not safe for concurrent
// use: the control loop owns it.
type Endpoint struct {
	c        Config
	tunnels  map[uint16]*tunnelState
	halfOpen map[origin]*tunnelState
	dialled  map[tunnelKey]*tunnelState
	byCall   map[uint64]*session
	bound    map[netip.Addr][]*session // users' addresses, at the terminating end
	nextCall uint64
	jar      *handshake.CookieJar
	timers   timers
	out      []Output
	closing  bool
	Counters Counters
}

// origin names an attempt before we have given it an ID.
type origin struct {
	from netip.AddrPort
	id   uint16
}

func (o origin) bytes() []byte { return binary.BigEndian.AppendUint16(nil, o.id) }

// tunnelKey says which calls share a tunnel: same control key, same destination (the
// paper, section 2 step 4).
type tunnelKey struct {
	peer    string
	control [32]byte
}

// New returns an endpoint without tunnels.
func New(c Config) (*Endpoint, error) {
	jar, err := handshake.NewCookieJar(c.Rand)
	if err != nil {
		return nil, err
	}
	return &Endpoint{
		c:        c,
		tunnels:  make(map[uint16]*tunnelState),
		halfOpen: make(map[origin]*tunnelState),
		dialled:  make(map[tunnelKey]*tunnelState),
		byCall:   make(map[uint64]*session),
		bound:    make(map[netip.Addr][]*session),
		jar:      jar,
	}, nil
}

// Poll returns the next thing to do; Payload is the caller's.
func (e *Endpoint) Poll() (Output, bool) {
	if len(e.out) == 0 {
		e.out = nil // the array of a burst is not kept
		return Output{}, false
	}
	o := e.out[0]
	e.out = e.out[1:]
	return o, true
}

func (e *Endpoint) emit(ev Event) { e.out = append(e.out, Output{Event: ev}) }

// Deadline is when Advance wants to be called; zero: nothing is pending.
func (e *Endpoint) Deadline() time.Time { return e.timers.first() }

// Advance does what is due at now.
func (e *Endpoint) Advance(now time.Time) {
	for {
		o, ok := e.timers.due(now)
		if !ok {
			return
		}
		o.advance(now)
	}
}

// Clear takes an L2TP control message that came behind the non-ESP marker.
func (e *Endpoint) Clear(now time.Time, from netip.AddrPort, msg []byte) {
	h, err := l2tp.ParseControlHeader(msg)
	if err != nil {
		e.Counters.Malformed++
		return
	}
	if h.TunnelID == 0 {
		if e.c.Self().Certificate == nil {
			e.Counters.Stray++
		} else if !e.closing { // who dials us anew while we go would hold a tunnel to nobody
			e.first(now, from, msg)
		}
		return
	}
	t := e.tunnels[h.TunnelID]
	switch {
	case t == nil || t.to != from:
		e.Counters.Stray++
	case t.ctl.out != nil && !t.mayBeClear(msg):
		e.Counters.Unprotected++
	default:
		t.received += len(msg)
		if t.initiator && t.cookie(now, msg) {
			return
		}
		t.receive(now, msg)
	}
}

// mayBeClear says whether an initiator that has keys still listens to a clear message:
// until the terminator has shown that it has them too, it can acknowledge our last flight
// (a ZLB) or refuse us (StopCCN) in no other way.
func (t *tunnelState) mayBeClear(msg []byte) bool {
	if !t.initiator || t.up {
		return false
	}
	vendor, typ, ok := l2tp.PeekType(msg)
	return !ok || vendor == 0 && typ == uint16(l2tp.StopCCN)
}

// Control takes the payload of a packet that a tunnel's control SA opened: an inner UDP
// header and an L2TP control message.
func (e *Endpoint) Control(now time.Time, from netip.AddrPort, in *calls.Inbound, payload []byte) {
	t := e.tunnels[in.Tunnel]
	msg, err := innerUDP(payload)
	if t == nil || err != nil {
		e.Counters.Malformed++
		return
	}
	if h, err := l2tp.ParseControlHeader(msg); err != nil || h.TunnelID != t.id {
		e.Counters.Malformed++
		return
	}
	t.authentic(now, from, in)
	t.receive(now, msg)
}

// PPP takes a PPP frame that a call's data SA opened and that is no network packet.
func (e *Endpoint) PPP(now time.Time, c *calls.Call, frame []byte) {
	s := e.byCall[c.ID]
	if s == nil {
		return // it ended while the frame was queued
	}
	s.ppp(now, frame)
}

// Used notes that the first packet of a new association was opened: the peer has its key.
func (e *Endpoint) Used(now time.Time, in *calls.Inbound) {
	switch t := e.tunnels[in.Tunnel]; {
	case in.Call != nil:
		if s := e.byCall[in.Call.ID]; s != nil {
			s.used(now, in)
		}
	case t != nil:
		t.used(now, in)
	}
}

// Moved notes that authentic packets of a tunnel now come from another address.
func (e *Endpoint) Moved(now time.Time, tunnel uint16, from netip.AddrPort) {
	t := e.tunnels[tunnel]
	if t == nil || t.to == from {
		return
	}
	elsewhere := t.to.Addr() != from.Addr() // another port is another mapping on the same path
	t.to = from
	if elsewhere {
		t.research(now)
	}
	for _, s := range t.sessions {
		s.publish()
	}
	t.m.Heard(now)
}

// PlaceCall places w in the tunnel that its control key and destination name, which is
// dialled first if it isn't up. What comes of it is told by CallUp or CallDown.
func (e *Endpoint) PlaceCall(now time.Time, w Wish) error {
	if err := e.c.Trust.Fresh(now); err != nil {
		return err
	}
	switch c := w.Cred.Certificate; {
	case e.c.Trust.Revoked(c.ID()):
		return twincert.ErrRevoked
	case now.After(c.NotAfter):
		return twincert.ErrExpired
	}
	p, ok := e.c.Peer(w.Key.Peer)
	if !ok {
		return ErrUnknownPeer
	}
	k := tunnelKey{peer: p.Name, control: w.Cred.Certificate.Keys.Control}
	if t := e.dialled[k]; t != nil {
		t.place(now, w)
		return nil
	}
	if !p.Endpoint.IsValid() {
		return ErrNoEndpoint
	}
	return e.dial(now, k, p, w)
}

// Cancel ends every call that was placed for k, whether it is up, being set up or waiting
// for its tunnel.
func (e *Endpoint) Cancel(now time.Time, k links.Key, reason string) {
	for _, t := range e.dialled {
		t.waiting = slices.DeleteFunc(t.waiting, func(w Wish) bool {
			if w.Key == k {
				e.emit(CallDown{Key: k, Cert: w.Cred.Certificate.ID(), Initiator: true, Reason: reason, Final: true})
			}
			return w.Key == k
		})
	}
	for _, t := range e.tunnels {
		for _, s := range t.sessions {
			if s.initiator && s.key == k {
				s.hangup(now, resultAdmin, reason)
			}
		}
	}
}

// Hangup ends the call with this ID and tells the peer; false: there is none.
func (e *Endpoint) Hangup(now time.Time, id uint64, reason string) bool {
	s := e.byCall[id]
	if s == nil {
		return false
	}
	s.hangup(now, resultAdmin, reason)
	return true
}

// Logout is Hangup because the user wants it, or the operator for them.
func (e *Endpoint) Logout(now time.Time, id uint64, reason string) bool {
	if s := e.byCall[id]; s != nil {
		s.cause = calls.Logout
	}
	return e.Hangup(now, id, reason)
}

// Revoked ends, at once, every call and tunnel that stands on the certificate.
func (e *Endpoint) Revoked(now time.Time, id twincert.ID) {
	const reason = "certificate revoked"
	for _, t := range e.tunnels {
		if t.standsOn(id) {
			t.because(calls.Revoked)
			t.close(now, resultTunnelAuth, reason)
			continue
		}
		for _, s := range t.sessions {
			if s.standsOn(id) {
				s.cause = calls.Revoked
				s.hangup(now, resultRevoked, reason)
			}
		}
	}
}

// Refresh takes over what the site map and the configuration say now. For every call
// whose bounds change by that, apply is told: it swaps bounds and routes.
func (e *Endpoint) Refresh(apply func(c *calls.Call, b calls.Bounds)) {
	for _, t := range e.tunnels {
		if p, ok := e.c.Peer(t.peer.Name); ok {
			t.peer = p
		}
		for _, s := range t.sessions {
			if s.data.in == nil {
				continue
			}
			b, old := s.bounds(), s.call.Bounds()
			if !slices.Equal(b.Local, old.Local) || !slices.Equal(b.Remote, old.Remote) {
				apply(s.call, b)
			}
		}
	}
}

// Retire makes the next wish of these credentials dial anew: what stands goes on.
func (e *Endpoint) Retire(peer string, control [32]byte) {
	delete(e.dialled, tunnelKey{peer: peer, control: control})
}

// Expire ends every call and tunnel whose certificates, or what a router said for them, are no longer good at now.
func (e *Endpoint) Expire(now time.Time) {
	for _, t := range e.tunnels {
		if t.overheld(now) {
			t.close(now, resultTunnelAuth, "the router in front has not vouched for it again")
			continue
		}
		for _, s := range t.sessions {
			if now.After(s.notAfter()) {
				s.cause = calls.SessionOver
				s.hangup(now, resultAdmin, s.expired())
			}
		}
	}
}

// Close ends everything and tells the peers.
func (e *Endpoint) Close(now time.Time, reason string) {
	e.closing = true
	for _, t := range e.tunnels {
		t.because(calls.Shutdown)
		t.close(now, resultShutdown, reason)
	}
}
