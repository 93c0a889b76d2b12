package tunnel

import (
	"time"

	"twinkey/proto/l2tp"
)

// sessionState is the state of an incoming call (RFC 2661 7.4.1, 7.4.2).
type sessionState uint8

const (
	waitReply    sessionState = iota // LAC: ICRQ sent
	decidingICRP                     // LAC: the owner decides
	waitConnect                      // LNS: ICRP sent
	decidingICCN                     // LNS: the owner decides
	sessionIsUp
)

type session struct {
	local, peer uint16
	state       sessionState
}

// sessionMessage acts on a message of a session.
func (t *Tunnel) sessionMessage(m *l2tp.Message) error {
	if t.state != Established {
		return ErrState
	}
	if m.Type == l2tp.ICRQ {
		peer := m.AssignedSessionID()
		if peer == 0 || t.byPeer[peer] != nil {
			return ErrSessions
		}
		t.emit(Event{Kind: ICRQReceived, PeerSession: peer, Message: m})
		return nil
	}
	s := t.sessions[m.Header.SessionID]
	if s == nil && m.Type == l2tp.CDN { // refused before it had an ID of ours in its header
		s = t.byPeer[m.AssignedSessionID()]
	}
	if s == nil {
		return ErrSessions
	}
	switch {
	case m.Type == l2tp.CDN:
		t.drop(s)
		t.emit(Event{Kind: SessionClosed, Session: s.local, PeerSession: s.peer, Message: m, Result: m.Result(), Cause: ByPeer})
	case m.Type == l2tp.ICRP && s.state == waitReply && m.AssignedSessionID() != 0 && t.byPeer[m.AssignedSessionID()] == nil:
		s.peer, s.state = m.AssignedSessionID(), decidingICRP
		t.byPeer[s.peer] = s
		t.emit(Event{Kind: ICRPReceived, Session: s.local, PeerSession: s.peer, Message: m})
	case m.Type == l2tp.ICCN && s.state == waitConnect:
		s.state = decidingICCN
		t.emit(Event{Kind: ICCNReceived, Session: s.local, PeerSession: s.peer, Message: m})
	default:
		return ErrState
	}
	return nil
}

func (t *Tunnel) add(s *session) error {
	switch {
	case t.state != Established:
		return ErrState
	case s.local == 0 || t.sessions[s.local] != nil || t.c.MaxSessions > 0 && len(t.sessions) >= t.c.MaxSessions:
		return ErrSessions
	}
	t.sessions[s.local] = s
	if s.peer != 0 {
		t.byPeer[s.peer] = s
	}
	return nil
}

func (t *Tunnel) drop(s *session) {
	delete(t.sessions, s.local)
	if t.byPeer[s.peer] == s {
		delete(t.byPeer, s.peer)
	}
}

// OpenSession sends ICRQ for a session that we call local.
func (t *Tunnel) OpenSession(now time.Time, local uint16, avps ...l2tp.AVP) error {
	if err := t.add(&session{local: local}); err != nil {
		return err
	}
	avps = append([]l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, local), l2tp.Uint32(l2tp.AVPCallSerialNumber, uint32(local))}, avps...)
	return t.ch.Send(now, 0, l2tp.AppendBody(nil, 0, l2tp.ICRQ, avps...))
}

// AcceptSession answers the ICRQ of the peer's session with ICRP.
func (t *Tunnel) AcceptSession(now time.Time, peer, local uint16, avps ...l2tp.AVP) error {
	if t.byPeer[peer] != nil {
		return ErrSessions
	}
	if err := t.add(&session{local: local, peer: peer, state: waitConnect}); err != nil {
		return err
	}
	avps = append([]l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, local)}, avps...)
	return t.ch.Send(now, peer, l2tp.AppendBody(nil, 0, l2tp.ICRP, avps...))
}

// RefuseSession answers an ICRQ with CDN.
func (t *Tunnel) RefuseSession(now time.Time, peer uint16, r l2tp.Result) {
	if t.state == Established {
		_ = t.ch.Send(now, peer, l2tp.AppendBody(nil, 0, l2tp.CDN, r.AVP(), l2tp.Uint16(l2tp.AVPAssignedSessionID, 0)))
	}
}

// ConnectSession answers ICRP with ICCN: the session is up on our side.
func (t *Tunnel) ConnectSession(now time.Time, local uint16, avps ...l2tp.AVP) error {
	s := t.sessions[local]
	if s == nil || s.state != decidingICRP {
		return ErrState
	}
	s.state = sessionIsUp
	t.emit(Event{Kind: SessionUp, Session: s.local, PeerSession: s.peer})
	avps = append([]l2tp.AVP{l2tp.Uint32(l2tp.AVPTxConnectSpeed, 1_000_000_000), l2tp.Uint32(l2tp.AVPFramingType, 1)}, avps...)
	return t.ch.Send(now, s.peer, l2tp.AppendBody(nil, 0, l2tp.ICCN, avps...))
}

// ConfirmSession takes ICCN: the session is up.
func (t *Tunnel) ConfirmSession(_ time.Time, local uint16) error {
	s := t.sessions[local]
	if s == nil || s.state != decidingICCN {
		return ErrState
	}
	s.state = sessionIsUp
	t.emit(Event{Kind: SessionUp, Session: s.local, PeerSession: s.peer})
	return nil
}

// HasSession says whether the session exists.
func (t *Tunnel) HasSession(local uint16) bool { return t.sessions[local] != nil }

// CloseSession ends a session with CDN.
func (t *Tunnel) CloseSession(now time.Time, local uint16, r l2tp.Result) {
	s := t.sessions[local]
	if s == nil {
		return
	}
	t.drop(s)
	if t.state == Established {
		_ = t.ch.Send(now, s.peer, l2tp.AppendBody(nil, 0, l2tp.CDN, r.AVP(), l2tp.Uint16(l2tp.AVPAssignedSessionID, local)))
	}
}
