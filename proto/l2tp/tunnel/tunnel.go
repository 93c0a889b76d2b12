package tunnel

import (
	"errors"
	"fmt"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/reliable"
)

// ErrState says that a call does not fit the state.
var ErrState = errors.New("l2tp: not in this state")

// ErrTunnelID says that a message is for another tunnel.
var ErrTunnelID = errors.New("l2tp: message for another tunnel")

// ErrSessions says that there are too many sessions, or that an ID is taken.
var ErrSessions = errors.New("l2tp: no room for the session")

// State of a control connection (RFC 2661 7.2.1). A state that ends in "Deciding" waits
// for the owner.
type State uint8

// The states.
const (
	WaitCtlReply State = iota // SCCRQ sent
	DecidingSCCRQ
	WaitCtlConn // SCCRP sent
	DecidingSCCRP
	DecidingSCCCN
	Established
	Closing // StopCCN sent, its acknowledgement awaited
	Dead
)

// Config of a tunnel.
type Config struct {
	LocalID       uint16
	HostName      string
	Framing       uint32
	Bearer        uint32
	HelloInterval time.Duration
	SetupTimeout  time.Duration // of a half-open responder; 0: 30 s
	MaxSessions   int
	Window        uint16
	RetryBase     time.Duration
	RetryCap      time.Duration
	MaxRetries    int
}

// Kind of an Event.
type Kind uint8

// The kinds.
const (
	SCCRQReceived Kind = iota + 1
	SCCRPReceived
	SCCCNReceived
	TunnelEstablished
	Closed
	ICRQReceived
	ICRPReceived
	ICCNReceived
	SessionUp
	SessionClosed
	VendorReceived
	LinkInfo // SLI or WEN
)

// Cause says who ended something.
type Cause uint8

// The causes.
const (
	ByPeer Cause = iota + 1
	ByUs
	Silence // the peer did not answer
	Broken  // the peer broke the protocol
)

// Event is what the owner decides on or notes. Message is valid until the next call.
type Event struct {
	Kind        Kind
	Session     uint16 // ours; 0 with ICRQReceived
	PeerSession uint16
	Message     *l2tp.Message
	Result      l2tp.Result
	Cause       Cause
}

// Output is a datagram to send, or an event.
type Output struct {
	Datagram []byte
	Event    Event
}

// Tunnel is one control connection and its sessions.
type Tunnel struct {
	c         Config
	ch        *reliable.Channel
	state     State
	initiator bool
	peer      uint16
	began     time.Time
	events    []Event
	sessions  map[uint16]*session
	byPeer    map[uint16]*session
}

// Dial starts a tunnel with an SCCRQ that carries avps beside the mandatory ones.
func Dial(now time.Time, c Config, avps ...l2tp.AVP) *Tunnel {
	t := newTunnel(now, c, false)
	t.initiator, t.state = true, WaitCtlReply
	_ = t.ch.Send(now, 0, l2tp.AppendBody(nil, 0, l2tp.SCCRQ, t.hello(avps)...)) // the queue is empty
	return t
}

// Answer makes a responder of a first SCCRQ; its event is polled next.
func Answer(now time.Time, c Config, sccrq []byte) (*Tunnel, error) {
	t := newTunnel(now, c, true)
	m, err := l2tp.ParseMessage(sccrq)
	if err != nil {
		return nil, err
	}
	if m.VendorID != 0 || m.Type != l2tp.SCCRQ || m.Header.TunnelID != 0 || m.AssignedTunnelID() == 0 {
		return nil, fmt.Errorf("answering a tunnel: %w", ErrState)
	}
	t.state = WaitCtlReply
	return t, t.Receive(now, sccrq)
}

func newTunnel(now time.Time, c Config, passive bool) *Tunnel {
	if c.SetupTimeout == 0 {
		c.SetupTimeout = 30 * time.Second
	}
	ch := reliable.New(now, reliable.Config{Window: c.Window, RetryBase: c.RetryBase, RetryCap: c.RetryCap, Retries: c.MaxRetries, Hello: c.HelloInterval, Passive: passive})
	return &Tunnel{c: c, ch: ch, began: now, sessions: make(map[uint16]*session), byPeer: make(map[uint16]*session)}
}

// hello are the mandatory AVPs of SCCRQ and SCCRP (RFC 2661 6.1, 6.2), then avps.
func (t *Tunnel) hello(avps []l2tp.AVP) []l2tp.AVP {
	return append([]l2tp.AVP{
		l2tp.Uint16(l2tp.AVPProtocolVersion, 0x0100),
		l2tp.Uint32(l2tp.AVPFramingCapabilities, t.c.Framing),
		{Mandatory: true, Type: l2tp.AVPHostName, Value: []byte(t.c.HostName)},
		l2tp.Uint16(l2tp.AVPAssignedTunnelID, t.c.LocalID),
		l2tp.Uint16(l2tp.AVPReceiveWindowSize, reliable.DefaultWindow),
	}, avps...)
}

// PeerID is the peer's tunnel ID; 0: not known yet.
func (t *Tunnel) PeerID() uint16 { return t.peer }

// Receive takes one control message. An error counts; it ends nothing by itself.
func (t *Tunnel) Receive(now time.Time, msg []byte) error {
	h, err := l2tp.ParseControlHeader(msg)
	if err != nil {
		return err
	}
	if h.TunnelID != t.c.LocalID && h.TunnelID != 0 {
		return ErrTunnelID
	}
	if t.state == Dead {
		return ErrState
	}
	t.ch.Receive(now, h, msg)
	for {
		m, ok := t.ch.Next()
		if !ok {
			break
		}
		if e := t.message(now, m); e != nil {
			err = e
		}
	}
	if t.state == Closing && t.ch.Idle() {
		t.state = Dead
		t.emit(Event{Kind: Closed, Cause: ByUs})
	}
	return err
}

func (t *Tunnel) emit(e Event) { t.events = append(t.events, e) }

// message acts on one message in order.
func (t *Tunnel) message(now time.Time, raw []byte) error {
	m, err := l2tp.ParseMessage(raw)
	if err != nil {
		if ae, ok := errors.AsType[*l2tp.AVPError](err); ok && ae.Fatal {
			t.broken(now, m, ae.Result)
		}
		return err
	}
	if m.VendorID == l2tp.VendorTwinkey {
		if t.state != Closing {
			t.emit(Event{Kind: VendorReceived, Message: m})
		}
		return nil
	}
	if m.VendorID != 0 {
		if m.Mandatory {
			t.broken(now, m, l2tp.Result{Code: 2, Error: 8, Message: "unknown mandatory message"})
		}
		return nil
	}
	return t.dispatch(now, m)
}

// broken ends what a faulty message belongs to: its session, or the tunnel.
func (t *Tunnel) broken(now time.Time, m *l2tp.Message, r l2tp.Result) {
	if s := t.sessions[m.Header.SessionID]; s != nil && m.Header.SessionID != 0 {
		t.emit(Event{Kind: SessionClosed, Session: s.local, PeerSession: s.peer, Result: r, Cause: Broken})
		t.CloseSession(now, s.local, r)
		return
	}
	t.emit(Event{Kind: Closed, Result: r, Cause: Broken})
	t.Close(now, r)
}

func (t *Tunnel) dispatch(now time.Time, m *l2tp.Message) error {
	switch m.Type {
	case l2tp.SCCRQ:
		if t.initiator || t.state != WaitCtlReply {
			return ErrState
		}
		t.meet(m)
		t.state = DecidingSCCRQ
		t.emit(Event{Kind: SCCRQReceived, Message: m})
	case l2tp.SCCRP:
		if !t.initiator || t.state != WaitCtlReply || m.AssignedTunnelID() == 0 {
			return ErrState
		}
		t.meet(m)
		t.state = DecidingSCCRP
		t.emit(Event{Kind: SCCRPReceived, Message: m})
	case l2tp.SCCCN:
		if t.initiator || t.state != WaitCtlConn {
			return ErrState
		}
		t.state = DecidingSCCCN
		t.emit(Event{Kind: SCCCNReceived, Message: m})
	case l2tp.StopCCN:
		if t.peer == 0 {
			t.peer = m.AssignedTunnelID()
			t.ch.SetPeer(t.peer, 4)
		}
		t.state = Dead
		t.emit(Event{Kind: Closed, Message: m, Result: m.Result(), Cause: ByPeer})
	case l2tp.HELLO:
	case l2tp.WEN, l2tp.SLI:
		t.emit(Event{Kind: LinkInfo, Session: m.Header.SessionID, Message: m})
	case l2tp.ICRQ, l2tp.ICRP, l2tp.ICCN, l2tp.CDN:
		return t.sessionMessage(m)
	case l2tp.OCRQ, l2tp.OCRP, l2tp.OCCN: // we place no outgoing calls on a line
		return t.refuseOutgoing(now, m)
	default:
		if m.Mandatory {
			t.broken(now, m, l2tp.Result{Code: 2, Error: 8, Message: "unknown mandatory message"})
		}
	}
	return nil
}

func (t *Tunnel) refuseOutgoing(now time.Time, m *l2tp.Message) error {
	if peer := m.AssignedSessionID(); m.Type == l2tp.OCRQ && peer != 0 {
		t.RefuseSession(now, peer, l2tp.Result{Code: 4, Message: "no outgoing calls"})
		return nil
	}
	return ErrState
}

func (t *Tunnel) meet(m *l2tp.Message) {
	t.peer = m.AssignedTunnelID()
	t.ch.SetPeer(t.peer, m.ReceiveWindow())
}

// Accept answers SCCRQ with SCCRP.
func (t *Tunnel) Accept(now time.Time, avps ...l2tp.AVP) error {
	return t.decide(now, DecidingSCCRQ, WaitCtlConn, l2tp.SCCRP, t.hello(avps))
}

// Connect answers SCCRP with SCCCN; the tunnel is established on our side.
func (t *Tunnel) Connect(now time.Time, avps ...l2tp.AVP) error {
	err := t.decide(now, DecidingSCCRP, Established, l2tp.SCCCN, avps)
	if err == nil {
		t.emit(Event{Kind: TunnelEstablished})
	}
	return err
}

// Confirm takes SCCCN; the tunnel is established, and the peer's return path proven.
func (t *Tunnel) Confirm(now time.Time) error {
	if t.state != DecidingSCCCN {
		return ErrState
	}
	t.state = Established
	t.ch.Prove(now)
	t.emit(Event{Kind: TunnelEstablished})
	return nil
}

func (t *Tunnel) decide(now time.Time, from, to State, typ l2tp.MessageType, avps []l2tp.AVP) error {
	if t.state != from {
		return ErrState
	}
	t.state = to
	return t.ch.Send(now, 0, l2tp.AppendBody(nil, 0, typ, avps...))
}

// SendVendor sends a reliable message of a vendor's type, mandatory for nobody.
func (t *Tunnel) SendVendor(now time.Time, session, vendor, typ uint16, avps ...l2tp.AVP) error {
	if t.state == Dead || t.state == Closing {
		return ErrState
	}
	return t.ch.Send(now, session, l2tp.AppendBody(nil, vendor, l2tp.MessageType(typ), avps...))
}

// Close sends StopCCN and waits for its acknowledgement; Closed tells of the end.
func (t *Tunnel) Close(now time.Time, r l2tp.Result) {
	if t.state == Dead || t.state == Closing {
		return
	}
	t.state = Closing
	clear(t.sessions)
	clear(t.byPeer)
	if err := t.ch.Send(now, 0, l2tp.AppendBody(nil, 0, l2tp.StopCCN, l2tp.Uint16(l2tp.AVPAssignedTunnelID, t.c.LocalID), r.AVP())); err != nil {
		t.Abort()
	}
}

// Abort ends the tunnel without a word.
func (t *Tunnel) Abort() {
	if t.state != Dead {
		t.state = Dead
		t.emit(Event{Kind: Closed, Cause: ByUs})
	}
}

// Heard notes that the peer lives: its calls pass data.
func (t *Tunnel) Heard(now time.Time) { t.ch.Heard(now) }

// Advance does what is due.
func (t *Tunnel) Advance(now time.Time) {
	if t.state == Dead {
		return
	}
	t.ch.Advance(now)
	half := t.state != Established && t.state != Closing
	if t.ch.Failed() || half && !t.initiator && now.Sub(t.began) >= t.c.SetupTimeout || t.state == Closing && t.ch.Idle() {
		t.state = Dead
		t.emit(Event{Kind: Closed, Cause: Silence})
	}
}

// Deadline is when Advance wants to be called.
func (t *Tunnel) Deadline() time.Time {
	if t.state == Dead {
		return time.Time{}
	}
	at := t.ch.Deadline()
	if !t.initiator && t.state != Established {
		if d := t.began.Add(t.c.SetupTimeout); at.IsZero() || d.Before(at) {
			at = d
		}
	}
	return at
}

// Poll returns the next thing to send or to note. Events come first: what the owner
// decides on them leaves with the acknowledgement.
func (t *Tunnel) Poll() (Output, bool) {
	if len(t.events) > 0 {
		e := t.events[0]
		t.events = t.events[1:]
		return Output{Event: e}, true
	}
	if m, ok := t.ch.Poll(); ok {
		return Output{Datagram: m}, true
	}
	return Output{}, false
}
