package tunnel_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
	"twinkey/proto/secret"
	"twinkey/proto/wire"
)

func TestTunnelAndCallFromBeginningToEnd(t *testing.T) {
	w := newWorld(t).up()
	w.sent("lac SCCRQ", "lns SCCRP", "lac SCCCN")
	w.lac.saw("SCCRPReceived", "Established")
	w.lns.saw("SCCRQReceived", "SCCCNReceived", "Established")
	if w.lac.m.PeerID() != 20 || w.lns.m.PeerID() != 10 {
		t.Errorf("peers' IDs %d, %d", w.lac.m.PeerID(), w.lns.m.PeerID())
	}
	m := w.lac.last(tunnel.SCCRPReceived).Message
	if m.HostName() != "lns.example" || m.ReceiveWindow() != 16 || m.Missing() != nil {
		t.Errorf("SCCRP: %q, window %d, %v", m.HostName(), m.ReceiveWindow(), m.Missing())
	}

	w.lac.must(w.lac.m.OpenSession(w.now, 1))
	w.settle()
	w.sent("lac ICRQ", "lns ICRP", "lac ICCN")
	w.lac.saw("ICRPReceived", "SessionUp")
	w.lns.saw("ICRQReceived", "ICCNReceived", "SessionUp")
	if up := w.lns.last(tunnel.SessionUp); up.Session != 201 || up.PeerSession != 1 {
		t.Errorf("at the lns: %+v", up)
	}
	for _, e := range []tunnel.Event{w.lns.last(tunnel.ICRQReceived), w.lns.last(tunnel.ICCNReceived)} {
		if err := e.Message.Missing(); err != nil {
			t.Error(err)
		}
	}

	// The LNS calls too: sessions of both directions live in one tunnel.
	w.lns.must(w.lns.m.OpenSession(w.now, 202))
	w.settle()
	w.lac.must(w.lac.m.SendSession(w.now, 1, l2tp.WEN, l2tp.CallErrors{CRC: 5}.AVP()))
	w.lns.must(w.lns.m.SendSession(w.now, 201, l2tp.SLI, l2tp.ACCM{Send: 1}.AVP()))
	w.settle()
	if e := w.lns.last(tunnel.WENReceived); e.Session != 201 {
		t.Errorf("WEN: %+v", e)
	}
	if a, ok := w.lac.last(tunnel.SLIReceived).Message.ACCM(); !ok || a.Send != 1 {
		t.Errorf("SLI: %+v", a)
	}

	w.log, w.lac.seen, w.lns.seen = nil, nil, nil
	w.lns.m.CloseSession(w.now, 201, l2tp.Result{Code: l2tp.CallAdministrative})
	w.settle()
	w.lac.saw("SessionClosed 1 3/0")
	w.lac.m.Close(w.now, l2tp.Result{Code: l2tp.StopShutdown})
	w.settle()
	w.sent("lns CDN 3/0", "lac StopCCN 6/0")
	w.lac.saw("Closed 2 0/0")
	w.lns.saw("Closed 1 6/0")
	if !w.lac.m.Done() || w.lns.m.Done() {
		t.Error("who closed is done when it is acknowledged, the other lingers")
	}
	if w.pass(31 * time.Second); !w.lns.m.Done() || !w.lns.m.Deadline().IsZero() {
		t.Error("the other end is not done after a retransmission cycle")
	}
	w.lns.saw()
}

// RFC 2661 5.7: the ZLB may be lost, so StopCCN may come again.
func TestStopIsAcknowledgedAgain(t *testing.T) {
	w := newWorld(t).up()
	w.lac.m.Close(w.now, l2tp.Result{Code: l2tp.StopShutdown})
	drops := 3
	w.weather = func(d []byte) (int, int) {
		if words(d) == "ZLB" && drops > 0 {
			drops--
			return 0, 0
		}
		return 1, 0
	}
	w.log = nil
	w.pass(20 * time.Second)
	w.sent("lac StopCCN 6/0", "lac StopCCN 6/0", "lac StopCCN 6/0", "lac StopCCN 6/0")
	if !w.lac.m.Done() {
		t.Error("StopCCN was never acknowledged")
	}
	if n := count(w.lns.seen, "Closed 1 6/0"); n != 1 {
		t.Errorf("Closed is told %d times", n)
	}
}

func count(list []string, s string) (n int) {
	for _, l := range list {
		if l == s {
			n++
		}
	}
	return n
}

func TestBothCloseAtOnce(t *testing.T) {
	w := newWorld(t).up()
	w.lac.m.Close(w.now, l2tp.Result{Code: 1})
	w.lns.m.Close(w.now, l2tp.Result{Code: 1})
	w.pass(40 * time.Second)
	for _, n := range []*node{w.lac, w.lns} {
		if !n.m.Done() || count(n.seen, "Closed 2 1/0")+count(n.seen, "Closed 2 0/0") != 1 {
			t.Errorf("%s: %q", n.name, n.seen)
		}
	}
}

func TestCloseGoesBeforeWhatWaits(t *testing.T) {
	w := newWorld(t).up()
	w.log = nil
	for i := range 50 {
		w.lac.must(w.lac.m.OpenSession(w.now, uint16(i+1)))
	}
	w.lac.m.Close(w.now, l2tp.Result{Code: 1})
	w.settle()
	if len(w.log) > 15 || !w.lac.m.Done() {
		t.Errorf("%d datagrams, done %v", len(w.log), w.lac.m.Done())
	}
	if err := w.lac.m.OpenSession(w.now, 99); !errors.Is(err, tunnel.ErrState) {
		t.Errorf("a session in a closed tunnel: %v", err)
	}
}

func TestAbortSendsNothing(t *testing.T) {
	w := newWorld(t).up()
	w.log, w.lac.seen = nil, nil
	w.lac.m.Abort()
	w.lac.m.Abort()
	w.settle()
	w.sent()
	w.lac.saw("Closed 2 0/0")
	if !w.lac.m.Done() {
		t.Error("not done")
	}
	w.lac.give(w.lac.from(0, 0, 0, l2tp.HELLO))
	if len(w.lac.errs) != 1 {
		t.Error("a dead tunnel takes messages")
	}
}

// A tunnel that meets nobody: five repetitions, then it is over (RFC 2661 5.8).
func TestNobodyThere(t *testing.T) {
	w := newWorld(t, func(lac, _ *tunnel.Config) { lac.SetupTimeout = time.Hour }).dial()
	w.weather = func([]byte) (int, int) { return 0, 0 }
	w.settle().pass(30 * time.Second)
	if n := count(w.log, "lac SCCRQ"); n != 6 {
		t.Errorf("SCCRQ was sent %d times", n)
	}
	w.lac.saw()
	w.pass(2 * time.Second)
	w.lac.saw("Closed 3 0/0")
}

// SCCRQ is acknowledged, SCCRP never comes.
func TestSetupTimeout(t *testing.T) {
	w := newWorld(t, func(lac, lns *tunnel.Config) { lac.SetupTimeout, lns.SetupTimeout = 20*time.Second, time.Minute })
	w.lns.manual = true
	w.dial().pass(19 * time.Second)
	w.lac.saw()
	w.pass(time.Second)
	w.lac.saw("Closed 3 0/0")
}

// CVE-2016-5361: a spoofed SCCRQ makes us send one SCCRP and no more, however long we wait.
func TestResponderDoesNotAmplify(t *testing.T) {
	w := newWorld(t, func(_, lns *tunnel.Config) { lns.HelloInterval = time.Second }).dial()
	w.lac.poll()
	request := w.lns.inbox[0]
	w.lac.m.Abort()
	w.settle()
	w.log = nil
	for range 29 {
		w.pass(time.Second)
	}
	w.sent()
	w.lns.give(request) // who asks again is answered again
	w.settle()
	w.sent("lns SCCRP")
	w.lns.seen = nil
	w.pass(time.Second)
	w.lns.saw("Closed 3 0/0") // the half-open one dies in silence
	w.sent()
	if !w.lns.m.Done() {
		t.Error("not done")
	}
}

func TestProvenResponderRepeats(t *testing.T) {
	w := newWorld(t).dial()
	w.lac.poll()
	w.lns.receive()
	w.lns.poll()
	w.lac.m.Abort()
	w.settle()
	w.log = nil
	w.lns.m.Proven(w.now)
	w.pass(time.Second)
	w.sent("lns SCCRP")
}

// The refusal of a stranger is sent once, and kept no longer than a half-open tunnel.
func TestRefusedStranger(t *testing.T) {
	w := newWorld(t).dial()
	w.lns.manual = true
	w.lac.poll()
	w.lns.receive()
	w.lns.poll()
	w.lns.m.Close(w.now, l2tp.Result{Code: l2tp.StopNotAllowed})
	w.lns.poll()
	w.lns.inbox, w.lac.inbox = nil, w.lac.inbox[len(w.lac.inbox)-1:]
	stop := w.lac.inbox[0]
	if words(stop) != "StopCCN 4/0" {
		t.Fatalf("sent %q", w.log)
	}
	w.lac.receive()
	w.lac.poll()
	w.lac.saw("Closed 1 4/0") // and it could acknowledge: StopCCN says whose it is
	if w.log[len(w.log)-1] != "lac ZLB" {
		t.Errorf("%q", w.log)
	}
	w.lns.inbox, w.log = nil, nil
	w.pass(40 * time.Second)
	w.sent()
	if !w.lns.m.Done() {
		t.Error("a refused stranger is kept")
	}
}

func TestRefusalWithoutState(t *testing.T) {
	w := newWorld(t).dial()
	w.lac.poll()
	m, err := l2tp.ParseMessage(w.lns.inbox[0])
	if err != nil {
		t.Fatal(err)
	}
	w.lac.give(tunnel.Refusal(nil, m, 77, l2tp.Result{Code: l2tp.StopNotAllowed, Message: "no"}))
	w.lac.poll()
	w.lac.saw("Closed 1 4/0")
	if r := w.lac.last(tunnel.Closed).Result; r.Message != "no" || w.lac.m.PeerID() != 77 {
		t.Errorf("%v from %d", r, w.lac.m.PeerID())
	}
}

func TestAnswerRefuses(t *testing.T) {
	good := hello(7)
	for _, tt := range []struct {
		name   string
		msg    []byte
		want   error
		result l2tp.Result // code and error code
	}{
		{"truncated", sccrq(good...)[:30], wire.ErrTruncated, l2tp.Result{Code: 2, Error: 3}},
		{"ZLB", l2tp.AppendZLB(nil, l2tp.ControlHeader{}), tunnel.ErrState, l2tp.Result{Code: 2, Error: 3}},
		{"another message", l2tp.AppendMessage(nil, l2tp.ControlHeader{}, 0, l2tp.SCCCN), tunnel.ErrState, l2tp.Result{Code: 2, Error: 3}},
		{"a vendor's message 1", l2tp.AppendMessage(nil, l2tp.ControlHeader{}, 9, l2tp.SCCRQ, good...), tunnel.ErrState, l2tp.Result{Code: 2, Error: 3}},
		{"for a tunnel", l2tp.AppendMessage(nil, l2tp.ControlHeader{TunnelID: 20}, 0, l2tp.SCCRQ, good...), tunnel.ErrState, l2tp.Result{Code: 2, Error: 3}},
		{"not the first", l2tp.AppendMessage(nil, l2tp.ControlHeader{Ns: 1}, 0, l2tp.SCCRQ, good...), tunnel.ErrState, l2tp.Result{Code: 2, Error: 3}},
		{"acknowledges what was never sent", l2tp.AppendMessage(nil, l2tp.ControlHeader{Nr: 1}, 0, l2tp.SCCRQ, good...), tunnel.ErrState, l2tp.Result{Code: 2, Error: 3}},
		{"without a tunnel ID", sccrq(good[:3]...), l2tp.ErrMissing, l2tp.Result{Code: 2, Error: 3}},
		{"tunnel ID 0", sccrq(hello(0)...), wire.ErrValue, l2tp.Result{Code: 2, Error: 3}},
		{"without a host name", sccrq(good[0], good[1], good[3]), l2tp.ErrMissing, l2tp.Result{Code: 2, Error: 3}},
		{"version 2", sccrq(append(good[1:4:4], l2tp.Uint16(l2tp.AVPProtocolVersion, 0x0200))...), tunnel.ErrVersion, l2tp.Result{Code: 5, Error: 0x0100}},
		{"a stranger's vendor AVP that is mandatory", sccrq(append(good, l2tp.AVP{Vendor: 9, Type: 7, Mandatory: true})...), l2tp.ErrUnknownAVP, l2tp.Result{Code: 2, Error: 8}},
	} {
		m, err := tunnel.Answer(start, tunnel.Config{LocalID: 20, HostName: "lns"}, tt.msg)
		if m != nil || !errors.Is(err, tt.want) {
			t.Errorf("%s: err = %v, want %v", tt.name, err, tt.want)
		}
		if r := tunnel.ResultOf(err); r.Code != tt.result.Code || r.Error != tt.result.Error {
			t.Errorf("%s: result %v, want %v", tt.name, r, tt.result)
		}
	}
	// Another revision of version 1 is fine, and so is what is not mandatory.
	ok := sccrq(append(good[1:4:4], l2tp.Uint16(l2tp.AVPProtocolVersion, 0x0101), l2tp.AVP{Vendor: 9, Type: 7}, l2tp.AVP{Type: 99})...)
	if _, err := tunnel.Answer(start, tunnel.Config{LocalID: 20, HostName: "lns"}, ok); err != nil {
		t.Error(err)
	}
}

// RFC 2661 4.1: a mandatory AVP that nobody knows ends the session of a session's message,
// and the tunnel otherwise.
func TestMandatoryUnknownAVP(t *testing.T) {
	bad := l2tp.AVP{Vendor: 4711, Type: 14, Mandatory: true, Value: []byte{0, 9}}
	icrq := []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, 5), l2tp.Uint32(l2tp.AVPCallSerialNumber, 1)}
	t.Run("ICRQ", func(t *testing.T) {
		n, ns := inState(t, "established")
		n.give(n.from(0, ns, 0, l2tp.ICRQ, append(icrq, bad)...))
		n.poll()
		n.w.sent("lns CDN 2/8")
		n.saw()
	})
	t.Run("ICCN", func(t *testing.T) {
		n, ns := inState(t, "established")
		n.give(n.from(0, ns, 0, l2tp.ICRQ, icrq...))
		n.poll()
		n.must(n.m.AcceptSession(start, 5, 6))
		n.give(n.from(6, ns+1, 0, l2tp.ICCN, bad))
		n.poll()
		n.w.sent("lns ICRP", "lns CDN 2/8")
		n.saw("ICRQReceived", "SessionClosed 4 2/8")
		if !n.m.Up() {
			t.Error("the tunnel went with it")
		}
	})
	t.Run("CDN", func(t *testing.T) { // it ends the session whatever else it says
		n, ns := inState(t, "established")
		n.give(n.from(0, ns, 0, l2tp.ICRQ, icrq...))
		n.poll()
		n.must(n.m.AcceptSession(start, 5, 6))
		n.give(n.from(6, ns+1, 0, l2tp.CDN, bad))
		n.poll()
		n.w.sent("lns ICRP")
		n.saw("ICRQReceived", "SessionClosed 1 0/0")
	})
	t.Run("HELLO", func(t *testing.T) { // HELLO is not even read
		n, ns := inState(t, "established")
		n.give(n.from(0, ns, 0, l2tp.HELLO, bad))
		n.poll()
		if n.w.sent(); !n.m.Up() {
			t.Error("closed")
		}
	})
	t.Run("vendor's message", func(t *testing.T) {
		n, ns := inState(t, "established")
		n.give(n.from(0, ns, l2tp.VendorTwinkey, 1, bad))
		n.poll()
		n.w.sent("lns StopCCN 2/8")
		n.saw("Closed 4 2/8")
	})
	t.Run("vendor's message of a session that is over", func(t *testing.T) {
		n, ns := inState(t, "established")
		n.give(n.from(33, ns, l2tp.VendorTwinkey, 1, bad))
		n.poll()
		if n.w.sent(); !n.m.Up() {
			t.Error("closed")
		}
	})
	t.Run("SCCRP", func(t *testing.T) {
		n, ns := inState(t, "waitReply")
		n.give(n.from(0, ns, 0, l2tp.SCCRP, append(hello(30), bad)...))
		n.poll()
		n.w.sent("lac StopCCN 2/8")
		n.saw("Closed 4 2/8")
		if r := n.last(tunnel.Closed).Result; !strings.Contains(r.Message, "vendor 4711") {
			t.Errorf("the text does not name it: %v", r)
		}
	})
	t.Run("StopCCN", func(t *testing.T) { // it ends the tunnel whatever else it says
		n, ns := inState(t, "established")
		n.give(n.from(0, ns, 0, l2tp.StopCCN, bad))
		n.poll()
		n.saw("Closed 1 0/0")
	})
	t.Run("early", func(t *testing.T) { // it counts when its turn comes, not before
		n, ns := inState(t, "established")
		n.give(n.from(0, ns+1, l2tp.VendorTwinkey, 1, bad))
		n.poll()
		n.saw()
		n.give(n.from(0, ns, 0, l2tp.HELLO))
		n.poll()
		n.saw("Closed 4 2/8")
	})
}

// What cannot be read is as if it had not come: the same number is taken from a good one.
func TestUnreadableMessageTakesNoNumber(t *testing.T) {
	n, ns := inState(t, "established")
	good := n.from(0, ns, l2tp.VendorTwinkey, 1, l2tp.AVP{Vendor: l2tp.VendorTwinkey, Value: []byte("part")})
	for i := range good {
		n.give(good[:i])
	}
	bad := slices.Clone(good)
	bad[len(bad)-9] = 5 // Length of the AVP
	n.give(bad)
	n.poll()
	n.saw()
	n.w.sent()
	n.give(good)
	n.poll()
	n.saw("VendorReceived")
}

func TestMissingAVPs(t *testing.T) {
	for _, tt := range []struct {
		state string
		typ   l2tp.MessageType
		avps  []l2tp.AVP
		sent  string
	}{
		{"waitReply", l2tp.SCCRP, hello(30)[:2], "lac StopCCN 2/3"},
		{"waitReply", l2tp.SCCRP, append(hello(30)[1:], l2tp.Uint16(l2tp.AVPProtocolVersion, 0x0300)), "lac StopCCN 5/256"},
		{"established", l2tp.ICRQ, []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, 5)}, "lns CDN 2/3"},
		{"established", l2tp.ICRQ, nil, "lns ZLB"}, // refused, but nobody to tell
	} {
		n, ns := inState(t, tt.state)
		n.give(n.from(0, ns, 0, tt.typ, tt.avps...))
		n.poll()
		if len(n.errs) != 1 || !slices.Equal(n.w.log, []string{tt.sent}) {
			t.Errorf("%v: sent %q, errors %v", tt.typ, n.w.log, n.errs)
		}
	}
}

// A LAC may send ICRQ right behind SCCCN, before our owner has decided on that.
func TestWhatComesDuringADecisionIsHeld(t *testing.T) {
	w := newWorld(t).dial()
	w.lns.manual = true
	w.settle()
	w.lns.must(w.lns.decide(w.lns.last(tunnel.SCCRQReceived)))
	w.settle()
	for i := range 3 {
		w.lac.must(w.lac.m.OpenSession(w.now, uint16(i+1)))
		w.lac.must(w.lac.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, 7))
	}
	w.settle()
	w.lns.saw("SCCRQReceived", "SCCCNReceived", "VendorReceived", "VendorReceived", "VendorReceived")
	w.lns.must(w.lns.m.Confirm(w.now))
	w.lns.manual = false
	w.settle()
	if n := count(w.lac.seen, "SessionUp"); n != 3 {
		t.Errorf("%d sessions are up: %q", n, w.lac.seen)
	}
}

func TestHeldMessagesAreBounded(t *testing.T) {
	n, ns := inState(t, "decidingConnect")
	for i := range uint16(100) {
		n.give(n.from(0, ns+i, 0, l2tp.ICRQ, l2tp.Uint16(l2tp.AVPAssignedSessionID, i+1), l2tp.Uint32(l2tp.AVPCallSerialNumber, 1)))
	}
	if !errors.Is(n.errs[0], tunnel.ErrHeld) {
		t.Errorf("errors %v", n.errs)
	}
	n.must(n.m.Confirm(start))
	n.poll()
	if c := count(n.seen, "ICRQReceived"); c != 16 {
		t.Errorf("%d were held", c)
	}
}

// Native mode: the rest of a flight follows its first message in vendor messages, in
// order, and the owner decides when it is whole.
func TestFlightOverVendorMessages(t *testing.T) {
	part := func(n byte) l2tp.AVP {
		return l2tp.AVP{Vendor: l2tp.VendorTwinkey, Type: 1, Mandatory: true, Value: []byte{n}}
	}
	w := newWorld(t)
	w.lns.manual = true
	w.weather = func(d []byte) (int, int) { return 2, 1 } // doubled and swapped
	w.dial(part(0))
	for i := range byte(5) {
		w.lac.must(w.lac.m.SendVendor(w.now, 0, l2tp.VendorTwinkey, 1, part(i+1)))
	}
	w.pass(10 * time.Second)
	var got []byte
	for _, e := range w.lns.events {
		v, ok := e.Message.Vendor(1)
		if !ok {
			t.Fatalf("%v without a part", e.Kind)
		}
		got = append(got, v...)
	}
	if string(got) != "\x00\x01\x02\x03\x04\x05" {
		t.Fatalf("parts % x", got)
	}
	w.lns.must(w.lns.m.Accept(w.now, part(9)))
	w.lns.manual = false
	w.up()
	if v, _ := w.lac.last(tunnel.SCCRPReceived).Message.Vendor(1); string(v) != "\x09" {
		t.Errorf("SCCRP's part % x", v)
	}
}

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

func TestOnlyOurTunnelIDIsTaken(t *testing.T) {
	for state, zeroOK := range map[string]bool{"waitReply": false, "decidingReply": false, "decidingRequest": true, "waitConnect": true, "decidingConnect": false, "established": false} {
		for _, id := range []uint16{0, 4711} {
			n, ns := inState(t, state)
			n.give(l2tp.AppendMessage(nil, l2tp.ControlHeader{TunnelID: id, Ns: ns}, l2tp.VendorTwinkey, 1))
			n.poll()
			if taken := len(n.seen) > 0; taken != (zeroOK && id == 0) {
				t.Errorf("%s: tunnel %d taken: %v", state, id, taken)
			}
		}
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

func TestHello(t *testing.T) {
	w := newWorld(t, func(lac, _ *tunnel.Config) { lac.HelloInterval = time.Minute }).up()
	w.log = nil
	w.pass(10*time.Minute + time.Second)
	if n := count(w.log, "lac HELLO"); n != 10 || count(w.log, "lns ZLB") != 10 {
		t.Errorf("%q", w.log)
	}
	w.weather = func([]byte) (int, int) { return 0, 0 }
	w.lac.seen = nil
	w.pass(59 * time.Second)
	for range 60 { // a call passes data, though the path of control messages is dead
		w.lac.m.Heard(w.now)
		w.pass(5 * time.Second)
	}
	w.lac.saw()
	w.pass(3 * time.Minute)
	w.lac.saw("Closed 3 0/0")
}

// Hidden AVPs are revealed before anybody looks: here the very tunnel ID is hidden.
func TestHiddenAVPsInASecretTunnel(t *testing.T) {
	s := secret.New([]byte("between lac and lns"))
	hidden, err := l2tp.Hide(strings.NewReader(strings.Repeat("random", 100)), s, l2tp.Uint16(l2tp.AVPAssignedTunnelID, 10), l2tp.Uint32(l2tp.AVPFramingCapabilities, 3))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(_, lns *tunnel.Config) { lns.Secret = s }).dial(hidden...).up()
	if w.lns.m.PeerID() != 10 {
		t.Errorf("peer %d", w.lns.m.PeerID())
	}
	w = newWorld(t).dial(hidden...)
	w.settle()
	if w.lns.m != nil || len(w.lns.errs) == 0 || !errors.Is(w.lns.errs[0], l2tp.ErrHidden) {
		t.Errorf("without the secret: %v", w.lns.errs)
	}
}

// Tunnel authentication (RFC 2661 5.1.1) is the owners', with what the codec gives.
func TestTunnelAuthentication(t *testing.T) {
	s, challenge := secret.New([]byte("between lac and lns")), []byte("lac asks")
	w := newWorld(t)
	w.lns.manual = true
	w.dial(l2tp.Bytes(l2tp.AVPChallenge, challenge))
	w.settle()
	asked, _ := w.lns.last(tunnel.SCCRQReceived).Message.Get(l2tp.AVPChallenge)
	r := l2tp.ChallengeResponse(l2tp.SCCRP, s, asked)
	w.lns.must(w.lns.m.Accept(w.now, l2tp.Bytes(l2tp.AVPChallengeResponse, r[:])))
	w.settle()
	if m := w.lac.last(tunnel.SCCRPReceived).Message; !m.CheckResponse(s, challenge) || m.CheckResponse(s, asked[1:]) {
		t.Error("the response is not right")
	}
}

func TestOwnersAVPsReplaceDefaults(t *testing.T) {
	w := newWorld(t, func(lac, _ *tunnel.Config) { lac.Bearer = l2tp.BearerDigital }).dial(l2tp.Uint16(l2tp.AVPReceiveWindowSize, 2), l2tp.Text(l2tp.AVPVendorName, "x")).up()
	m := w.lns.last(tunnel.SCCRQReceived).Message
	if m.ReceiveWindow() != 2 || m.Text(l2tp.AVPVendorName) != "x" || m.Uint32(l2tp.AVPBearerCapabilities) != 1 || m.Uint32(l2tp.AVPFramingCapabilities) != 3 {
		t.Errorf("%+v", m)
	}
}

func TestWhatIsTooLongIsNotSent(t *testing.T) {
	long := l2tp.Bytes(l2tp.AVPVendorName, make([]byte, l2tp.MaxValue+1))
	m := tunnel.Dial(start, tunnel.Config{LocalID: 1, HostName: "x"}, long)
	if o, ok := m.Poll(); !ok || o.Event.Kind != tunnel.Closed || o.Event.Cause != tunnel.ByUs || !m.Done() {
		t.Errorf("%+v", o)
	}
	n, _ := inState(t, "decidingRequest")
	if err := n.m.Accept(start, long); !errors.Is(err, wire.ErrLength) || n.m.State() != "decidingRequest" {
		t.Errorf("%v, state %s", err, n.m.State())
	}
	n, _ = inState(t, "established")
	if err := n.m.OpenSession(start, 1, long); !errors.Is(err, wire.ErrLength) || n.m.HasSession(1) {
		t.Errorf("%v", err)
	}
}

// A peer that stops acknowledging cannot make us keep more than MaxQueued messages.
func TestQueueIsBounded(t *testing.T) {
	w := newWorld(t, func(lac, _ *tunnel.Config) { lac.MaxQueued = 10 }).up()
	w.weather = func([]byte) (int, int) { return 0, 0 }
	var err error
	for i := uint16(1); err == nil && i < 100; i++ {
		err = w.lac.m.OpenSession(w.now, i)
	}
	if err == nil || w.lac.m.HasSession(11) {
		t.Errorf("err = %v", err)
	}
	w.lac.seen = nil
	w.lac.m.CloseSession(w.now, 1, l2tp.Result{Code: 3}) // CDN cannot be sent: the tunnel must go
	w.settle()
	w.lac.saw("Closed 4 2/4")
}

func TestHelloAndZLBTakeNoMemory(t *testing.T) {
	n, ns := inState(t, "established")
	zlb := l2tp.AppendZLB(nil, l2tp.ControlHeader{TunnelID: n.c.LocalID})
	hello := n.from(0, 0, 0, l2tp.HELLO)
	if got := testing.AllocsPerRun(1000, func() {
		hello[8], hello[9] = byte(ns>>8), byte(ns)
		ns++
		if err := errors.Join(n.m.Receive(start, hello), n.m.Receive(start, zlb)); err != nil {
			t.Fatal(err)
		}
		if o, ok := n.m.Poll(); !ok || len(o.Datagram) != l2tp.ControlHeaderLen {
			t.Fatal("not acknowledged")
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
