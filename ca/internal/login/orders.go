package login

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// orders carries out what one source tells of its own accord. Each waits in the line of the user: a login that is under way may be about to
// issue.
type orders struct {
	door   *Door
	source string
}

// End withdraws what the user has.
func (o *orders) End(ctx context.Context, uid string, w source.Word) error {
	return o.inTurn(ctx, uid, w, func() error { return o.end(ctx, uid, w.Why) })
}

// Change has the user's calls go on in another group, or with another end, or ends them if that has passed.
func (o *orders) Change(ctx context.Context, uid string, c source.Change, w source.Word) error {
	return o.inTurn(ctx, uid, w, func() error { return o.change(ctx, uid, c, w.Why) })
}

// inTurn has f done, in the user's line, unless w has come before or too late.
func (o *orders) inTurn(ctx context.Context, uid string, w source.Word, f func() error) error {
	if twincert.CheckName(uid) != nil {
		return source.ErrNotThere
	}
	heard, err := o.hear(uid, w)
	if err != nil || heard.Done {
		return err
	}
	leave, err := o.door.line.wait(ctx, uid)
	if err != nil {
		return err
	}
	defer leave()
	return o.answered(heard, f())
}

// hear notes w before anything comes of it: wherever the CA is killed then, and also if w fails, nothing that was said before is
// obeyed any more. The error is ErrImpossible if w is that. Whoever orders says one thing at a time, so what it returns stays the newest until
// answered.
func (o *orders) hear(uid string, w source.Word) (heard ledger.Order, err error) {
	if w.Said.IsZero() {
		return heard, nil
	}
	err = o.door.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		u, ok, err := tx.User(uid)
		if err != nil {
			return err
		}
		if !ok || u.Source != o.source { // of whom nothing is noted, or the names that a source knows would fill the ledger
			return fmt.Errorf("%w: user %s of source %s", source.ErrNotThere, uid, o.source)
		}
		if heard, ok, err = tx.Order(o.source, uid); err != nil {
			return err
		}
		same := ok && w.Said.Equal(heard.Said)
		last := len(heard.Heard) - 1
		switch at := slices.IndexFunc(heard.Heard, func(id []byte) bool { return bytes.Equal(id, w.ID) }); {
		case ok && w.Said.Before(heard.Said), same && at >= 0 && at < last:
			return fmt.Errorf("%w: it was said at %s, and what was said after it, at %s, has come before", source.ErrImpossible, stamp(w.Said), stamp(heard.Said))
		case same && at >= 0 && heard.Refused:
			return fmt.Errorf("%w: it was refused before", source.ErrImpossible)
		case same && at >= 0: // obeyed, or one more try
			return nil
		case same: // of one moment, what comes later counts
			heard.Heard, heard.Done, heard.Refused = append(heard.Heard, w.ID), false, false
		default:
			heard = ledger.Order{Source: o.source, UID: uid, Said: w.Said.UTC(), Heard: [][]byte{w.ID}}
		}
		return tx.PutOrder(heard)
	})
	return heard, err
}

// answered notes what came of it, unless trying again is of use.
func (o *orders) answered(heard ledger.Order, err error) error {
	heard.Done = err == nil
	heard.Refused = errors.Is(err, source.ErrNotThere) || errors.Is(err, source.ErrImpossible)
	if heard.Said.IsZero() || !heard.Done && !heard.Refused {
		return err
	}
	return errors.Join(err, o.door.cfg.Ledger.Update(func(tx *ledger.Tx) error { return tx.PutOrder(heard) }))
}

// reason is what CRL and audit records say of an order.
func (o *orders) reason(why string) string { return cut("source " + o.source + ": " + why) }

func (o *orders) end(ctx context.Context, uid, why string) error {
	r, err := o.door.cfg.Desk.EndUser(ctx, o.source, uid, o.reason(why))
	if errors.Is(err, issue.ErrUnknown) {
		return fmt.Errorf("%w: %w", source.ErrNotThere, err)
	}
	if err != nil {
		return err
	}
	o.door.cfg.Log.Info("account ended", "uid", uid, "source", o.source, "why", why, "certificates", r.Certificates, "told", r.Told)
	return nil
}

func (o *orders) change(ctx context.Context, uid string, c source.Change, why string) error {
	a := issue.Alteration{Group: c.Group}
	if c.Session > 0 {
		s, err := o.door.stay(o.source, uid)
		if err != nil {
			return err
		}
		a.Until = s.began.Add(c.Session)
		switch {
		case !a.Until.After(o.door.cfg.Now()):
			return o.end(ctx, uid, why+": the session time is over")
		case !s.ends.IsZero() && a.Until.After(s.ends):
			return fmt.Errorf("%w: a session that began at %s would last until %s, and a router was told at the login that it ends at %s",
				source.ErrImpossible, stamp(s.began), stamp(a.Until), stamp(s.ends))
		}
	}
	cert, altered, err := o.door.cfg.Desk.ChangeUser(ctx, o.source, uid, a, o.reason(why))
	switch {
	case errors.Is(err, issue.ErrUnknown):
		return fmt.Errorf("%w: %w", source.ErrNotThere, err)
	case errors.Is(err, issue.ErrInvalid):
		return fmt.Errorf("%w: %w", source.ErrImpossible, err)
	case err != nil:
		return err
	}
	if altered {
		o.vouchAnew(ctx, uid, cert)
	}
	o.door.cfg.Log.Info("user changed", "uid", uid, "source", o.source, "why", why, "group", c.Group, "serial", cert.Serial, "not_after", cert.NotAfter)
	return nil
}

// vouchAnew is for logins of the last minute: their routers may still be at it, and the directory was told of the certificate before. They come
// too late if it fails, as after a minute, and log in once more.
func (o *orders) vouchAnew(ctx context.Context, uid string, cert ledger.Cert) {
	var logins []ledger.Login
	err := o.door.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		logins, err = tx.Logins(uid)
		return err
	})
	c, perr := twincert.Parse(cert.DER)
	if err = errors.Join(err, perr); err == nil && o.door.cfg.Vouch != nil {
		for _, l := range logins {
			if age := o.door.cfg.Now().Sub(l.Time); l.Source == o.source && age >= 0 && age < client.VouchLife {
				err = errors.Join(err, o.door.cfg.Vouch(ctx, client.Vouch{UID: uid, Router: l.Router, Source: o.source, ID: c.ID()}))
			}
		}
	}
	if err != nil {
		o.door.cfg.Log.Warn("login under way not vouched for anew", "uid", uid, "source", o.source, "error", err)
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// stay is when a user's session began, and when the routers end it by what the source said at the login; zero: they do not.
type stay struct{ began, ends time.Time }

// stay finds out what a time that a source names is counted from. A user who is logged in at several routers has one session that began
// with the first of them: what is changed is the certificate, on which all of it stands. Routers at which accounting knows no call
// count only if there is none at all, and then the latest login does: it may be too young for its call to have been told of.
func (d *Door) stay(src, uid string) (s stay, err error) {
	err = d.cfg.Ledger.View(func(tx *ledger.Tx) error {
		u, ok, err := tx.User(uid)
		if err != nil {
			return err
		}
		if !ok || u.Source != src || !u.Active() {
			return fmt.Errorf("%w: user %s of source %s", source.ErrNotThere, uid, src)
		}
		logins, err := tx.Logins(uid)
		if err != nil {
			return err
		}
		calls, err := tx.OpenCalls(src, "")
		if err != nil {
			return err
		}
		up := map[string]bool{} // routers
		for _, c := range calls {
			if c.UID == uid {
				up[c.Router] = true
				s.earlier(since(c, logins)) // of a login before the last one there
			}
		}
		var latest ledger.Login
		for _, l := range logins {
			switch {
			case l.Source != src:
			case up[l.Router]:
				s.include(l)
			case l.Time.After(latest.Time):
				latest = l
			}
		}
		if len(up) == 0 && !latest.Time.IsZero() {
			s.include(latest)
		}
		if s.began.IsZero() {
			return fmt.Errorf("%w: nothing is known of a login of user %s", source.ErrNotThere, uid)
		}
		return nil
	})
	return s, err
}

// since is when a call began. The word of a router is not believed further back than the user's login there.
func since(c ledger.OpenCall, logins []ledger.Login) time.Time {
	login := c.Login
	if login.IsZero() { // none was noted with it
		for _, l := range logins {
			if l.Source == c.Source && l.Router == c.Router {
				login = l.Time
			}
		}
	}
	if c.Since.Before(login) {
		return login
	}
	return c.Since
}

func (s *stay) earlier(t time.Time) {
	if s.began.IsZero() || t.Before(s.began) {
		s.began = t
	}
}

func (s *stay) include(l ledger.Login) {
	s.earlier(l.Time)
	if l.Session == 0 {
		return
	}
	if ends := l.Time.Add(l.Session); s.ends.IsZero() || ends.Before(s.ends) {
		s.ends = ends
	}
}
