package radius

import (
	"cmp"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"layeh.com/radius"

	"twinkey/ca/internal/source"
	"twinkey/pkg/config"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Values of Error-Cause (RFC 5176 3.5).
const (
	causeUnsupportedAttribute = 401
	causeMissingAttribute     = 402
	causeNASMismatch          = 403
	causeUnsupportedService   = 405
	causeInvalidValue         = 407
	causeNoSession            = 503
	causeResources            = 506
)

// Why a request is not answered.
var (
	errStranger = errors.New("nobody there may ask for that")
	errStale    = errors.New("its Event-Timestamp is missing, or too far from our clock")
)

const (
	// orderTime bounds how long ending or changing one user may take; servers repeat what is not answered.
	orderTime = 10 * time.Second
	// maxSeen bounds how many requests are remembered. They are authentic, so only those who may ask can fill it; then the
	// next ones wait until the oldest are too old to be believed.
	maxSeen = 4096
)

// clients says who may send Disconnect-Requests and CoA-Requests, and the secret shared with each.
type clients map[netip.Addr]secret.Key

func readClients(key, dir string, files map[string]string) (clients, error) {
	out := make(clients, len(files))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			return nil, config.Wrong(key+"."+name, err)
		}
		if out[addr.Unmap()], err = source.ReadSecret(dir, files[name]); err != nil {
			return nil, config.Wrong(key+"."+name, err)
		}
	}
	return out, nil
}

// Watch answers Disconnect-Requests and CoA-Requests, one at a time, until ctx ends.
func (s *Source) Watch(ctx context.Context, o source.Orders) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	if !s.cfg.Disconnect.Listen.IsValid() {
		<-ctx.Done()
		return nil
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.cfg.Disconnect.Listen))
	if err != nil {
		return fmt.Errorf("listening for Disconnect-Requests of source %s: %w", s.name, err)
	}
	defer func() { _ = conn.Close() }() // nothing is lost
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	s.log.Info("listening for Disconnect-Requests", "listen", conn.LocalAddr())
	seen := newMemory(2 * s.cfg.Disconnect.Window)
	var told time.Time // when a request that is not believed was logged last
	var buf [maxPacket]byte
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf[:])
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading Disconnect-Requests of source %s: %w", s.name, err)
		}
		now := time.Now()
		reply, err := s.obey(ctx, from, buf[:n], now, seen, o)
		if err != nil {
			s.count.dropped(err)
			if now.Sub(told) >= time.Second { // strangers must not fill the log
				told = now
				s.log.Warn("a request is not believed", "from", from, "why", err)
			}
			continue
		}
		if _, err := conn.WriteToUDPAddrPort(reply, from); err != nil {
			s.log.Warn("a request was not answered", "from", from, "error", err)
		}
	}
}

// obey answers a request; an error says why there is no answer.
func (s *Source) obey(ctx context.Context, from netip.AddrPort, b []byte, now time.Time, seen *memory, o source.Orders) ([]byte, error) {
	key, ok := s.clients[from.Addr().Unmap().WithZone("")]
	if !ok {
		return nil, errStranger
	}
	p, err := authentic(b, key.Bytes())
	if err != nil {
		return nil, err
	}
	stamp, ok := p.number(typeEventTimestamp)
	if age := now.Sub(time.Unix(int64(stamp), 0)).Abs(); !ok || age > s.cfg.Disconnect.Window {
		return nil, errStale
	}
	if reply, ok := seen.recall(p, now); ok {
		return reply, nil
	}
	if seen.full(now) {
		return nil, errBusy
	}
	cause := s.carryOut(ctx, p, time.Unix(int64(stamp), 0), o)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	reply, err := respond(p, key.Bytes(), cause)
	if err != nil {
		return nil, err
	}
	if cause != causeResources { // else a repetition is another try, unless a later request about the user has come: Orders knows
		seen.keep(p, reply, now)
	}
	return reply, nil
}

// authentic reads a request of RFC 5176 and checks all that shows who made it.
func authentic(b, key []byte) (packet, error) {
	p, err := parse(b)
	if err != nil {
		return packet{}, err
	}
	if p.code != radius.CodeDisconnectRequest && p.code != radius.CodeCoARequest {
		return packet{}, errStray
	}
	var zero [authLen]byte
	want := sum(p.wire, zero, key)
	if !hmac.Equal(want[:], p.wire[authAt:headerLen]) {
		return packet{}, errAuthenticator
	}
	at, err := p.signature()
	if err != nil {
		return packet{}, err
	}
	if at == 0 {
		return packet{}, errNoSignature
	}
	if !hmac.Equal(mac(p.wire, at, zero, key), p.wire[at:at+authLen]) {
		return packet{}, errSignature
	}
	return p, nil
}

// carryOut does what a request that was made at said asks for, and says what is wrong with it; 0: nothing.
func (s *Source) carryOut(ctx context.Context, p packet, said time.Time, o source.Orders) (cause uint32) {
	done, undone := &s.count.ended, &s.count.unended
	changes := p.code == radius.CodeCoARequest
	if changes {
		done, undone = &s.count.changed, &s.count.unchanged
	}
	log := s.log.With("request", p.code.String())
	uid, cause := s.whom(p)
	var c source.Change
	if cause == 0 && changes {
		c, cause = s.change(p)
	}
	if cause != 0 {
		undone.Add(1)
		log.Warn("a request is refused", "user", uid, "error_cause", cause)
		return cause
	}
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	w := source.Word{Why: fmt.Sprintf("%s by source %s", p.code, s.name), Said: said, ID: p.wire[authAt:headerLen]}
	if m, ok := p.Lookup(typeReplyMessage); ok && len(m) > 0 {
		w.Why += fmt.Sprintf(": %q", string(m))
	}
	var err error
	if changes {
		err = o.Change(ctx, uid, c, w)
	} else {
		err = o.End(ctx, uid, w)
	}
	if err == nil {
		done.Add(1)
		log.Info("a request was obeyed", "user", uid, "group", c.Group, "session", c.Session)
		return 0
	}
	undone.Add(1)
	switch {
	case errors.Is(err, source.ErrNotThere):
		log.Info("a request names nobody who is here", "user", uid)
		return causeNoSession
	case errors.Is(err, source.ErrImpossible):
		log.Warn("a request cannot be obeyed", "user", uid, "group", c.Group, "session", c.Session, "error", err)
		return causeInvalidValue
	default:
		log.Error("a request was not obeyed", "user", uid, "error", err)
		return causeResources
	}
}

// whom says which user a request means. One that says less than a whole user must not concern a whole user, and nothing that a CoA-Request
// asks for may be passed over.
func (s *Source) whom(p packet) (uid string, cause uint32) {
	var id string
	for _, a := range p.Attributes {
		v := string(a.Attribute)
		if p.code == radius.CodeCoARequest && s.alters(a) {
			continue
		}
		switch a.Type {
		case typeUserName:
			uid = v
		case typeAcctSessionID:
			id = v
		case typeNASIdentifier:
			if v != s.cfg.NASIdentifier {
				return uid, causeNASMismatch
			}
		case typeServiceType:
			return uid, causeUnsupportedService
		case typeClass, typeAcctTerminateCause: // of what ends; a Class in a CoA-Request is to be taken instead of the one before (RFC 5176 3.6)
			if p.code == radius.CodeCoARequest {
				return uid, causeUnsupportedAttribute
			}
		case typeNASIPAddress, typeNASIPv6Address, typeReplyMessage, typeProxyState, typeEventTimestamp, typeMessageAuthenticator:
		default:
			return uid, causeUnsupportedAttribute
		}
	}
	if id != "" {
		owner, ok := s.sessions.user(id)
		if !ok || uid != "" && uid != owner {
			return cmp.Or(uid, owner), causeNoSession
		}
		uid = owner
	}
	switch {
	case uid == "":
		return "", causeMissingAttribute
	case twincert.CheckName(uid) != nil:
		return "", causeNoSession // nobody is called that
	}
	return uid, 0
}

// respond makes the answer to p: ACK, or NAK with a cause (RFC 5176 2.3, 3.4).
func respond(p packet, key []byte, cause uint32) ([]byte, error) {
	ack, nak := radius.CodeDisconnectACK, radius.CodeDisconnectNAK
	if p.code == radius.CodeCoARequest {
		ack, nak = radius.CodeCoAACK, radius.CodeCoANAK
	}
	r := &radius.Packet{Code: ack, Identifier: p.id, Secret: key, Authenticator: [authLen]byte(p.wire[authAt:headerLen])}
	r.Add(typeMessageAuthenticator, make(radius.Attribute, authLen))
	if cause != 0 {
		r.Code = nak
		addNumber(r, typeErrorCause, cause)
	}
	for _, a := range p.Attributes { // the way back through proxies (RFC 5176 3.1); p is signed
		if a.Type == typeProxyState {
			r.Add(typeProxyState, a.Attribute)
		}
	}
	// The Message-Authenticator first, with the request's authenticator in place of ours; ours covers it.
	wire, err := r.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("answering a %s: %w", p.code, err)
	}
	const at = headerLen + avpHead
	copy(wire[at:], mac(wire, at, r.Authenticator, key))
	own := sum(wire, r.Authenticator, key)
	copy(wire[authAt:], own[:])
	return wire, nil
}

// memory keeps the answers to requests for as long as these would be believed again: a repetition, by the sender
// or by somebody who recorded it, gets the answer that the first one got and does nothing. It is gone after a restart, and knows no
// order: what comes again then, or out of turn, Orders decides (package login).
type memory struct {
	life  time.Duration
	seen  map[[authLen]byte][]byte // by Request Authenticator, which covers the whole of it
	order []remembered             // oldest first
}

type remembered struct {
	key [authLen]byte
	at  time.Time
}

func newMemory(life time.Duration) *memory {
	return &memory{life: life, seen: make(map[[authLen]byte][]byte)}
}

func (m *memory) recall(p packet, now time.Time) ([]byte, bool) {
	m.forget(now)
	reply, ok := m.seen[[authLen]byte(p.wire[authAt:headerLen])]
	return reply, ok
}

func (m *memory) full(now time.Time) bool {
	m.forget(now)
	return len(m.order) >= maxSeen
}

func (m *memory) keep(p packet, reply []byte, now time.Time) {
	k := [authLen]byte(p.wire[authAt:headerLen])
	m.seen[k] = reply
	m.order = append(m.order, remembered{k, now})
}

func (m *memory) forget(now time.Time) {
	for len(m.order) > 0 && now.Sub(m.order[0].at) > m.life {
		delete(m.seen, m.order[0].key)
		m.order = m.order[1:]
	}
}
