package tunnel_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
	"twinkey/proto/wire"
)

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
