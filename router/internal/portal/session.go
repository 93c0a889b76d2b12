package portal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// The cookies. The prefix has browsers refuse them from whoever is not this very host over TLS.
const (
	cookieSession = "__Host-twinkey"
	cookieForm    = "__Host-twinkey-form"
	cookieLen     = 32
)

// maxSessions bounds what is remembered. Each needs a login, so it is never reached before the engine is full.
const maxSessions = 8192

// session is one browser that somebody has logged in with.
type session struct {
	user    string
	address netip.Addr
	since   time.Time
	seen    time.Time
	// What the page showed last, for the rate since then.
	shown  time.Time
	rx, tx uint64 // bytes
}

// sessions are those of the portal. Safe for concurrent use.
type sessions struct {
	key []byte // of the tokens in forms; as old as the process

	mu sync.Mutex
	by map[[sha256.Size]byte]*session // under the hash of the cookie
}

func newSessions() (*sessions, error) {
	s := &sessions{key: make([]byte, sha256.Size), by: make(map[[sha256.Size]byte]*session)}
	if _, err := rand.Read(s.key); err != nil {
		return nil, fmt.Errorf("making a key for forms: %w", err)
	}
	return s, nil
}

// secretText draws the text of a cookie.
func secretText() (string, error) {
	b := make([]byte, cookieLen)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("drawing a cookie: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// cookieOf reads a cookie. One that we have not drawn, or that comes twice, is none.
func cookieOf(r *http.Request, name string) (string, bool) {
	cs := r.CookiesNamed(name)
	if len(cs) != 1 {
		return "", false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cs[0].Value)
	return cs[0].Value, err == nil && len(b) == cookieLen
}

func setCookie(w http.ResponseWriter, name, value string, age int) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
}

// token is what a form must bring back that was made for the browser with this cookie at this address.
func (s *sessions) token(name, cookie string, a netip.Addr) string {
	m := hmac.New(sha256.New, s.key)
	_, _ = fmt.Fprintf(m, "%s\n%s\n%s", name, cookie, a) // neither of the first two has a line's end; a hash does not fail
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// genuine compares a token in constant time.
func (s *sessions) genuine(token []byte, name, cookie string, a netip.Addr) bool {
	return subtle.ConstantTimeCompare(token, []byte(s.token(name, cookie, a))) == 1
}

// add remembers a session and returns its cookie. What the user had from this address before is forgotten.
func (s *sessions) add(user string, a netip.Addr, now time.Time) (cookie string, ok bool, err error) {
	if cookie, err = secretText(); err != nil {
		return "", false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, o := range s.by {
		if o.address == a {
			delete(s.by, h)
		}
	}
	if len(s.by) >= maxSessions {
		return "", false, nil
	}
	s.by[sha256.Sum256([]byte(cookie))] = &session{user: user, address: a, since: now, seen: now}
	return cookie, true, nil
}

// renew gives a session another cookie, and says whether there was one. The cookie of before opens nothing any more.
func (s *sessions) renew(cookie string) (fresh string, ok bool, err error) {
	if fresh, err = secretText(); err != nil {
		return "", false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.Sum256([]byte(cookie))
	v, ok := s.by[h]
	if !ok {
		return "", false, nil
	}
	delete(s.by, h)
	s.by[sha256.Sum256([]byte(fresh))] = v
	return fresh, true, nil
}

// find returns the user whose session a cookie is, from the address that it was made for.
func (s *sessions) find(cookie string, a netip.Addr, now time.Time) (user string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.by[sha256.Sum256([]byte(cookie))]
	if !ok || v.address != a {
		return "", false
	}
	v.seen = now
	return v.user, true
}

// rates are bytes a second since the page was shown before; ok: there was a before that lies long enough ago.
func (s *sessions) rates(cookie string, rx, tx uint64, now time.Time) (in, out float64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.by[sha256.Sum256([]byte(cookie))]
	if v == nil {
		return 0, 0, false
	}
	d := now.Sub(v.shown)
	if !v.shown.IsZero() && d >= time.Second && rx >= v.rx && tx >= v.tx {
		in, out, ok = float64(rx-v.rx)/d.Seconds(), float64(tx-v.tx)/d.Seconds(), true
	}
	v.shown, v.rx, v.tx = now, rx, tx
	return in, out, ok
}

// drop forgets a session.
func (s *sessions) drop(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, sha256.Sum256([]byte(cookie)))
}

// sweep forgets the sessions of which keep says that their login is over.
func (s *sessions) sweep(before time.Time, keep func(user string, a netip.Addr) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, v := range s.by {
		if v.since.Before(before) && !keep(v.user, v.address) {
			delete(s.by, h)
		}
	}
}

// all lists the sessions.
func (s *sessions) all() []session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]session, 0, len(s.by))
	for _, v := range s.by {
		out = append(out, *v)
	}
	return out
}
