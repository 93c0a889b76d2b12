package voluntary

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/engine"
)

// session is one client that is logged in.
type session struct {
	name  [sha256.Size]byte // of the token, which nobody keeps
	guest *engine.Guest
	since time.Time
	signs *rate.Limiter
	gone  chan struct{} // closed when it is over

	// Guarded by the desk.
	limit  time.Time // the source's and the policy's; zero: none
	user   *twincert.Certificate
	next   *client.Successor // that user is; nil: user is what was admitted
	until  time.Time
	reason string      // why it is over; empty: it is not
	watch  func()      // cuts the watch that there is; nil: there is none
	orphan *time.Timer // ends it if no watch comes
	end    *time.Timer // ends it at until
	proved twincert.ID // of the certificate of which the client has proved the end; zero: of none
	due    *time.Timer // ends it if that does not come; nil: it is not asked for
}

// desk knows the sessions, by token and by address.
type desk struct {
	mu      sync.Mutex
	byToken map[[sha256.Size]byte]*session
	byAddr  map[netip.Addr]*session
}

func newDesk() *desk {
	return &desk{byToken: make(map[[sha256.Size]byte]*session), byAddr: make(map[netip.Addr]*session)}
}

// nameOf is under what a token is known. A table of hashes tells by its timing nothing that would help to guess one.
func nameOf(token []byte) [sha256.Size]byte { return sha256.Sum256(token) }

// parseToken reads the header Authorization.
func parseToken(header string) ([]byte, bool) {
	const scheme = "Bearer "
	if len(header) != len(scheme)+base64.RawURLEncoding.EncodedLen(tokenLen) || header[:len(scheme)] != scheme {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(header[len(scheme):])
	return b, err == nil && len(b) == tokenLen // line breaks are passed over, and would leave fewer
}

func bearer(token []byte) string { return "Bearer " + base64.RawURLEncoding.EncodeToString(token) }

// find returns the session of a token, if it was given to this address.
func (d *desk) find(token []byte, from netip.Addr) (*session, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.byToken[nameOf(token)]
	return s, ok && s.guest.Address == from
}

// at returns the session of an address, and whether a client is there.
func (d *desk) at(from netip.Addr) (s *session, watched bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s = d.byAddr[from]
	return s, s != nil && s.watch != nil
}

// room says whether there may be one more.
func (d *desk) room() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.byToken) < maxSessions
}

// add takes in a session; false: it was over before it began. expire is called at its end, or if it stays an orphan.
func (d *desk) add(s *session, now time.Time, expire func(reason string)) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.reason != "" {
		return false
	}
	s.orphan = time.AfterFunc(orphaned, func() { expire("the client was not heard for " + orphaned.String()) })
	s.end = time.AfterFunc(s.until.Sub(now), func() { expire("its time is over") })
	d.byToken[s.name], d.byAddr[s.guest.Address] = s, s
	return true
}

// remove ends a session and tells its watch why; false: it was over already.
func (d *desk) remove(s *session, reason string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.reason != "" {
		return false
	}
	s.reason = reason
	close(s.gone)
	for _, t := range []*time.Timer{s.orphan, s.end, s.due} {
		if t != nil {
			t.Stop()
		}
	}
	delete(d.byToken, s.name)
	if d.byAddr[s.guest.Address] == s {
		delete(d.byAddr, s.guest.Address)
	}
	return true
}

// attach makes cut the way to end the session's watch. One that there is already is cut: its client has lost it.
func (d *desk) attach(s *session, cut func()) (detach func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.watch != nil {
		s.watch()
	}
	s.orphan.Stop()
	mine := true
	s.watch = func() { mine = false; cut() }
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if mine && s.reason == "" {
			s.watch = nil
			s.orphan.Reset(orphaned)
		}
	}
}

// bound has a session last no longer than a policy's session time from its beginning, 0 being none. What bounded it before goes on doing so.
func (s *session) bound(session time.Duration) {
	if mine := limitOf(session, s.since); s.limit.IsZero() || !mine.IsZero() && mine.Before(s.limit) {
		s.limit = mine
	}
}

// last is when a session on a certificate is over at the latest. The desk is held, once it has the session.
func (s *session) last(c *twincert.Certificate) time.Time {
	if !s.limit.IsZero() && s.limit.Before(c.NotAfter) {
		return s.limit
	}
	return c.NotAfter
}

// succeed has a session go on with another certificate, of whose group the policy says how long it may last.
func (d *desk) succeed(s *session, c *twincert.Certificate, next client.Successor, session time.Duration, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.reason != "" {
		return
	}
	s.bound(session)
	s.user, s.next, s.until = c, &next, s.last(c)
	if s.end != nil {
		s.end.Reset(s.until.Sub(now))
	}
}

// present is on which certificate a session is, until when, and the successor that this certificate is, if it was another at first.
func (d *desk) present(s *session) (user *twincert.Certificate, until time.Time, next *client.Successor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.user, s.until, s.next
}

// prove notes that a client has proved the end of its session on a certificate, unless it has another one now.
func (d *desk) prove(s *session, id twincert.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.user.ID() != id {
		return
	}
	s.proved = id
	if s.due != nil {
		s.due.Stop()
		s.due = nil
	}
}

// unproved says of which certificate a session's client has yet to prove the end, and whether it has.
func (d *desk) unproved(s *session) (user *twincert.Certificate, unproved bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.user, s.proved != s.user.ID()
}

// demand has expire called if the client does not prove the end of its session in time. Asked again it has no more time.
func (d *desk) demand(s *session, expire func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.reason == "" && s.due == nil {
		s.due = time.AfterFunc(proveTime, expire)
	}
}

// why is why a session is over.
func (d *desk) why(s *session) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.reason
}

// all are the sessions that there are.
func (d *desk) all() []*session {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]*session, 0, len(d.byToken))
	for _, s := range d.byToken {
		all = append(all, s)
	}
	return all
}
