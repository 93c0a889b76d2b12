package voluntary

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

const (
	// askTime is for the CA to ask a source, and for the directory.
	askTime = 35 * time.Second

	// keyAge is how long one statement of the CA is handed out, keyTaken how long a password may come that is sealed to it: the CA opens it for ten
	// minutes at the least.
	keyAge   = 4 * time.Minute
	keyTaken = 9 * time.Minute
	// noKeyAge is how long the CA is believed to have no sources, awayAge how long it is not asked again when it was away.
	noKeyAge = 30 * time.Second
	awayAge  = 5 * time.Second
	keyTime  = 4 * time.Second // for the CA to answer
	maxKeys  = 4               // that passwords may be sealed to: more than are handed out within keyTaken

	// askedLife is how long what the CA said of a session is kept for the login that follows: what it vouches for is good no longer.
	askedLife = client.VouchLife + 5*time.Second
	maxAsked  = 4096
)

var (
	// errLoginKey says nothing of the user, and nothing has been looked at when it is said.
	errLoginKey = &Error{Code: CodeLoginKey, Message: "the password is sealed to a key that the CA does not have any more"}
	// errAskAnew is for who has proved the password, and was vouched for in another login.
	errAskAnew = &Error{Code: CodeDenied, Message: "a user of a source has the CA asked at each login"}
)

// loginKeys has the CA's word for the key that passwords are sealed to. It reads it, and believes it as little as it can be
// believed by: whether it is the CA's, each client sees for itself.
type loginKeys struct {
	fetch func(ctx context.Context) ([]byte, error)
	turn  chan struct{} // one fetch at a time

	mu        sync.Mutex
	statement []byte // nil: the CA has no sources
	err       error  // or it is away
	until     time.Time
	given     map[sealedlogin.Key]time.Time // when each was heard of last
}

func newLoginKeys(fetch func(context.Context) ([]byte, error)) *loginKeys {
	return &loginKeys{fetch: fetch, turn: make(chan struct{}, 1), given: make(map[sealedlogin.Key]time.Time)}
}

// present is the statement of the moment; nil: the CA has no sources. An error is ca.ErrUnavailable.
func (k *loginKeys) present(ctx context.Context) ([]byte, error) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ca.ErrUnavailable, ctx.Err())
	}
	k.mu.Lock()
	fresh, statement, err := time.Now().Before(k.until), k.statement, k.err
	k.mu.Unlock()
	if fresh {
		return statement, err
	}
	// Who hangs up does not have it fail for the others.
	fetch, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyTime)
	defer cancel()
	statement, err = k.fetch(fetch)
	var s sealedlogin.Statement
	if err == nil && statement != nil {
		s, err = sealedlogin.ParseStatement(statement)
	}
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.statement, k.err, k.until = statement, nil, now.Add(keyAge)
	switch {
	case err != nil: // also one that is none of a CA that is away: it speaks against nobody's password
		k.statement, k.err, k.until = nil, fmt.Errorf("%w: %v", ca.ErrUnavailable, err), now.Add(awayAge) //nolint:errorlint // that is the point
	case statement == nil:
		k.until = now.Add(noKeyAge)
	default:
		k.give(s.Key, now)
	}
	return k.statement, k.err
}

// give notes a key. The caller holds mu.
func (k *loginKeys) give(key sealedlogin.Key, now time.Time) {
	k.given[key] = now
	for other, at := range k.given {
		if now.Sub(at) > keyTaken {
			delete(k.given, other)
		}
	}
	for len(k.given) > maxKeys { // a CA that has another one each time
		var oldest sealedlogin.Key
		first := now
		for other, at := range k.given {
			if other != key && !at.After(first) {
				oldest, first = other, at
			}
		}
		delete(k.given, oldest)
	}
}

// takes says whether something is sealed to a key that was handed out a while ago at the most.
func (k *loginKeys) takes(sealed []byte) bool {
	e, ok := sealedlogin.ParseEnvelope(sealed)
	k.mu.Lock()
	defer k.mu.Unlock()
	at, given := k.given[e.To]
	return ok && given && time.Since(at) < keyTaken
}

// forget has the CA asked anew: it does not have the key any more.
func (k *loginKeys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = time.Time{}
	clear(k.given)
}

// sessions are what the CA has said of logins that are to follow, by user and address.
type sessions struct {
	mu   sync.Mutex
	said map[visitor]saidOf
}

type visitor struct {
	user string
	from netip.Addr
}

type saidOf struct {
	limit time.Time // when the session has to end; zero: when the policy says
	until time.Time // when this is forgotten
}

func newSessions() *sessions { return &sessions{said: make(map[visitor]saidOf)} }

// note keeps what was said; false: there is no room for it.
func (s *sessions) note(v visitor, limit, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, o := range s.said {
		if now.After(o.until) {
			delete(s.said, other)
		}
	}
	if _, ok := s.said[v]; !ok && len(s.said) >= maxAsked {
		return false
	}
	s.said[v] = saidOf{limit, now.Add(askedLife)}
	return true
}

// of is what was said; false: nothing, or too long ago.
func (s *sessions) of(v visitor, now time.Time) (limit time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.said[v]
	return o.limit, ok && !now.After(o.until)
}

// limitOf is when a session has to end that began now; zero: when the policy says.
func limitOf(session time.Duration, now time.Time) time.Time {
	if session <= 0 {
		return time.Time{}
	}
	return now.Add(session)
}

// ask lets in whose password the directory or a source of the company's knows. Up to the answer nobody can tell which of both it is.
func (s *Server) ask(r *request) (any, error) {
	var in AskRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	auth := secret.New(in.Auth)
	defer auth.Wipe()
	if auth.Len() == 0 { // whoever is local is refused as with a wrong one
		auth = secret.New(make([]byte, proofLen))
		if _, err := rand.Read(auth.Bytes()); err != nil {
			return nil, err
		}
	}
	if err := s.approach(r, in.User); err != nil {
		return nil, err
	}
	if !s.desk.room() {
		return nil, errFull
	}
	// What is said of login keys is said whoever the user is.
	statement, away := s.loginKey(r.ctx())
	if statement != nil && !s.keys.takes(in.Sealed) {
		return nil, errLoginKey
	}
	ctx, cancel := context.WithTimeout(r.ctx(), askTime)
	defer cancel()
	var done asked
	err := s.guess(r, in.User, func() (err error) {
		known, err := s.c.Directory.LoginParams(ctx, in.User)
		switch {
		case err != nil:
			return err
		case !known.AskCA: // what is sealed stays sealed, and goes nowhere
			done.release, err = s.c.Directory.Release(ctx, in.User, auth)
			return err
		case away != nil:
			return away
		case statement == nil: // the CA has said that it has no sources
			return ca.ErrLoginKey
		}
		done, err = s.bySource(ctx, &in, auth, known.Params)
		return err
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if done.again != nil {
		if !s.said.note(visitor{in.User, r.from}, done.limit, now) {
			return nil, errFull
		}
		return Asked{Params: done.again, Confirm: done.confirm}, nil
	}
	if done.release.Source && !done.source { // of one, since it was asked whether they are
		return nil, errAskAnew
	}
	adm, err := s.letIn(r, in.User, done.release, done.limit, now)
	if err != nil {
		return nil, err
	}
	adm.Source = done.source
	return Asked{Admission: &adm}, nil
}

// asked is what came of it.
type asked struct {
	release client.Release
	source  bool              // the CA has asked one
	limit   time.Time         // it has set the session
	again   *keybundle.Params // the password is stretched like this now: nothing is released yet
	confirm []byte            // the CA's word for that
}

// bySource has the CA ask the user's source, and fetches the keys if the proof fits those that the user had before.
func (s *Server) bySource(ctx context.Context, in *AskRequest, auth secret.Key, known keybundle.Params) (asked, error) {
	a, err := s.c.Ask(ctx, in.User, in.Sealed)
	if err != nil {
		if errors.Is(err, ca.ErrLoginKey) {
			s.keys.forget()
		}
		return asked{}, err
	}
	out := asked{source: true, limit: limitOf(a.Session(), time.Now())}
	if !a.Params.Equal(known) || len(in.Auth) == 0 {
		out.again, out.confirm = &a.Params, a.Confirm
		return out, nil
	}
	out.release, err = s.c.Directory.Release(ctx, in.User, auth)
	return out, err
}

// loginKey is the CA's word for the key that passwords are sealed to; nil: nobody is to be asked.
func (s *Server) loginKey(ctx context.Context) ([]byte, error) {
	if s.keys == nil {
		return nil, nil
	}
	return s.keys.present(ctx)
}

// caError is what a client hears of what the CA says.
func caError(err error) *Error {
	c, _ := errors.AsType[*ca.Error](err)
	switch {
	case errors.Is(err, ca.ErrLoginKey):
		return errLoginKey
	case errors.Is(err, ca.ErrDenied):
		return errUser
	case errors.Is(err, ca.ErrLocked):
		return &Error{Code: CodeLocked, Message: "locked after too many tries", RetryAfter: c.RetryAfter}
	case errors.Is(err, ca.ErrTooMany), errors.Is(err, keybundle.ErrBusy):
		return &Error{Code: CodeBusy, Message: "too many logins", RetryAfter: time.Second}
	case errors.Is(err, ca.ErrSource):
		e := &Error{Code: CodeSource, Message: "what the company's CA asks about users does not answer"}
		if c != nil && twincert.CheckName(c.Message) == nil {
			e.Message += ": " + c.Message
		}
		return e
	case errors.Is(err, ca.ErrUnavailable):
		return &Error{Code: CodeCA, Message: "the router does not reach the company's CA, or the CA cannot do it now"}
	}
	return nil
}
