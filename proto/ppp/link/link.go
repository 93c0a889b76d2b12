package link

import (
	"encoding/binary"
	"time"

	"twinkey/proto/ppp"
	"twinkey/proto/ppp/automaton"
)

const (
	// defaultEchoFailures is how many silent Echo-Requests end a link.
	defaultEchoFailures = 3
	// maxQueued bounds the frames that wait for Poll. An owner that polls after each call
	// never has more than a handful; beyond it frames are lost, as on any path.
	maxQueued = 32
	// minIPv6MTU in bytes is what every IPv6 link must carry (RFC 8200 section 5).
	minIPv6MTU = 1280
	// maxLoops is how often our own magic number may come back in a row: by chance once in
	// four thousand million times.
	maxLoops = 4
	// maxText bounds, in bytes, the reason that goes into a Terminate-Request or comes out
	// of one.
	maxText = 64
)

// Link is one PPP link. It is not safe for concurrent use; AppendPrefix and PeerMRU are
// asked once after each event, not once a packet.
type Link struct {
	cfg  Config
	opts struct {
		lcp    lcpOptions
		ipcp   ipcpOptions
		ipv6cp ipv6cpOptions
		ccp    ccpOptions
	}
	lcp, ipcp, ipv6cp, ccp layer

	out   []Output // waiting for Poll, from out[head]
	head  int
	phase Phase

	echoAt     time.Time // when the next Echo-Request is due; zero: never
	echoID     uint8     // Identifier of the last one
	echoMissed uint8     // how many in a row have had no answer
	heard      bool      // data has passed since the last one
	loops      uint8     // how often in a row an echo of ours came back as the peer's

	reason Reason // why the link is on its way down: what was first
	text   string
}

// New returns a link in phase Dead; Up starts it.
func New(c Config) *Link {
	if c.MRU == 0 {
		c.MRU = ppp.DefaultMRU
	}
	if c.EchoFailures == 0 {
		c.EchoFailures = defaultEchoFailures
	}
	l := &Link{cfg: c}
	l.opts.lcp.cfg = &l.cfg
	l.opts.ipcp.cfg = c.IPv4
	l.opts.ipv6cp.cfg, l.opts.ipv6cp.rand = c.IPv6, c.Rand
	l.opts.ccp.method = c.Method
	l.init()
	return l
}

// init puts the protocols into state Initial with what the Config wants.
func (l *Link) init() {
	l.lcp.init(ppp.ProtoLCP, &l.opts.lcp, l.cfg.limits())
	if l.cfg.IPv4 != nil {
		l.ipcp.init(ppp.ProtoIPCP, &l.opts.ipcp, l.cfg.limits())
	}
	if l.cfg.IPv6 != nil {
		l.ipv6cp.init(ppp.ProtoIPv6CP, &l.opts.ipv6cp, l.cfg.limits())
	}
	if l.compresses() {
		l.ccp.init(ppp.ProtoCCP, &l.opts.ccp, l.cfg.limits())
	}
}

// Phase is the phase now.
func (l *Link) Phase() Phase { return l.phase }

// Up says that frames can pass and begins to negotiate. A link that is not Dead stays as
// it is; one that was down before starts afresh.
func (l *Link) Up(now time.Time) {
	if l.phase != Dead {
		return
	}
	l.phase, l.reason, l.text = Establish, NoReason, ""
	l.init()
	l.event(now, &l.lcp, automaton.Open)
	l.event(now, &l.lcp, automaton.Up)
}

// Close terminates the link in good order: the network protocols go down at once, Down
// follows when the peer has answered, or after Max-Terminate requests. Of reason, which
// the peer is told, 64 printable bytes at most are used.
func (l *Link) Close(now time.Time, reason string) {
	if l.phase != Dead {
		l.terminate(now, Closed, printable([]byte(reason)))
	}
}

// Down says that frames can pass no more. Nothing is sent.
func (l *Link) Down(now time.Time) {
	if l.phase == Dead {
		return
	}
	l.because(LowerLayer, "")
	l.event(now, &l.lcp, automaton.Down)
	l.die()
}

// Receive takes a whole PPP frame that carries no network data. An error says why the
// frame was dropped: a *wire.ParseError, or one of this package's. No error ends the
// link, only the events that Poll yields do. The frame is not kept.
func (l *Link) Receive(now time.Time, frame []byte) error {
	proto, info, err := ppp.ParseFrame(frame)
	if err != nil {
		return err
	}
	if l.phase == Dead {
		return ErrPhase
	}
	if proto == ppp.ProtoLCP {
		return l.receive(now, &l.lcp, info)
	}
	y := l.network(proto)
	switch {
	case l.phase != Network:
		// RFC 1661 sections 3.4, 3.5 and 3.7: discarded silently.
		return ErrPhase
	case y == nil:
		// "a Protocol-Reject must be sent", while LCP is Opened (section 5.7).
		data := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(info)), uint16(proto))
		l.send(&l.lcp, ppp.Packet{Code: ppp.ProtocolReject, ID: l.lcp.nextID(), Data: append(data, info...)})
		return nil
	case proto == y.proto:
		return l.receive(now, y, info)
	}
	return ErrNetworkData
}

// network is the control protocol that proto is, or is carried under; nil where we do
// not speak it.
func (l *Link) network(proto ppp.Protocol) *layer {
	switch {
	case l.cfg.IPv4 != nil && (proto == ppp.ProtoIPCP || proto == ppp.ProtoIPv4):
		return &l.ipcp
	case l.ipv6Fits() && (proto == ppp.ProtoIPv6CP || proto == ppp.ProtoIPv6):
		return &l.ipv6cp
	case l.compresses() && (proto == ppp.ProtoCCP || proto == ppp.ProtoComp):
		return &l.ccp
	}
	return nil
}

func (l *Link) compresses() bool { return len(l.cfg.Method.Data) > 0 }

func (l *Link) ipv6Fits() bool { return l.cfg.IPv6 != nil && l.PeerMRU() >= minIPv6MTU }

// Advance lets time pass: requests are repeated, echoes sent, silence noticed. Early and
// late calls do no harm; however far the clock has jumped, each timer fires once.
func (l *Link) Advance(now time.Time) {
	for _, y := range [...]*layer{&l.lcp, &l.ipcp, &l.ipv6cp, &l.ccp} {
		if e, ok := y.fsm.Timeout(now); ok {
			l.event(now, y, e)
		}
	}
	if !l.echoAt.IsZero() && !now.Before(l.echoAt) {
		l.echo(now)
	}
}

// Deadline is when Advance has something to do; zero: nothing is pending.
func (l *Link) Deadline() time.Time {
	d := l.echoAt
	for _, t := range [...]time.Time{l.lcp.fsm.Deadline(), l.ipcp.fsm.Deadline(), l.ipv6cp.fsm.Deadline(), l.ccp.fsm.Deadline()} {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	return d
}

// Poll yields what the link wants next; false when there is nothing more.
func (l *Link) Poll() (Output, bool) {
	if l.head == len(l.out) {
		l.out, l.head = nil, 0 // an idle link holds no queue
		return Output{}, false
	}
	o := l.out[l.head]
	l.out[l.head] = Output{}
	l.head++
	return o, true
}

// Heard says that authenticated data has passed since the last call: the next
// Echo-Request is not needed, and those that were not answered are forgiven.
func (l *Link) Heard(time.Time) { l.heard, l.echoMissed = true, 0 }

// AppendPrefix appends the header of a data frame of protocol p in the shortest form
// that the peer accepts: 1 to 4 bytes.
func (l *Link) AppendPrefix(b []byte, p ppp.Protocol) []byte {
	open := l.lcp.opened()
	return ppp.AppendHeader(b, p, open && l.opts.lcp.peer.acfc, open && l.opts.lcp.peer.pfc)
}

// PeerMRU is the number of bytes that an information field may have on its way to the
// peer.
func (l *Link) PeerMRU() uint16 {
	if l.lcp.opened() {
		return l.opts.lcp.peer.mru
	}
	return ppp.DefaultMRU
}

// MayCompress says whether the peer expands what the Method has compressed.
func (l *Link) MayCompress() bool { return l.ccp.opened() && l.opts.ccp.peer }

// send queues a control packet. One that quotes another is cut to the peer's MRU
// (RFC 1661 sections 5.6 and 5.7); so is an Echo-Reply, since a peer that tests with
// more than it takes itself would lose the link for it.
func (l *Link) send(y *layer, p ppp.Packet) {
	room := int(l.PeerMRU()) - ppp.PacketHeader
	if len(p.Data) > room {
		if p.Code <= ppp.ConfigureReject {
			return // cut in two it would say something else
		}
		p.Data = p.Data[:room]
	}
	if len(l.out)-l.head >= maxQueued {
		return
	}
	frame := make([]byte, 0, ppp.MaxHeader+ppp.PacketHeader+len(p.Data))
	l.out = append(l.out, Output{Frame: p.Append(l.AppendPrefix(frame, y.proto))})
}

func (l *Link) emit(e Event) { l.out = append(l.out, Output{Event: e}) }

// because notes why the link goes down; what was first stands.
func (l *Link) because(r Reason, text string) {
	if l.reason == NoReason {
		l.reason, l.text = r, text
	}
}

// terminate begins to close the link.
func (l *Link) terminate(now time.Time, r Reason, text string) {
	l.because(r, text)
	l.phase = Terminate
	l.event(now, &l.lcp, automaton.Close)
}

// giveUp closes a protocol that cannot be agreed on.
func (l *Link) giveUp(now time.Time, y *layer, r Reason) {
	if y == &l.lcp {
		l.terminate(now, r, r.String())
		return
	}
	l.event(now, y, automaton.Close)
}

// layerUp carries out This-Layer-Up.
func (l *Link) layerUp(now time.Time, y *layer) {
	switch y {
	case &l.lcp:
		l.phase = Authenticate
		l.emit(Event{Kind: LCPUp})
		l.echoMissed, l.loops, l.heard = 0, 0, false
		if l.cfg.EchoInterval > 0 {
			l.echoAt = now.Add(l.cfg.EchoInterval)
		}
		l.authenticated(now)
	case &l.ipcp:
		l.emit(Event{Kind: IPv4Up, Local: l.opts.ipcp.agreed(), Peer: l.opts.ipcp.peer})
	case &l.ipv6cp:
		l.emit(Event{Kind: IPv6Up, Local: linkLocal(l.opts.ipv6cp.agreed()), Peer: linkLocal(l.opts.ipv6cp.peer)})
	case &l.ccp:
		l.emit(Event{Kind: CCPUp})
	}
}

// authenticated enters phase Network. LCP has agreed on no authentication, so it follows
// at once.
func (l *Link) authenticated(now time.Time) {
	l.phase = Network
	if l.cfg.IPv4 != nil {
		l.event(now, &l.ipcp, automaton.Open)
		l.event(now, &l.ipcp, automaton.Up)
	}
	if l.ipv6Fits() {
		l.event(now, &l.ipv6cp, automaton.Open)
		l.event(now, &l.ipv6cp, automaton.Up)
	}
	if l.compresses() {
		l.event(now, &l.ccp, automaton.Open)
		l.event(now, &l.ccp, automaton.Up)
	}
}

// layerDown carries out This-Layer-Down: the layers above lose theirs.
func (l *Link) layerDown(now time.Time, y *layer) {
	y.opts.reset()
	y.naks = 0
	switch y {
	case &l.lcp:
		l.phase = Establish
		if l.reason != NoReason {
			l.phase = Terminate
		}
		l.echoAt = time.Time{}
		l.event(now, &l.ipcp, automaton.Down)
		l.event(now, &l.ipv6cp, automaton.Down)
		l.event(now, &l.ccp, automaton.Down)
	case &l.ipcp:
		l.emit(Event{Kind: IPv4Down})
	case &l.ipv6cp:
		l.emit(Event{Kind: IPv6Down})
	case &l.ccp:
		l.emit(Event{Kind: CCPDown})
	}
}

// layerFinished carries out This-Layer-Finished, after event e.
func (l *Link) layerFinished(now time.Time, y *layer, e automaton.Event) {
	if y == &l.lcp {
		if e == automaton.TOMinus {
			l.because(NoAnswer, "")
		}
		l.die()
		return
	}
	if l.phase == Network && !alive(&l.ipcp) && !alive(&l.ipv6cp) {
		l.terminate(now, NoNetwork, "no network protocol")
	}
}

// alive tells whether a protocol is up or may yet come up.
func alive(y *layer) bool { return y.fsm.State() > automaton.Stopped }

// die ends the link: whatever LCP's state, the lower layer is not needed any more.
func (l *Link) die() {
	e := Event{Kind: Down, Reason: l.reason, Text: l.text}
	l.phase, l.echoAt = Dead, time.Time{}
	l.init()
	l.emit(e)
}

// printable keeps of what a side has said for a reason the printable ASCII, 64 bytes at
// most.
func printable(b []byte) string {
	var s []byte
	for _, c := range b {
		if len(s) == maxText {
			break
		}
		if c >= ' ' && c <= '~' {
			s = append(s, c)
		}
	}
	return string(s)
}
