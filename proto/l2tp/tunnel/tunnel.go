package tunnel

import (
	"errors"
	"fmt"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/reliable"
	"twinkey/proto/secret"
)

// Errors of the methods.
var (
	ErrState     = errors.New("l2tp: not in this state")
	ErrTunnelID  = errors.New("l2tp: message for another tunnel")
	ErrSessionID = errors.New("l2tp: session ID unknown, taken or 0")
	ErrSessions  = errors.New("l2tp: too many sessions")
	ErrHeld      = errors.New("l2tp: too many messages wait for a decision")
	ErrVersion   = errors.New("l2tp: protocol version is not 1")
)

const (
	defaultSetup = 30 * time.Second
	defaultCall  = 60 * time.Second
	maxHeld      = reliable.DefaultWindow // messages kept while the owner decides
	// setupHello is the silence after which an initiator asks, by HELLO, a responder that has
	// acknowledged all that it got: what that has sent may be lost, and it has no timer.
	setupHello = 2 * time.Second
)

// Config of a tunnel; zero values mean the defaults.
type Config struct {
	LocalID  uint16 // our tunnel ID, not 0
	HostName string // at least one byte
	Framing  uint32 // Framing Capabilities; 0: synchronous and asynchronous
	Bearer   uint32 // Bearer Capabilities; 0: the AVP is not sent
	// Secret reveals hidden AVPs. Without one, a mandatory hidden AVP ends the tunnel or session.
	Secret secret.Key

	Window        uint16        // receive window, messages
	RetryBase     time.Duration // see reliable.Config
	RetryCap      time.Duration
	MaxRetries    int
	MaxQueued     int           // messages that may wait to be sent
	HelloInterval time.Duration // silence after which HELLO is sent; 0: never
	SetupTimeout  time.Duration // from SCCRQ to Established; 0: 30 s
	CallTimeout   time.Duration // how long ICRP and ICCN are waited for; 0: 60 s
	MaxSessions   int           // 0: as many as there are IDs
}

// Tunnel is one control connection and its sessions. It is not safe for concurrent use.
type Tunnel struct {
	c       Config
	ch      *reliable.Channel
	state   state
	peer    uint16    // the peer's tunnel ID; 0: not known yet
	began   time.Time // SCCRQ
	until   time.Time // of closing and lingering
	told    bool      // Closed
	events  []Event
	held    [][]byte // messages that wait for a decision
	calls   calls
	scratch l2tp.Message
}

func newTunnel(now time.Time, c Config, passive bool) *Tunnel {
	if c.Framing == 0 {
		c.Framing = l2tp.FramingSync | l2tp.FramingAsync
	}
	if c.SetupTimeout == 0 {
		c.SetupTimeout = defaultSetup
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCall
	}
	ch := reliable.New(now, reliable.Config{
		Window: c.Window, RetryBase: c.RetryBase, RetryCap: c.RetryCap, Retries: c.MaxRetries,
		Queue: c.MaxQueued, Hello: setupHello, Passive: passive,
	})
	return &Tunnel{c: c, ch: ch, began: now, calls: newCalls()}
}

// Dial starts a tunnel: SCCRQ carries the mandatory AVPs and avps. If that is too long for
// a message, the tunnel is Closed, by us, at once.
func Dial(now time.Time, c Config, avps ...l2tp.AVP) *Tunnel {
	t := newTunnel(now, c, false)
	t.state = waitReply
	if err := t.send(now, 0, l2tp.SCCRQ, t.hello(avps)); err != nil {
		t.over(Event{Kind: Closed, Cause: ByUs, Result: l2tp.Result{Code: l2tp.StopError, Error: l2tp.ErrorLength, Message: err.Error()}})
	}
	return t
}

// Answer makes a responder of a stranger's first message, an SCCRQ; SCCRQReceived is
// polled next. One that is malformed, unacceptable (*l2tp.AVPError, ErrVersion) or
// no first message (ErrState) leaves no state.
func Answer(now time.Time, c Config, sccrq []byte) (*Tunnel, error) {
	t := newTunnel(now, c, true)
	m, err := t.parse(sccrq)
	if err != nil {
		return nil, fmt.Errorf("answering SCCRQ: %w", err)
	}
	if h := m.Header; classOf(m) != isSCCRQ || h.TunnelID != 0 || h.SessionID != 0 || h.Ns != 0 || h.Nr != 0 {
		return nil, fmt.Errorf("answering %v: %w", m.Type, ErrState)
	}
	if err := t.Receive(now, sccrq); err != nil {
		return nil, fmt.Errorf("answering SCCRQ: %w", err)
	}
	return t, nil
}

// Refusal appends the StopCCN that refuses an SCCRQ without making a tunnel. localID is
// any ID of ours that is free.
func Refusal(b []byte, sccrq *l2tp.Message, localID uint16, r l2tp.Result) []byte {
	h := l2tp.ControlHeader{TunnelID: sccrq.AssignedTunnelID(), Nr: sccrq.Header.Ns + 1}
	return l2tp.AppendMessage(b, h, 0, l2tp.StopCCN, l2tp.Uint16(l2tp.AVPAssignedTunnelID, localID), r.AVP())
}

// ResultOf is what a peer is told of an error of Answer or Receive.
func ResultOf(err error) l2tp.Result {
	if ae, ok := errors.AsType[*l2tp.AVPError](err); ok {
		return ae.Result()
	}
	if errors.Is(err, ErrVersion) { // the error code is the highest version supported (RFC 2661 4.4.2)
		return l2tp.Result{Code: l2tp.StopVersion, Error: l2tp.ProtocolVersion}
	}
	return l2tp.Result{Code: l2tp.StopError, Error: l2tp.ErrorValue}
}

// hello are the AVPs of SCCRQ and SCCRP (RFC 2661 6.1, 6.2) with those of the owner.
func (t *Tunnel) hello(avps []l2tp.AVP) []l2tp.AVP {
	own := []l2tp.AVP{
		l2tp.Uint16(l2tp.AVPProtocolVersion, l2tp.ProtocolVersion),
		l2tp.Uint32(l2tp.AVPFramingCapabilities, t.c.Framing),
		l2tp.Text(l2tp.AVPHostName, t.c.HostName),
		l2tp.Uint16(l2tp.AVPAssignedTunnelID, t.c.LocalID),
		l2tp.Uint16(l2tp.AVPReceiveWindowSize, t.ch.Window()),
	}
	if t.c.Bearer != 0 {
		own = append(own, l2tp.Uint32(l2tp.AVPBearerCapabilities, t.c.Bearer))
	}
	return with(own, avps)
}

// with appends avps to own, of which those that avps give too are left out.
func with(own, avps []l2tp.AVP) []l2tp.AVP {
	all := make([]l2tp.AVP, 0, len(own)+len(avps))
next:
	for _, o := range own {
		for _, a := range avps {
			if a.Vendor == 0 && a.Type == o.Type {
				continue next
			}
		}
		all = append(all, o)
	}
	return append(all, avps...)
}

// send queues a message of RFC 2661.
func (t *Tunnel) send(now time.Time, session uint16, typ l2tp.MessageType, avps []l2tp.AVP) error {
	return t.sendVendor(now, session, 0, typ, avps)
}

func (t *Tunnel) sendVendor(now time.Time, session, vendor uint16, typ l2tp.MessageType, avps []l2tp.AVP) error {
	if err := l2tp.Check(avps...); err != nil {
		return fmt.Errorf("sending %v: %w", typ, err)
	}
	if err := t.ch.Send(now, l2tp.AppendMessage(nil, l2tp.ControlHeader{SessionID: session}, vendor, typ, avps...)); err != nil {
		return fmt.Errorf("sending %v: %w", typ, err)
	}
	return nil
}

// PeerID is the peer's tunnel ID; 0: not known yet.
func (t *Tunnel) PeerID() uint16 { return t.peer }

// Up says that the tunnel is established on our side.
func (t *Tunnel) Up() bool { return t.state == established }

// Done says that the machine has nothing more to do, now or later: it can be dropped.
func (t *Tunnel) Done() bool { return t.state == dead }

// Accept answers SCCRQ with SCCRP, which carries the mandatory AVPs and avps.
func (t *Tunnel) Accept(now time.Time, avps ...l2tp.AVP) error {
	return t.decide(now, decidingRequest, waitConnect, l2tp.SCCRP, t.hello(avps))
}

// Connect answers SCCRP with SCCCN; the tunnel is established on our side.
func (t *Tunnel) Connect(now time.Time, avps ...l2tp.AVP) error {
	if err := t.decide(now, decidingReply, established, l2tp.SCCCN, avps); err != nil {
		return err
	}
	t.ch.SetHello(t.c.HelloInterval)
	t.emit(Event{Kind: Established})
	t.release(now)
	return nil
}

// Confirm takes SCCCN; the tunnel is established, and the peer has proven where it is.
func (t *Tunnel) Confirm(now time.Time) error {
	if t.state != decidingConnect {
		return ErrState
	}
	t.state = established
	t.ch.SetHello(t.c.HelloInterval)
	t.ch.Prove(now)
	t.emit(Event{Kind: Established})
	t.release(now)
	return nil
}

// Proven notes that the peer has shown that it receives what we send to it: a responder
// repeats by a timer from now on.
func (t *Tunnel) Proven(now time.Time) { t.ch.Prove(now) }

func (t *Tunnel) decide(now time.Time, from, to state, typ l2tp.MessageType, avps []l2tp.AVP) error {
	if t.state != from {
		return fmt.Errorf("sending %v in state %v: %w", typ, t.state, ErrState)
	}
	if err := t.send(now, 0, typ, avps); err != nil {
		return err
	}
	t.state = to
	return nil
}

// SendVendor sends a reliable message whose Message Type AVP is a vendor's, with the M bit
// clear: who does not know it passes it over. localSession is ours, 0 for the tunnel.
func (t *Tunnel) SendVendor(now time.Time, localSession, vendor, typ uint16, avps ...l2tp.AVP) error {
	if t.state == waitRequest || t.state > established {
		return ErrState
	}
	var peer uint16
	if localSession != 0 {
		s := t.calls.local[localSession]
		if s == nil || s.peer == 0 { // the peer could not tell whose it is
			return ErrSessionID
		}
		peer = s.peer
	}
	return t.sendVendor(now, peer, vendor, l2tp.MessageType(typ), avps)
}

// Heard notes that the peer lives: one of its calls passed authenticated data. A HELLO that it leaves
// unanswered is then no reason to end the tunnel.
func (t *Tunnel) Heard(now time.Time) { t.ch.Heard(now) }

func (t *Tunnel) emit(e Event) { t.events = append(t.events, e) }

// Poll returns the next datagram to send or event to act on. Events come first, so that
// what the owner decides leaves with the acknowledgement; only Closed comes last.
func (t *Tunnel) Poll() (Output, bool) {
	if len(t.events) > 0 && t.events[0].Kind != Closed {
		return Output{Event: t.pop()}, true
	}
	if m, ok := t.ch.Poll(); ok {
		return Output{Datagram: m}, true
	}
	if len(t.events) > 0 {
		return Output{Event: t.pop()}, true
	}
	return Output{}, false
}

func (t *Tunnel) pop() Event {
	e := t.events[0]
	t.events[0] = Event{}
	if t.events = t.events[1:]; len(t.events) == 0 {
		t.events = nil
	}
	return e
}
