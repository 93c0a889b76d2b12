package tunnel_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
)

// inState returns an end in a state, and the number that it expects next.
func inState(t *testing.T, state string) (n *node, ns uint16) {
	t.Helper()
	w := newWorld(t).dial()
	w.lac.manual, w.lns.manual = true, true
	step := func(n *node, k tunnel.Kind) {
		w.settle()
		n.must(n.decide(n.last(k)))
	}
	switch state {
	case "waitReply":
		w.lac.poll()
		n, ns = w.lac, 0
	case "decidingRequest":
		w.settle()
		n, ns = w.lns, 1
	case "waitConnect":
		step(w.lns, tunnel.SCCRQReceived)
		w.lns.poll()
		n, ns = w.lns, 1
	case "decidingReply":
		step(w.lns, tunnel.SCCRQReceived)
		w.settle()
		n, ns = w.lac, 1
	case "decidingConnect":
		step(w.lns, tunnel.SCCRQReceived)
		step(w.lac, tunnel.SCCRPReceived)
		w.settle()
		n, ns = w.lns, 2
	default:
		w.lac.manual, w.lns.manual = false, false
		w.up()
		n, ns = w.lns, 2
		switch state {
		case "closing":
			n.m.Close(w.now, l2tp.Result{Code: l2tp.StopRequest})
		case "lingering":
			n.give(n.from(0, 2, 0, l2tp.StopCCN, l2tp.Uint16(l2tp.AVPAssignedTunnelID, 10), l2tp.Result{Code: 1}.AVP()))
			ns = 3
		}
		n.poll()
	}
	if got := n.m.State(); got != state {
		t.Fatalf("in state %s, want %s", got, state)
	}
	n.inbox, n.far.inbox, n.seen, w.log = nil, nil, nil, nil
	n.manual = true
	return n, ns
}

// One row a state as in the package's documentation, and what must come of each message.
func TestStatesAndMessages(t *testing.T) {
	type kind struct {
		name   string
		vendor uint16
		typ    l2tp.MessageType
		avps   []l2tp.AVP
	}
	session := []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, 5), l2tp.Uint32(l2tp.AVPCallSerialNumber, 1)}
	kinds := []kind{
		{"SCCRQ", 0, l2tp.SCCRQ, hello(30)}, {"SCCRP", 0, l2tp.SCCRP, hello(30)}, {"SCCCN", 0, l2tp.SCCCN, nil},
		{"StopCCN", 0, l2tp.StopCCN, []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedTunnelID, 30), l2tp.Result{Code: 1}.AVP()}},
		{"HELLO", 0, l2tp.HELLO, nil}, {"session", 0, l2tp.ICRQ, session}, {"vendor", l2tp.VendorTwinkey, 9, nil},
		{"unknown", 4711, 9, nil}, {"unknown M", 0, 99, nil},
	}
	rows := `
		decidingRequest  -     -     -     stop  ok  -     event  ok  -
		waitReply        -     take  -     stop  ok  -     event  ok  -
		decidingReply    -     -     -     stop  ok  hold  event  ok  -
		waitConnect      -     -     take  stop  ok  -     event  ok  -
		decidingConnect  -     -     -     stop  ok  hold  event  ok  -
		established      end   end   end   stop  ok  act   event  ok  end
		closing          ok    ok    ok    stop  ok  ok    ok     ok  ok
		lingering        ok    ok    ok    ok    ok  ok    ok     ok  ok`
	for row := range strings.Lines(strings.TrimSpace(rows)) {
		f := strings.Fields(row)
		for i, k := range kinds {
			t.Run(f[0]+"/"+k.name, func(t *testing.T) {
				n, ns := inState(t, f[0])
				msg := n.from(0, ns, k.vendor, k.typ, k.avps...)
				n.give(msg)
				n.poll()
				if got := outcome(n, f[0]); got != f[i+1] {
					t.Errorf("%s: events %q, datagrams %q, errors %v; want %s", got, n.seen, n.w.log, n.errs, f[i+1])
				}
			})
		}
	}
}

// outcome says in the table's words what a message has done.
func outcome(n *node, was string) string {
	sent := strings.Join(n.w.log, ",")
	switch events := strings.Join(n.seen, ","); {
	case len(n.errs) == 1 && errors.Is(n.errs[0], tunnel.ErrState) && events == "" && sent == "":
		return "-"
	case events == "SCCRPReceived" || events == "SCCCNReceived":
		return "take"
	case events == "VendorReceived":
		return "event"
	case events == "ICRQReceived":
		return "act"
	case (events == "Closed 1 1/0" || was == "closing" && events == "Closed 2 1/0") && strings.HasSuffix(sent, "ZLB"):
		return "stop"
	case strings.HasPrefix(events, "Closed 4 ") && strings.Contains(sent, "StopCCN"):
		return "end"
	case events != "" || len(n.errs) > 0:
		return "?"
	}
	for k, next := range map[tunnel.Kind]func() error{
		tunnel.SCCRPReceived: func() error { return n.m.Connect(n.w.now) },
		tunnel.SCCCNReceived: func() error { return n.m.Confirm(n.w.now) },
	} {
		if strings.HasPrefix(was, "deciding") && len(n.events) > 0 && n.events[len(n.events)-1].Kind == k && next() == nil {
			n.seen = nil
			n.poll()
			if strings.Join(n.seen, ",") == "Established,ICRQReceived" {
				return "hold"
			}
		}
	}
	return "ok"
}

// A session in each of its states, and what each message does to it (RFC 2661 7.4).
func TestSessionStatesAndMessages(t *testing.T) {
	const (
		lacID = 101 // at the lac, to which nothing is given here
		lnsID = 201
	)
	// place brings the session to a state at the lns or lac and returns that end.
	place := func(t *testing.T, state string) (n *node, local, ns uint16) {
		w := newWorld(t).up()
		w.lac.manual, w.lns.manual = true, true
		w.lac.must(w.lac.m.OpenSession(w.now, lacID))
		if state == "waitICRP" {
			w.settle()
			return w.lac, lacID, 1
		}
		w.settle()
		if state == "decidingICRQ" {
			return w.lns, 0, 3
		}
		w.lns.must(w.lns.m.AcceptSession(w.now, lacID, lnsID))
		w.settle()
		switch state {
		case "waitICCN":
			return w.lns, lnsID, 3
		case "decidingICRP":
			return w.lac, lacID, 2
		}
		w.lac.must(w.lac.m.ConnectSession(w.now, lacID))
		w.settle()
		switch state {
		case "decidingICCN":
			return w.lns, lnsID, 4
		case "upLAC":
			return w.lac, lacID, 2
		}
		w.lns.must(w.lns.m.ConfirmSession(w.now, lnsID))
		w.settle()
		return w.lns, lnsID, 4
	}
	messages := []struct {
		typ  l2tp.MessageType
		avps []l2tp.AVP
	}{
		{l2tp.ICRP, []l2tp.AVP{l2tp.Uint16(l2tp.AVPAssignedSessionID, 77)}},
		{l2tp.ICCN, []l2tp.AVP{l2tp.Uint32(l2tp.AVPTxConnectSpeed, 1), l2tp.Uint32(l2tp.AVPFramingType, 1)}},
		{l2tp.CDN, []l2tp.AVP{l2tp.Result{Code: 3}.AVP(), l2tp.Uint16(l2tp.AVPAssignedSessionID, lacID)}},
		{l2tp.WEN, []l2tp.AVP{l2tp.CallErrors{}.AVP()}},
		{l2tp.SLI, []l2tp.AVP{l2tp.ACCM{}.AVP()}},
	}
	rows := `
		waitICRP      ICRP  end   CDN  WEN  SLI
		decidingICRP  end   end   CDN  WEN  SLI
		upLAC         end   end   CDN  WEN  SLI
		decidingICRQ  -     -     CDN  -    -
		waitICCN      end   ICCN  CDN  WEN  SLI
		decidingICCN  end   end   CDN  WEN  SLI
		upLNS         end   end   CDN  WEN  SLI`
	for row := range strings.Lines(strings.TrimSpace(rows)) {
		f := strings.Fields(row)
		for i, msg := range messages {
			t.Run(f[0]+"/"+msg.typ.String(), func(t *testing.T) {
				n, local, ns := place(t, f[0])
				n.seen, n.errs, n.w.log = nil, nil, nil
				n.give(n.from(local, ns, 0, msg.typ, msg.avps...))
				n.poll()
				var want, sent string
				switch f[i+1] {
				case "end":
					want, sent = "SessionClosed 4 2/5", n.name+" CDN 2/5"
				case "CDN":
					want, sent = "SessionClosed 1 3/0", n.name+" ZLB"
				case "-":
					sent = n.name + " ZLB"
				default:
					want, sent = f[i+1]+"Received", n.name+" ZLB"
				}
				if got := strings.Join(n.seen, ","); got != want {
					t.Errorf("events %q, want %q", got, want)
				}
				if got := strings.Join(n.w.log, ","); got != sent {
					t.Errorf("datagrams %q, want %q", got, sent)
				}
				if gone := f[i+1] == "end" || f[i+1] == "CDN"; n.m.HasSession(local) == (gone || local == 0) {
					t.Errorf("session exists: %v", !gone)
				}
				if (f[i+1] == "end" || f[i+1] == "-") != (len(n.errs) == 1) {
					t.Errorf("errors %v", n.errs)
				}
			})
		}
	}
}

// Each decision is legal in one state only, and an illegal one changes nothing.
func TestDecisionsInOtherStates(t *testing.T) {
	legal := map[string]string{"Accept": "decidingRequest", "Connect": "decidingReply", "Confirm": "decidingConnect", "OpenSession": "established"}
	states := []string{"decidingRequest", "waitReply", "decidingReply", "waitConnect", "decidingConnect", "established", "closing", "lingering"}
	for _, state := range states {
		n, _ := inState(t, state)
		for name, f := range map[string]func() error{
			"Accept":         func() error { return n.m.Accept(n.w.now) },
			"Connect":        func() error { return n.m.Connect(n.w.now) },
			"Confirm":        func() error { return n.m.Confirm(n.w.now) },
			"OpenSession":    func() error { return n.m.OpenSession(n.w.now, 1) },
			"AcceptSession":  func() error { return n.m.AcceptSession(n.w.now, 1, 1) },
			"ConnectSession": func() error { return n.m.ConnectSession(n.w.now, 1) },
			"ConfirmSession": func() error { return n.m.ConfirmSession(n.w.now, 1) },
			"SendSession":    func() error { return n.m.SendSession(n.w.now, 1, l2tp.SLI) },
		} {
			if legal[name] == state {
				continue
			}
			if err := f(); !errors.Is(err, tunnel.ErrState) {
				t.Errorf("%s in %s: %v", name, state, err)
			}
			if got := n.m.State(); got != state {
				t.Fatalf("%s in %s leads to %s", name, state, got)
			}
		}
		n.poll()
		if len(n.w.log) > 0 {
			t.Errorf("in %s something was sent: %q", state, n.w.log)
		}
		err := n.m.SendVendor(n.w.now, 0, l2tp.VendorTwinkey, 1)
		if may := state != "closing" && state != "lingering"; may != (err == nil) {
			t.Errorf("SendVendor in %s: %v", state, err)
		}
	}
}

func TestKindsHaveNames(t *testing.T) {
	for k := tunnel.SCCRQReceived; k <= tunnel.SLIReceived; k++ {
		if s := fmt.Sprint(k); s == "" || s == "no event" {
			t.Errorf("kind %d is called %q", uint8(k), s)
		}
	}
}
