package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Errors.
var (
	// ErrDenied is the one refusal for whatever concerns the user.
	ErrDenied = errors.New("no such user, or a wrong password")
	// ErrTooMany says to come again in a moment.
	ErrTooMany = errors.New("too many logins at once")
	// ErrSource is what a *SourceError is.
	ErrSource = errors.New("a source of users cannot be asked")
	// ErrLocked is what a *LockedError is.
	ErrLocked = errors.New("locked after too many tries")
)

// LockedError is ErrLocked with the time to wait.
type LockedError struct{ RetryAfter time.Duration }

func (e *LockedError) Error() string { return ErrLocked.Error() }

// Unwrap yields ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// SourceError is ErrSource with the name of the source. What it says is for whoever logs in; Err is for the log.
type SourceError struct {
	Name string
	Err  error
}

func (e *SourceError) Error() string { return fmt.Sprintf("%v: %s", ErrSource, e.Name) }

// Unwrap yields ErrSource and the cause.
func (e *SourceError) Unwrap() []error { return []error{ErrSource, e.Err} }

const (
	checkTime = 20 * time.Second // for a source to answer
	// refuseAfter is between the moments at which refusals go out. Servers take their time for a "no" and none for a "yes" (a
	// second with FreeRADIUS, reject_delay): a "yes" that is refused for the router's scope must not be told by its haste.
	refuseAfter = 3 * time.Second
	noteTime    = 2 * time.Second // for the directory to note a refusal
	// renewWithin is the part of a certificate's life that has to be left, or a login renews it.
	renewWithin = 3
	maxReason   = 200 // bytes

	strangerFailures = 3
	strangerLock     = time.Hour
)

// Config of a door.
type Config struct {
	Desk    *issue.Desk
	Ledger  *ledger.Ledger
	Sources []source.Source // in the order in which they are asked
	Vouch   func(ctx context.Context, v client.Vouch) error
	Refused func(ctx context.Context, r client.Refusal) error // notes it where logins are noted; nil: nobody does
	Lockout lockout.Policy
	// Strangers is how many failures of a user whom the router may not have spare the source for an hour; 0: three.
	Strangers int
	Params    func() (keybundle.Params, error) // of a new password; nil: the default
	// TLS is the CA's certificate of the moment, which says which login keys there are; nil: there are none.
	TLS func() tls.Certificate
	Now func() time.Time
	Log *slog.Logger
}

// Door is where routers bring users whom a source authenticates. Safe for concurrent use.
type Door struct {
	cfg   Config
	gate  *keybundle.Gate
	floor time.Duration // between the moments at which refusals go out
	line  line
	watch watch
	ring  ring
}

// New returns a door; Run has it listen to what the sources tell.
func New(c Config) *Door {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Strangers == 0 {
		c.Strangers = strangerFailures
	}
	if c.Params == nil {
		c.Params = func() (keybundle.Params, error) { return keybundle.DefaultParams(rand.Reader) }
	}
	return &Door{cfg: c, gate: keybundle.NewGate(), floor: refuseAfter, ring: ring{by: c.TLS}}
}

// Admission is what a router learns of a user who was let in.
type Admission struct {
	Params  keybundle.Params // under which the keys are sealed now
	Session time.Duration    // how long the login may last; 0: as the policy says
	Confirm []byte           // by which the user's own machine knows Params; nil: the password was not sealed
}

// Login asks the user's source whether the password is right, sees to it that the user has keys under it, and vouches for the
// user at the directory. r is who asks, and has proved it. The error is ErrDenied for whatever concerns the user,
// ErrLocked, ErrTooMany, ErrSource, issue.ErrInvalid for what can be no UserID, or says what the CA or the directory could
// not do. The password is the caller's to wipe.
func (d *Door) Login(ctx context.Context, r ledger.Router, uid string, password []byte) (Admission, error) {
	return d.held(ctx, r, uid, func() ([]byte, error) { return password, nil })
}

// LoginSealed is Login with a password that the user's own machine has sealed to a login key. One that does not open, that another
// router or another user's machine has had sealed, or that was shown before, is a wrong one. ErrLoginKey says that it is to be sealed to another key.
func (d *Door) LoginSealed(ctx context.Context, r ledger.Router, uid string, sealed []byte) (Admission, error) {
	var password []byte
	var answer secret.Key
	defer func() { clear(password); answer.Wipe() }()
	a, err := d.held(ctx, r, uid, func() (_ []byte, err error) {
		password, answer, err = d.ring.open(d.cfg.Now(), r.Name, uid, sealed)
		return password, err
	})
	if err == nil {
		a.Confirm = sealedlogin.Confirm(answer, a.Params)
	}
	return a, err
}

// LoginKey is the CA's word for the key that passwords are sealed to now (package sealedlogin): good for ten minutes from now at the least. nil: there
// are no sources that would be asked.
func (d *Door) LoginKey() ([]byte, error) {
	if len(d.cfg.Sources) == 0 || d.cfg.TLS == nil {
		return nil, nil
	}
	return d.ring.statement(d.cfg.Now())
}

// held lets a user in, or has the refusal wait for its moment. typed is asked for the password when it is the user's turn, and nothing is locked.
func (d *Door) held(ctx context.Context, r ledger.Router, uid string, typed func() ([]byte, error)) (Admission, error) {
	began := time.Now()
	a, err := d.login(ctx, r, uid, typed)
	if errors.Is(err, ErrDenied) {
		d.hold(ctx, time.Since(began))
	}
	return a, err
}

// hold waits until the next moment at which refusals go out.
func (d *Door) hold(ctx context.Context, took time.Duration) {
	if d.floor <= 0 {
		return
	}
	select {
	case <-time.After(d.floor - took%d.floor):
	case <-ctx.Done():
	}
}

func (d *Door) login(ctx context.Context, r ledger.Router, uid string, typed func() ([]byte, error)) (Admission, error) {
	if err := twincert.CheckName(uid); err != nil {
		return Admission{}, fmt.Errorf("%w: uid: %w", issue.ErrInvalid, err)
	}
	leave, err := d.line.enter(ctx, r.Name, uid)
	if err != nil {
		return Admission{}, err
	}
	defer leave()
	v := &visit{door: d, router: r, uid: uid}
	if err := v.look(); err != nil {
		return Admission{}, err
	}
	var a Admission
	if err = v.take(typed); err == nil {
		a, err = v.admit(ctx)
	}
	if cause, refused := errors.AsType[*refusal](err); refused {
		d.cfg.Log.Warn("login refused", "uid", uid, "router", r.Name, "cause", cause.err)
		if err := v.fail(); err != nil {
			return Admission{}, err // a guess that cannot be counted is not answered
		}
		v.note(ctx, cause)
		return Admission{}, ErrDenied
	}
	if err != nil {
		return Admission{}, fmt.Errorf("letting in %s at router %s: %w", uid, r.Name, err)
	}
	return a, v.clear()
}

// refusal concerns the user; err is for the log alone.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }

func refuse(format string, args ...any) error { return &refusal{fmt.Errorf(format, args...)} }

// visit is one login.
type visit struct {
	door     *Door
	router   ledger.Router
	uid      string
	password []byte

	user   ledger.User
	known  bool
	key    string // of the user's throttle
	counts bool   // there is a throttle
	alien  bool   // a user of a source who is, as far as is known, none of the router's
	spared bool   // whose source was asked often enough
	asked  bool   // a source was asked
}

// look reads who the user is, and fails with a *LockedError.
func (v *visit) look() error {
	d, now := v.door, v.door.cfg.Now()
	var wait time.Duration
	moved := map[string]lockout.Throttle{}
	err := d.cfg.Ledger.View(func(tx *ledger.Tx) (err error) {
		if v.user, v.known, err = tx.User(v.uid); err != nil {
			return err
		}
		// Of a name that is not known yet there is no group: it is in the scope of those alone who may have everybody, or this user.
		v.key = lockout.Subject{UID: v.uid}.Key()
		outside := !twincert.InScope(v.router.Scope, v.uid, v.user.Group)
		if v.known && v.user.Source == "" || outside {
			v.key = lockout.Subject{Router: v.router.Name, UID: v.uid}.Key()
		}
		if v.alien = v.known && v.user.Source != "" && outside; v.alien {
			t, _, err := tx.Throttle(v.askKey())
			if err != nil {
				return err
			}
			left, next, m := t.Locked(now)
			if v.spared = left > 0; m {
				moved[v.askKey()] = next
			}
		}
		for _, key := range []string{v.routerKey(), v.key} {
			t, ok, err := tx.Throttle(key)
			if err != nil {
				return err
			}
			left, next, m := t.Locked(now)
			if wait = max(wait, left); m {
				moved[key] = next
			}
			v.counts = v.counts || ok && key == v.key
		}
		return nil
	})
	if err == nil && len(moved) > 0 { // a clock that went back
		err = d.cfg.Ledger.Update(func(tx *ledger.Tx) (err error) {
			for key, t := range moved {
				err = errors.Join(err, tx.PutThrottle(key, t))
			}
			return err
		})
	}
	if err == nil && wait > 0 {
		err = &LockedError{wait}
	}
	return err
}

func (v *visit) routerKey() string { return lockout.Subject{Router: v.router.Name}.Key() }
func (v *visit) askKey() string {
	return lockout.Subject{Router: v.router.Name, UID: v.uid, Asking: true}.Key()
}

// strangers is how often a router has the source asked about somebody who is, as far as is known, none of its users. They are asked about at
// all because the source may have put them into another group; but its own lock-out, often five failures within half an hour, must not be
// reached by it. Nobody is told: that it is sooner than others are locked would say who is known.
func (c *Config) strangers() lockout.Policy {
	p := c.Lockout
	p.UserFailures = c.Strangers
	p.Window, p.Lock, p.MaxLock = max(p.Window, strangerLock), max(p.Lock, strangerLock), max(p.MaxLock, strangerLock)
	return p
}

// fail counts a failure against user and router.
func (v *visit) fail() error {
	p, now := v.door.cfg.Lockout, v.door.cfg.Now()
	type count struct {
		key    string
		limit  int
		policy lockout.Policy
	}
	counts := []count{{v.key, p.UserFailures, p}, {v.routerKey(), p.RouterFailures, p}}
	if v.alien && v.asked {
		strict := v.door.cfg.strangers()
		counts = append(counts, count{v.askKey(), strict.UserFailures, strict})
	}
	return v.door.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		for _, c := range counts {
			t, ok, err := tx.Throttle(c.key)
			if err != nil {
				return err
			}
			if !ok {
				if err := tx.PruneThrottles(c.key, now, c.policy); err != nil {
					return err
				}
			}
			t, locked := t.Fail(now, c.limit, c.policy)
			if err := tx.PutThrottle(c.key, t); err != nil {
				return err
			}
			if locked {
				v.door.cfg.Log.Warn("logins locked", "of", c.key, "for", t.Length)
			}
		}
		return nil
	})
}

// take has the password told, unless it is that of a local user: it is none of our business, and a sealed one stays sealed.
func (v *visit) take(typed func() ([]byte, error)) (err error) {
	if v.known && v.user.Source == "" {
		return refuse("a local user, about whom no source is asked")
	}
	v.password, err = typed()
	return err
}

// note has the directory note the refusal. It is in the log already: a directory that is away keeps nobody waiting.
func (v *visit) note(ctx context.Context, cause *refusal) {
	if v.door.cfg.Refused == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noteTime)
	defer cancel()
	if err := v.door.cfg.Refused(ctx, client.Refusal{UID: v.uid, Router: v.router.Name, Cause: cause.Error()}); err != nil {
		v.door.cfg.Log.Warn("refusal not noted by the directory", "uid", v.uid, "router", v.router.Name, "error", err)
	}
}

// clear forgets the user's failures.
func (v *visit) clear() error {
	if !v.counts && !v.alien {
		return nil
	}
	return v.door.cfg.Ledger.Update(func(tx *ledger.Tx) error { return errors.Join(tx.DeleteThrottle(v.key), tx.DeleteThrottle(v.askKey())) })
}

// admit asks, issues and vouches. The error is a *refusal if the user is the reason.
func (v *visit) admit(ctx context.Context) (Admission, error) {
	src, answer, err := v.ask(ctx)
	if err != nil {
		return Admission{}, err
	}
	if err := twincert.CheckName(answer.Group); err != nil {
		return Admission{}, refuse("source %s puts the user into group %q: %w", src.Name(), answer.Group, err)
	}
	if !twincert.InScope(v.router.Scope, v.uid, answer.Group) {
		return Admission{}, refuse("group %s is not in the router's scope", answer.Group)
	}
	if v.user.Barred {
		return Admission{}, refuse("the operator has revoked the user; twinkey-ca user allow lets them in again")
	}
	params, cert, fresh, err := v.certify(ctx, src.Name(), answer.Group)
	if err == nil {
		err = v.vouch(ctx, src.Name(), cert)
	}
	if errors.Is(err, client.ErrConflict) && !fresh { // a rotation may have been quicker
		if moved, reread := v.follow(); reread != nil {
			err = reread
		} else if moved {
			if cert, err = v.present(); err == nil {
				err = v.vouch(ctx, src.Name(), cert)
			}
		}
	}
	if errors.Is(err, client.ErrConflict) && !fresh {
		// It was restored from an older copy. What it lacks nobody but the user can have sealed anew.
		if params, cert, err = v.reissue(ctx, src.Name(), answer.Group, "the directory did not have the keys"); err == nil {
			err = v.vouch(ctx, src.Name(), cert)
		}
	}
	if err == nil {
		err = v.remember(src, answer)
	}
	for _, meanwhile := range []error{issue.ErrRevoked, issue.ErrExists, issue.ErrUnknown} {
		if errors.Is(err, meanwhile) { // while the source was asked the operator was quicker
			return Admission{}, &refusal{err}
		}
	}
	if err != nil {
		return Admission{}, err
	}
	v.door.cfg.Log.Info("user let in", "uid", v.uid, "router", v.router.Name, "source", src.Name(), "group", answer.Group)
	return Admission{Params: params, Session: answer.Session}, nil
}

// ask has the user's source check the password; all of them, one after the other, if the user is not known.
func (v *visit) ask(ctx context.Context) (source.Source, source.Answer, error) {
	switch {
	case len(v.password) == 0 || len(v.password) > keybundle.MaxPassword:
		return nil, source.Answer{}, refuse("a password of %d bytes", len(v.password))
	case v.spared:
		return nil, source.Answer{}, refuse("a user out of the router's scope, about whom it had source %s asked too often", v.user.Source)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	asked := false
	for _, s := range v.door.cfg.Sources {
		if v.known && s.Name() != v.user.Source {
			continue
		}
		asked, v.asked = true, true
		switch answer, err := s.Check(ctx, v.uid, v.password); {
		case err == nil:
			return s, answer, nil
		case !errors.Is(err, source.ErrRejected):
			return nil, source.Answer{}, &SourceError{s.Name(), err}
		default:
			v.door.cfg.Log.Debug("source rejects", "source", s.Name(), "uid", v.uid, "error", err)
		}
	}
	if v.known && !asked {
		return nil, source.Answer{}, &SourceError{v.user.Source, errors.New("it is not in ca.yaml any more")}
	}
	return nil, source.Answer{}, refuse("no source accepts user and password")
}

// certify sees to it that the user has valid keys under this password and in this group. fresh says that they were made now.
func (v *visit) certify(ctx context.Context, src, group string) (p keybundle.Params, cert *twincert.Certificate, fresh bool, err error) {
	switch {
	case !v.known || !v.user.Active():
		p, cert, err = v.issue(ctx, src, group)
		return p, cert, true, err
	case v.user.Group != group:
		p, cert, err = v.reissue(ctx, src, group, "the source has put the user into group "+group)
		return p, cert, true, err
	}
	accepted := v.user.Accepted
	if accepted == nil {
		return p, nil, false, fmt.Errorf("user %s of source %s: %w", v.uid, src, ledger.ErrDamaged)
	}
	proof, err := v.door.gate.Derive(ctx, v.password, accepted.Params)
	if err != nil {
		return p, nil, false, v.busy(err)
	}
	defer proof.Wipe()
	verifier := keybundle.Verifier(proof.Auth.Bytes())
	if subtle.ConstantTimeCompare(verifier, accepted.Verifier) != 1 {
		p, cert, err = v.reissue(ctx, src, group, "the password was changed")
		return p, cert, true, err
	}
	if _, err := v.follow(); err != nil {
		return p, nil, false, err
	}
	known, err := v.door.cfg.Desk.Certificate(v.user.Serial)
	if err != nil {
		return p, nil, false, err
	}
	if !known.Revoked.IsZero() {
		p, cert, err = v.reissue(ctx, src, group, "it was revoked when a session ended")
		return p, cert, true, err
	}
	if cert, err = twincert.Parse(known.DER); err != nil {
		return p, nil, false, err
	}
	// What ends with a session that the source has set an end to is not for the next one.
	if left := cert.NotAfter.Sub(v.door.cfg.Now()); v.user.Bound.IsZero() && left*renewWithin > cert.NotAfter.Sub(cert.NotBefore) {
		return accepted.Params, cert, false, nil
	}
	// The old one stays good until it expires: calls that stand on it go on.
	made, err := v.door.cfg.Desk.RenewUser(ctx, actor(src), issue.UserRequest{UID: v.uid, Group: group, Source: src, Params: accepted.Params, Verifier: verifier, Seal: proof.Seal})
	if err == nil {
		cert, err = twincert.Parse(made.DER)
	}
	return accepted.Params, cert, true, err
}

// follow looks whether the user has a successor of the certificate since: those who make them do not wait in our line. It is sealed
// under the same data key, so what was proved holds for it.
func (v *visit) follow() (moved bool, err error) {
	err = v.door.cfg.Ledger.View(func(tx *ledger.Tx) error {
		u, ok, err := tx.User(v.uid)
		if err != nil || !ok || !u.Active() || u.Barred || u.Source != v.user.Source || u.Group != v.user.Group || u.Accepted == nil || !bytes.Equal(u.Accepted.Verifier, v.user.Accepted.Verifier) {
			return err // what else has changed, whoever goes on finds
		}
		moved = u.Serial != v.user.Serial
		v.user = u
		return nil
	})
	return moved, err
}

// present is the user's certificate.
func (v *visit) present() (*twincert.Certificate, error) {
	c, err := v.door.cfg.Desk.Certificate(v.user.Serial)
	if err != nil {
		return nil, err
	}
	return twincert.Parse(c.DER)
}

// actor is on whose behalf the CA acts.
func actor(src string) string { return "source:" + src }

// reissue withdraws what the user has, and with it what calls stand on, and issues anew. In this order: if it
// stops in between, the next login finds a user without a certificate.
func (v *visit) reissue(ctx context.Context, src, group, why string) (keybundle.Params, *twincert.Certificate, error) {
	if _, err := v.door.cfg.Desk.EndUser(ctx, src, v.uid, why); err != nil {
		return keybundle.Params{}, nil, err
	}
	return v.issue(ctx, src, group)
}

func (v *visit) issue(ctx context.Context, src, group string) (p keybundle.Params, cert *twincert.Certificate, err error) {
	if p, err = v.door.cfg.Params(); err != nil {
		return p, nil, err
	}
	proof, err := v.door.gate.Derive(ctx, v.password, p)
	if err != nil {
		return p, nil, v.busy(err)
	}
	defer proof.Wipe()
	made, err := v.door.cfg.Desk.AddUser(ctx, actor(src), issue.UserRequest{UID: v.uid, Group: group, Source: src, Params: p, Verifier: keybundle.Verifier(proof.Auth.Bytes()), Seal: proof.Seal})
	if err != nil {
		return p, nil, err
	}
	cert, err = twincert.Parse(made.DER)
	return p, cert, err
}

// busy says that others derive.
func (v *visit) busy(err error) error {
	if errors.Is(err, keybundle.ErrBusy) {
		return fmt.Errorf("%w: %w", ErrTooMany, err)
	}
	return err
}

func (v *visit) vouch(ctx context.Context, src string, cert *twincert.Certificate) error {
	if v.door.cfg.Vouch == nil {
		return issue.ErrNoDirectory
	}
	return v.door.cfg.Vouch(ctx, client.Vouch{UID: v.uid, Router: v.router.Name, Source: src, ID: cert.ID()})
}

// remember keeps what the source wants to hear again when it is told of the user's calls, and what a change that it wants is measured by.
func (v *visit) remember(s source.Source, a source.Answer) error {
	if _, ok := s.(source.Accountant); !ok {
		return nil
	}
	return v.door.cfg.Ledger.Update(func(tx *ledger.Tx) error {
		return tx.PutLogin(ledger.Login{UID: v.uid, Router: v.router.Name, Source: s.Name(), State: a.State, Session: a.Session, Time: v.door.cfg.Now().UTC()})
	})
}
