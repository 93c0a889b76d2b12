package native

import (
	"errors"
	"fmt"
	"time"

	"twinkey/proto/handshake"
	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
)

// errUnexpected says that a message makes no sense where it came.
var errUnexpected = errors.New("message not expected now")

// handle acts on what the L2TP machine reports.
func (t *tunnelState) handle(now time.Time, ev tunnel.Event) {
	var err error
	switch ev.Kind {
	case tunnel.SCCRQReceived, tunnel.SCCRPReceived, tunnel.SCCCNReceived:
		err = t.part(now, ev.Message)
	case tunnel.VendorReceived:
		err = t.vendor(now, ev.Message)
	case tunnel.ICRQReceived:
		t.incoming(now, ev)
	case tunnel.ICRPReceived, tunnel.ICCNReceived, tunnel.SessionUp, tunnel.SessionClosed:
		if s := t.sessions[ev.Session]; s != nil {
			s.handle(now, ev)
		}
	case tunnel.Closed:
		t.gone(now, closedBecause(ev))
	default:
	}
	if err != nil {
		t.refuse(now, err)
	}
}

func closedBecause(ev tunnel.Event) string {
	if ev.Result.Message != "" {
		return ev.Result.Message
	}
	switch ev.Cause {
	case tunnel.ByPeer:
		return "ended by the peer"
	case tunnel.Silence:
		return "the peer is silent"
	case tunnel.Broken:
		return "the peer broke the protocol"
	default:
		return "ended"
	}
}

// refuse ends an attempt that failed. What the peer did wrong is told to our owner; the
// peer, which may be a stranger, hears only that it is not authorized.
func (t *tunnelState) refuse(now time.Time, err error) {
	t.e.emit(Refused{From: t.to, Peer: t.peer.Name, Reason: err.Error()})
	if !t.up {
		t.close(now, resultTunnelAuth, "not authorized")
		return
	}
	t.close(now, resultTunnelAuth, err.Error())
}

// part takes the part of a handshake flight that m carries and, when the flight is
// whole, goes on with the handshake.
func (t *tunnelState) part(now time.Time, m *l2tp.Message) error {
	p, ok := m.Vendor(avpFlight)
	if !ok {
		return errMissing
	}
	msg, done, err := t.flight.Add(p)
	if err != nil || !done {
		return err
	}
	t.flight = handshake.Assembler{}
	if err := t.hs.Read(msg); err != nil {
		return err
	}
	switch {
	case t.initiator:
		return t.introduce(now)
	case t.cert != nil: // that was message 3, which Verify has believed
		return t.confirm(now)
	default:
		return t.accept(now)
	}
}

// accept answers SCCRQ (terminator).
func (t *tunnelState) accept(now time.Time) error {
	msg, err := t.hs.Write()
	if err != nil {
		return err
	}
	first, more, err := flight(msg)
	if err != nil {
		return err
	}
	if err := t.m.Accept(now, first...); err != nil {
		return fmt.Errorf("answering SCCRQ: %w", err)
	}
	return t.sendMore(now, more)
}

// connect answers SCCRP (initiator), its router having vouched for it. From here on our control messages are sealed,
// except this flight, for which the terminator has no keys yet.
func (t *tunnelState) connect(now time.Time) error {
	msg, err := t.hs.Write()
	if err != nil {
		return err
	}
	first, more, err := flight(msg)
	if err != nil {
		return err
	}
	if err := t.m.Connect(now, first...); err != nil {
		return fmt.Errorf("answering SCCRP: %w", err)
	}
	if err := t.sendMore(now, more); err != nil {
		return err
	}
	return t.keyed(now)
}

// confirm takes SCCCN (terminator). Ready is sealed and reliable: it acknowledges SCCCN
// and shows the initiator that we hold the keys, however often it must be repeated.
func (t *tunnelState) confirm(now time.Time) error {
	if err := t.keyed(now); err != nil {
		return err
	}
	if err := t.m.Confirm(now); err != nil {
		return fmt.Errorf("taking SCCCN: %w", err)
	}
	t.becomeUp(now)
	return t.m.SendVendor(now, 0, l2tp.VendorTwinkey, msgReady)
}

// keyed makes the control SA pair of a finished handshake.
func (t *tunnelState) keyed(now time.Time) error {
	r, ok := t.hs.Result()
	if !ok {
		return errUnexpected
	}
	defer t.hs.Wipe()
	t.hash = r.Hash
	return t.ctl.install(now, t.e, keys{suite: r.Suite, hybrid: r.Hybrid, local: r.LocalSPI, remote: r.RemoteSPI, in: r.In, out: r.Out, tunnel: t.id})
}

// vendor takes a vendor-specific message.
func (t *tunnelState) vendor(now time.Time, m *l2tp.Message) error {
	if m.VendorID != l2tp.VendorTwinkey {
		return nil // the machine has dealt with what it may not ignore
	}
	switch uint16(m.Type) {
	case msgReady:
		return nil // that it came sealed has said everything
	case msgMore:
		id, err := getSession(m)
		if err != nil { // of the tunnel's own handshake
			if t.ctl.out != nil {
				return errUnexpected
			}
			return t.part(now, m)
		}
		if id == 0 {
			return t.rekeying().part(now, m)
		}
		if s := t.byPeer[id]; s != nil {
			s.part(now, m)
		}
		return nil
	case msgRekeyRequest, msgRekeyReply:
		id, err := getSession(m)
		if err != nil {
			return err
		}
		if id == 0 {
			return t.rekeying().begin(now, m)
		}
		if s := t.byPeer[id]; s != nil && s.data.out != nil {
			if err := s.rekeying().begin(now, m); err != nil {
				s.hangup(now, resultAdmin, err.Error())
			}
		}
		return nil
	default:
		return nil // a newer peer's message that it did not mark mandatory
	}
}
