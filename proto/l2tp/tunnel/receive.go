package tunnel

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/reliable"
)

// Receive takes one whole control message and keeps nothing of it. An error says that it,
// or one before it that waited for it, was not as it should be; whether that ended
// anything, the events say. A repetition is no error.
func (t *Tunnel) Receive(now time.Time, datagram []byte) error {
	m := &t.scratch
	if err := m.Parse(datagram); err != nil && !isFault(err) {
		return err // nothing of it counts, not even its Nr
	}
	if id := m.Header.TunnelID; t.state == dead || id != t.c.LocalID && !t.mayOmitID(id) {
		return ErrTunnelID
	}
	if m.Header.TunnelID == t.c.LocalID {
		t.ch.Reached()
	}
	var failed error
	if t.ch.Receive(now, m.Header, datagram) == reliable.Due {
		failed = t.inOrder(now, m, datagram)
		for early, ok := t.ch.Next(); ok; early, ok = t.ch.Next() {
			_ = m.Parse(early) // was parsed when it came; a fault is found again below
			failed = errors.Join(failed, t.inOrder(now, m, early))
		}
	}
	if t.state == closing && t.ch.Idle() {
		t.over(Event{Kind: Closed, Cause: ByUs})
	}
	return failed
}

// isFault tells a message with an unacceptable AVP from one that cannot be read.
func isFault(err error) bool {
	_, ok := errors.AsType[*l2tp.AVPError](err)
	return ok
}

// mayOmitID says whether a message may name tunnel 0: the initiator doesn't know our ID
// before SCCRP (RFC 2661 4.4.3).
func (t *Tunnel) mayOmitID(id uint16) bool {
	return id == 0 && (t.state == waitRequest || t.state == decidingRequest || t.state == waitConnect)
}

// parse reads a message whole, hidden AVPs and all, and says whether it is acceptable.
func (t *Tunnel) parse(raw []byte) (*l2tp.Message, error) {
	m := new(l2tp.Message)
	if err := m.Parse(raw); err != nil {
		return m, err
	}
	if err := m.Unhide(t.c.Secret); err != nil {
		return m, err
	}
	switch m.Type {
	case l2tp.StopCCN, l2tp.CDN, l2tp.WEN, l2tp.SLI: // these we understand whatever they lack
		return m, nil
	case l2tp.SCCRQ, l2tp.SCCRP:
		// Other revisions of version 1 are compatible (RFC 2661 4.4.3).
		if v := m.ProtocolVersion(); m.VendorID == 0 && m.Has(l2tp.AVPProtocolVersion) && v>>8 != l2tp.ProtocolVersion>>8 {
			return m, ErrVersion
		}
	default:
	}
	return m, m.Missing()
}

// inOrder acts on the message that is due, or leaves it as if it had not come.
func (t *Tunnel) inOrder(now time.Time, m *l2tp.Message, raw []byte) error {
	todo := table[t.state][classOf(m)]
	switch todo {
	case discard:
		return fmt.Errorf("%v in state %v: %w", m.Type, t.state, ErrState)
	case hold:
		if len(t.held) >= maxHeld {
			return ErrHeld
		}
		t.held = append(t.held, slices.Clone(raw))
		t.ch.Accept()
		return nil
	case ok:
		t.ch.Accept()
		return nil
	default:
		t.ch.Accept()
		return t.act(now, todo, slices.Clone(raw))
	}
}

// act acts on a message that was counted as received. raw is kept.
func (t *Tunnel) act(now time.Time, todo action, raw []byte) error {
	m, err := t.parse(raw)
	if err != nil && todo != stop && todo != end && (m.VendorID != 0 || m.Type != l2tp.CDN) {
		return t.unacceptable(now, m, err)
	}
	switch todo {
	case take:
		t.take(now, m)
	case stop:
		t.stopped(now, m)
	case act:
		return t.session(now, m)
	case event:
		e := Event{Kind: VendorReceived, Message: m}
		if s := t.calls.local[m.Header.SessionID]; s != nil {
			e.Session, e.PeerSession = s.local, s.peer
		}
		t.emit(e)
	case end:
		err = fmt.Errorf("%v in state %v: %w", m.Type, t.state, ErrState)
		r := l2tp.Result{Code: l2tp.StopStateEngine}
		if m.VendorID != 0 || !m.Type.Known() {
			r = l2tp.Result{Code: l2tp.StopError, Error: l2tp.ErrorUnknownAVP, Message: fmt.Sprintf("unknown mandatory %v of vendor %d", m.Type, m.VendorID)}
		}
		t.end(now, r)
		return err
	default:
	}
	return nil
}

// unacceptable ends what a faulty message belongs to (RFC 2661 4.1, 7.1).
func (t *Tunnel) unacceptable(now time.Time, m *l2tp.Message, err error) error {
	r := ResultOf(err)
	switch s := t.calls.of(m); {
	case s != nil:
		t.endSession(now, s, r)
	case m.VendorID == 0 && m.Type.OfSession():
		t.refuse(now, m.AssignedSessionID(), r)
	case m.Header.SessionID != 0: // it ended while this was on its way
	default:
		t.end(now, r)
	}
	return err
}

// take goes on with the set-up.
func (t *Tunnel) take(now time.Time, m *l2tp.Message) {
	e := Event{Message: m}
	switch m.Type {
	case l2tp.SCCRQ:
		t.meet(now, m)
		t.state, e.Kind = decidingRequest, SCCRQReceived
	case l2tp.SCCRP:
		t.meet(now, m)
		t.state, e.Kind = decidingReply, SCCRPReceived
	default:
		t.state, e.Kind = decidingConnect, SCCCNReceived
	}
	t.emit(e)
}

// meet notes what the peer says of itself.
func (t *Tunnel) meet(now time.Time, m *l2tp.Message) {
	t.peer = m.AssignedTunnelID()
	t.ch.SetPeer(now, t.peer, m.ReceiveWindow())
}

// release acts on what was held while the owner decided. What is wrong with it ends what
// it belongs to, as the events say, and is no failure of the decision.
func (t *Tunnel) release(now time.Time) {
	held := t.held
	t.held = nil
	for _, raw := range held {
		if t.state == established {
			_ = t.act(now, act, raw)
		}
	}
}
