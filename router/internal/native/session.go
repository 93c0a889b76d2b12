package native

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/ip"
	"twinkey/proto/l2tp"
	"twinkey/proto/l2tp/tunnel"
	"twinkey/proto/ppp"
	"twinkey/proto/ppp/link"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/policy"
)

// session is one call, from ICRQ to its end.
type session struct {
	t           *tunnelState
	local, peer uint16             // session IDs
	takes       calls.Capabilities // of the far end
	initiator   bool
	key         links.Key // initiator: whose wish it fulfils
	cert        *twincert.Certificate
	cred        Credentials // whose data key is ours in this call
	peerData    [32]byte    // whose is theirs
	address     netip.Addr  // the user's; invalid in a site link

	hs      *handshake.Call
	flight  handshake.Assembler
	spi     uint32 // reserved, until the first SA pair stands
	data    association
	link    *link.Link
	linkUp  bool // the link was told that its lower layer is up
	call    *calls.Call
	v4, v6  bool
	up      bool
	began   time.Time
	terms   policy.Terms  // of a user's call
	moved   uint64        // packets in both directions when they were looked at last
	movedAt time.Time     // when that was not what it had been
	since   time.Time     // of the user's session: the login, where we know of it
	longest time.Duration // that it may last, whatever the policy says; 0: no such limit
	cause   calls.Cause   // of the end that is coming
	tickAt  time.Time     // when lifetimes are looked at next
	heard   time.Duration // what the link was told of data that came
	rekey   rekeyHead
	tm      timer
	revoked bool // the peer has ended it because it holds our certificate for revoked
}

func (s *session) timer() *timer { return &s.tm }

func (s *session) kind() calls.Kind {
	if s.cert.Role == twincert.User {
		return calls.User
	}
	return calls.SiteLink
}

// newSession takes an ID and an SPI for a call in t.
func (t *tunnelState) newSession(now time.Time) (*session, error) {
	if len(t.e.byCall) >= maxSessions {
		return nil, ErrTooMany
	}
	s := &session{t: t, began: now, since: now}
	var err error
	if s.local, err = freeID(t.e.c.Rand, func(id uint16) bool { return t.sessions[id] != nil }); err != nil {
		return nil, err
	}
	if s.spi, err = t.e.c.Table.Reserve(t.e.c.Rand); err != nil {
		return nil, err
	}
	t.e.nextCall++
	s.call = calls.New(t.e.nextCall, calls.SiteLink, calls.Bounds{})
	s.call.Takes, s.call.Expands = t.e.c.Capabilities, t.e.c.Compression
	t.sessions[s.local] = s
	t.e.byCall[s.call.ID] = s
	return s, nil
}

// open places the call of a wish: ICRQ.
func (t *tunnelState) open(now time.Time, w Wish) {
	s, err := t.newSession(now)
	if err != nil {
		t.e.emit(CallDown{Key: w.Key, Cert: w.Cred.Certificate.ID(), Initiator: true, Reason: err.Error()})
		return
	}
	s.initiator, s.key, s.cert, s.cred, s.address = true, w.Key, w.Cred.Certificate, w.Cred, w.Address
	if !w.Since.IsZero() {
		s.since = w.Since
	}
	s.longest = w.Session
	s.peerData = t.far.Keys.Data
	if err := s.admit(); err != nil {
		s.end(now, err.Error(), true)
		return
	}
	if err := s.ask(now); err != nil {
		s.end(now, err.Error(), false)
	}
}

func (s *session) callConfig(kind handshake.Kind, generation uint32, spi uint32) handshake.CallConfig {
	c := s.t.e.c
	return handshake.CallConfig{
		Rand: c.Rand, Static: s.cred.Data,
		Hybrid: c.Hybrid, Suites: c.Suites, SPI: spi, TunnelHash: s.t.hash, Kind: kind, Generation: generation,
	}
}

func (s *session) ask(now time.Time) error {
	c := s.callConfig(handshake.CallSetup, 0, s.spi)
	c.PeerStatic, c.Certificate, c.InitiatorSession = s.peerData, s.cert.Raw, s.local
	if s.address.IsValid() {
		c.Extra = s.address.AsSlice()
	}
	var err error
	if s.hs, err = handshake.DialCall(c); err != nil {
		return fmt.Errorf("beginning a call: %w", err)
	}
	msg, err := s.hs.Write()
	if err != nil {
		return fmt.Errorf("beginning a call: %w", err)
	}
	first, more, err := flight(msg, sessionAVP(s.local))
	if err != nil {
		return err
	}
	if err := s.t.m.OpenSession(now, s.local, append(first, capabilitiesAVP(s.call.Takes))...); err != nil {
		return fmt.Errorf("placing a call: %w", err)
	}
	if err := s.t.sendMore(now, more); err != nil {
		return err
	}
	s.schedule(now)
	return nil
}

// incoming takes an ICRQ (terminator).
func (t *tunnelState) incoming(now time.Time, ev tunnel.Event) {
	refuse := func(err error) {
		t.e.emit(Refused{From: t.to, Peer: t.peer.Name, Reason: err.Error()})
		r := resultNoResource
		r.Message = err.Error()
		t.m.RefuseSession(now, ev.PeerSession, r)
	}
	if err := t.e.c.Trust.Fresh(now); err != nil {
		refuse(err)
		return
	}
	if t.initiator { // both ends may call, but only the holder of the control key was certified as the caller
		refuse(errUnexpected)
		return
	}
	s, err := t.newSession(now)
	if err != nil {
		refuse(err)
		return
	}
	s.peer, s.takes = ev.PeerSession, getCapabilities(ev.Message)
	t.byPeer[s.peer] = s
	s.cred = t.cred // whom the caller knows from the tunnel's handshake, also if we were renewed since
	c := s.callConfig(handshake.CallSetup, 0, s.spi)
	c.InitiatorSession, c.ResponderSession = s.peer, s.local
	c.Verify = s.verifyCaller(now)
	if s.hs, err = handshake.AnswerCall(c); err != nil {
		s.end(now, err.Error(), false)
		refuse(err)
		return
	}
	s.schedule(now)
	s.part(now, ev.Message)
}

// verifyCaller believes a certificate of the tunnel's control key whose data key the
// caller holds and for whose bearer the router at the far end may speak.
func (s *session) verifyCaller(now time.Time) func(handshake.Peer) error {
	return func(p handshake.Peer) error {
		c, err := s.t.e.c.Trust.Twin(now, p.Certificate, s.t.cert.Role)
		if err != nil {
			return err
		}
		switch {
		case !sameKey(p.Static, c.Keys.Data):
			return fmt.Errorf("%w: its data key is not that of its certificate", ErrNotRouter)
		case !sameKey(s.t.cert.Keys.Control, c.Keys.Control):
			return fmt.Errorf("%w: %s is not of the group whose tunnel this is", ErrScope, c.Name)
		}
		if err := speaksFor(s.t.peer, c); err != nil {
			return err
		}
		if err := s.t.mayHold(c); err != nil {
			return err
		}
		s.cert, s.peerData = c, c.Keys.Data
		if s.kind() == calls.User {
			if err := s.bind(p.Extra); err != nil {
				return err
			}
		}
		return s.admit()
	}
}

// part takes a part of a flight that belongs to this call.
func (s *session) part(now time.Time, m *l2tp.Message) {
	if err := s.takePart(now, m); err != nil {
		s.t.e.emit(Refused{From: s.t.to, Peer: s.t.peer.Name, Reason: err.Error()})
		r := resultAdmin
		if errors.Is(err, twincert.ErrRevoked) {
			r = resultRevoked
		}
		s.hangup(now, r, err.Error())
	}
}

func (s *session) takePart(now time.Time, m *l2tp.Message) error {
	p, ok := m.Vendor(avpFlight)
	if !ok {
		return errMissing
	}
	msg, done, err := s.flight.Add(p)
	if err != nil || !done {
		return err
	}
	s.flight = handshake.Assembler{}
	if s.data.out != nil {
		return s.rekeying().message(now, msg)
	}
	if s.hs == nil {
		return errUnexpected
	}
	if err := s.hs.Read(msg); err != nil {
		return err
	}
	if s.initiator {
		return s.connect(now)
	}
	return s.accept(now)
}

// used switches to the outbound SA that waited for the peer to be heard on in.
func (s *session) used(_ time.Time, in *calls.Inbound) {
	if s.data.heardOn(in) {
		s.publish()
	}
}

// accept answers ICRQ (terminator).
func (s *session) accept(now time.Time) error {
	msg, err := s.hs.Write()
	if err != nil {
		return err
	}
	if err := s.keyed(now); err != nil {
		return err
	}
	first, more, err := flight(msg, sessionAVP(s.local))
	if err != nil {
		return err
	}
	if err := s.t.m.AcceptSession(now, s.peer, s.local, append(first, capabilitiesAVP(s.call.Takes))...); err != nil {
		return fmt.Errorf("answering ICRQ: %w", err)
	}
	return s.t.sendMore(now, more)
}

// bind takes the address that a user's call is to have (terminator): one that the far
// router is certified for and that nobody else's call has.
func (s *session) bind(extra []byte) error {
	a, ok := netip.AddrFromSlice(extra)
	if !ok || !covers(s.t.peer.Certified, a) {
		return fmt.Errorf("%w: %v is not in what %s is certified for", ErrAddress, a, s.t.peer.Name)
	}
	if h := s.t.held; h != nil && h.Address != a {
		return fmt.Errorf("%w: calls from %s, not from %s", ErrHeld, h.Address, a)
	}
	for _, o := range s.t.e.bound[a] { // the same user from the same router may replace a call
		if o.cert.Name != s.cert.Name || o.t.peer.Name != s.t.peer.Name {
			return fmt.Errorf("%w: %s is bound to a call of %s", ErrAddress, a, o.cert.Name)
		}
	}
	s.address = a
	s.t.e.bound[a] = append(s.t.e.bound[a], s)
	return nil
}

// unbind gives the address back.
func (s *session) unbind() {
	if s.initiator || !s.address.IsValid() {
		return
	}
	left := slices.DeleteFunc(s.t.e.bound[s.address], func(o *session) bool { return o == s })
	if s.t.e.bound[s.address] = left; len(left) == 0 {
		delete(s.t.e.bound, s.address)
	}
}

func covers(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// connect takes ICRP (initiator).
func (s *session) connect(now time.Time) error {
	if err := s.keyed(now); err != nil {
		return err
	}
	if err := s.t.m.ConnectSession(now, s.local); err != nil {
		return fmt.Errorf("answering ICRP: %w", err)
	}
	s.raise(now)
	return nil
}

// keyed makes the call's data SA pair of a finished handshake, and the call itself.
func (s *session) keyed(now time.Time) error {
	r, ok := s.hs.Result()
	if !ok {
		return errUnexpected
	}
	defer s.hs.Wipe()
	if r.ResponderSession != s.responder() {
		return handshake.ErrSession
	}
	s.hs = nil
	c := s.call
	c.Kind, c.Peer, c.Cert, c.PeerCert = s.kind(), s.t.peer.Name, s.cert.ID(), s.cert.ID()
	if s.initiator {
		c.PeerCert = s.t.far.ID()
	}
	if c.Kind == calls.User {
		c.User, c.Held = s.cert.Name, s.t.held != nil
	}
	c.LocalTunnel, c.LocalSession, c.PeerTunnel, c.PeerSession = s.t.id, s.local, s.t.m.PeerID(), s.peer
	c.SetBounds(s.bounds())
	k := keys{suite: r.Suite, hybrid: r.Hybrid, local: r.LocalSPI, remote: r.RemoteSPI, in: r.In, out: r.Out, call: c, tunnel: s.t.id}
	s.data.implicit = s.agreed().Has(calls.ImplicitIV)
	if err := s.data.install(now, s.t.e, k); err != nil {
		return err
	}
	s.link = link.New(s.linkConfig())
	return nil
}

// responder is the session ID of the end that was called.
func (s *session) responder() uint16 {
	if s.initiator {
		return s.peer
	}
	return s.local
}

// bounds are the addresses that may stand in the call.
func (s *session) bounds() calls.Bounds {
	switch {
	case s.kind() == calls.SiteLink:
		return calls.Bounds{Local: s.t.e.c.Local(), Remote: s.t.peer.Announced}
	case s.initiator:
		return calls.Bounds{Local: single(s.address), Remote: s.t.peer.Announced}
	default:
		return calls.Bounds{Local: s.t.e.c.Local(), Remote: single(s.address)}
	}
}

func single(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())} }

func (s *session) linkConfig() link.Config {
	c := link.Config{Rand: s.t.e.c.Rand, MRU: s.t.e.c.MRU, PFC: true, ACFC: true, EchoInterval: s.t.e.c.Echo, Restart: time.Second}
	if s.call.Expands {
		c.Method = lz4Block
	}
	v4, v6 := &link.IPv4Config{}, &link.IPv6Config{}
	if s.kind() == calls.SiteLink {
		c.IPv4, c.IPv6 = v4, v6
		return c
	}
	if s.address.Is6() {
		c.IPv6 = v6
		return c
	}
	if s.initiator {
		v4.Local = s.address
	} else {
		v4.Allow = func(a netip.Addr) bool { return a == s.address }
	}
	c.IPv4 = v4
	return c
}

// raise tells the link that frames can pass.
func (s *session) raise(now time.Time) {
	if !s.linkUp {
		s.linkUp = true
		s.link.Up(now)
	}
	s.settle(now)
}

// ppp takes a frame that is no network packet. One that overtakes ICCN raises the link:
// it was sealed with keys that only the caller has.
func (s *session) ppp(now time.Time, frame []byte) {
	if s.link == nil {
		return
	}
	if !s.linkUp {
		s.raise(now)
	}
	if err := s.link.Receive(now, frame); err != nil {
		s.call.Malformed.Add(1)
	}
	s.settle(now)
}

// handle acts on what the L2TP machine reports of this session.
func (s *session) handle(now time.Time, ev tunnel.Event) {
	switch ev.Kind {
	case tunnel.ICRPReceived:
		s.peer, s.takes = ev.PeerSession, getCapabilities(ev.Message)
		s.t.byPeer[s.peer] = s
		s.part(now, ev.Message)
	case tunnel.ICCNReceived:
		if err := s.t.m.ConfirmSession(now, s.local); err != nil {
			s.hangup(now, resultAdmin, err.Error())
			return
		}
		s.raise(now)
	case tunnel.SessionClosed:
		s.revoked = ev.Cause == tunnel.ByPeer && ev.Result.Code == resultRevoked.Code && ev.Result.Error == resultRevoked.Error
		s.end(now, closedBecause(ev), ev.Result.Code == resultAdmin.Code)
	default:
	}
}

// settle lets the link say all that it has to say, and sets the timer.
func (s *session) settle(now time.Time) {
	for s.link != nil {
		o, ok := s.link.Poll()
		if !ok {
			break
		}
		if o.Frame != nil {
			s.send(o.Frame)
			continue
		}
		s.network(now, o.Event)
		if s.t.sessions[s.local] != s {
			return
		}
	}
	s.schedule(now)
}

// send seals a PPP frame of the link's own.
func (s *session) send(frame []byte) {
	if s.data.out == nil {
		return
	}
	n := l2tp.MinimalHeader + len(frame)
	p := appendInnerUDP(make([]byte, 0, udpHeader+n), n)
	p = l2tp.AppendMinimal(p, s.call.PeerTunnel, s.call.PeerSession)
	s.t.e.out = append(s.t.e.out, Output{To: s.t.to, SA: s.data.out, Next: esp.NextUDP, Payload: append(p, frame...)})
}

// network acts on what the link reports.
func (s *session) network(now time.Time, ev link.Event) {
	switch ev.Kind {
	case link.IPv4Up:
		s.v4 = true
	case link.IPv6Up:
		s.v6 = true
	case link.IPv4Down:
		s.v4 = false
	case link.IPv6Down:
		s.v6 = false
	case link.CCPUp, link.CCPDown:
	case link.Down:
		s.hangup(now, resultLost, "PPP: "+ev.Reason.String()+" "+ev.Text)
		return
	default:
		return
	}
	s.publish()
	if !s.up && (s.v4 || s.v6) {
		s.up = true
		if s.key.Peer == "" {
			s.key = links.Key{Peer: s.t.peer.Name, User: s.call.User}
		}
		s.t.e.emit(CallUp{Call: s.call, Key: s.key, Initiator: s.initiator, Suite: s.data.suite, PostQuantum: s.data.hybrid})
	}
}

// publish shows the data path what seals for this call.
func (s *session) publish() {
	if s.data.out == nil || (!s.v4 && !s.v6) {
		s.call.Publish(nil)
		return
	}
	o := &calls.Outbound{SA: s.data.out, To: s.t.to, Bare: s.agreed().Has(calls.Bare), LeaveChecksums: s.takes.Has(calls.Checksums)}
	if s.v4 {
		o.Prefix4 = s.prefix(ppp.ProtoIPv4)
	}
	if s.v6 {
		o.Prefix6 = s.prefix(ppp.ProtoIPv6)
	}
	if o.Compress = s.link.MayCompress(); o.Compress && !o.Bare {
		o.PrefixComp = s.prefix(ppp.ProtoComp)
	}
	lead := 0
	if !o.Bare {
		lead = max(len(o.Prefix4), len(o.Prefix6))
	}
	form := s.data.suite
	if s.data.implicit {
		form = form.ImplicitIV()
	}
	mru := int(s.link.PeerMRU())
	fits := Fits(s.t.path.MTU(), over6(o.To.Addr()), form, lead)
	o.MTU, o.ShortMTU = min(fits, mru), min(fits, mru)
	if o.Short = o.Bare && s.agreed().Has(calls.ShortIPv4); o.Short {
		o.ShortMTU = min(fits+ip.ShortBy, mru)
	}
	s.call.Publish(o)
}

// agreed is what both ends take. What we do not take we do not send either: captures can be read in both directions or
// in none.
func (s *session) agreed() calls.Capabilities { return s.takes & s.call.Takes }

func (s *session) prefix(p ppp.Protocol) []byte {
	b := appendInnerUDP(nil, 0)
	b = l2tp.AppendMinimal(b, s.call.PeerTunnel, s.call.PeerSession)
	return s.link.AppendPrefix(b, p)
}

func (s *session) schedule(now time.Time) {
	var at time.Time
	if s.link != nil {
		at = s.link.Deadline()
	}
	if s.tickAt.IsZero() { // what the peer sends must not put it off
		s.tickAt = now.Add(tick)
	}
	s.t.e.timers.set(s, at, s.tickAt)
}

func (s *session) advance(now time.Time) {
	if !now.Before(s.tickAt) {
		s.tickAt = time.Time{}
	}
	if !s.up && now.Sub(s.began) >= setupTimeout {
		s.hangup(now, resultLost, "the call was not up in "+setupTimeout.String())
		return
	}
	if reason := s.overtime(now); reason != "" {
		s.hangup(now, resultAdmin, reason)
		return
	}
	if s.link != nil {
		if h := s.call.LastHeard(); h != s.heard {
			s.heard = h
			s.link.Heard(now)
		}
		s.link.Advance(now)
	}
	if s.data.in != nil {
		if s.data.settle(now, s.t.e.c.RekeyGrace) {
			s.publish()
		}
		s.data.expire(now, s.t.e.c.Table)
	}
	if s.up && s.data.due(now, s.t.rekeyAfter()) {
		if err := s.rekeying().ask(now); err != nil {
			s.hangup(now, resultAdmin, err.Error())
			return
		}
		s.t.settle(now)
	}
	s.settle(now)
}

func (s *session) standsOn(id twincert.ID) bool {
	return s.cert != nil && s.cert.ID() == id || s.call.PeerCert == id
}

// notAfter is when the first of the certificates that the call stands on expires.
func (s *session) notAfter() time.Time {
	if s.cert == nil {
		return s.began.Add(setupTimeout)
	}
	at := s.cert.NotAfter
	if s.t.far != nil && s.t.far.NotAfter.Before(at) {
		at = s.t.far.NotAfter
	}
	return at
}

// expired is why a call ends whose notAfter has passed.
func (s *session) expired() string {
	c := s.cert
	switch {
	case c == nil:
		return "the call was not up in " + setupTimeout.String()
	case s.t.far != nil && s.t.far.NotAfter.Before(c.NotAfter):
		c = s.t.far
	}
	return fmt.Sprintf("certificate of %s %s expired at %s", c.Role, c.Name, c.NotAfter.UTC().Format(time.RFC3339))
}

// hangup ends the call and tells the peer.
func (s *session) hangup(now time.Time, r l2tp.Result, reason string) {
	if s.t.sessions[s.local] != s {
		return
	}
	r.Message = reason
	if s.cause == calls.OtherCause && r.Code == resultLost.Code {
		s.cause = calls.Lost
	}
	s.end(now, reason, r.Code == resultAdmin.Code)
	if s.peer != 0 && s.initiator || s.t.m.HasSession(s.local) {
		s.t.m.CloseSession(now, s.local, r)
	} else if !s.initiator {
		s.t.m.RefuseSession(now, s.peer, r)
	}
	s.t.settle(now)
}

// end removes the call; its keys are let go of.
func (s *session) end(now time.Time, reason string, final bool) {
	if s.t.sessions[s.local] != s {
		return
	}
	if s.hs != nil {
		s.hs.Wipe()
	}
	if s.data.in == nil {
		s.t.e.c.Table.Release(s.spi)
	}
	s.call.Publish(nil)
	s.data.drop(s.t.e.c.Table)
	s.t.e.timers.drop(s)
	delete(s.t.sessions, s.local)
	s.t.lastCall = now
	delete(s.t.byPeer, s.peer)
	delete(s.t.e.byCall, s.call.ID)
	s.unbind()
	var c *calls.Call
	if s.up {
		c = s.call
	}
	key := s.key
	if key.Peer == "" {
		key = links.Key{Peer: s.t.peer.Name}
		if s.cert != nil && s.cert.Role == twincert.User {
			key.User = s.cert.Name
		}
	}
	var id twincert.ID
	if s.cert != nil {
		id = s.cert.ID()
	}
	s.t.e.emit(CallDown{Call: c, Key: key, Cert: id, Initiator: s.initiator, Reason: reason, Cause: s.cause, Final: final, Revoked: s.revoked})
}
