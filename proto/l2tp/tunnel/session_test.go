package tunnel_test

import (
	"errors"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
)

func TestVendorMessagesOfASession(t *testing.T) {
	w := newWorld(t).up()
	w.lac.must(w.lac.m.OpenSession(w.now, 1))
	if err := w.lac.m.SendVendor(w.now, 1, l2tp.VendorTwinkey, 7); !errors.Is(err, tunnel.ErrSessionID) {
		t.Errorf("before its peer has an ID: %v", err)
	}
	w.settle()
	w.lac.must(w.lac.m.SendVendor(w.now, 1, l2tp.VendorTwinkey, 7))
	w.settle()
	if e := w.lns.last(tunnel.VendorReceived); e.Session != 201 || e.PeerSession != 1 || e.Message.Type != 7 || e.Message.Mandatory {
		t.Errorf("%+v", e)
	}
}

func TestSessionLimits(t *testing.T) {
	w := newWorld(t, func(lac, lns *tunnel.Config) { lac.MaxSessions, lns.MaxSessions = 4, 3 }).up()
	if err := w.lac.m.OpenSession(w.now, 0); !errors.Is(err, tunnel.ErrSessionID) {
		t.Errorf("session 0: %v", err)
	}
	for id := uint16(1); id <= 4; id++ {
		w.lac.must(w.lac.m.OpenSession(w.now, id))
	}
	if err := w.lac.m.OpenSession(w.now, 5); !errors.Is(err, tunnel.ErrSessions) {
		t.Errorf("one too many: %v", err)
	}
	if err := w.lac.m.OpenSession(w.now, 4); !errors.Is(err, tunnel.ErrSessionID) {
		t.Errorf("the same ID: %v", err)
	}
	w.settle()
	if n := count(w.lac.seen, "SessionUp"); n != 3 || count(w.lac.seen, "SessionClosed 1 4/0") != 1 {
		t.Errorf("%q", w.lac.seen)
	}
	w.lac.m.CloseSession(w.now, 1, l2tp.Result{Code: 3})
	w.lac.must(w.lac.m.OpenSession(w.now, 1)) // its place and its ID are free again
	w.settle()
	if n := count(w.lac.seen, "SessionUp"); n != 4 {
		t.Errorf("%d", n)
	}
}

func TestUndecidedSessionsCount(t *testing.T) {
	w := newWorld(t, func(_, lns *tunnel.Config) { lns.MaxSessions = 2 }).up()
	w.lns.manual = true
	for id := uint16(1); id <= 3; id++ {
		w.lac.must(w.lac.m.OpenSession(w.now, id))
	}
	w.settle()
	w.lac.saw("SCCRPReceived", "Established", "SessionClosed 1 4/0")
	w.lns.m.RefuseSession(w.now, 1, l2tp.Result{Code: l2tp.CallNoFacilities})
	w.lns.m.RefuseSession(w.now, 1, l2tp.Result{Code: l2tp.CallNoFacilities}) // once
	w.lns.m.RefuseSession(w.now, 77, l2tp.Result{Code: 3})                    // who never asked
	w.log = nil
	w.settle()
	w.sent("lns CDN 4/0")
	w.lac.saw("SessionClosed 1 4/0")
	w.lac.must(w.lac.m.OpenSession(w.now, 9))
	w.settle()
	if e := w.lns.last(tunnel.ICRQReceived); e.PeerSession != 9 {
		t.Errorf("%+v", e)
	}
}

// A second session with an ID that the peer uses is not taken, and not answered either: CDN
// would end the first.
func TestPeersSessionIDTwice(t *testing.T) {
	w := newWorld(t).up()
	w.lac.must(w.lac.m.OpenSession(w.now, 1))
	w.settle()
	w.log, w.lns.seen = nil, nil
	w.lns.give(w.lns.from(0, 4, 0, l2tp.ICRQ, l2tp.Uint16(l2tp.AVPAssignedSessionID, 1), l2tp.Uint32(l2tp.AVPCallSerialNumber, 1)))
	w.lns.poll()
	w.lns.saw()
	w.sent()
	if len(w.lns.errs) != 1 || !errors.Is(w.lns.errs[0], tunnel.ErrSessionID) || !w.lns.m.HasSession(201) {
		t.Errorf("%v", w.lns.errs)
	}
}

func TestOutgoingCallsAreRefused(t *testing.T) {
	n, ns := inState(t, "established")
	n.give(n.from(0, ns, 0, l2tp.OCRQ,
		l2tp.Uint16(l2tp.AVPAssignedSessionID, 5), l2tp.Uint32(l2tp.AVPCallSerialNumber, 1), l2tp.Uint32(l2tp.AVPMinimumBPS, 1), l2tp.Uint32(l2tp.AVPMaximumBPS, 1),
		l2tp.Uint32(l2tp.AVPBearerType, 1), l2tp.Uint32(l2tp.AVPFramingType, 1), l2tp.Text(l2tp.AVPCalledNumber, "1")))
	n.poll()
	n.w.sent("lns CDN 5/0")
	n.give(n.from(5, ns+1, 0, l2tp.OCRP, l2tp.Uint16(l2tp.AVPAssignedSessionID, 5)))
	n.poll()
	n.w.sent()
	n.saw()
}

// RFC 2661 4.4.2, result 10: the peer acknowledges ICRQ but never answers.
func TestCallTimeout(t *testing.T) {
	w := newWorld(t, func(lac, _ *tunnel.Config) { lac.CallTimeout = 5 * time.Second }).up()
	w.lns.manual = true
	w.lac.must(w.lac.m.OpenSession(w.now, 1))
	w.pass(2 * time.Second)
	w.lac.must(w.lac.m.OpenSession(w.now, 2))
	w.settle()
	w.lns.must(w.lns.m.AcceptSession(w.now, 2, 50))
	w.lac.seen, w.lns.seen, w.log = nil, nil, nil
	w.pass(3 * time.Second)
	w.lac.saw("ICRPReceived", "SessionUp", "SessionClosed 3 10/0")
	if e := w.lac.last(tunnel.SessionClosed); e.Session != 1 || w.lac.m.HasSession(1) || !w.lac.m.HasSession(2) {
		t.Errorf("%+v", e)
	}
	w.lns.saw("ICCNReceived", "SessionClosed 1 10/0")
	w.pass(time.Minute)
	w.lac.saw()
}

// A session that we closed while its ICRP was on the way.
func TestLateReplyEndsNothing(t *testing.T) {
	w := newWorld(t).up()
	w.lns.manual = true
	w.lac.must(w.lac.m.OpenSession(w.now, 1))
	w.settle()
	w.lns.must(w.lns.m.AcceptSession(w.now, 1, 50))
	w.lac.m.CloseSession(w.now, 1, l2tp.Result{Code: 3})
	w.settle()
	if !w.lac.m.Up() || !w.lns.m.Up() || w.lns.m.HasSession(50) {
		t.Errorf("lac %q, lns %q", w.lac.seen, w.lns.seen)
	}
	if e := w.lns.last(tunnel.SessionClosed); e.Session != 50 || e.PeerSession != 1 {
		t.Errorf("%+v", e)
	}
}
