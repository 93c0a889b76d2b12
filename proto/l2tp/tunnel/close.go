package tunnel

import (
	"slices"
	"time"

	"twinkey/proto/l2tp"
)

// Close ends the tunnel, or refuses it, with StopCCN, which goes before all that waits to
// be sent. Closed is told when the peer has acknowledged it or is silent for too long.
func (t *Tunnel) Close(now time.Time, r l2tp.Result) {
	if t.state >= closing || t.state == waitRequest {
		return
	}
	t.state = closing
	t.until = now.Add(t.ch.Cycle())
	t.forget()
	stop := []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedTunnelID, t.c.LocalID), r.AVP()}
	t.ch.Finish(now, l2tp.AppendMessage(nil, l2tp.ControlHeader{}, 0, l2tp.StopCCN, stop...))
}

// Abort ends the tunnel without a word.
func (t *Tunnel) Abort() { t.over(Event{Kind: Closed, Cause: ByUs}) }

// over ends everything at once.
func (t *Tunnel) over(e Event) {
	if t.state == dead {
		return
	}
	t.state = dead
	t.forget()
	t.ch.Mute()
	t.tell(e)
}

// forget drops the sessions, and the events, which ask for decisions that nobody needs.
func (t *Tunnel) forget() {
	t.calls, t.held = newCalls(), nil
	t.events = slices.DeleteFunc(t.events, func(e Event) bool { return e.Kind != Closed })
}

func (t *Tunnel) tell(e Event) {
	if !t.told {
		t.told = true
		t.emit(e)
	}
}

// end closes the tunnel since the peer broke the protocol.
func (t *Tunnel) end(now time.Time, r l2tp.Result) {
	t.Close(now, r)
	t.tell(Event{Kind: Closed, Cause: Broken, Result: r})
}

// stopped takes the peer's StopCCN.
func (t *Tunnel) stopped(now time.Time, m *l2tp.Message) {
	if t.peer == 0 { // refused: without its ID it could not be acknowledged
		t.peer = m.AssignedTunnelID()
		t.ch.SetPeer(now, t.peer, m.ReceiveWindow())
	}
	cause := ByPeer
	if t.state == closing {
		cause = ByUs // both close at once
	}
	t.state = lingering
	t.until = now.Add(t.ch.Cycle())
	t.forget()
	t.ch.Stop()
	t.tell(Event{Kind: Closed, Message: m, Result: m.Result(), Cause: cause})
}

// Advance does what is due at now.
func (t *Tunnel) Advance(now time.Time) {
	switch {
	case t.state == dead:
		return
	case t.state.settingUp() && !now.Before(t.began.Add(t.c.SetupTimeout)):
		t.over(Event{Kind: Closed, Cause: Silence})
		return
	case t.state >= closing && !now.Before(t.until):
		t.over(Event{Kind: Closed, Cause: Silence})
		return
	}
	t.expireCalls(now)
	t.ch.Advance(now)
	if t.ch.Failed() {
		t.over(Event{Kind: Closed, Cause: Silence})
	}
}

// Deadline is when Advance wants to be called; zero: nothing is pending.
func (t *Tunnel) Deadline() time.Time {
	if t.state == dead {
		return time.Time{}
	}
	at := earlier(t.ch.Deadline(), t.calls.deadline())
	switch {
	case t.state.settingUp():
		at = earlier(at, t.began.Add(t.c.SetupTimeout))
	case t.state >= closing:
		at = earlier(at, t.until)
	}
	return at
}

// earlier returns the earlier time; a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
