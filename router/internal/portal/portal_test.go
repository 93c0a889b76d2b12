package portal

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	caclient "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/limit"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// desk is a router: alice's password is "secret" and bob's "hunter2".
type desk struct {
	mu       sync.Mutex
	standing []Standing
	err      error // of the next logins
	stuck    error // of whatever else is asked
	tried    int
	kept     []byte        // the last password: not copied, so that one sees it wiped
	keptNew  []byte        // likewise the one that somebody wants
	during   func(l Login) // while a login is going on, or a change of password
	chosen   map[string]string
	bridged  map[string]bool // addresses
	guests   map[string]Guest
}

var passwords = map[string]string{"alice": "secret", "bob": "hunter2"}

var errDenied = &client.Error{Op: "asking for the keys", Code: client.CodeDenied}

func (d *desk) Login(_ context.Context, l Login) error {
	return l.Turn(func() error { return d.login(l) })
}

func (d *desk) login(l Login) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tried++
	d.kept = l.Password
	if d.during != nil {
		d.during(l)
	}
	if d.err != nil {
		return d.err
	}
	if !d.knows(l.User, l.Password) {
		return errDenied
	}
	for _, s := range d.standing {
		if s.User == l.User && s.Peer == l.Peer && s.Address == l.Address {
			return nil // had back
		}
		if s.User == l.User && s.Peer == l.Peer || s.Address == l.Address && s.User != l.User {
			return fmt.Errorf("%w: %s", engine.ErrBusy, s.Peer)
		}
	}
	d.standing = append(d.standing, Standing{User: l.User, Peer: l.Peer, Address: l.Address, Since: time.Now(), Up: true, Suite: "aes256-gcm", Hybrid: true,
		NotAfter: time.Now().Add(700 * time.Hour), RxBytes: 4711, TxBytes: 815, RxPackets: 47, TxPackets: 8, Denied: 3})
	return nil
}

// knows says whether a password is a user's.
func (d *desk) knows(user string, password []byte) bool {
	p, ok := passwords[user]
	if is, changed := d.chosen[user]; changed {
		p, ok = is, true
	}
	return ok && p == string(password)
}

func (d *desk) ChangePassword(_ context.Context, c Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tried++
	d.kept, d.keptNew = c.Password, c.New
	if d.during != nil {
		d.during(Login{User: c.User, Password: c.Password})
	}
	switch {
	case d.err != nil:
		return d.err
	case !d.knows(c.User, c.Password):
		return errDenied
	}
	if d.chosen == nil {
		d.chosen = map[string]string{}
	}
	d.chosen[c.User] = string(c.New)
	return nil
}

func (d *desk) Logins(_ context.Context, at netip.Addr) ([]Standing, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.standing), func(s Standing) bool { return at.IsValid() && s.Address != at }), d.stuck
}

func (d *desk) Guest(_ context.Context, at netip.Addr) (Guest, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, ok := d.guests[at.String()]
	return g, ok, d.stuck
}

func (d *desk) Logout(_ context.Context, user string, at netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stuck != nil {
		return d.stuck
	}
	d.standing = slices.DeleteFunc(d.standing, func(s Standing) bool { return s.User == user && s.Address == at })
	return nil
}

func (d *desk) Peers() []string            { return []string{"rb", "rc"} }
func (d *desk) Bridged(a netip.Addr) bool  { return d.bridged[a.String()] }
func (d *desk) end()                       { d.mu.Lock(); d.standing = nil; d.mu.Unlock() }
func (d *desk) change(f func(s *Standing)) { d.mu.Lock(); f(&d.standing[0]); d.mu.Unlock() }

// certified is a certificate for the names of the test's portal, its own root.
func certified() *tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"ra.portal.example"},
		IPAddresses: []net.IP{net.IPv4(10, 1, 1, 1), net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: must(x509.ParseCertificate(der))}
}

// world is a portal without sockets.
type world struct {
	*testing.T
	desk *desk
	p    *Portal
	h    http.Handler
	log  bytes.Buffer
}

func configOf(d *desk, log io.Writer) Config {
	c := certified()
	return Config{
		Listen: netip.MustParseAddrPort("10.1.1.1:443"), DNSName: "ra.portal.example", Name: "ra", Company: "Example & Sons", Captive: true, Router: d,
		Certificate: func() (*tls.Certificate, error) { return c, nil }, Root: func() *x509.Certificate { return c.Leaf },
		Guesses: guesses(failBurst), Hold: func(context.Context, time.Time, error) {}, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

// What may fail in tests: of one address, of all.
const (
	failBurstOf = 10
	failBurst   = 60
)

// guesses is a count of wrong passwords that is not filled again in a test's time.
func guesses(all int) *limit.Failures {
	b := func(n int) limit.Bucket { return limit.Bucket{Rate: rate.Every(time.Hour), Burst: n} }
	return limit.NewFailures(limit.FailureLimits{Each: b(failBurstOf), Net: b(all), All: b(all), Known: b(2), Remember: time.Hour})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, desk: &desk{}}
	w.p = must(newPortal(configOf(w.desk, &w.log)))
	w.h = w.p.handler()
	return w
}

// browser is one at an address. It does as browsers do: cookies, Origin, Sec-Fetch-Site.
type browser struct {
	w       *world
	from    string
	cookies map[string]string
	// change spoils a request that is going out.
	change func(*http.Request)
}

func (w *world) browser(from string) *browser {
	return &browser{w: w, from: from, cookies: map[string]string{}}
}

func (b *browser) do(method, path string, form url.Values) *httptest.ResponseRecorder {
	b.w.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequestWithContext(b.w.Context(), method, "https://10.1.1.1"+path, body)
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(b.from), 50000).String()
	for k, v := range b.cookies {
		r.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "https://10.1.1.1")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	if b.change != nil {
		b.change(r)
	}
	rec := httptest.NewRecorder()
	b.w.h.ServeHTTP(rec, r)
	for _, c := range rec.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return rec
}

var tokenPattern = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// token fetches a form and reads its token.
func (b *browser) token(path string) string {
	b.w.Helper()
	page := b.do(http.MethodGet, path, nil).Body.String()
	m := tokenPattern.FindStringSubmatch(page)
	if m == nil {
		b.w.Fatalf("no form at %s:\n%s", path, page)
	}
	return m[1]
}

func (b *browser) login(user, password string) *httptest.ResponseRecorder {
	b.w.Helper()
	return b.do(http.MethodPost, "/login", url.Values{"csrf": {b.token("/login")}, "uid": {user}, "password": {password}, "peer": {"rb"}})
}

func TestADay(t *testing.T) {
	w := newWorld(t)
	b := w.browser("10.1.1.3")
	page := b.do(http.MethodGet, "/", nil)
	for _, want := range []string{"Example &amp; Sons", "<strong>ra</strong>", "https://ra.portal.example/", fingerprint(w.p.c.Root().Raw), `autocomplete="username"`, `autocomplete="current-password"`,
		`<option value="rc"`, `<label for="password">`, "width=device-width", "10.1.1.3"} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the login page lacks %q", want)
		}
	}
	if strings.Contains(page.Body.String(), "http-equiv") || strings.Contains(page.Body.String(), "<script") {
		t.Error("the login page is made anew by itself, or has a script")
	}
	if res := b.login("alice", "secret"); res.Code != http.StatusSeeOther || res.Header().Get("Location") != "/" {
		t.Fatalf("login: %d %s", res.Code, res.Body)
	}
	page = b.do(http.MethodGet, "/", nil)
	for _, want := range []string{"Connected as alice", `<meta http-equiv="refresh" content="5; url=/">`, `class="rx" value="4711"`, `class="tx" value="815"`, "47 packets", "3 packets", "aes256-gcm, post-quantum", "Log out", "one more site"} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the session's page lacks %q:\n%s", want, page.Body)
		}
	}
	if s := w.p.Sessions(t.Context()); len(s) != 1 || s[0].User != "alice" || s[0].Address.String() != "10.1.1.3" {
		t.Errorf("sessions %+v", s)
	}
	// One more site in the same session, and then all of it ends.
	if res := b.do(http.MethodPost, "/login", url.Values{"csrf": {b.token("/login")}, "uid": {"alice"}, "password": {"secret"}, "peer": {"rc"}}); res.Code != http.StatusSeeOther {
		t.Fatalf("one more site: %d %s", res.Code, res.Body)
	}
	if page := b.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "<h2>rb</h2>") || !strings.Contains(page, "<h2>rc</h2>") || strings.Contains(page, "one more site") {
		t.Errorf("with two sites:\n%s", page)
	}
	res := b.do(http.MethodPost, "/logout", url.Values{"csrf": {b.token("/")}})
	if res.Code != http.StatusSeeOther || len(w.desk.standing) != 0 {
		t.Fatalf("logout: %d, %+v stand", res.Code, w.desk.standing)
	}
	if page := b.do(http.MethodGet, res.Header().Get("Location"), nil).Body.String(); !strings.Contains(page, "You are logged out") || !strings.Contains(page, `action="/login"`) {
		t.Errorf("after it:\n%s", page)
	}
	if s := w.p.Sessions(t.Context()); len(s) != 0 || b.cookies[cookieSession] != "" {
		t.Errorf("left: %+v, %v", s, b.cookies)
	}
}

func TestHeaders(t *testing.T) {
	w := newWorld(t)
	b := w.browser("10.1.1.3")
	for _, path := range []string{"/", "/login", "/nothing"} {
		h := b.do(http.MethodGet, path, nil).Header()
		for k, v := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
			if h.Get(k) != v {
				t.Errorf("%s: %s is %q", path, k, h.Get(k))
			}
		}
		if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "script") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	b.login("alice", "secret")
	res := w.browser("10.1.1.3")
	res.cookies = map[string]string{}
	w.desk.end()
	for _, c := range res.login("alice", "secret").Result().Cookies() {
		if c.MaxAge >= 0 && (!c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-")) {
			t.Errorf("cookie %v", c)
		}
	}
}

// What does not come from the page itself, in this browser, at this address, does nothing. Each case spoils one thing of a login that works.
func TestForgedLogin(t *testing.T) {
	type spoiled struct {
		name   string
		form   func(b *browser, f url.Values)
		change func(*http.Request)
		status int
	}
	header := func(k string, v ...string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del(k)
			for _, s := range v {
				r.Header.Add(k, s)
			}
		}
	}
	both := func(fs ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, f := range fs {
				f(r)
			}
		}
	}
	for _, tt := range []spoiled{
		{"nothing spoiled", nil, nil, http.StatusSeeOther},
		{"no Origin, an old browser", nil, header("Origin"), http.StatusSeeOther},
		{"no Sec-Fetch-Site, an older one", nil, header("Sec-Fetch-Site"), http.StatusSeeOther},
		{"no token", func(_ *browser, f url.Values) { f.Del("csrf") }, nil, http.StatusBadRequest},
		{"empty token", func(_ *browser, f url.Values) { f.Set("csrf", "") }, nil, http.StatusForbidden},
		{"forged token", func(_ *browser, f url.Values) { f.Set("csrf", strings.Repeat("A", 43)) }, nil, http.StatusForbidden},
		{"token of another browser", func(b *browser, f url.Values) { f.Set("csrf", b.w.browser(b.from).token("/login")) }, nil, http.StatusForbidden},
		{"token of another address", func(b *browser, f url.Values) {
			o := b.w.browser("10.1.1.4")
			o.cookies = map[string]string{cookieForm: b.cookies[cookieForm]}
			f.Set("csrf", o.token("/login"))
		}, nil, http.StatusForbidden},
		{"no cookie", func(b *browser, _ url.Values) { clear(b.cookies) }, nil, http.StatusForbidden},
		{"cookie of one's own making", func(b *browser, _ url.Values) { b.cookies[cookieForm] = "AAAA" }, nil, http.StatusForbidden},
		{"another origin", nil, header("Origin", "https://evil.example"), http.StatusForbidden},
		{"origin null", nil, header("Origin", "null"), http.StatusForbidden},
		{"origin without TLS", nil, header("Origin", "http://10.1.1.1"), http.StatusForbidden},
		{"another port of ours", nil, header("Origin", "https://10.1.1.1:8443"), http.StatusForbidden},
		{"two origins", nil, header("Origin", "https://10.1.1.1", "https://evil.example"), http.StatusForbidden},
		{"cross-site", nil, header("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		{"same-site", nil, header("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		{"neither Origin nor Sec-Fetch-Site", nil, both(header("Origin"), header("Sec-Fetch-Site")), http.StatusForbidden},
		{"another host", nil, func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
		{"another host that says so everywhere", nil, both(func(r *http.Request) { r.Host = "evil.example" }, header("Origin", "https://evil.example")), http.StatusMisdirectedRequest},
		{"GET", nil, func(r *http.Request) { r.Method = http.MethodGet }, http.StatusOK}, // the form: nothing is taken from it
		{"PUT", nil, func(r *http.Request) { r.Method = http.MethodPut }, http.StatusMethodNotAllowed},
		{"JSON", nil, header("Content-Type", "application/json"), http.StatusBadRequest},
		{"multipart", nil, header("Content-Type", "multipart/form-data; boundary=x"), http.StatusBadRequest},
		{"no type", nil, header("Content-Type"), http.StatusBadRequest},
		{"one field twice", func(_ *browser, f url.Values) { f.Add("uid", "bob") }, nil, http.StatusBadRequest},
		{"one field more", func(_ *browser, f url.Values) { f.Set("address", "10.1.1.4") }, nil, http.StatusBadRequest},
		{"empty password", func(_ *browser, f url.Values) { f.Set("password", "") }, nil, http.StatusBadRequest},
		{"unknown site", func(_ *browser, f url.Values) { f.Set("peer", "rz") }, nil, http.StatusBadRequest},
		{"long UserID", func(_ *browser, f url.Values) { f.Set("uid", strings.Repeat("a", maxUID+1)) }, nil, http.StatusRequestEntityTooLarge},
		{"long password", func(_ *browser, f url.Values) { f.Set("password", strings.Repeat("ä", keybundle.MaxPassword/2)+"x") }, nil, http.StatusRequestEntityTooLarge},
		{"the longest password, which is wrong", func(_ *browser, f url.Values) { f.Set("password", strings.Repeat("ä", keybundle.MaxPassword/2)) }, nil, http.StatusForbidden},
		{"large body", func(_ *browser, f url.Values) { f.Set("password", strings.Repeat("a", maxBody)) }, nil, http.StatusRequestEntityTooLarge},
		{"large body of no known length", func(_ *browser, f url.Values) { f.Set("password", strings.Repeat("a", maxBody)) }, func(r *http.Request) { r.ContentLength = -1 }, http.StatusRequestEntityTooLarge},
		{"X-Forwarded-For", nil, header("X-Forwarded-For", "10.1.1.9"), http.StatusSeeOther}, // counts for nothing, see below
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			b := w.browser("10.1.1.3")
			f := url.Values{"csrf": {b.token("/login")}, "uid": {"alice"}, "password": {"secret"}, "peer": {"rb"}}
			if tt.form != nil {
				tt.form(b, f)
			}
			b.change = tt.change
			res := b.do(http.MethodPost, "/login", f)
			if res.Code != tt.status {
				t.Errorf("%d, want %d\n%s", res.Code, tt.status, res.Body)
			}
			if in := tt.status == http.StatusSeeOther; in != (len(w.desk.standing) == 1) || in != (len(w.p.sessions.all()) == 1) || !in && w.desk.tried != 0 && tt.name != "the longest password, which is wrong" {
				t.Errorf("%+v stand, %d were tried", w.desk.standing, w.desk.tried)
			}
			if len(w.desk.standing) == 1 && w.desk.standing[0].Address.String() != "10.1.1.3" {
				t.Errorf("logged in at %s", w.desk.standing[0].Address)
			}
			if strings.Contains(w.log.String(), "secret") || strings.Contains(res.Body.String(), "secret") {
				t.Error("the password is in the log or on the page")
			}
		})
	}
}

// A session is for the browser that has it, at its address, and ends with the login.
func TestSessionOfSomebodyElse(t *testing.T) {
	w := newWorld(t)
	alice := w.browser("10.1.1.3")
	if res := alice.login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Fatal(res.Code)
	}
	token := alice.token("/")
	stolen := w.browser("10.1.1.4")
	stolen.cookies[cookieSession] = alice.cookies[cookieSession]
	if page := stolen.do(http.MethodGet, "/", nil).Body.String(); strings.Contains(page, "alice") {
		t.Errorf("her cookie at another address shows\n%s", page)
	}
	stolen.cookies[cookieSession] = alice.cookies[cookieSession]
	if res := stolen.do(http.MethodPost, "/logout", url.Values{"csrf": {token}}); len(w.desk.standing) != 1 {
		t.Errorf("her cookie at another address ended her session: %d", res.Code)
	}
	near := w.browser("10.1.1.3") // her address, not her browser
	page := near.do(http.MethodGet, "/", nil).Body.String()
	if strings.Contains(page, "alice") || !strings.Contains(page, "Somebody is logged in from your device") {
		t.Errorf("another browser at her address sees\n%s", page)
	}
	if near.do(http.MethodPost, "/logout", url.Values{"csrf": {token}}); len(w.desk.standing) != 1 {
		t.Error("another browser at her address ended her session")
	}
	if res := near.login("bob", "hunter2"); res.Code != http.StatusConflict || !strings.Contains(res.Body.String(), "Somebody else is logged in from your device") {
		t.Errorf("bob at her address: %d %s", res.Code, res.Body)
	}
	for name, change := range map[string]func(url.Values){"no token": func(f url.Values) { f.Del("csrf") }, "forged": func(f url.Values) { f.Set("csrf", "x") },
		"of a form before the login": func(f url.Values) { f.Set("csrf", near.token("/login")) }} {
		f := url.Values{"csrf": {token}}
		change(f)
		if res := alice.do(http.MethodPost, "/logout", f); res.Code < 400 || len(w.desk.standing) != 1 {
			t.Errorf("logout with %s: %d", name, res.Code)
		}
	}
	alice.change = func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }
	if res := alice.do(http.MethodPost, "/logout", url.Values{"csrf": {token}}); res.Code != http.StatusForbidden || len(w.desk.standing) != 1 {
		t.Errorf("logout from another site: %d", res.Code)
	}
	alice.change = nil
	if res := alice.do(http.MethodGet, "/logout", nil); res.Code != http.StatusMethodNotAllowed {
		t.Errorf("logout by GET: %d", res.Code)
	}
	// She has lost her cookie: her password has the session back, and the old cookie is worth nothing.
	old := alice.cookies[cookieSession]
	if res := near.login("alice", "secret"); res.Code != http.StatusSeeOther || !strings.Contains(near.do(http.MethodGet, "/", nil).Body.String(), "Connected as alice") {
		t.Errorf("her session is not had back: %d", res.Code)
	}
	if page := alice.do(http.MethodGet, "/", nil).Body.String(); alice.cookies[cookieSession] != old || strings.Contains(page, "Connected") {
		t.Errorf("the old cookie shows\n%s", page)
	}
	w.desk.end() // the operator, a revocation, the policy
	if page := near.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "your session has ended") || near.cookies[cookieSession] != "" || len(w.p.sessions.all()) != 0 {
		t.Errorf("after the end of the login\n%s", page)
	}
}

// Whoever may not come in, for whatever reason that has to do with who they are, reads the same bytes.
func TestUniformAnswer(t *testing.T) {
	w := newWorld(t)
	read := func(err error, user, password string) string {
		t.Helper()
		w.desk.err = err
		w.p.logins = limit.NewRates(1000, 1000, hostBits)
		b := w.browser("10.1.1.3")
		res := b.login(user, password)
		if res.Code != http.StatusForbidden || !strings.Contains(res.Body.String(), "UserID or password is wrong") {
			t.Fatalf("%v: %d %s", err, res.Code, res.Body)
		}
		text := tokenPattern.ReplaceAllString(res.Body.String(), "")
		return strings.ReplaceAll(text, `value="`+user+`"`, "")
	}
	first := read(nil, "alice", "wrong")
	for _, tt := range []struct {
		err            error
		user, password string
	}{
		{nil, "nobody", "wrong"}, {nil, "alice", "hunter2"},
		{&client.Error{Code: client.CodeDenied, Message: "out of scope"}, "alice", "secret"},
		{&client.Error{Code: client.CodeDenied, Message: "revoked"}, "alice", "secret"},
		{&client.Error{Code: client.CodeInvalid}, "no such name!", "secret"},
		{&client.Error{Code: client.CodeNotFound}, "alice", "secret"},
		{&caclient.Error{Code: caclient.CodeDenied, Message: "no such user"}, "alice", "secret"},
	} {
		if got := read(tt.err, tt.user, tt.password); got != first {
			t.Errorf("%v %s:\n%s\n--- not\n%s", tt.err, tt.user, got, first)
		}
	}
	if w.desk.tried != 8 {
		t.Errorf("%d of 8 were tried: the others would have been answered sooner", w.desk.tried)
	}
}

// Each refusal says what is the matter.
func TestWhatIsSaid(t *testing.T) {
	locked := &client.Error{Code: client.CodeLocked, RetryAfter: 90 * time.Second}
	for name, tt := range map[string]struct {
		err    error
		status int
		want   string
		after  string
	}{
		"locked":           {fmt.Errorf("asking: %w", locked), http.StatusTooManyRequests, "in 1m 30s, at ", "90"},
		"busy":             {fmt.Errorf("deriving: %w", keybundle.ErrBusy), http.StatusServiceUnavailable, "Too many people are logging in", "5"},
		"locked at the CA": {&caclient.Error{Code: caclient.CodeLocked, RetryAfter: 90 * time.Second}, http.StatusTooManyRequests, "in 1m 30s, at ", "90"},
		"CA busy":          {&caclient.Error{Code: caclient.CodeTooMany}, http.StatusServiceUnavailable, "Too many people are logging in", "5"},
		"CA away":          {&caclient.Error{Code: caclient.CodeUnavailable}, http.StatusServiceUnavailable, "CA cannot be reached", "10"},
		"source away":      {&caclient.Error{Code: caclient.CodeSource}, http.StatusServiceUnavailable, "Whom the company asks about passwords does not answer", "10"},
		"directory away":   {&client.Error{Code: client.CodeUnavailable}, http.StatusServiceUnavailable, "directory cannot be reached", "10"},
		"policy":           {fmt.Errorf("x: %w", policy.ErrDenied), http.StatusForbidden, "the policy lets you have nothing here", ""},
		"a site's":         {fmt.Errorf("x: %w", engine.ErrBridged), http.StatusForbidden, "From your device&#39;s address nobody can log in", ""},
		"not ours":         {fmt.Errorf("x: %w", engine.ErrNotOurs), http.StatusForbidden, "From your device&#39;s address nobody can log in", ""},
		"elsewhere":        {fmt.Errorf("x: %w", engine.ErrBusy), http.StatusConflict, "from another device", ""},
		"expired":          {fmt.Errorf("x: %w", twincert.ErrExpired), http.StatusForbidden, "Your certificate has expired", ""},
		"no such peer":     {fmt.Errorf("x: %w", native.ErrUnknownPeer), http.StatusBadRequest, "That site is not known", ""},
		"behind a NAT":     {fmt.Errorf("x: %w", native.ErrNoEndpoint), http.StatusConflict, "rb cannot be called from here", ""},
		"no word":          {fmt.Errorf("x: %w", trust.ErrStale), http.StatusServiceUnavailable, "lets nobody in at the moment", "60"},
		"not yet valid":    {fmt.Errorf("x: %w", twincert.ErrNotYetValid), http.StatusForbidden, "A clock is wrong", ""},
		"revoked":          {fmt.Errorf("x: %w", twincert.ErrRevoked), http.StatusForbidden, "Your certificate is revoked", ""},
		"does not open":    {fmt.Errorf("x: %w", keybundle.ErrOpen), http.StatusBadGateway, "renew your keys", ""},
		"nor its next":     {fmt.Errorf("x: %w", keybundle.ErrSuccessor), http.StatusBadGateway, "renew your keys", ""},
		"full":             {fmt.Errorf("x: %w", native.ErrTooMany), http.StatusServiceUnavailable, "as many calls as it can have", "60"},
		"stopping":         {engine.ErrStopped, http.StatusServiceUnavailable, "is being stopped", "60"},
		"directory's disk": {&client.Error{Code: client.CodeStorage}, http.StatusServiceUnavailable, "directory has trouble with its disk", "10"},
		"refused there":    {&engine.Failed{Reason: "user alice: <script>", Refused: true}, http.StatusForbidden, "The reason: user alice: &lt;script&gt;. Ask the operator.", ""},
		"strangers' words": {&engine.Failed{Reason: "call 555-1234"}, http.StatusBadGateway, "finds the reason in this router&#39;s log", ""},
		"slow":             {fmt.Errorf("x: %w", context.DeadlineExceeded), http.StatusGatewayTimeout, "rb did not answer in time", ""},
		"peer's nonsense":  {errors.New("refused: <script>alert(1)</script>"), http.StatusBadGateway, "The call to rb did not come up", ""},
	} {
		w := newWorld(t)
		w.desk.err = tt.err
		b := w.browser("10.1.1.3")
		res := b.login("alice", "secret")
		if res.Code != tt.status || !strings.Contains(res.Body.String(), tt.want) || res.Header().Get("Retry-After") != tt.after {
			t.Errorf("%s: %d, after %q\n%s", name, res.Code, res.Header().Get("Retry-After"), res.Body)
		}
		if next := regexp.MustCompile(`(?i)try again|ask the operator|tell the operator|choose|log out there|once more|does not help`); !next.MatchString(res.Body.String()) || strings.Contains(res.Body.String(), "555-1234") {
			t.Errorf("%s: it does not say what to do, or says what a stranger did\n%s", name, res.Body)
		}
		if !strings.Contains(res.Body.String(), `action="/login"`) || strings.Contains(res.Body.String(), "<script") || len(w.p.sessions.all()) != 0 {
			t.Errorf("%s: no form to try again with, or a session\n%s", name, res.Body)
		}
	}
}

func TestWarnings(t *testing.T) {
	w := newWorld(t)
	w.desk.bridged = map[string]bool{"10.1.0.2": true}
	b := w.browser("10.1.1.3")
	b.login("alice", "secret")
	if page := b.do(http.MethodGet, "/", nil).Body.String(); strings.Contains(page, "warning") {
		t.Errorf("without need:\n%s", page)
	}
	w.desk.change(func(s *Standing) {
		s.NotAfter, s.Ends, s.Ending = time.Now().Add(50*time.Hour), time.Now().Add(90*time.Minute), "the CA has not certified <the user> anew"
	})
	page := b.do(http.MethodGet, "/", nil).Body.String()
	for _, want := range []string{"Your certificate expires in 2d 1h", "ends with it: the CA has not certified &lt;the user&gt; anew. Log out and log in again", "The session ends in 1h 29m"} {
		if !strings.Contains(page, want) || strings.Contains(page, "Finish what") {
			t.Errorf("soon to end, without %q:\n%s", want, page)
		}
	}
	w.desk.change(func(s *Standing) { s.NotAfter, s.Last = time.Now().Add(5*time.Minute), true })
	if page := b.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "Finish what you are doing. Your certificate expires in 4m 59s") {
		t.Errorf("at the last stage:\n%s", page)
	}
	w.desk.change(func(s *Standing) { s.Up = false })
	if page := b.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "is being made again") || strings.Contains(page, "warning") {
		t.Errorf("while the call is down:\n%s", page)
	}
	if page := w.browser("10.1.0.2").do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "without a login") {
		t.Errorf("from the site's own address:\n%s", page)
	}
}

// Where a machine encrypts by itself the page says so, at its address and nobody else's, and nobody logs in beside it; what they type is not tried.
func TestMachineOfOnesOwn(t *testing.T) {
	w := newWorld(t)
	b := w.browser("10.1.1.3")
	form := url.Values{"csrf": {b.token("/login")}, "uid": {"bob"}, "password": {"hunter2"}, "peer": {"rb"}}
	arrives := func() {
		w.desk.guests = map[string]Guest{"10.1.1.3": {User: "alice", Since: time.Now().Add(-90 * time.Minute)}}
	}
	arrives()
	for _, path := range []string{"/", "/login", "/?ended"} {
		page := b.do(http.MethodGet, path, nil)
		if s := page.Body.String(); page.Code != http.StatusOK || !strings.Contains(s, "<h1>Your device encrypts by itself</h1>") || !strings.Contains(s, "<strong>alice</strong> is logged in since") ||
			!strings.Contains(s, "(for 1h 30m)") || strings.Contains(s, "<form") || strings.Contains(s, "Back to the page") {
			t.Errorf("%s: %d\n%s", path, page.Code, page.Body)
		}
	}
	for _, password := range []string{"hunter2", "wrong"} {
		form.Set("password", password)
		res := b.do(http.MethodPost, "/login", form)
		if s := res.Body.String(); res.Code != http.StatusConflict || !strings.Contains(s, "no password was tried") || !strings.Contains(s, "<strong>alice</strong>") || strings.Count(s, "<h1>") != 1 {
			t.Errorf("a login: %d\n%s", res.Code, s)
		}
	}
	if w.desk.tried != 0 || len(w.p.sessions.all()) != 0 {
		t.Errorf("%d tries, sessions %+v", w.desk.tried, w.p.sessions.all())
	}
	if got := b.do(http.MethodGet, PathCaptive, nil).Body.String(); !strings.Contains(got, `"captive":false`) {
		t.Errorf("captive: %s", got)
	}
	if page := w.browser("10.1.1.4").do(http.MethodGet, "/", nil).Body.String(); strings.Contains(page, "alice") || !strings.Contains(page, "<form") {
		t.Errorf("at another address:\n%s", page)
	}
	// It comes while somebody logs in.
	w.desk.guests = nil
	w.desk.err, w.desk.during = fmt.Errorf("%w: 10.1.1.3 is bound to a client of alice", engine.ErrBusy), func(Login) { arrives() }
	form.Set("password", "hunter2")
	if res := b.do(http.MethodPost, "/login", form); res.Code != http.StatusConflict || !strings.Contains(res.Body.String(), "has just logged in on it") {
		t.Errorf("a login that it overtakes: %d\n%s", res.Code, res.Body)
	}
}

// The password is wiped when the login is over, whatever came of it.
func TestPasswordIsWiped(t *testing.T) {
	for _, password := range []string{"secret", "wrong!"} {
		w := newWorld(t)
		seen := ""
		w.desk.during = func(l Login) { seen = string(l.Password) }
		w.browser("10.1.1.3").login("alice", password)
		if seen != password || strings.Trim(string(w.desk.kept), "\x00") != "" || len(w.desk.kept) != len(password) {
			t.Errorf("%q was %q and is %q", password, seen, w.desk.kept)
		}
	}
}

// What fails without a login says what failed, and that it was not the password.
func TestWhatElseIsSaid(t *testing.T) {
	w := newWorld(t)
	b := w.browser("10.1.1.3")
	says := func(res *httptest.ResponseRecorder, want string) {
		t.Helper()
		if body := res.Body.String(); res.Code != http.StatusServiceUnavailable || !strings.Contains(body, want) || strings.Contains(body, "logging in") || res.Header().Get("Retry-After") == "" {
			t.Errorf("%d, want %q:\n%s", res.Code, want, body)
		}
	}
	full := w.p.sessions
	for i := range maxSessions {
		if _, ok, err := full.add("somebody", netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), time.Now()); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	says(b.login("alice", "secret"), "You are connected, but there is no page for it")
	w.p.sessions = must(newSessions())
	if res := b.login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Fatalf("once more, when there is room: %d", res.Code)
	}
	token := b.token("/")
	w.desk.stuck = engine.ErrStopped
	says(b.do(http.MethodPost, "/logout", url.Values{"csrf": {token}}), "You are not logged out")
	says(b.do(http.MethodGet, "/", nil), "The state of your session cannot be shown")
	says(b.do(http.MethodPost, "/login", url.Values{"csrf": {token}, "uid": {"alice"}, "password": {"secret"}, "peer": {"rc"}}), "The state of your session cannot be shown")
	w.desk.stuck = nil
	if res := b.do(http.MethodPost, "/logout", url.Values{"csrf": {token}}); res.Code != http.StatusSeeOther || len(w.desk.standing) != 0 {
		t.Errorf("a second logout: %d, %+v stand", res.Code, w.desk.standing)
	}
}

// Whoever is refused for who they are is told so when the router refuses, however long it took to find out; by then nobody has the password any more.
func TestRefusalsAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			password   string
			err        error
			took, want time.Duration
		}{
			"wrong password":    {"wrong!", nil, 300 * time.Millisecond, 4 * time.Second},
			"refused by the CA": {"secret", &caclient.Error{Code: caclient.CodeDenied}, 3100 * time.Millisecond, 4 * time.Second},
			"late":              {"wrong!", nil, 4500 * time.Millisecond, 8 * time.Second},
			"directory away":    {"secret", &client.Error{Code: client.CodeUnavailable}, time.Second, time.Second},
			"it worked":         {"secret", nil, time.Second, time.Second},
		} {
			w := newWorld(t)
			w.desk.err, w.desk.during = tt.err, func(Login) { time.Sleep(tt.took) }
			w.p.c.Hold = func(ctx context.Context, began time.Time, err error) {
				if strings.Trim(string(w.desk.kept), "\x00") != "" {
					t.Errorf("%s: the password is kept while the answer waits", name)
				}
				authn.Hold(ctx, began, err)
			}
			began := time.Now()
			w.browser("10.1.1.3").login("alice", tt.password)
			if got := time.Since(began); got != tt.want {
				t.Errorf("%s: after %s, want %s", name, got, tt.want)
			}
			time.Sleep(maxRest) // of the turn
		}
	})
}

// Tries of an address are counted before they cost anything; other addresses have their own.
func TestLoginsOfOneAddress(t *testing.T) {
	w := newWorld(t)
	b := w.browser("10.1.1.3")
	codes := map[int]int{}
	for range 3 * loginBurst {
		res := b.login("alice", "wrong")
		codes[res.Code]++
		if res.Code == http.StatusTooManyRequests && res.Header().Get("Retry-After") == "" {
			t.Error("it does not say when to come back")
		}
	}
	if codes[http.StatusForbidden] != loginBurst || codes[http.StatusTooManyRequests] != 2*loginBurst || w.desk.tried != loginBurst {
		t.Errorf("%v, %d tried", codes, w.desk.tried)
	}
	if res := w.browser("10.1.1.4").login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Errorf("from another address: %d", res.Code)
	}
}

// What fails is counted for the address and for all, so that nobody on the LAN brings about that the directory locks the router; what
// succeeds, or fails for another reason, is not.
func TestFailuresAreFew(t *testing.T) {
	w := newWorld(t)
	at := func(i int) *browser { return w.browser(netip.AddrFrom4([4]byte{10, 1, 2, byte(i)}).String()) }
	generous := func() { w.p.logins = limit.NewRates(1000, 1000, hostBits) }
	generous()
	for range 2 * failBurstOf {
		at(1).login("alice", "wrong")
	}
	if w.desk.tried != failBurstOf {
		t.Errorf("one address could try %d times", w.desk.tried)
	}
	if res := at(1).login("alice", "secret"); res.Code != http.StatusTooManyRequests || !strings.Contains(res.Body.String(), "Too many wrong passwords") {
		t.Errorf("and then: %d %s", res.Code, res.Body)
	}
	w.desk.err = policy.ErrDenied
	for range 2 * failBurstOf {
		at(2).login("alice", "secret")
	}
	w.desk.err = nil
	if res := at(2).login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Errorf("after refusals that are no guesses: %d", res.Code)
	}
	w.desk.tried = 0
	for i := range 2 * failBurst {
		at(10+i).login("bob", "wrong")
	}
	if w.desk.tried != failBurst-failBurstOf {
		t.Errorf("all addresses together could try %d times more", w.desk.tried)
	}
	if res := at(2).login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Errorf("who has logged in from there before: %d %s", res.Code, res.Body)
	}
}

// What says nothing of a password costs nothing: the directory refuses what is no UserID before it counts.
func TestWhatIsNoGuess(t *testing.T) {
	w := newWorld(t)
	w.p.logins = limit.NewRates(1000, 1000, hostBits)
	for _, err := range []error{&client.Error{Code: client.CodeInvalid}, &client.Error{Code: client.CodeNotFound}, &caclient.Error{Code: caclient.CodeInvalid}, &client.Error{Code: client.CodeUnavailable}} {
		w.desk.err = err
		for range failBurstOf {
			w.browser("10.1.1.3").login("no such name!", "x")
		}
	}
	w.desk.err = nil
	if res := w.browser("10.1.1.3").login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Errorf("afterwards: %d %s", res.Code, res.Body)
	}
}

// Many who try at once can do so no more often than if they tried one after the other.
func TestGuessesAtOnce(t *testing.T) {
	const left, tries = 3, 20
	w := newWorld(t)
	c := w.p.c
	c.Guesses = guesses(left)
	w.p = must(newPortal(c))
	w.p.turns = semaphore.NewWeighted(tries)
	w.h = w.p.handler()
	var asked atomic.Int64
	look := make(chan struct{})
	w.p.c.Router = asking{w.desk, func(l Login) error {
		if asked.Add(1) > left {
			return errDenied
		}
		<-look
		return l.Turn(func() error { return errDenied })
	}}
	codes := make(chan int, tries)
	for i := range tries {
		b := w.browser(netip.AddrFrom4([4]byte{10, 1, 2, byte(i)}).String())
		form := url.Values{"csrf": {b.token("/login")}, "uid": {"alice"}, "password": {"wrong"}, "peer": {"rb"}}
		go func() { codes <- b.do(http.MethodPost, "/login", form).Code }()
	}
	for range tries - left { // while the others are looked at
		if code := <-codes; code != http.StatusTooManyRequests {
			t.Error(code)
		}
	}
	close(look)
	for range left {
		if code := <-codes; code != http.StatusForbidden {
			t.Error(code)
		}
	}
	if n := asked.Load(); n != left {
		t.Errorf("%d were tried", n)
	}
}

// asking is a desk of which a test says what becomes of logins.
type asking struct {
	*desk
	login func(l Login) error
}

func (a asking) Login(_ context.Context, l Login) error { return a.login(l) }

// Whoever hangs up while the password is looked at has guessed; if it was right already, not.
func TestHangingUpIsAGuess(t *testing.T) {
	for name, tt := range map[string]struct {
		right bool
		tried int
	}{"before it is known": {false, failBurstOf}, "while the call is placed": {true, 2 * failBurstOf}} {
		w := newWorld(t)
		w.p.logins = limit.NewRates(1000, 1000, hostBits)
		tried := 0
		var hangUp context.CancelFunc
		w.p.c.Router = asking{w.desk, func(l Login) error {
			tried++
			away := &client.Error{Code: client.CodeUnavailable, Err: context.Canceled} // what a request that was broken off ends with
			err := l.Turn(func() error {
				hangUp()
				if tt.right {
					return nil
				}
				return away
			})
			if err == nil {
				err = context.Canceled
			}
			return err
		}}
		b := w.browser("10.1.1.3")
		for range 2 * failBurstOf {
			form := url.Values{"csrf": {b.token("/login")}, "uid": {"alice"}, "password": {"guess"}, "peer": {"rb"}}
			ctx, cancel := context.WithCancel(t.Context())
			hangUp = cancel
			b.change = func(r *http.Request) { *r = *r.WithContext(ctx) }
			b.do(http.MethodPost, "/login", form)
			cancel()
			b.change = nil
		}
		if tried != tt.tried {
			t.Errorf("%s: %d tries, want %d", name, tried, tt.tried)
		}
	}
}

// Whoever sends the form again while it is being looked at has one place in the queue.
func TestOneTryAtATime(t *testing.T) {
	w := newWorld(t)
	b, again, other := w.browser("10.1.1.3"), w.browser("10.1.1.3"), w.browser("10.1.1.4")
	form := url.Values{"csrf": {again.token("/login")}, "uid": {"alice"}, "password": {"secret"}, "peer": {"rb"}}
	begun, hold := make(chan struct{}), make(chan struct{})
	w.desk.during = func(Login) { close(begun); <-hold }
	first := make(chan int, 1)
	go func() { first <- b.login("alice", "secret").Code }()
	<-begun
	if res := again.do(http.MethodPost, "/login", form); res.Code != http.StatusTooManyRequests {
		t.Errorf("a second time: %d", res.Code)
	}
	if !w.p.begin(netip.MustParseAddr(other.from)) {
		t.Error("another address cannot")
	}
	close(hold)
	if code := <-first; code != http.StatusSeeOther {
		t.Errorf("the first: %d", code)
	}
	if w.desk.during = nil; again.do(http.MethodPost, "/login", form).Code != http.StatusSeeOther {
		t.Error("afterwards it is refused still")
	}
}

// Tries that fail get half of the time that those have which succeed.
func TestFailuresRest(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			err  error
			want time.Duration
		}{"right": {nil, 10 * time.Second}, "wrong": {errDenied, 19 * time.Second}} {
			p := must(newPortal(w.p.c))
			p.turns = semaphore.NewWeighted(1)
			start := time.Now()
			for range 10 {
				_ = p.inTurn(t.Context(), func() error { time.Sleep(time.Second); return tt.err })
			}
			if took := time.Since(start); took != tt.want {
				t.Errorf("%s: ten took %v, not %v", name, took, tt.want)
			}
			time.Sleep(maxRest)
		}
	})
}

// Whatever is asked costs something.
func TestRequestsOfOneAddress(t *testing.T) {
	w := newWorld(t)
	b, refused := w.browser("10.1.1.3"), 0
	for range askBurst + 50 {
		if res := b.do(http.MethodGet, "/", nil); res.Code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused < 40 {
		t.Errorf("%d were refused", refused)
	}
	if res := w.browser("10.1.1.4").do(http.MethodGet, "/", nil); res.Code != http.StatusOK {
		t.Errorf("from another address: %d", res.Code)
	}
}

// Few logins at once, a short queue, and whoever finds it full is told so at once.
func TestTurns(t *testing.T) {
	w := newWorld(t)
	var now, most atomic.Int64
	hold := make(chan struct{})
	p := w.p
	ask := func() error {
		return p.inTurn(t.Context(), func() error {
			most.Store(max(most.Load(), now.Add(1)))
			<-hold
			now.Add(-1)
			return nil
		})
	}
	done := make(chan error, 200)
	for range 100 {
		go func() { done <- ask() }()
	}
	busy := 0
	for busy < 100-loginQueue-64 { // as many cores as there may be
		if err := <-done; !errors.Is(err, errTurns) {
			t.Fatal(err)
		}
		busy++
	}
	close(hold)
	for range 100 - busy {
		if err := <-done; errors.Is(err, errTurns) {
			busy++
		}
	}
	if busy == 0 || busy >= 100 || p.waiting.Load() != 0 {
		t.Errorf("%d of 100 were sent away, %d wait still", busy, p.waiting.Load())
	}
	if err := ask(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestCaptive(t *testing.T) {
	w := newWorld(t)
	w.desk.bridged = map[string]bool{"10.1.0.2": true}
	ask := func(from, want string) {
		t.Helper()
		res := w.browser(from).do(http.MethodGet, "/captive", nil)
		if res.Code != http.StatusOK || res.Header().Get("Content-Type") != "application/captive+json" || res.Header().Get("Cache-Control") != "private" || strings.TrimSpace(res.Body.String()) != want {
			t.Errorf("%s: %d %v %s", from, res.Code, res.Header(), res.Body)
		}
	}
	const portal = `"user-portal-url":"https://ra.portal.example/"`
	ask("10.1.1.3", `{"captive":true,`+portal+`}`)
	w.browser("10.1.1.3").login("alice", "secret")
	ask("10.1.1.3", `{"captive":false,`+portal+`}`)
	ask("10.1.1.4", `{"captive":true,`+portal+`}`)
	ask("10.1.0.2", `{"captive":false,`+portal+`}`)
	w.desk.change(func(s *Standing) { s.Ends = time.Now().Add(10*time.Second + 900*time.Millisecond) })
	ask("10.1.1.3", `{"captive":false,`+portal+`,"seconds-remaining":10}`)
	w.p.c.Captive = false
	if res := w.browser("10.1.1.3").do(http.MethodGet, "/captive", nil); res.Code != http.StatusNotFound {
		t.Errorf("switched off: %d", res.Code)
	}
}

// Whatever is asked without TLS leads to the portal, the probes of operating systems among it.
func TestRedirect(t *testing.T) {
	w := newWorld(t)
	for _, probe := range []string{"http://connectivitycheck.gstatic.com/generate_204", "http://captive.apple.com/hotspot-detect.html", "http://www.msftconnecttest.com/connecttest.txt", "http://10.1.1.1/"} {
		rec := httptest.NewRecorder()
		w.p.redirect(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, probe, nil))
		if rec.Code != http.StatusFound || rec.Header().Get("Location") != "https://ra.portal.example/" || rec.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", probe, rec.Code, rec.Header())
		}
	}
	rec := httptest.NewRecorder()
	w.p.redirect(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://10.1.1.1/login", strings.NewReader("password=secret")))
	if rec.Code != http.StatusForbidden {
		t.Errorf("a password without TLS: %d", rec.Code)
	}
}

// Handshakes of one address are so many a second, whoever closes them quickly.
func TestPaced(t *testing.T) {
	p := newWorld(t).p
	inner := must(net.Listen("tcp", "127.0.0.1:0"))
	l := p.paced(inner, maxConns, maxConnsOfAddr)
	accepted := make(chan int)
	go func() {
		n := 0
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			n++
			_ = c.Close()
		}
		accepted <- n
	}()
	for range 2 * connBurst {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Read(make([]byte, 1)) // until it is closed
		_ = c.Close()
	}
	_ = inner.Close()
	if n := <-accepted; n < connBurst || n >= 2*connBurst || p.Refused() != uint64(2*connBurst-n) { //nolint:gosec // small
		t.Errorf("%d of %d were accepted, %d counted as refused", n, 2*connBurst, p.Refused())
	}
}

// Over real sockets: the certificate, HTTP/1.1, the limit of connections, and an end that waits for nobody.
func TestServe(t *testing.T) {
	d := &desk{}
	var log bytes.Buffer
	c := configOf(d, &log)
	c.DNSName, c.Listen, c.HTTP = "", netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.1:0")
	p := must(New(t.Context(), c))
	here := p.https.Addr().String()
	p.hosts = []string{here}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	roots := x509.NewCertPool()
	roots.AddCert(c.Root())
	hc := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := hc.Get("https://" + here + "/")
	if err != nil || res.StatusCode != http.StatusOK || res.ProtoMajor != 1 || res.TLS.Version != tls.VersionTLS13 {
		t.Fatalf("%v, %v", res, err)
	}
	_ = res.Body.Close()
	res, err = hc.Get("http://" + p.http.Addr().String() + "/generate_204")
	if err != nil || res.StatusCode != http.StatusFound {
		t.Fatalf("%v, %v", res, err)
	}
	_ = res.Body.Close()
	var idle []net.Conn
	for range maxConnsOfAddr + 4 {
		conn, err := net.Dial("tcp", here)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	for end := time.Now().Add(5 * time.Second); p.Refused() < 4 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if p.Refused() < 4 {
		t.Errorf("%d connections are refused", p.Refused())
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end while connections are open")
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	hc.CloseIdleConnections()
}
