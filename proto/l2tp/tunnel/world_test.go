package tunnel_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is an initiator (lac) and a responder (lns), the wire between them, and a clock
// that is moved by hand.
type world struct {
	t        testing.TB
	now      time.Time
	lac, lns *node
	// weather says how many copies of a datagram arrive, and before how many of those that
	// are on the wire the last one overtakes.
	weather func(d []byte) (copies, overtakes int)
	log     []string // every datagram that was sent, in words
	dump    func(from *node, d []byte)
	strange bool // a stranger has spoken
	lenient bool // what asked for a decision may be over when it is made
}

// node is one end with its owner.
type node struct {
	w       *world
	name    string
	c       tunnel.Config
	m       *tunnel.Tunnel
	far     *node
	inbox   [][]byte
	events  []tunnel.Event
	errs    []error
	manual  bool // the owner does not decide by itself
	nextID  uint16
	seen    []string // words of the events
	vendors []int    // types of vendor messages that came
}

func newWorld(t testing.TB, change ...func(lac, lns *tunnel.Config)) *world {
	w := &world{t: t, now: start}
	w.weather = func([]byte) (int, int) { return 1, 0 }
	w.lac = &node{w: w, name: "lac", nextID: 100, c: tunnel.Config{LocalID: 10, HostName: "lac.example"}}
	w.lns = &node{w: w, name: "lns", nextID: 200, c: tunnel.Config{LocalID: 20, HostName: "lns.example"}}
	w.lac.far, w.lns.far = w.lns, w.lac
	for _, c := range change {
		c(&w.lac.c, &w.lns.c)
	}
	return w
}

// dial starts the tunnel; nothing has arrived yet.
func (w *world) dial(avps ...l2tp.AVP) *world {
	w.lac.m = tunnel.Dial(w.now, w.lac.c, avps...)
	return w
}

// up brings a tunnel up, owners deciding by themselves.
func (w *world) up() *world {
	w.t.Helper()
	if w.lac.m == nil {
		w.dial()
	}
	w.settle()
	if !w.lac.m.Up() || !w.lns.m.Up() {
		w.t.Fatalf("tunnel is not up: %v, %v\n%s", w.lac.seen, w.lns.seen, strings.Join(w.log, "\n"))
	}
	return w
}

// words says what a datagram is.
func words(d []byte) string {
	m, err := l2tp.ParseMessage(d)
	switch {
	case err != nil:
		return err.Error()
	case m.ZLB:
		return "ZLB"
	case m.VendorID != 0:
		return fmt.Sprintf("vendor %d", m.Type)
	}
	s := m.Type.String()
	if r := m.Result(); r.Code != 0 {
		s += fmt.Sprintf(" %d/%d", r.Code, r.Error)
	}
	return s
}

// poll lets a node say all it has to say.
func (n *node) poll() {
	if n.m == nil {
		return
	}
	for range 10_000 {
		o, ok := n.m.Poll()
		if !ok {
			return
		}
		if o.Datagram == nil {
			n.event(o.Event)
			continue
		}
		d := bytes.Clone(o.Datagram)
		n.w.log = append(n.w.log, n.name+" "+words(d))
		if n.w.dump != nil {
			n.w.dump(n, d)
		}
		copies, overtakes := n.w.weather(d)
		for range copies {
			at := max(len(n.far.inbox)-overtakes, 0)
			n.far.inbox = slices.Insert(n.far.inbox, at, d)
		}
	}
	n.w.t.Fatalf("%s talks without end", n.name)
}

// receive takes the oldest datagram.
func (n *node) receive() {
	d := n.inbox[0]
	n.inbox = n.inbox[1:]
	n.give(d)
}

func (n *node) give(d []byte) {
	var err error
	if n.m == nil {
		n.m, err = tunnel.Answer(n.w.now, n.c, d)
	} else {
		err = n.m.Receive(n.w.now, d)
	}
	if err != nil {
		n.errs = append(n.errs, err)
	}
}

// settle passes datagrams until both ends are quiet.
func (w *world) settle() *world {
	w.t.Helper()
	for range 100_000 {
		w.lac.poll()
		w.lns.poll()
		if len(w.lac.inbox)+len(w.lns.inbox) == 0 {
			return w
		}
		for _, n := range []*node{w.lac, w.lns} {
			if len(n.inbox) > 0 {
				n.receive()
			}
		}
	}
	w.t.Fatal("the ends talk without end")
	return w
}

// pass lets time go by, in steps from deadline to deadline.
func (w *world) pass(d time.Duration) *world {
	w.t.Helper()
	end := w.now.Add(d)
	for {
		next := end
		for _, n := range []*node{w.lac, w.lns} {
			if n.m == nil {
				continue
			}
			if at := n.m.Deadline(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		w.now = next
		for _, n := range []*node{w.lac, w.lns} {
			n.advance()
		}
		w.settle()
		if !w.now.Before(end) {
			return w
		}
	}
}

func (n *node) advance() {
	if n.m == nil {
		return
	}
	n.m.Advance(n.w.now)
	if at := n.m.Deadline(); !at.IsZero() && !at.After(n.w.now) {
		n.w.t.Fatalf("%s: after Advance at %v the deadline is %v", n.name, n.w.now.Sub(start), at.Sub(start))
	}
}

// event notes an event and, unless the owner is manual, decides yes.
func (n *node) event(e tunnel.Event) {
	n.events = append(n.events, e)
	s := e.Kind.String()
	if e.Cause != 0 {
		s += fmt.Sprintf(" %d %d/%d", e.Cause, e.Result.Code, e.Result.Error)
	}
	n.seen = append(n.seen, s)
	if e.Kind == tunnel.VendorReceived {
		n.vendors = append(n.vendors, int(e.Message.Type))
	}
	if n.manual {
		return
	}
	if err := n.decide(e); !n.w.lenient || !errors.Is(err, tunnel.ErrState) {
		n.must(err)
	}
}

func (n *node) decide(e tunnel.Event) error {
	now := n.w.now
	switch e.Kind {
	case tunnel.SCCRQReceived:
		return n.m.Accept(now)
	case tunnel.SCCRPReceived:
		return n.m.Connect(now)
	case tunnel.SCCCNReceived:
		return n.m.Confirm(now)
	case tunnel.ICRQReceived:
		n.nextID++
		return n.m.AcceptSession(now, e.PeerSession, n.nextID)
	case tunnel.ICRPReceived:
		return n.m.ConnectSession(now, e.Session)
	case tunnel.ICCNReceived:
		return n.m.ConfirmSession(now, e.Session)
	default:
		return nil
	}
}

func (n *node) must(err error) {
	n.w.t.Helper()
	if err != nil {
		n.w.t.Fatalf("%s: %v", n.name, err)
	}
}

// last returns the last event of a kind.
func (n *node) last(k tunnel.Kind) tunnel.Event {
	n.w.t.Helper()
	for _, e := range slices.Backward(n.events) {
		if e.Kind == k {
			return e
		}
	}
	n.w.t.Fatalf("%s: no %v among %v", n.name, k, n.seen)
	return tunnel.Event{}
}

// saw compares the events since the last call.
func (n *node) saw(want ...string) {
	n.w.t.Helper()
	if !slices.Equal(n.seen, want) {
		n.w.t.Errorf("%s saw %q, want %q", n.name, n.seen, want)
	}
	n.seen = nil
}

// sent compares the datagrams since the last call; ZLBs are left out.
func (w *world) sent(want ...string) {
	w.t.Helper()
	got := slices.DeleteFunc(w.log, func(s string) bool { return strings.HasSuffix(s, " ZLB") })
	if !slices.Equal(got, want) {
		w.t.Errorf("sent %q, want %q", got, want)
	}
	w.log = nil
}

// from makes a message of the far end to n, next in order if ns is what n expects.
func (n *node) from(session, ns uint16, vendor uint16, typ l2tp.MessageType, avps ...l2tp.AVP) []byte {
	return l2tp.AppendMessage(nil, l2tp.ControlHeader{TunnelID: n.c.LocalID, SessionID: session, Ns: ns}, vendor, typ, avps...)
}

// hello are the mandatory AVPs of SCCRQ and SCCRP.
func hello(id uint16) []l2tp.AVP {
	return []l2tp.AVP{
		l2tp.Uint16(l2tp.AVPProtocolVersion, l2tp.ProtocolVersion), l2tp.Uint32(l2tp.AVPFramingCapabilities, 3),
		l2tp.Text(l2tp.AVPHostName, "stranger"), l2tp.Uint16(l2tp.AVPAssignedTunnelID, id),
	}
}

func sccrq(avps ...l2tp.AVP) []byte {
	return l2tp.AppendMessage(nil, l2tp.ControlHeader{}, 0, l2tp.SCCRQ, avps...)
}
