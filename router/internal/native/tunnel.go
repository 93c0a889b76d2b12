package native

import (
	"crypto/ecdsa"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
	"twinkey/router/internal/calls"
)

// tunnelState is one L2TP control connection, from the first SCCRQ to its end.
type tunnelState struct {
	e         *Endpoint
	id        uint16
	initiator bool
	to        netip.AddrPort
	peer      Peer // at the far end; the terminator learns it in SCCCN
	key       tunnelKey
	origin    origin // terminator, while half open

	m      *tunnel.Tunnel
	hs     *handshake.Tunnel
	flight handshake.Assembler
	spi    uint32 // reserved for our inbound control SA
	ctl    association
	hash   [32]byte

	cred     Credentials           // initiator: whose calls these are
	tickAt   time.Time             // when lifetimes are looked at next
	cert     *twincert.Certificate // of the control key that the initiator used
	far      *twincert.Certificate // initiator: the terminator's
	farTLS   twincert.ID           // terminator: the initiating router's TLS certificate
	held     *Held                 // terminator: what that router holds the tunnel to; nil: nothing
	up       bool
	began    time.Time
	since    time.Time
	path     path
	lastTx   time.Time
	lastCall time.Time // when the last call ended, or the tunnel came up
	closing  bool
	received int // bytes in the clear, for the amplification limit
	sent     int
	cookies  int

	sessions map[uint16]*session // by our ID
	byPeer   map[uint16]*session // by theirs
	waiting  []Wish
	rekey    rekeyHead
	tm       timer
}

func (t *tunnelState) timer() *timer { return &t.tm }

// dial starts a tunnel to p for w.
func (e *Endpoint) dial(now time.Time, k tunnelKey, p Peer, w Wish) error {
	t, err := e.newTunnel(now, p.Endpoint)
	if err != nil {
		return err
	}
	t.initiator, t.peer, t.key, t.cred, t.cert = true, p, k, w.Cred, w.Cred.Certificate
	t.waiting = []Wish{w}
	if err := t.offer(now, nil); err != nil {
		t.forget()
		return fmt.Errorf("dialling %s: %w", p.Name, err)
	}
	e.dialled[k] = t
	t.settle(now)
	return nil
}

func (e *Endpoint) newTunnel(now time.Time, to netip.AddrPort) (*tunnelState, error) {
	if len(e.tunnels) >= maxTunnels {
		return nil, ErrTooMany
	}
	t := &tunnelState{e: e, to: to, began: now, lastTx: now, sessions: make(map[uint16]*session), byPeer: make(map[uint16]*session)}
	var err error
	if t.id, err = freeID(e.c.Rand, func(id uint16) bool { return e.tunnels[id] != nil }); err != nil {
		return nil, err
	}
	if t.spi, err = e.c.Table.Reserve(e.c.Rand); err != nil {
		return nil, err
	}
	e.tunnels[t.id] = t
	return t, nil
}

// freeID draws a nonzero ID that is not taken: IDs that a stranger cannot guess.
func freeID(rand io.Reader, taken func(uint16) bool) (uint16, error) {
	var b [2]byte
	for {
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return 0, fmt.Errorf("drawing an ID: %w", err)
		}
		if id := binary.BigEndian.Uint16(b[:]); id != 0 && !taken(id) {
			return id, nil
		}
	}
}

func (t *tunnelState) machineConfig() tunnel.Config {
	return tunnel.Config{
		LocalID:       t.id,
		HostName:      "twinkey", // names ride in the Noise payloads, not in the clear
		HelloInterval: t.e.c.Hello,
		SetupTimeout:  setupTimeout,
		MaxSessions:   maxSessions,
	}
}

// offer begins (or, with a cookie, begins again) the handshake with SCCRQ.
func (t *tunnelState) offer(now time.Time, cookie []byte) error {
	hs, err := handshake.DialTunnel(handshake.TunnelConfig{
		Rand: t.e.c.Rand, Static: t.cred.Control,
		Hybrid: t.e.c.Hybrid, Suites: t.e.c.Suites, SPI: t.spi,
		Certificate: t.cert.Raw, Verify: t.verifyTerminator(now),
	})
	if err != nil {
		return fmt.Errorf("beginning the handshake: %w", err)
	}
	msg, err := hs.Write()
	if err != nil {
		return fmt.Errorf("beginning the handshake: %w", err)
	}
	t.hs, t.flight = hs, handshake.Assembler{}
	// The rest of the flight leaves before we know the terminator's ID: ours names it.
	first, more, err := flight(msg, l2tp.Uint16(l2tp.AVPAssignedTunnelID, t.id))
	if err != nil {
		return err
	}
	if cookie != nil {
		first = append(first, vendorAVP(avpCookie, cookie))
	}
	if len(msg) < minFirst {
		first = append(first, vendorAVP(avpPadding, make([]byte, minFirst-len(msg))))
	}
	t.m = tunnel.Dial(now, t.machineConfig(), first...)
	return t.sendMore(now, more)
}

func (t *tunnelState) sendMore(now time.Time, more [][]l2tp.AVP) error {
	for _, avps := range more {
		if err := t.m.SendVendor(now, 0, l2tp.VendorTwinkey, msgMore, avps...); err != nil {
			return fmt.Errorf("going on with a flight: %w", err)
		}
	}
	return nil
}

// verifyTerminator believes a peer that holds the control key of the router we dialled.
func (t *tunnelState) verifyTerminator(now time.Time) func(handshake.Peer) error {
	return func(p handshake.Peer) error {
		c, err := t.e.c.Trust.Twin(now, p.Certificate, twincert.Router)
		if err != nil {
			return err
		}
		if c.Name != t.peer.Name {
			return fmt.Errorf("%w: %s answered for %s", ErrNotRouter, c.Name, t.peer.Name)
		}
		if !sameKey(p.Static, c.Keys.Control) {
			return fmt.Errorf("%w: its control key is not that of its certificate", ErrNotRouter)
		}
		t.far = c
		return nil
	}
}

// verifyInitiator believes a router that proves who it is by its signature, and that may
// speak for the holder of the control key: itself, or a user in its scope.
func (t *tunnelState) verifyInitiator(now time.Time) func(handshake.Peer) error {
	return func(p handshake.Peer) error {
		tls, name, err := t.e.c.Trust.Router(now, p.Router)
		if err != nil {
			return err
		}
		pub, ok := tls.PublicKey.(*ecdsa.PublicKey)
		if !ok || !twincert.VerifyLowS(pub, p.Digest, p.Signature) {
			return ErrProof
		}
		peer, ok := t.e.c.Peer(name)
		if !ok {
			return fmt.Errorf("%w: %s", ErrUnknownPeer, name)
		}
		c, err := twincert.Parse(p.Certificate)
		if err != nil {
			return err
		}
		if c, err = t.e.c.Trust.Twin(now, p.Certificate, c.Role); err != nil {
			return err
		}
		if !sameKey(p.Static, c.Keys.Control) {
			return fmt.Errorf("%w: the control key is not that of the certificate", ErrNotRouter)
		}
		if err := speaksFor(peer, c); err != nil {
			return err
		}
		t.peer, t.cert, t.farTLS = peer, c, twincert.IDOf(tls)
		return t.hold(now, p.Bound, c)
	}
}

// speaksFor says whether a router may place calls of the certificate's bearer.
func speaksFor(p Peer, c *twincert.Certificate) error {
	if c.Role == twincert.Router {
		if c.Name != p.Name {
			return fmt.Errorf("%w: %s shows the certificate of %s", ErrNotRouter, p.Name, c.Name)
		}
		return nil
	}
	if !twincert.InScope(p.Scope, c.Name, c.Group) {
		return fmt.Errorf("%w: %s for %s of group %s", ErrScope, p.Name, c.Name, c.Group)
	}
	return nil
}

func sameKey(a, b [32]byte) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// first takes a clear message that names no tunnel of ours: an SCCRQ, new or repeated, or
// the rest of its flight.
func (e *Endpoint) first(now time.Time, from netip.AddrPort, msg []byte) {
	m, err := l2tp.ParseMessage(msg)
	if err != nil {
		e.Counters.Malformed++
		return
	}
	o := origin{from: from, id: m.AssignedTunnelID()}
	if t := e.halfOpen[o]; t != nil {
		t.received += len(msg)
		t.receive(now, msg)
		return
	}
	if m.VendorID != 0 || m.Type != l2tp.SCCRQ {
		e.Counters.Stray++
		return
	}
	if len(msg) < minFirst || o.id == 0 {
		e.Counters.Malformed++
		return
	}
	if len(e.halfOpen) >= busyHalfOpen && !e.returnable(now, o, m) {
		return
	}
	if len(e.halfOpen) >= maxHalfOpen {
		e.Counters.Overload++
		return
	}
	e.answer(now, o, msg)
}

// returnable says whether the message carries a cookie that we gave to its source;
// where it does not, one is sent and nothing is remembered.
func (e *Endpoint) returnable(now time.Time, o origin, m *l2tp.Message) bool {
	if c, ok := m.Vendor(avpCookie); ok && e.jar.Check(now, o.from, o.bytes(), c) {
		return true
	}
	e.Counters.Cookies++
	cookie := e.jar.Bake(now, o.from, o.bytes())
	e.out = append(e.out, Output{To: o.from, Payload: l2tp.AppendMessage(nil, l2tp.ControlHeader{TunnelID: o.id, Nr: 1}, l2tp.VendorTwinkey, l2tp.MessageType(msgCookie), vendorAVP(avpCookie, cookie[:]))})
	return false
}

// cookie takes a Cookie message: the terminator is busy and wants to see that we can
// hear it. True: msg was one.
func (t *tunnelState) cookie(now time.Time, msg []byte) bool {
	m, err := l2tp.ParseMessage(msg)
	if err != nil || m.VendorID != l2tp.VendorTwinkey || uint16(m.Type) != msgCookie {
		return false
	}
	c, ok := m.Vendor(avpCookie)
	if !ok || t.cookies >= 3 {
		t.e.Counters.Stray++
		return true
	}
	t.cookies++
	t.hs.Wipe()
	if err := t.offer(now, slices.Clone(c)); err != nil {
		t.gone(now, err.Error())
		return true
	}
	t.settle(now)
	return true
}

// answer makes a tunnel for a stranger's SCCRQ.
func (e *Endpoint) answer(now time.Time, o origin, msg []byte) {
	t, err := e.newTunnel(now, o.from)
	if err != nil {
		e.Counters.Overload++
		return
	}
	t.origin, t.received = o, len(msg)
	e.halfOpen[o] = t
	self := e.c.Self()
	t.cred = self.Credentials
	t.hs, err = handshake.AnswerTunnel(handshake.TunnelConfig{
		Rand: e.c.Rand, Static: self.Control,
		Hybrid: e.c.Hybrid, Suites: e.c.Suites, SPI: t.spi,
		Certificate: self.Certificate.Raw, Verify: t.verifyInitiator(now),
	})
	if err == nil {
		t.m, err = tunnel.Answer(now, t.machineConfig(), msg)
	}
	if err != nil {
		e.Counters.Malformed++
		t.forget()
		return
	}
	t.settle(now)
}

func (t *tunnelState) receive(now time.Time, msg []byte) {
	if err := t.m.Receive(now, msg); err != nil {
		t.e.Counters.Malformed++
	}
	t.settle(now)
}

// authentic notes that the peer was heard inside the control SA.
func (t *tunnelState) authentic(now time.Time, from netip.AddrPort, in *calls.Inbound) {
	t.ctl.heardOn(in)
	if t.to != from {
		t.e.Moved(now, t.id, from)
	}
	if !t.up {
		t.becomeUp(now)
	}
}

func (t *tunnelState) used(now time.Time, in *calls.Inbound) {
	if t.ctl.heardOn(in) {
		t.settle(now)
	}
}

func (t *tunnelState) becomeUp(now time.Time) {
	t.up, t.since, t.lastCall = true, now, now
	t.hs = nil
	delete(t.e.halfOpen, t.origin)
	t.e.emit(TunnelUp{ID: t.id, Peer: t.peer.Name, Certificate: t.cert.Name, Initiator: t.initiator, PostQuantum: t.ctl.hybrid, Suite: t.ctl.suite, To: t.to})
	t.search(now)
	waiting := t.waiting
	t.waiting = nil
	for _, w := range waiting {
		t.open(now, w)
	}
}

// place opens a call now, or when the tunnel is up.
func (t *tunnelState) place(now time.Time, w Wish) {
	if !t.up {
		t.waiting = append(t.waiting, w)
		return
	}
	t.open(now, w)
	t.settle(now)
}

// settle lets the machine say all that it has to say, and sets the timer.
func (t *tunnelState) settle(now time.Time) {
	for {
		o, ok := t.m.Poll()
		if !ok {
			break
		}
		if o.Datagram != nil {
			t.send(now, o.Datagram)
			continue
		}
		t.handle(now, o.Event)
		if t.e.tunnels[t.id] != t {
			return
		}
	}
	t.schedule(now)
}

func (t *tunnelState) schedule(now time.Time) {
	if t.tickAt.IsZero() { // what the peer sends must not put it off
		t.tickAt = now.Add(tick)
	}
	t.e.timers.set(t, t.m.Deadline(), t.pathDeadline(), t.tickAt)
}

func (t *tunnelState) advance(now time.Time) {
	if !now.Before(t.tickAt) {
		t.tickAt = time.Time{}
	}
	for _, s := range t.sessions { // calls that carry data show that the peer lives
		if h := s.call.LastHeard(); h > 0 && now.Sub(t.e.c.Epoch.Add(h)) < t.e.c.Hello {
			t.m.Heard(now)
			break
		}
	}
	t.m.Advance(now)
	if !t.up && now.Sub(t.began) >= setupTimeout {
		t.gone(now, "the peer did not finish the set-up in "+setupTimeout.String())
		return
	}
	if t.up {
		t.ctl.settle(now, t.e.c.RekeyGrace)
		t.ctl.expire(now, t.e.c.Table)
		if t.ctl.due(now, t.rekeyAfter()) {
			if err := t.rekeying().ask(now); err != nil {
				t.refuse(now, err)
				return
			}
		}
		t.advancePath(now)
		if t.idle(now) {
			t.close(now, resultShutdown, "no call in it")
			return
		}
		if t.e.c.NAT > 0 && now.Sub(t.lastTx) >= t.e.c.NAT {
			t.lastTx = now
			t.e.out = append(t.e.out, Output{To: t.to})
		}
	}
	t.settle(now)
}

// idle says whether the initiator may let the tunnel go: it has been without a call for
// a while, or another one has taken its place.
func (t *tunnelState) idle(now time.Time) bool {
	if !t.initiator || len(t.sessions) > 0 || len(t.waiting) > 0 || t.closing {
		return false
	}
	return t.e.dialled[t.key] != t || now.Sub(t.lastCall) >= idleTunnel
}

// send sends one control message, in the control SA unless it belongs to the handshake.
func (t *tunnelState) send(now time.Time, msg []byte) {
	t.lastTx = now
	if t.ctl.out != nil && !inClear(msg) {
		p := appendInnerUDP(make([]byte, 0, udpHeader+len(msg)), len(msg))
		t.e.out = append(t.e.out, Output{To: t.to, SA: t.ctl.out, Next: esp.NextUDP, Payload: append(p, msg...)})
		return
	}
	if !t.initiator {
		if t.sent+len(msg) > amplification*t.received {
			t.e.Counters.Amplified++
			return
		}
		t.sent += len(msg)
	}
	t.e.out = append(t.e.out, Output{To: t.to, Payload: slices.Clone(msg)})
}

// inClear says whether a message belongs to the handshake even when keys exist: SCCCN
// and the rest of its flight, for which the terminator has no keys yet.
func inClear(msg []byte) bool {
	vendor, typ, ok := l2tp.PeekType(msg)
	switch {
	case !ok:
		return false // ZLB
	case vendor == 0:
		return typ == uint16(l2tp.SCCRQ) || typ == uint16(l2tp.SCCRP) || typ == uint16(l2tp.SCCCN)
	default:
		return vendor == l2tp.VendorTwinkey && typ == msgMore && ofTunnel(msg)
	}
}

// ofTunnel tells a More of the tunnel's own handshake from one of a call or a rekey.
func ofTunnel(msg []byte) bool {
	m, err := l2tp.ParseMessage(msg)
	if err != nil {
		return false
	}
	_, err = getSession(m)
	return err != nil
}

// standsOn says whether the tunnel falls with the certificate.
func (t *tunnelState) standsOn(id twincert.ID) bool {
	switch {
	case t.far != nil && t.far.ID() == id:
		return true
	case !t.initiator && (t.farTLS == id || t.peer.ID == id):
		return true
	}
	// A user's certificate authenticates the group's control key; the tunnel stands as
	// long as calls of others are in it.
	return t.cert != nil && t.cert.ID() == id && (t.cert.Role == twincert.Router || t.onlyUser(id))
}

func (t *tunnelState) onlyUser(id twincert.ID) bool {
	for _, s := range t.sessions {
		if !s.standsOn(id) {
			return false
		}
	}
	return true
}

// close tells the peer and lets the machine linger for the acknowledgement.
func (t *tunnelState) close(now time.Time, r l2tp.Result, reason string) {
	if t.closing {
		return
	}
	t.closing = true
	r.Message = reason
	t.endSessions(now, reason)
	t.m.Close(now, r)
	t.settle(now)
}

// because notes why its calls are about to end.
func (t *tunnelState) because(c calls.Cause) {
	for _, s := range t.sessions {
		s.cause = c
	}
}

// gone ends the tunnel without a word to the peer.
func (t *tunnelState) gone(now time.Time, reason string) {
	t.because(calls.Lost)
	t.endSessions(now, reason)
	t.forget()
	t.e.emit(TunnelDown{ID: t.id, Peer: t.peer.Name, Reason: reason})
}

func (t *tunnelState) endSessions(now time.Time, reason string) {
	for _, s := range t.sessions {
		s.end(now, reason, false)
	}
	for _, w := range t.waiting {
		t.e.emit(CallDown{Key: w.Key, Cert: w.Cred.Certificate.ID(), Initiator: true, Reason: reason})
	}
	t.waiting = nil
	if t.e.dialled[t.key] == t { // the next wish dials anew
		delete(t.e.dialled, t.key)
	}
}

// forget removes the tunnel from every map and wipes its keys.
func (t *tunnelState) forget() {
	if t.hs != nil {
		t.hs.Wipe()
	}
	if t.ctl.in == nil {
		t.e.c.Table.Release(t.spi)
	}
	t.ctl.drop(t.e.c.Table)
	t.e.timers.drop(t)
	delete(t.e.tunnels, t.id)
	delete(t.e.halfOpen, t.origin)
	if t.e.dialled[t.key] == t {
		delete(t.e.dialled, t.key)
	}
}
