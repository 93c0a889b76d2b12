package access

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// LockedError is client.ErrLocked with the time to wait.
type LockedError struct{ RetryAfter time.Duration }

func (e *LockedError) Error() string { return client.ErrLocked.Error() }

// Unwrap yields client.ErrLocked.
func (e *LockedError) Unwrap() error { return client.ErrLocked }

// errUser is the one refusal for whatever concerns the user.
var errUser = fmt.Errorf("%w: no such user, or a wrong password", client.ErrDenied)

// LoginParams returns how uid's password is stretched and whether the CA is to be asked
// first; to a router that may not ask for uid, how it might be.
func (g *Guard) LoginParams(ctx context.Context, c Caller, uid string) (client.LoginParams, error) {
	if err := twincert.CheckName(uid); err != nil {
		return client.LoginParams{}, fmt.Errorf("%w: uid: %w", client.ErrInvalid, err)
	}
	var p client.LoginParams
	err := g.reg.Read(ctx, func(r *store.Reader) error {
		router, err := r.TrustedRouter(c.Router, g.Verify)
		if err != nil {
			return err
		}
		u, ok, err := r.User(uid)
		if err != nil {
			return err
		}
		// Both are computed whichever is used, so that they take the same time.
		if p.Params, err = fakeParams(r.Secret(), uid); err != nil {
			return err
		}
		p.AskCA = r.Sources()
		if ok && !u.Own && twincert.InScope(router.Scope, uid, u.Group) {
			p = client.LoginParams{Params: u.Params, AskCA: u.Source != ""}
		}
		return nil
	})
	return p, err
}

// fakeParams are those of a user who is not there: the defaults, with a salt that nobody
// without the register's secret can tell from a real one and that never changes.
func fakeParams(key []byte, uid string) (keybundle.Params, error) {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("twinkey fake salt\x00" + uid))
	return keybundle.DefaultParams(bytes.NewReader(m.Sum(nil)))
}

// Release hands out uid's sealed keys if the router may ask for uid, auth proves the
// password, the user is not disabled, the certificate is valid, and the CA has just vouched
// for a user of a source. Every failure that
// concerns the user is the same client.ErrDenied and counts; too many are client.ErrLocked
// (LockedError). Nothing is handed out unless that it was could be written down.
func (g *Guard) Release(ctx context.Context, c Caller, uid string, auth secret.Key) (out client.Release, err error) {
	err = g.proved(ctx, c, uid, byPassword(auth), func(l *login, r client.Release) error {
		out = r
		l.w.Audit(store.AuditRelease, uid, fmt.Sprintf("keys of certificate %s to router %s", l.bundle.Current(), l.router.Name))
		return nil
	})
	if err != nil {
		return client.Release{}, err
	}
	return out, nil
}

// Reseal changes uid's password: what proves the old one, and everything else that a release needs, is checked as for
// a release, and fails and counts alike. Record of the user, sealed keys and audit record change together.
func (g *Guard) Reseal(ctx context.Context, c Caller, r client.Reseal, auth secret.Key) error {
	if err := store.CheckReseal(r, g.policy.Least); err != nil {
		return err
	}
	return g.proved(ctx, c, r.UID, byPassword(auth), func(l *login, _ client.Release) error {
		if l.user.Source != "" { // the source alone changes it
			return errUser
		}
		if err := l.w.Reseal(r); err != nil {
			return err
		}
		l.w.Audit(store.AuditPassword, r.UID, fmt.Sprintf("changed by the user at router %s; keys of certificate %s sealed anew", l.router.Name, r.ID))
		return nil
	})
}

// LoginOwn notes that a user has proved to a router the keys of a certificate of their own, unless they may not log in by
// it: out of the router's scope, without keys of their own, disabled, the certificate another's, not valid or revoked. Failures
// are refused, counted and locked as those of passwords are. That the keys were proved is the router's word.
func (g *Guard) LoginOwn(ctx context.Context, c Caller, o client.OwnLogin) error {
	prove := func(l *login) (client.Release, error) { return client.Release{}, l.own(o.ID) }
	return g.proved(ctx, c, o.UID, prove, func(l *login, _ client.Release) error {
		l.w.Audit(store.AuditLogin, o.UID, fmt.Sprintf("with keys of their own, certificate %s, at router %s", o.ID, l.router.Name))
		return nil
	})
}

// byPassword is what a login by password has to prove.
func byPassword(auth secret.Key) func(*login) (client.Release, error) {
	return func(l *login) (client.Release, error) { return l.prove(auth) }
}

// proved runs then, in the transaction that checks, for a router and a user of whom prove finds no reason to refuse them. What
// then does is kept with the cleared count of failures, or not at all.
func (g *Guard) proved(ctx context.Context, c Caller, uid string, prove func(*login) (client.Release, error), then func(*login, client.Release) error) error {
	if err := twincert.CheckName(uid); err != nil {
		return fmt.Errorf("%w: uid: %w", client.ErrInvalid, err)
	}
	var refused error // kept, with its count, and then returned
	err := g.reg.Write(ctx, c.URI, func(w *store.Writer) error {
		router, err := w.TrustedRouter(c.Router, g.Verify)
		if err != nil {
			return err
		}
		l := login{guard: g, w: w, router: router, uid: uid}
		if err := l.look(); err != nil {
			return err
		}
		wait, moved, err := l.locked()
		if err != nil {
			return err
		}
		if wait > 0 {
			refused = &LockedError{wait}
			if moved {
				return nil // the lock was put right for a clock that went back
			}
			return refused
		}
		out, err := prove(&l)
		if err == nil {
			if err := then(&l, out); err != nil {
				return err
			}
			return w.DeleteThrottle(l.key)
		}
		if errors.Is(err, store.ErrDamaged) {
			return err
		}
		refused = errUser
		return l.fail(err)
	})
	if err == nil {
		err = refused
	}
	return err
}

// login is one try.
type login struct {
	guard  *Guard
	w      *store.Writer
	router *twincert.Certificate
	uid    string

	user   client.UserRecord
	bundle store.BundleRow
	mayAsk bool   // the user is there and in the router's scope
	key    string // of the user's throttle
}

// look reads who the user is, without judging.
func (l *login) look() error {
	u, ok, err := l.w.User(l.uid)
	if err != nil {
		return err
	}
	if l.bundle, _, err = l.w.Bundle(l.uid); err != nil {
		return err
	}
	l.user = u
	l.mayAsk = ok && twincert.InScope(l.router.Scope, l.uid, u.Group)
	l.key = lockout.Subject{Router: l.router.Name, UID: l.uid}.Key()
	if l.mayAsk {
		l.key = lockout.Subject{UID: l.uid}.Key()
	}
	return nil
}

func (l *login) routerKey() string { return lockout.Subject{Router: l.router.Name}.Key() }

// locked says how long to wait. moved says that a lock was rewritten.
func (l *login) locked() (wait time.Duration, moved bool, err error) {
	for _, key := range []string{l.routerKey(), l.key} {
		t, ok, err := l.w.Throttle(key)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			continue
		}
		left, next, m := t.Locked(l.w.Now())
		if m {
			if err := l.w.PutThrottle(key, next); err != nil {
				return 0, false, err
			}
		}
		wait, moved = max(wait, left), moved || m
	}
	return wait, moved, nil
}

// The causes of a refusal, for the audit record alone.
var (
	errUnknown  = errors.New("no such user in the router's scope")
	errPassword = errors.New("wrong password")
	errDisabled = errors.New("the user is disabled")
	errNoKeys   = errors.New("the user has no keys, or they were revoked")
	errOwn      = errors.New("the user has keys of their own: none are here, and no password is")
	errNotOwn   = errors.New("the user has no keys of their own")
	errForeign  = errors.New("the certificate is not the user's")
	errNoVouch  = errors.New("the user is of a source, and the CA has not just vouched for them at this router")
)

// prove returns the keys, or why not.
func (l *login) prove(auth secret.Key) (client.Release, error) {
	// The same work for users who are not there: an empty verifier matches nothing.
	right := subtle.ConstantTimeCompare(keybundle.Verifier(auth.Bytes()), l.user.Verifier) == 1
	switch {
	case !l.mayAsk:
		return client.Release{}, errUnknown
	case l.user.Own:
		return client.Release{}, errOwn
	case !right:
		return client.Release{}, errPassword
	case l.user.Disabled:
		return client.Release{}, errDisabled
	case l.bundle.Sealed == nil:
		return client.Release{}, errNoKeys
	case l.user.Source != "" && !l.guard.vouches.stands(l.uid, l.router.Name, l.bundle.Current(), l.w.Now()):
		return client.Release{}, errNoVouch
	}
	current, err := l.guard.valid(&l.w.Reader, l.bundle)
	if err != nil {
		return client.Release{}, err
	}
	out := client.Release{Certificate: current.Raw, Sealed: l.bundle.Sealed, Group: current.Group, Source: l.user.Source != ""}
	if s := l.bundle.Successor; s != nil {
		of, ok, err := l.w.Certificate(l.bundle.ID)
		if err != nil {
			return client.Release{}, err
		}
		if !ok {
			return client.Release{}, fmt.Errorf("%w: user %s has keys without a certificate", store.ErrDamaged, l.uid)
		}
		out.Certificate, out.Successor = of.DER, &client.Successor{Certificate: current.Raw, Sealed: s.Sealed}
	}
	return out, nil
}

// own says why the user may not log in by the certificate id of their own.
func (l *login) own(id twincert.ID) error {
	switch {
	case !l.mayAsk:
		return errUnknown
	case !l.user.Own: // who has opened released keys once is not to do without the password from then on
		return errNotOwn
	case l.user.Disabled:
		return errDisabled
	}
	row, ok, err := l.w.Certificate(id)
	if err != nil {
		return err
	}
	if !ok || row.Kind != client.KindTwin || row.Role != twincert.User || row.Name != l.uid {
		return errForeign
	}
	c, err := l.guard.believed(&l.w.Reader, row, l.uid)
	if err == nil && c.Group != l.user.Group {
		err = errForeign
	}
	return err
}

// valid returns a user's present certificate if it is one to believe.
func (g *Guard) valid(r *store.Reader, b store.BundleRow) (*twincert.Certificate, error) {
	row, ok, err := r.Certificate(b.Current())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: user %s has keys without a certificate", store.ErrDamaged, b.UID)
	}
	return g.believed(r, row, b.UID)
}

// believed reads a user's certificate, if it is one to believe.
func (g *Guard) believed(r *store.Reader, row store.CertRow, uid string) (*twincert.Certificate, error) {
	c, err := twincert.Parse(row.DER)
	if err != nil {
		return nil, fmt.Errorf("%w: certificate of user %s: %w", store.ErrDamaged, uid, err)
	}
	if err := g.Verify(c, twincert.User, r.Revoked); err != nil {
		return nil, fmt.Errorf("the user's certificate: %w", err)
	}
	return c, nil
}

// fail counts a failure against user and router.
func (l *login) fail(cause error) error {
	p := l.guard.policy.Lockout
	for _, c := range []struct {
		key, subject string
		limit        int
	}{{l.key, l.uid, p.UserFailures}, {l.routerKey(), l.router.Name, p.RouterFailures}} {
		t, ok, err := l.w.Throttle(c.key)
		if err != nil {
			return err
		}
		if !ok {
			if err := l.w.PruneThrottles(c.key, p); err != nil {
				return err
			}
		}
		t, locked := t.Fail(l.w.Now(), c.limit, p)
		if err := l.w.PutThrottle(c.key, t); err != nil {
			return err
		}
		if locked {
			l.w.Audit(store.AuditLocked, c.subject, fmt.Sprintf("for %s, asked by router %s", t.Length, l.router.Name))
		}
	}
	l.w.Audit(store.AuditDenied, l.uid, fmt.Sprintf("asked by router %s: %v", l.router.Name, cause))
	return nil
}
