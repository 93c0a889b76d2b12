package tunnel_test

import (
	"errors"
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
