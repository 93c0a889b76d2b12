package tunnel

import (
	"fmt"
	"time"

	"twinkey/proto/l2tp"
)

// callState is the state of a session (RFC 2661 7.4.1 LAC, 7.4.2 LNS).
type callState uint8

const (
	decidingICRQ callState = iota // LNS: it has no ID of ours yet
	waitICRP                      // LAC: wait-reply
	decidingICRP
	waitICCN // LNS: wait-connect
	decidingICCN
	callUp // established
	callOver
)

// session is one call; local is 0 in decidingICRQ, peer is 0 in waitICRP.
type session struct {
	local, peer uint16
	state       callState
	due         time.Time // when ICRP or ICCN must have come
}

// calls are the sessions of a tunnel.
type calls struct {
	local   map[uint16]*session
	peer    map[uint16]*session
	waiting []*session // for ICRP or ICCN, in the order of due; also some that wait no more
	asked   int        // in decidingICRQ
	serial  uint32     // Call Serial Number
}

func newCalls() calls {
	return calls{local: make(map[uint16]*session), peer: make(map[uint16]*session)}
}

// of returns the session that a message belongs to, or nil. A header names our ID; who does
// not know it yet says 0, and CDN then gives the sender's (RFC 2661 4.4.4).
func (c *calls) of(m *l2tp.Message) *session {
	if id := m.Header.SessionID; id != 0 {
		return c.local[id]
	}
	if id := m.AssignedSessionID(); id != 0 && m.VendorID == 0 && m.Type == l2tp.CDN {
		return c.peer[id]
	}
	return nil
}

func (c *calls) drop(s *session) {
	if s.state == decidingICRQ {
		c.asked--
	}
	s.state = callOver
	if c.local[s.local] == s {
		delete(c.local, s.local)
	}
	if c.peer[s.peer] == s {
		delete(c.peer, s.peer)
	}
}

// waits notes that s waits for the peer from now on.
func (c *calls) waits(s *session, until time.Time) {
	s.due = until
	c.waiting = append(c.waiting, s)
}

// overdue drops those that wait no more from the front and returns the first, or nil.
func (c *calls) overdue() *session {
	for len(c.waiting) > 0 {
		if s := c.waiting[0]; s.state == waitICRP || s.state == waitICCN {
			return s
		}
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
	}
	c.waiting = nil
	return nil
}

func (c *calls) deadline() time.Time {
	if s := c.overdue(); s != nil {
		return s.due
	}
	return time.Time{}
}

// expireCalls ends sessions whose peer did not answer.
func (t *Tunnel) expireCalls(now time.Time) {
	for s := t.calls.overdue(); s != nil && !now.Before(s.due); s = t.calls.overdue() {
		r := l2tp.Result{Code: l2tp.CallTimeout}
		e := Event{Kind: SessionClosed, Session: s.local, PeerSession: s.peer, Result: r, Cause: Silence}
		t.CloseSession(now, s.local, r)
		t.emit(e)
	}
}

// room says whether one more session is allowed.
func (t *Tunnel) room() bool {
	return t.c.MaxSessions == 0 || len(t.calls.local)+t.calls.asked < t.c.MaxSessions
}

// session acts on a message of a session in an established tunnel.
func (t *Tunnel) session(now time.Time, m *l2tp.Message) error {
	switch m.Type {
	case l2tp.ICRQ:
		return t.asked(now, m)
	case l2tp.OCRQ: // we have no line to call out on
		t.refuse(now, m.AssignedSessionID(), l2tp.Result{Code: l2tp.CallNeverFacilities, Message: "no outgoing calls"})
		return nil
	default:
	}
	s := t.calls.of(m)
	if s == nil { // it may have ended while this was on its way
		return fmt.Errorf("%v for session %d: %w", m.Type, m.Header.SessionID, ErrSessionID)
	}
	e := Event{Session: s.local, PeerSession: s.peer, Message: m}
	switch {
	case m.Type == l2tp.CDN:
		t.calls.drop(s)
		e.Kind, e.Result, e.Cause = SessionClosed, m.Result(), ByPeer
	case m.Type == l2tp.WEN:
		e.Kind = WENReceived
	case m.Type == l2tp.SLI:
		e.Kind = SLIReceived
	case m.Type == l2tp.ICRP && s.state == waitICRP && t.calls.peer[m.AssignedSessionID()] == nil:
		s.peer, s.state = m.AssignedSessionID(), decidingICRP
		t.calls.peer[s.peer] = s
		e.Kind, e.PeerSession = ICRPReceived, s.peer
	case m.Type == l2tp.ICCN && s.state == waitICCN:
		s.state = decidingICCN
		e.Kind = ICCNReceived
	default: // RFC 2661 7.4: CDN
		t.endSession(now, s, l2tp.Result{Code: l2tp.CallError, Error: l2tp.ErrorSession, Message: "unexpected " + m.Type.String()})
		return fmt.Errorf("%v for session %d: %w", m.Type, s.local, ErrState)
	}
	t.emit(e)
	return nil
}

// asked takes ICRQ.
func (t *Tunnel) asked(now time.Time, m *l2tp.Message) error {
	peer := m.AssignedSessionID()
	if t.calls.peer[peer] != nil { // a CDN would name, and end, the session that has this ID
		return fmt.Errorf("ICRQ for the peer's session %d: %w", peer, ErrSessionID)
	}
	if !t.room() {
		t.refuse(now, peer, l2tp.Result{Code: l2tp.CallNoFacilities, Message: "too many sessions"})
		return ErrSessions
	}
	t.calls.peer[peer] = &session{peer: peer}
	t.calls.asked++
	t.emit(Event{Kind: ICRQReceived, PeerSession: peer, Message: m})
	return nil
}

// refuse sends CDN to a session of the peer's that never had an ID of ours. The AVP must be
// there, so it gets one that is free. If the peer has a session of that ID already, CDN would
// end that one, so nothing is sent.
func (t *Tunnel) refuse(now time.Time, peer uint16, r l2tp.Result) {
	if peer == 0 || t.calls.peer[peer] != nil || t.state != established {
		return
	}
	id := peer
	for t.calls.local[id] != nil || id == 0 {
		id++
	}
	// A queue that is full loses the refusal; the peer's call then ends by its time.
	_ = t.send(now, peer, l2tp.CDN, []l2tp.AVP{r.AVP(), l2tp.Uint16(l2tp.AVPAssignedSessionID, id)})
}

// endSession ends a session since the peer broke the protocol.
func (t *Tunnel) endSession(now time.Time, s *session, r l2tp.Result) {
	e := Event{Kind: SessionClosed, Session: s.local, PeerSession: s.peer, Result: r, Cause: Broken}
	if s.local == 0 {
		t.RefuseSession(now, s.peer, r)
	} else {
		t.CloseSession(now, s.local, r)
	}
	t.emit(e)
}

// checkID says whether our ID may be given to a session.
func (t *Tunnel) checkID(local uint16) error {
	switch {
	case t.state != established:
		return ErrState
	case local == 0 || t.calls.local[local] != nil:
		return ErrSessionID
	}
	return nil
}

// OpenSession sends ICRQ for a session to which we give the ID local.
func (t *Tunnel) OpenSession(now time.Time, local uint16, avps ...l2tp.AVP) error {
	if err := t.checkID(local); err != nil {
		return fmt.Errorf("opening session %d: %w", local, err)
	}
	if !t.room() {
		return fmt.Errorf("opening session %d: %w", local, ErrSessions)
	}
	own := []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, local), l2tp.Uint32(l2tp.AVPCallSerialNumber, t.calls.serial+1)}
	if err := t.send(now, 0, l2tp.ICRQ, with(own, avps)); err != nil {
		return err
	}
	t.calls.serial++
	s := &session{local: local, state: waitICRP}
	t.calls.local[local] = s
	t.calls.waits(s, now.Add(t.c.CallTimeout))
	return nil
}

// AcceptSession answers the ICRQ of the peer's session with ICRP and gives it the ID local.
func (t *Tunnel) AcceptSession(now time.Time, peer, local uint16, avps ...l2tp.AVP) error {
	s := t.calls.peer[peer]
	if s == nil || s.state != decidingICRQ {
		return fmt.Errorf("accepting the peer's session %d: %w", peer, ErrState)
	}
	if err := t.checkID(local); err != nil {
		return fmt.Errorf("accepting the peer's session %d as %d: %w", peer, local, err)
	}
	if err := t.send(now, peer, l2tp.ICRP, with([]l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, local)}, avps)); err != nil {
		return err
	}
	t.calls.asked--
	s.local, s.state = local, waitICCN
	t.calls.local[local] = s
	t.calls.waits(s, now.Add(t.c.CallTimeout))
	return nil
}

// RefuseSession answers the ICRQ of the peer's session with CDN; where none waits for an
// answer it does nothing.
func (t *Tunnel) RefuseSession(now time.Time, peer uint16, r l2tp.Result) {
	if s := t.calls.peer[peer]; s != nil && s.state == decidingICRQ {
		t.calls.drop(s)
		t.refuse(now, peer, r)
	}
}

// ConnectSession answers ICRP with ICCN: the session is up on our side.
func (t *Tunnel) ConnectSession(now time.Time, local uint16, avps ...l2tp.AVP) error {
	s := t.calls.local[local]
	if s == nil || s.state != decidingICRP {
		return fmt.Errorf("connecting session %d: %w", local, ErrState)
	}
	own := []l2tp.AVP{l2tp.Uint32(l2tp.AVPTxConnectSpeed, connectSpeed), l2tp.Uint32(l2tp.AVPFramingType, l2tp.FramingSync)}
	if err := t.send(now, s.peer, l2tp.ICCN, with(own, avps)); err != nil {
		return err
	}
	t.up(s)
	return nil
}

// connectSpeed is what we say of a line that is none, in bit/s.
const connectSpeed = 1_000_000_000

// ConfirmSession takes ICCN: the session is up.
func (t *Tunnel) ConfirmSession(_ time.Time, local uint16) error {
	s := t.calls.local[local]
	if s == nil || s.state != decidingICCN {
		return fmt.Errorf("confirming session %d: %w", local, ErrState)
	}
	t.up(s)
	return nil
}

func (t *Tunnel) up(s *session) {
	s.state = callUp
	t.emit(Event{Kind: SessionUp, Session: s.local, PeerSession: s.peer})
}

// HasSession says whether there is a session to which we gave this ID.
func (t *Tunnel) HasSession(local uint16) bool { return t.calls.local[local] != nil }

// SendSession sends WEN or SLI for a session that is up.
func (t *Tunnel) SendSession(now time.Time, local uint16, typ l2tp.MessageType, avps ...l2tp.AVP) error {
	s := t.calls.local[local]
	if s == nil || s.state != callUp || typ != l2tp.WEN && typ != l2tp.SLI {
		return fmt.Errorf("sending %v for session %d: %w", typ, local, ErrState)
	}
	return t.send(now, s.peer, typ, avps)
}

// CloseSession ends a session of ours, if there is one, with CDN; no event tells of it.
func (t *Tunnel) CloseSession(now time.Time, local uint16, r l2tp.Result) {
	s := t.calls.local[local]
	if s == nil {
		return
	}
	t.calls.drop(s)
	if err := t.send(now, s.peer, l2tp.CDN, []l2tp.AVP{r.AVP(), l2tp.Uint16(l2tp.AVPAssignedSessionID, local)}); err != nil {
		// The peer does not even take what was sent before: it would keep the session for ever.
		t.end(now, l2tp.Result{Code: l2tp.StopError, Error: l2tp.ErrorResources})
	}
}
