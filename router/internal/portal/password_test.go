package portal

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/limit"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/trust"
)

const chosen = "correct horse"

// changeForm is what a browser sends that changes the password of whoever is logged in with it.
func (b *browser) changeForm(old, chosen string) url.Values {
	b.w.Helper()
	return url.Values{"csrf": {b.token("/password")}, "password": {old}, "new": {chosen}, "again": {chosen}}
}

func (b *browser) changePassword(old, chosen string) *httptest.ResponseRecorder {
	b.w.Helper()
	return b.do(http.MethodPost, "/password", b.changeForm(old, chosen))
}

// loggedIn is a browser of alice's in a world of her own.
func loggedIn(t *testing.T) (*world, *browser) {
	t.Helper()
	w := newWorld(t)
	b := w.browser("10.1.1.3")
	if res := b.login("alice", "secret"); res.Code != http.StatusSeeOther {
		t.Fatalf("login: %d %s", res.Code, res.Body)
	}
	w.desk.tried = 0
	return w, b
}

// A new password is chosen where the old one let somebody in: what is open stays open, here and on their other devices, and only the new one counts from then on.
func TestChangeOfPassword(t *testing.T) {
	w, b := loggedIn(t)
	phone := w.browser("10.1.1.4")
	if res := phone.do(http.MethodPost, "/login", url.Values{"csrf": {phone.token("/login")}, "uid": {"alice"}, "password": {"secret"}, "peer": {"rc"}}); res.Code != http.StatusSeeOther {
		t.Fatalf("another device: %d %s", res.Code, res.Body)
	}
	if page := b.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, `href="/password"`) {
		t.Errorf("the session's page does not lead there:\n%s", page)
	}
	page := b.do(http.MethodGet, "/password", nil)
	for _, want := range []string{"<h1>Change your password</h1>", `value="alice" readonly autocomplete="username"`, `<label for="password">`, `<label for="new">`, `<label for="again">`,
		`name="password" type="password" required autocomplete="current-password"`, `name="new" type="password" required autocomplete="new-password"`,
		`name="again" type="password" required autocomplete="new-password"`, fmt.Sprint(keybundle.MinPassword, " characters at least")} {
		if !strings.Contains(page.Body.String(), want) {
			t.Errorf("the form lacks %q:\n%s", want, page.Body)
		}
	}
	if s := page.Body.String(); strings.Contains(s, "http-equiv") || strings.Contains(s, "<script") || strings.Contains(s, "Back to the page") {
		t.Errorf("the form is made anew while somebody types, has a script, or looks like the end of the road:\n%s", s)
	}
	before := b.cookies[cookieSession]
	form := b.changeForm("secret", chosen)
	res := b.do(http.MethodPost, "/password", form)
	if res.Code != http.StatusSeeOther || res.Header().Get("Location") != "/password?changed" || w.desk.chosen["alice"] != chosen {
		t.Fatalf("%d %s\n%s", res.Code, res.Header().Get("Location"), res.Body)
	}
	page = b.do(http.MethodGet, res.Header().Get("Location"), nil)
	for _, want := range []string{"Your password was changed", "twinkey-router client login alice", "--password-changed", "tell the operator", `href="/"`} {
		if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), want) {
			t.Errorf("afterwards the page lacks %q: %d\n%s", want, page.Code, page.Body)
		}
	}
	for who, o := range map[string]*browser{"here": b, "on another device": phone} {
		if page := o.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "Connected as alice") {
			t.Errorf("the session %s:\n%s", who, page)
		}
	}
	if s := w.p.Sessions(t.Context()); len(s) != 2 || len(w.desk.standing) != 2 {
		t.Errorf("sessions %+v, %+v stand", s, w.desk.standing)
	}
	// The form once more is another browser's now, and whoever has copied the cookie sees nothing.
	if res := b.do(http.MethodPost, "/password", form); res.Code != http.StatusForbidden || w.desk.tried != 2 {
		t.Errorf("the same form again: %d, %d tries", res.Code, w.desk.tried)
	}
	copied := w.browser("10.1.1.3")
	if copied.cookies[cookieSession] = before; b.cookies[cookieSession] == before || strings.Contains(copied.do(http.MethodGet, "/", nil).Body.String(), "Connected") {
		t.Error("the cookie of before is still good")
	}
	b.do(http.MethodPost, "/logout", url.Values{"csrf": {b.token("/")}})
	if res := b.login("alice", "secret"); res.Code != http.StatusForbidden {
		t.Errorf("the old password: %d", res.Code)
	}
	if res := b.login("alice", chosen); res.Code != http.StatusSeeOther {
		t.Errorf("the new one: %d", res.Code)
	}
	if log := w.log.String(); strings.Contains(log, "secret") || strings.Contains(log, chosen) || !strings.Contains(log, "password changed") {
		t.Errorf("the log: %s", log)
	}
}

// What is refused changes nothing, says so and what to do, and leaves the session as it was.
func TestChangeRefused(t *testing.T) {
	refused := func(code string) error { return fmt.Errorf("changing: %w", &client.Error{Code: code}) }
	for name, tt := range map[string]struct {
		err    error
		form   func(f url.Values)
		status int
		want   string
		tried  bool // the router was asked
	}{
		"wrong old password": {nil, func(f url.Values) { f.Set("password", "wrong") }, http.StatusForbidden, "The old password is wrong", true},
		"weak":               {nil, func(f url.Values) { f.Set("new", "1234567"); f.Set("again", "1234567") }, http.StatusBadRequest, "it is shorter than 8 bytes", false},
		"not the same twice": {nil, func(f url.Values) { f.Set("again", chosen+"!") }, http.StatusBadRequest, "not the same twice", false},
		"only once":          {nil, func(f url.Values) { f.Set("again", "") }, http.StatusBadRequest, "Something is missing", false},
		"no old one":         {nil, func(f url.Values) { f.Set("password", "") }, http.StatusBadRequest, "Something is missing", false},
		"no new one":         {nil, func(f url.Values) { f.Set("new", ""); f.Set("again", "") }, http.StatusBadRequest, "Something is missing", false},
		"a long old one":     {nil, func(f url.Values) { f.Set("password", strings.Repeat("a", keybundle.MaxPassword+1)) }, http.StatusRequestEntityTooLarge, "That is too long", false},
		"too long": {nil, func(f url.Values) {
			l := strings.Repeat("a", keybundle.MaxPassword+1)
			f.Set("new", l)
			f.Set("again", l)
		}, http.StatusBadRequest, "it is longer than 256 bytes", false},
		"the same":            {authn.ErrSame, nil, http.StatusBadRequest, "the new password is the old one", true},
		"other keys":          {refused(client.CodeConflict), nil, http.StatusConflict, "other keys", true},
		"too cheap":           {refused(client.CodeInvalid), nil, http.StatusBadGateway, "directory.yaml", true},
		"an old directory":    {refused(client.CodeNotFound), nil, http.StatusBadGateway, "older version", true},
		"directory away":      {refused(client.CodeUnavailable), nil, http.StatusServiceUnavailable, "directory cannot be reached", true},
		"directory's disk":    {refused(client.CodeStorage), nil, http.StatusServiceUnavailable, "trouble with its disk", true},
		"directory busy":      {refused(client.CodeTooMany), nil, http.StatusServiceUnavailable, "Too many people are logging in", true},
		"busy":                {fmt.Errorf("deriving: %w", keybundle.ErrBusy), nil, http.StatusServiceUnavailable, "Too many people are logging in", true},
		"locked":              {&client.Error{Code: client.CodeLocked, RetryAfter: 90 * time.Second}, nil, http.StatusTooManyRequests, "in 1m 30s, at ", true},
		"expired":             {fmt.Errorf("x: %w", twincert.ErrExpired), nil, http.StatusForbidden, "Your certificate has expired", true},
		"no word":             {fmt.Errorf("x: %w", trust.ErrStale), nil, http.StatusServiceUnavailable, "lets nobody in", true},
		"does not open":       {fmt.Errorf("x: %w", keybundle.ErrOpen), nil, http.StatusBadGateway, "renew your keys", true},
		"slow":                {fmt.Errorf("x: %w", context.DeadlineExceeded), nil, http.StatusBadGateway, "Your password was not changed", true},
		"somebody's nonsense": {fmt.Errorf("<script>alert(1)</script>"), nil, http.StatusBadGateway, "Your password was not changed", true},
		"silence at the end":  {fmt.Errorf("%w: %w", authn.ErrUncertain, refused(client.CodeUnavailable)), nil, http.StatusServiceUnavailable, "is not known", true},
	} {
		t.Run(name, func(t *testing.T) {
			w, b := loggedIn(t)
			f := b.changeForm("secret", chosen)
			if tt.form != nil {
				tt.form(f)
			}
			w.desk.err = tt.err
			res := b.do(http.MethodPost, "/password", f)
			page := res.Body.String()
			if res.Code != tt.status || !strings.Contains(page, tt.want) || !strings.Contains(page, `action="/password"`) || !strings.Contains(page, `value="alice"`) {
				t.Errorf("%d, want %d and %q:\n%s", res.Code, tt.status, tt.want, page)
			}
			if uncertain := name == "silence at the end"; !uncertain && !strings.Contains(page, "Nothing was changed") && !strings.Contains(page, "was not changed") || uncertain && strings.Contains(page, "Nothing was changed") {
				t.Errorf("it does not say whether something was changed:\n%s", page)
			}
			if w.desk.chosen != nil || (w.desk.tried == 1) != tt.tried {
				t.Errorf("the router was asked %d times", w.desk.tried)
			}
			if strings.Contains(page, "<script") || strings.Contains(page, chosen) || strings.Contains(w.log.String(), chosen) || strings.Contains(w.log.String(), "secret") {
				t.Errorf("a script or a password is on the page or in the log:\n%s\n%s", page, w.log.String())
			}
			w.desk.err = nil
			if page := b.do(http.MethodGet, "/", nil).Body.String(); !strings.Contains(page, "Connected as alice") {
				t.Errorf("the session:\n%s", page)
			}
		})
	}
}

// The UserID is no password, for whoever's it is; a short one would be refused for being short.
func TestNewPasswordIsNotTheUserID(t *testing.T) {
	w := newWorld(t)
	w.desk.chosen = map[string]string{"caroline": "first one"}
	b := w.browser("10.1.1.3")
	b.login("caroline", "first one")
	if res := b.changePassword("first one", "Caroline"); res.Code != http.StatusBadRequest || !strings.Contains(res.Body.String(), "it is the UserID") || w.desk.chosen["caroline"] != "first one" {
		t.Errorf("%d\n%s", res.Code, res.Body)
	}
}

var fingerprints = regexp.MustCompile(`([0-9a-f]{4} ){15}[0-9a-f]{4}`)

// Whoever cannot change it here for who they are, users of a source among them, reads what a wrong password reads.
func TestUniformAnswerToAChange(t *testing.T) {
	read := func(err error, old string) string {
		w, b := loggedIn(t)
		w.desk.err = err
		res := b.changePassword(old, chosen)
		if res.Code != http.StatusForbidden || w.desk.tried != 1 {
			t.Errorf("%v: %d, %d tries", err, res.Code, w.desk.tried)
		}
		return fingerprints.ReplaceAllString(tokenPattern.ReplaceAllString(res.Body.String(), ""), "")
	}
	first := read(nil, "wrong")
	for _, message := range []string{"of a source", "keys of their own", "out of scope", "revoked"} {
		if got := read(&client.Error{Code: client.CodeDenied, Message: message}, "secret"); got != first {
			t.Errorf("%s:\n%s\n--- not\n%s", message, got, first)
		}
	}
}

// A form that this page has not sent, in this browser, at this address, changes nothing, and no password is tried. Each case spoils one thing of a change that works.
func TestForgedChange(t *testing.T) {
	set := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	for name, tt := range map[string]struct {
		form   func(b *browser, f url.Values)
		change func(*http.Request)
		status int
	}{
		"nothing spoiled":       {nil, nil, http.StatusSeeOther},
		"no token":              {func(_ *browser, f url.Values) { f.Del("csrf") }, nil, http.StatusBadRequest},
		"forged token":          {func(_ *browser, f url.Values) { f.Set("csrf", strings.Repeat("A", 43)) }, nil, http.StatusForbidden},
		"token of a login form": {func(b *browser, f url.Values) { f.Set("csrf", b.w.browser(b.from).token("/login")) }, nil, http.StatusForbidden},
		"token of another session": {func(b *browser, f url.Values) {
			o := b.w.browser("10.1.1.4")
			o.login("bob", "hunter2")
			b.w.desk.tried = 0
			f.Set("csrf", o.token("/password"))
		}, nil, http.StatusForbidden},
		"no cookie":                         {func(b *browser, _ url.Values) { clear(b.cookies) }, nil, http.StatusForbidden},
		"cookie of one's own making":        {func(b *browser, _ url.Values) { b.cookies[cookieSession] = "AAAA" }, nil, http.StatusForbidden},
		"another origin":                    {nil, set("Origin", "https://evil.example"), http.StatusForbidden},
		"cross-site":                        {nil, set("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		"neither Origin nor Sec-Fetch-Site": {nil, func(r *http.Request) { r.Header.Del("Origin"); r.Header.Del("Sec-Fetch-Site") }, http.StatusForbidden},
		"another host":                      {nil, func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
		"GET":                               {nil, func(r *http.Request) { r.Method = http.MethodGet }, http.StatusOK},
		"JSON":                              {nil, set("Content-Type", "application/json"), http.StatusBadRequest},
		"somebody else's":                   {func(_ *browser, f url.Values) { f.Set("uid", "bob") }, nil, http.StatusBadRequest},
		"one field twice":                   {func(_ *browser, f url.Values) { f.Add("new", chosen) }, nil, http.StatusBadRequest},
		"large body":                        {func(_ *browser, f url.Values) { f.Set("again", strings.Repeat("a", maxBody)) }, nil, http.StatusRequestEntityTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			w, b := loggedIn(t)
			f := b.changeForm("secret", chosen)
			if tt.form != nil {
				tt.form(b, f)
			}
			b.change = tt.change
			res := b.do(http.MethodPost, "/password", f)
			if done := tt.status == http.StatusSeeOther; res.Code != tt.status || done != (w.desk.chosen["alice"] == chosen) || !done && (w.desk.tried != 0 || w.desk.chosen != nil) {
				t.Errorf("%d, want %d; %d tries, %v\n%s", res.Code, tt.status, w.desk.tried, w.desk.chosen, res.Body)
			}
		})
	}
}

// The longest passwords that there may be fit into a form, whatever they are made of.
func TestLongestPasswordsFit(t *testing.T) {
	w := newWorld(t)
	old, long := strings.Repeat("ä", keybundle.MaxPassword/2), strings.Repeat("ö", keybundle.MaxPassword/2)
	w.desk.chosen = map[string]string{"alice": old}
	b := w.browser("10.1.1.3")
	b.login("alice", old)
	if res := b.changePassword(old, long); res.Code != http.StatusSeeOther || w.desk.chosen["alice"] != long {
		t.Errorf("%d\n%s", res.Code, res.Body)
	}
}

// Whose session it is not, here and now, sees no form and changes nothing.
func TestChangeNeedsASession(t *testing.T) {
	for name, spoil := range map[string]func(w *world, b *browser) *browser{
		"never logged in": func(w *world, _ *browser) *browser { return w.browser("10.1.1.5") },
		"her cookie at another address": func(w *world, b *browser) *browser {
			o := w.browser("10.1.1.5")
			o.cookies[cookieSession] = b.cookies[cookieSession]
			return o
		},
		"another browser at her address": func(w *world, _ *browser) *browser { return w.browser("10.1.1.3") },
		"her login has ended":            func(w *world, b *browser) *browser { w.desk.end(); return b },
		"somebody else is there by now": func(w *world, b *browser) *browser {
			w.desk.change(func(s *Standing) { s.User = "bob" })
			return b
		},
	} {
		w, b := loggedIn(t)
		f := b.changeForm("secret", chosen)
		o := spoil(w, b)
		for _, path := range []string{"/password", "/password?changed"} {
			if res := o.do(http.MethodGet, path, nil); res.Code != http.StatusSeeOther || res.Header().Get("Location") != "/" {
				t.Errorf("%s: %s answers %d\n%s", name, path, res.Code, res.Body)
			}
		}
		res := o.do(http.MethodPost, "/password", f)
		if res.Code != http.StatusForbidden || !strings.Contains(res.Body.String(), "You are not logged in") || w.desk.tried != 0 || w.desk.chosen != nil {
			t.Errorf("%s: %d, %d tries, %v\n%s", name, res.Code, w.desk.tried, w.desk.chosen, res.Body)
		}
	}
	w, b := loggedIn(t)
	f := b.changeForm("secret", chosen)
	w.desk.stuck = engine.ErrStopped
	if res := b.do(http.MethodPost, "/password", f); res.Code != http.StatusServiceUnavailable || w.desk.tried != 0 {
		t.Errorf("while nobody knows who is logged in: %d", res.Code)
	}
}

// Guesses at the old password count with those at the login form, of the address and of all; what is refused for the new one's sake is none.
func TestGuessesByChanging(t *testing.T) {
	w, b := loggedIn(t)
	w.p.logins = limit.NewRates(1000, 1000, hostBits)
	for range 2 * failBurstOf {
		b.changePassword("secret", "short")
	}
	for range failBurstOf - 1 {
		b.changePassword("wrong", chosen)
	}
	if w.desk.tried != failBurstOf-1 {
		t.Fatalf("%d tries", w.desk.tried)
	}
	if res := b.login("alice", "wrong"); res.Code != http.StatusForbidden { // the last one
		t.Errorf("a login: %d", res.Code)
	}
	res := b.changePassword("secret", chosen)
	if res.Code != http.StatusTooManyRequests || !strings.Contains(res.Body.String(), "Too many wrong passwords") || res.Header().Get("Retry-After") == "" || w.desk.tried != failBurstOf || w.desk.chosen != nil {
		t.Errorf("one more: %d, %d tries\n%s", res.Code, w.desk.tried, res.Body)
	}
	if res := b.do(http.MethodPost, "/login", url.Values{"csrf": {b.token("/login")}, "uid": {"alice"}, "password": {"secret"}, "peer": {"rc"}}); res.Code != http.StatusTooManyRequests {
		t.Errorf("a login with the right one: %d", res.Code)
	}
	// Other addresses have tries of their own.
	o := w.browser("10.1.1.4")
	o.login("bob", "hunter2")
	if res := o.changePassword("hunter2", chosen); res.Code != http.StatusSeeOther {
		t.Errorf("from another address: %d\n%s", res.Code, res.Body)
	}
}

// Whoever hangs up while the old password is looked at has guessed.
func TestHangingUpInAChangeIsAGuess(t *testing.T) {
	w, b := loggedIn(t)
	w.p.logins = limit.NewRates(1000, 1000, hostBits)
	for range 2 * failBurstOf {
		form := b.changeForm("guess at it", chosen)
		ctx, cancel := context.WithCancel(t.Context())
		w.desk.during = func(Login) { cancel() }
		w.desk.err = &client.Error{Code: client.CodeUnavailable, Err: context.Canceled}
		b.change = func(r *http.Request) { *r = *r.WithContext(ctx) }
		b.do(http.MethodPost, "/password", form)
		cancel()
		b.change, w.desk.during, w.desk.err = nil, nil, nil
	}
	if w.desk.tried != failBurstOf {
		t.Errorf("%d tries, want %d", w.desk.tried, failBurstOf)
	}
}

// Tries of an address are those of its logins, and go on one after the other; where all turns are taken and the queue is full nobody's password is looked at.
func TestChangesAreFew(t *testing.T) {
	w, b := loggedIn(t)
	for range loginBurst - 1 { // the login has taken one
		b.changePassword("secret", "short")
	}
	if res := b.changePassword("secret", chosen); res.Code != http.StatusTooManyRequests || res.Header().Get("Retry-After") == "" || !strings.Contains(res.Body.String(), "Too many tries") || w.desk.tried != 0 {
		t.Errorf("one more: %d, %d tries", res.Code, w.desk.tried)
	}

	w, b = loggedIn(t)
	at := netip.MustParseAddr(b.from)
	if !w.p.begin(at) {
		t.Fatal("somebody is at it")
	}
	if res := b.changePassword("secret", chosen); res.Code != http.StatusTooManyRequests || w.desk.tried != 0 {
		t.Errorf("beside a login: %d, %d tries", res.Code, w.desk.tried)
	}
	w.p.finish(at)
	w.p.waiting.Store(loginQueue)
	if res := b.changePassword("secret", chosen); res.Code != http.StatusServiceUnavailable || !strings.Contains(res.Body.String(), "Nothing was changed. Try again in a few seconds") || res.Header().Get("Retry-After") == "" || w.desk.tried != 0 {
		t.Errorf("behind a full queue: %d, %d tries\n%s", res.Code, w.desk.tried, res.Body)
	}
	w.p.waiting.Store(0)
	if res := b.changePassword("secret", chosen); res.Code != http.StatusSeeOther {
		t.Errorf("afterwards: %d\n%s", res.Code, res.Body)
	}
}

// What a change costs takes turns with what logins cost.
func TestChangesTakeTurns(t *testing.T) {
	w, b := loggedIn(t)
	w.p.turns = semaphore.NewWeighted(1)
	w.desk.during = func(Login) {
		if w.p.turns.TryAcquire(1) {
			t.Error("a login would have its turn meanwhile")
		}
	}
	if res := b.changePassword("secret", chosen); res.Code != http.StatusSeeOther || w.desk.tried != 1 {
		t.Errorf("%d, %d tries\n%s", res.Code, w.desk.tried, res.Body)
	}
	if !w.p.turns.TryAcquire(1) {
		t.Error("the turn is not given back")
	}
}

// A refusal goes out at the moment at which a login's would, and by then nobody has the passwords any more; nor after a change.
func TestRefusedChangesAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			old        string
			err        error
			took, want time.Duration
		}{
			"wrong password": {"wrong!", nil, 300 * time.Millisecond, 4 * time.Second},
			"of a source":    {"secret", errDenied, 600 * time.Millisecond, 4 * time.Second},
			"late":           {"wrong!", nil, 4500 * time.Millisecond, 8 * time.Second},
			"directory away": {"secret", &client.Error{Code: client.CodeUnavailable}, time.Second, time.Second},
			"it worked":      {"secret", nil, time.Second, time.Second},
		} {
			w, b := loggedIn(t)
			form := b.changeForm(tt.old, chosen)
			seen, wiped := "", func() bool { return strings.Trim(string(w.desk.kept)+string(w.desk.keptNew), "\x00") == "" }
			w.desk.err, w.desk.during = tt.err, func(l Login) { seen = string(l.Password) + string(w.desk.keptNew); time.Sleep(tt.took) }
			w.p.c.Hold = func(ctx context.Context, began time.Time, err error) {
				if !wiped() {
					t.Errorf("%s: the passwords are kept while the answer waits", name)
				}
				authn.Hold(ctx, began, err)
			}
			began := time.Now()
			b.do(http.MethodPost, "/password", form)
			if got := time.Since(began); got != tt.want {
				t.Errorf("%s: after %s, want %s", name, got, tt.want)
			}
			if seen != tt.old+chosen || !wiped() || len(w.desk.keptNew) != len(chosen) {
				t.Errorf("%s: %q became %q and %q", name, seen, w.desk.kept, w.desk.keptNew)
			}
			time.Sleep(maxRest) // of the turn
		}
	})
}
