package portal

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/router/internal/engine"
)

// Bounds of what a form may say.
const (
	maxUID    = 64
	loginTime = 35 * time.Second // waiting for a turn, and the login
	maxRest   = 2 * time.Second  // of a turn; what took longer has waited for the network
)

// sessionAge is how long a browser keeps the cookie: longer than a day's work. Without the login it opens nothing.
const sessionAge = 24 * time.Hour

var (
	errTurns  = errors.New("too many logins wait") // for their turn
	errWrongs = errors.New("too many wrong passwords")
)

// login takes the form.
func (p *Portal) login(w http.ResponseWriter, r *http.Request, v visit) {
	name, cookie, ok := p.formCookie(r, v)
	if !ok {
		p.fail(w, r, v, saidForged)
		return
	}
	if !p.logins.Allow(r.RemoteAddr, v.now) || !p.begin(v.from) {
		p.fail(w, r, v, saidTooOften)
		return
	}
	defer p.finish(v.from)
	var uid, password, peer []byte
	body, ok := p.form(w, r, v, name, cookie, map[string]*[]byte{"uid": &uid, "password": &password, "peer": &peer})
	defer clear(body)
	if !ok {
		return
	}
	var s *said
	var failed error
	began := time.Now()
	l := Login{User: strings.TrimSpace(string(uid)), Password: password, Peer: string(peer), Address: v.from}
	own, isOwn, err := p.c.Router.Guest(r.Context(), v.from)
	switch {
	case err != nil:
		p.c.Log.Error("portal: who is at the address is not known", "address", v.from.String(), "error", err)
		s = &saidNoState
	case isOwn: // whoever asks, and whatever the password is
		clear(body)
		p.showOwn(w, v, own, &saidOwn)
		return
	case len(uid) > maxUID || len(password) > keybundle.MaxPassword:
		s = &saidTooLong
	case l.User == "" || len(password) == 0:
		s = &saidEmpty
	case !slices.Contains(p.c.Router.Peers(), l.Peer):
		s = &saidNoPeer
	default:
		var told said
		if told, failed = p.try(r.Context(), l, v); failed != nil {
			s = &told
		}
	}
	clear(body) // before anything waits, or is written to a browser that may be slow
	if s != nil {
		p.c.Hold(r.Context(), began, failed) // meanwhile it takes up the address's own place, and no other
		p.showLogin(w, r, v, l.User, l.Peer, s)
		return
	}
	fresh, ok, err := p.sessions.add(l.User, v.from, time.Now())
	if err != nil || !ok {
		p.c.Log.Error("portal: no session", "user", l.User, "address", v.from.String(), "error", err)
		p.fail(w, r, v, saidNoPage)
		return
	}
	setCookie(w, cookieSession, fresh, int(sessionAge/time.Second))
	setCookie(w, cookieForm, "", -1)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// begin says whether nobody else at an address is logging in: each has one place in the queue.
func (p *Portal) begin(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trying[a] {
		return false
	}
	p.trying[a] = true
	return true
}

func (p *Portal) finish(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.trying, a)
}

// try logs in, and says what an error means.
func (p *Portal) try(browser context.Context, l Login, v visit) (said, error) {
	err := p.prove(browser, v, func(ctx context.Context, turn func(func() error) error) error {
		l.Turn = turn
		return p.c.Router.Login(ctx, l)
	})
	switch {
	case err == nil:
		p.c.Log.Info("portal: login", "user", l.User, "address", v.from.String(), "peer", l.Peer)
		return said{}, nil
	case errors.Is(err, errWrongs):
		return saidWrongs, err
	}
	p.c.Log.Warn("portal: login refused", "user", l.User, "address", v.from.String(), "peer", l.Peer, "error", refusal(err))
	other := false
	if all, err := p.c.Router.Logins(browser, v.from); err == nil {
		other = slices.ContainsFunc(all, func(s Standing) bool { return s.User != l.User })
	}
	s := explain(err, l.Peer, other, time.Now())
	if _, own, _ := p.c.Router.Guest(browser, v.from); own && errors.Is(err, engine.ErrBusy) { // it has come meanwhile
		s = saidOwnNow
	}
	return s, err
}

// prove has the router ask whether a password is right, within what an address may let fail: else it is not asked, and errWrongs comes. What takes the
// router's cores ask does in turn; a turn that ends well says that the password is right.
func (p *Portal) prove(browser context.Context, v visit, ask func(ctx context.Context, turn func(func() error) error) error) error {
	guess, wait := p.c.Guesses.Begin(v.from, time.Now())
	if wait > 0 {
		return errWrongs
	}
	defer guess.Close()
	ctx, cancel := context.WithTimeout(browser, loginTime)
	defer cancel()
	err := ask(ctx, func(f func() error) error {
		err := p.inTurn(ctx, f)
		if err == nil {
			guess.Succeed(time.Now()) // whatever becomes of the call
		}
		return err
	})
	if err != nil && (guessed(err) || browser.Err() != nil) { // who hangs up in the middle has guessed, as far as we know: directory or CA may have counted it
		guess.Fail(time.Now())
	}
	return err
}

// guessed says whether directory or CA have counted a failure.
func guessed(err error) bool {
	return errors.Is(err, client.ErrDenied) || errors.Is(err, caclient.ErrDenied)
}

// refusal is what the log may hold. All of it: no error that a login ends with has a password in it.
func refusal(err error) string {
	if guessed(err) {
		return client.ErrDenied.Error() // the directory's audit says why, and who may know it reads it there
	}
	return err.Error()
}

// inTurn runs f when a turn is free. Turns are few, so that derivations leave cores to packets, and the queue is short. A turn that led to nothing
// stays taken as long again as it took: whoever tries passwords has half of what people have who know theirs. The answer does not wait for that.
func (p *Portal) inTurn(ctx context.Context, f func() error) error {
	if p.waiting.Add(1) > loginQueue {
		p.waiting.Add(-1)
		return errTurns
	}
	err := p.turns.Acquire(ctx, 1)
	p.waiting.Add(-1)
	if err != nil {
		return errTurns // they have waited as long as a login may take
	}
	began := time.Now()
	if err = f(); err != nil {
		time.AfterFunc(min(time.Since(began), maxRest), func() { p.turns.Release(1) })
		return err
	}
	p.turns.Release(1)
	return nil
}

// form reads the fields of a form of ours, whose token belongs to the cookie of that name. They lie in body, which is the caller's to wipe.
// If not ok, the answer has been given.
func (p *Portal) form(w http.ResponseWriter, r *http.Request, v visit, name, cookie string, fields map[string]*[]byte) (body []byte, ok bool) {
	var token []byte
	fields["csrf"] = &token
	body, s := readForm(w, r, fields)
	if s != nil {
		p.fail(w, r, v, *s)
		return body, false
	}
	if !p.sessions.genuine(token, name, cookie, v.from) {
		p.c.Log.Warn("portal: a form with a forged token was refused", "address", v.from.String())
		p.fail(w, r, v, saidForged)
		return body, false
	}
	return body, true
}

// logout ends the session and the calls of whoever's it is.
func (p *Portal) logout(w http.ResponseWriter, r *http.Request, v visit) {
	cookie, user, ok := p.session(r, v)
	if !ok {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	body, ok := p.form(w, r, v, cookieSession, cookie, map[string]*[]byte{})
	defer clear(body)
	if !ok {
		return
	}
	if err := p.c.Router.Logout(r.Context(), user, v.from); err != nil {
		p.c.Log.Error("portal: logout failed", "user", user, "address", v.from.String(), "error", err)
		p.fail(w, r, v, saidStillIn)
		return
	}
	p.c.Log.Info("portal: logout", "user", user, "address", v.from.String())
	p.sessions.drop(cookie)
	setCookie(w, cookieSession, "", -1)
	http.Redirect(w, r, "/?ended", http.StatusSeeOther)
}

// session is that of the browser, if its user is logged in still.
func (p *Portal) session(r *http.Request, v visit) (cookie, user string, ok bool) {
	cookie, ok = cookieOf(r, cookieSession)
	if !ok {
		return "", "", false
	}
	user, ok = p.sessions.find(cookie, v.from, v.now)
	return cookie, user, ok
}

// formCookie is the one that a login form's token hangs on: the session's where there is one.
func (p *Portal) formCookie(r *http.Request, v visit) (name, cookie string, ok bool) {
	if cookie, _, ok := p.session(r, v); ok {
		return cookieSession, cookie, true
	}
	cookie, ok = cookieOf(r, cookieForm)
	return cookieForm, cookie, ok
}

// readForm reads a form of ours; the caller clears the body whatever is returned.
func readForm(w http.ResponseWriter, r *http.Request, fields map[string]*[]byte) ([]byte, *said) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, &saidUnread
	}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close")
		return nil, &saidTooLong
	}
	body := make([]byte, maxBody+1)
	n, err := io.ReadFull(r.Body, body)
	switch {
	case n > maxBody:
		w.Header().Set("Connection", "close")
		return body, &saidTooLong
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return body, &saidUnread
	}
	if err := parseForm(body[:n], fields); err != nil {
		return body, &saidUnread
	}
	return body, nil
}

func retryAfter(w http.ResponseWriter, d time.Duration) {
	if d > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((d+time.Second-1)/time.Second)))
	}
}
