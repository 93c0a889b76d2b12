package portal

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
)

// refreshEvery is how often a browser asks for the state anew, seconds.
const refreshEvery = 5

var pages = template.Must(template.New("").Funcs(template.FuncMap{"bytes": cli.Bytes, "least": func() int { return keybundle.MinPassword }}).ParseFS(files, "pages/*.html"))

// page is what every page shows.
type page struct {
	Title      string
	Refresh    int // seconds; 0: never
	Router     string
	Company    string
	URL        string
	From       netip.Addr
	Root, Leaf string // fingerprints
	Said       *said
	Token      string
	Login      *loginForm
	Session    *sessionState
	Own        *ownState
	Change     string // whose password is to be changed
	Changed    string // whose password was changed
	Taken      bool   // somebody is logged in from this address, and it is not this browser
	Bridged    bool   // nobody can log in from this address
}

// loginForm is what the form begins with.
type loginForm struct {
	User, Peer string
	Peers      []string
	Fixed      bool // the user is logged in, and wants one more site
}

// ownState is that of a machine that encrypts by itself.
type ownState struct{ User, Since string }

// sessionState is the state of a session.
type sessionState struct {
	User  string
	Since string
	Ends  string
	Rate  string
	Calls []callState
	More  bool // there are sites without a call
}

// callState is one call of it.
type callState struct {
	Peer, Since, Suite, Warning string
	Up                          bool
	Remote                      []netip.Prefix
	Rx, Tx                      uint64 // bytes
	RxPackets, TxPackets        uint64
	Denied, Foreign             uint64
}

// home shows the state of the session, or the form.
func (p *Portal) home(w http.ResponseWriter, r *http.Request, v visit) {
	if p.ownShown(w, r, v) {
		return
	}
	standing, err := p.c.Router.Logins(r.Context(), v.from)
	if err != nil {
		p.c.Log.Error("portal: the state cannot be shown", "address", v.from.String(), "error", err)
		p.fail(w, r, v, saidNoState)
		return
	}
	cookie, user, ok := p.session(r, v)
	mine := slices.DeleteFunc(slices.Clone(standing), func(s Standing) bool { return s.User != user })
	switch {
	case ok && len(mine) > 0:
		p.showSession(w, v, cookie, user, mine)
	case ok: // its calls have ended: by the operator, by a revocation, by the policy's times
		p.sessions.drop(cookie)
		setCookie(w, cookieSession, "", -1)
		p.showLoginTo(w, r, v, "", "", &saidEnded, len(standing) > 0)
	case r.URL.RawQuery == "ended":
		p.showLoginTo(w, r, v, "", "", &saidEnded, len(standing) > 0)
	default:
		p.showLoginTo(w, r, v, "", "", nil, len(standing) > 0)
	}
}

// ownShown shows whoever comes from where a machine encrypts by itself that it does, and returns whether that was all there is to show.
func (p *Portal) ownShown(w http.ResponseWriter, r *http.Request, v visit) bool {
	g, own, err := p.c.Router.Guest(r.Context(), v.from)
	switch {
	case err != nil:
		p.c.Log.Error("portal: who is at the address is not known", "address", v.from.String(), "error", err)
		p.fail(w, r, v, saidNoState)
	case own:
		p.showOwn(w, v, g, nil)
	}
	return own || err != nil
}

func (p *Portal) showOwn(w http.ResponseWriter, v visit, g Guest, s *said) {
	p.show(w, v, page{Title: "Connected", Refresh: refreshEvery, Said: s, Own: &ownState{g.User, since(g.Since, v.now)}})
}

// loginPage shows the form in any case but one.
func (p *Portal) loginPage(w http.ResponseWriter, r *http.Request, v visit) {
	if p.ownShown(w, r, v) {
		return
	}
	_, user, _ := p.session(r, v)
	p.showLogin(w, r, v, user, "", nil)
}

func (p *Portal) showLogin(w http.ResponseWriter, r *http.Request, v visit, user, peer string, s *said) {
	p.showLoginTo(w, r, v, user, peer, s, false)
}

// showLoginTo shows the form; taken: somebody is logged in from this address.
func (p *Portal) showLoginTo(w http.ResponseWriter, r *http.Request, v visit, user, peer string, s *said, taken bool) {
	name, cookie, ok := p.formCookie(r, v)
	if !ok {
		fresh, err := secretText()
		if err != nil {
			p.c.Log.Error("portal: no form", "address", v.from.String(), "error", err)
			p.fail(w, r, v, saidNoForm)
			return
		}
		name, cookie = cookieForm, fresh
		setCookie(w, cookieForm, fresh, 0)
	}
	f := &loginForm{User: user, Peer: peer, Peers: p.c.Router.Peers(), Fixed: name == cookieSession}
	p.show(w, v, page{Title: "Log in", Said: s, Login: f, Token: p.sessions.token(name, cookie, v.from), Taken: taken, Bridged: p.c.Router.Bridged(v.from)})
}

func (p *Portal) showSession(w http.ResponseWriter, v visit, cookie, user string, standing []Standing) {
	st := &sessionState{User: user}
	var rx, tx uint64
	first := standing[0].Since
	for _, l := range standing {
		if l.Since.Before(first) {
			first = l.Since
		}
		c := callState{Peer: l.Peer, Since: since(l.Since, v.now), Up: l.Up, Suite: l.Suite, Remote: l.Remote,
			Rx: l.RxBytes, Tx: l.TxBytes, RxPackets: l.RxPackets, TxPackets: l.TxPackets, Denied: l.Denied, Foreign: l.Foreign}
		if l.Hybrid {
			c.Suite += ", post-quantum"
		}
		if l.Ending != "" && l.Up {
			c.Warning = ending(l, v.now)
		}
		if !l.Ends.IsZero() {
			st.Ends = fmt.Sprintf("%s, at %s", cli.Until(v.now, l.Ends), l.Ends.Local().Format("15:04"))
		}
		rx, tx = rx+l.RxBytes, tx+l.TxBytes
		st.Calls = append(st.Calls, c)
	}
	st.Since = since(first, v.now)
	if in, out, ok := p.sessions.rates(cookie, rx, tx, v.now); ok {
		st.Rate = fmt.Sprintf("%s/s in, %s/s out", cli.Bytes(uint64(in)), cli.Bytes(uint64(out)))
	}
	st.More = slices.ContainsFunc(p.c.Router.Peers(), func(peer string) bool {
		return !slices.ContainsFunc(standing, func(l Standing) bool { return l.Peer == peer })
	})
	p.show(w, v, page{Title: "Connected", Refresh: refreshEvery, Session: st, Token: p.sessions.token(cookieSession, cookie, v.from)})
}

// ending says that a certificate ends soon, why it is not renewed, and what may help: a new login brings what there is.
func ending(l Standing, now time.Time) string {
	hurry := ""
	if l.Last {
		hurry = "Finish what you are doing. "
	}
	return fmt.Sprintf("%sYour certificate expires %s, on %s, and this connection ends with it: %s. Log out and log in again before. If this warning is still there then, ask the operator to renew your certificate.",
		hurry, cli.Until(now, l.NotAfter), l.NotAfter.Local().Format("2 January 2006, 15:04"), l.Ending)
}

// since says when something began.
func since(t, now time.Time) string {
	return fmt.Sprintf("%s (for %s)", t.Local().Format("2 January, 15:04:05"), cli.Duration(now.Sub(t).Truncate(time.Second)))
}

// fail says what is the matter, and nothing else.
func (p *Portal) fail(w http.ResponseWriter, _ *http.Request, v visit, s said) {
	p.show(w, v, page{Title: s.Title, Said: &s})
}

// show writes a page.
func (p *Portal) show(w http.ResponseWriter, v visit, g page) {
	g.Router, g.Company, g.URL, g.From = p.c.Name, p.c.Company, p.URL(), v.from
	g.Root = fingerprint(p.c.Root().Raw)
	if c, err := p.c.Certificate(); err == nil {
		g.Leaf = fingerprint(c.Leaf.Raw)
	}
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, "page.html", g); err != nil {
		p.c.Log.Error("portal: page not made", "error", err)
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	status := http.StatusOK
	if g.Said != nil {
		status = g.Said.status
		retryAfter(w, g.Said.after)
	}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the browser has gone
}
