package portal

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"
	"time"

	"twinkey/pkg/keybundle"
)

// changed is the query with which a browser is led to the page that says so.
const changed = "changed"

// passwordPage shows whoever is logged in the form, or that it has done its work.
func (p *Portal) passwordPage(w http.ResponseWriter, r *http.Request, v visit) {
	cookie, user, ok, err := p.present(r, v)
	switch {
	case err != nil:
		p.stateUnknown(w, r, v, err)
	case !ok:
		http.Redirect(w, r, "/", http.StatusSeeOther)
	case r.URL.RawQuery == changed:
		p.show(w, v, page{Title: "Your password was changed", Changed: user})
	default:
		p.showPassword(w, v, cookie, user, nil)
	}
}

func (p *Portal) showPassword(w http.ResponseWriter, v visit, cookie, user string, s *said) {
	p.show(w, v, page{Title: "Change your password", Said: s, Change: user, Token: p.sessions.token(cookieSession, cookie, v.from)})
}

// password takes the form. Whose password it is the session says, and nothing in the form.
func (p *Portal) password(w http.ResponseWriter, r *http.Request, v visit) {
	cookie, user, ok, err := p.present(r, v)
	if err != nil {
		p.stateUnknown(w, r, v, err)
		return
	}
	if !ok {
		p.fail(w, r, v, saidNotIn)
		return
	}
	if !p.logins.Allow(r.RemoteAddr, v.now) || !p.begin(v.from) {
		p.fail(w, r, v, saidTooOften)
		return
	}
	defer p.finish(v.from)
	var old, chosen, again []byte
	body, ok := p.form(w, r, v, cookieSession, cookie, map[string]*[]byte{"password": &old, "new": &chosen, "again": &again})
	defer clear(body)
	if !ok {
		return
	}
	var s *said
	var failed error
	began := time.Now()
	switch {
	case len(old) == 0 || len(chosen) == 0 || len(again) == 0:
		s = &saidMissing
	case len(old) > keybundle.MaxPassword:
		s = &saidLongOld
	case subtle.ConstantTimeCompare(chosen, again) != 1:
		s = &saidUnlike
	default:
		var told said
		if told, failed = p.change(r.Context(), Change{User: user, Password: old, New: chosen}, v); failed != nil {
			s = &told
		}
	}
	clear(body) // before anything waits, or is written to a browser that may be slow
	if s != nil {
		p.c.Hold(r.Context(), began, failed)
		p.showPassword(w, v, cookie, user, s)
		return
	}
	// As after a login, whoever has copied the cookie of before has nothing.
	fresh, ok, err := p.sessions.renew(cookie)
	switch {
	case err != nil:
		p.c.Log.Error("portal: the session keeps its cookie", "user", user, "address", v.from.String(), "error", err)
	case ok:
		setCookie(w, cookieSession, fresh, int(sessionAge/time.Second))
	}
	http.Redirect(w, r, "/password?"+changed, http.StatusSeeOther)
}

// change has the router change a password, and says what an error means.
func (p *Portal) change(browser context.Context, c Change, v visit) (said, error) {
	err := keybundle.CheckPassword(c.User, c.New) // what is not taken costs neither a turn nor a try
	if err != nil {
		return explainChange(err, v.now), err
	}
	err = p.prove(browser, v, func(ctx context.Context, turn func(func() error) error) error {
		return turn(func() error { return p.c.Router.ChangePassword(ctx, c) })
	})
	switch {
	case err == nil:
		p.c.Log.Info("portal: password changed", "user", c.User, "address", v.from.String())
		return said{}, nil
	case !errors.Is(err, errWrongs):
		p.c.Log.Warn("portal: change of password refused", "user", c.User, "address", v.from.String(), "error", refusal(err))
	}
	return explainChange(err, time.Now()), err
}

// present is the session of the browser, if a login of its user stands at this address.
func (p *Portal) present(r *http.Request, v visit) (cookie, user string, ok bool, err error) {
	cookie, user, ok = p.session(r, v)
	if !ok {
		return "", "", false, nil
	}
	standing, err := p.c.Router.Logins(r.Context(), v.from)
	if err != nil {
		return "", "", false, err
	}
	return cookie, user, slices.ContainsFunc(standing, func(s Standing) bool { return s.User == user }), nil
}

func (p *Portal) stateUnknown(w http.ResponseWriter, r *http.Request, v visit, err error) {
	p.c.Log.Error("portal: who is logged in is not known", "address", v.from.String(), "error", err)
	p.fail(w, r, v, saidNoState)
}
