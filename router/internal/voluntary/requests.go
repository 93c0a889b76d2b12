package voluntary

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/limit"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

func (s *Server) roots(*request) (any, error) {
	var out Roots
	roots, _ := s.c.Anchors()
	for _, c := range roots {
		out.Roots = append(out.Roots, c.Raw)
	}
	return out, nil
}

// try counts a try from the address of r.
func (s *Server) try(r *request) error {
	if d := s.tries.wait(r.from, time.Now()); d > 0 {
		return &Error{Code: CodeBusy, Message: "too many logins", RetryAfter: d}
	}
	return nil
}

// approach counts a try from the address of r, and says what concerns the address.
func (s *Server) approach(r *request, uid string) error {
	if err := s.try(r); err != nil {
		return err
	}
	if err := s.c.Hall.Vacant(r.ctx(), r.from); err != nil {
		return s.hallError(uid, r.from, err)
	}
	if _, watched := s.desk.at(r.from); watched {
		return errTaken(r.from)
	}
	return nil
}

func (s *Server) params(r *request) (any, error) {
	var in ParamsRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if err := s.approach(r, in.User); err != nil { // nobody from elsewhere has the directory asked, or types a password
		return nil, err
	}
	p, err := s.c.Directory.LoginParams(r.ctx(), in.User)
	if err != nil {
		return nil, s.loginError(in.User, r.from, err)
	}
	// Whether the CA would have to be asked about this user is not said: it would tell who is known. It is one answer for everybody.
	statement, away := s.loginKey(r.ctx())
	return ParamsAnswer{Params: p.Params, Ask: away != nil || statement != nil, LoginKey: statement}, nil
}

// errUser is the one refusal for whatever concerns the user; the operator sees in the directory's audit which it was. How long it took says nothing
// either: Config.Hold.
var errUser = &Error{Code: CodeDenied, Message: "no such user, or a wrong password", Err: client.ErrDenied}

// loginError is what a client hears of what directory or CA say.
func (s *Server) loginError(uid string, from netip.Addr, err error) error {
	out := caError(err)
	d, _ := errors.AsType[*client.Error](err)
	switch {
	case out != nil:
	case errors.Is(err, ca.ErrInvalid):
		out = &Error{Code: CodeInvalid, Message: fmt.Sprintf("%.100q is no UserID", uid)}
	case errors.Is(err, client.ErrInvalid):
		out = &Error{Code: CodeInvalid, Message: fmt.Sprintf("%.100q is no UserID", uid)}
	case errors.Is(err, client.ErrDenied):
		out = errUser
	case errors.Is(err, client.ErrLocked):
		out = &Error{Code: CodeLocked, Message: "locked after too many tries", RetryAfter: d.RetryAfter}
	case errors.Is(err, client.ErrTooMany):
		out = &Error{Code: CodeBusy, Message: "too many logins", RetryAfter: max(d.RetryAfter, time.Second)}
	default:
		out = &Error{Code: CodeUnavailable, Message: "the router does not reach the directory"}
	}
	s.refused(uid, from, err)
	return out
}

// refused logs why somebody was not let in.
func (s *Server) refused(uid string, from netip.Addr, err error) {
	s.c.Log.Warn("client refused", "address", from.String(), "user", uid[:min(len(uid), maxLogged)], "reason", err)
}

// maxLogged is how much of a UserID is logged that may be none, bytes.
const maxLogged = 64

func (s *Server) login(r *request) (any, error) {
	var in LoginRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	auth := secret.New(in.Auth)
	defer auth.Wipe()
	// What concerns the address is said before a try at the password is spent on it.
	if err := s.approach(r, in.User); err != nil {
		return nil, err
	}
	if !s.desk.room() {
		return nil, errFull
	}
	var release client.Release
	err := s.guess(r, in.User, func() (err error) {
		release, err = s.c.Directory.Release(r.ctx(), in.User, auth)
		return err
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	limit, said := s.said.of(visitor{in.User, r.from}, now)
	if release.Source && !said {
		// The CA has vouched for another login of theirs, here, within the minute: how long this one may last nobody has said.
		s.refused(in.User, r.from, errAskAnew)
		return nil, errAskAnew
	}
	if !release.Source {
		limit = time.Time{}
	}
	adm, err := s.letIn(r, in.User, release, limit, now)
	adm.Source = release.Source
	return adm, err
}

// letIn makes a session for a user whose keys were released. It ends at limit, unless that is zero, if nothing ends it sooner.
func (s *Server) letIn(r *request, uid string, release client.Release, limit, now time.Time) (Admission, error) {
	der := release.Certificate
	if release.Successor != nil {
		der = release.Successor.Certificate
	}
	cert, err := s.c.Trust.Twin(now, der, twincert.User)
	if err == nil && cert.Name != uid {
		err = fmt.Errorf("the directory answered with the keys of %s", cert.Name)
	}
	if err != nil {
		s.refused(uid, r.from, err)
		return Admission{}, &Error{Code: CodeUnavailable, Message: "the router does not believe what the directory says of the user; its log says why"}
	}
	return s.admit(r, cert, release, limit, now)
}

// errFull says that no more clients are taken.
var errFull = &Error{Code: CodeBusy, Message: "this router has as many clients as it may have", RetryAfter: time.Minute}

// admit makes a session and says what a client is to know of it, the keys that were released for it too.
func (s *Server) admit(r *request, cert *twincert.Certificate, release client.Release, limit, now time.Time) (Admission, error) {
	e, token, err := s.begin(r, cert, limit, now)
	if err != nil {
		return Admission{}, err
	}
	_, until, _ := s.desk.present(e)
	_, key := s.demand(e)
	out := Admission{Close: key, Token: token, Router: s.c.Name, Certificate: release.Certificate, Sealed: release.Sealed, Successor: release.Successor, Address: r.from, Until: until}
	_, inter := s.c.Anchors()
	for _, c := range inter {
		out.Intermediates = append(out.Intermediates, c.Raw)
	}
	return out, nil
}

func errTaken(a netip.Addr) error {
	return &Error{Code: CodeTaken, Message: fmt.Sprintf("somebody is logged in from %s already", a)}
}

func (s *Server) hallError(uid string, from netip.Addr, err error) error {
	s.refused(uid, from, err)
	switch {
	case errors.Is(err, engine.ErrNotOurs):
		return &Error{Code: CodeAddress, Message: fmt.Sprintf("users of this router do not come from %s", from)}
	case errors.Is(err, engine.ErrBridged):
		return &Error{Code: CodeAddress, Message: fmt.Sprintf("%s belongs to a site, not to a user", from)}
	case errors.Is(err, engine.ErrBusy):
		return errTaken(from)
	case errors.Is(err, policy.ErrDenied):
		return &Error{Code: CodePolicy, Message: err.Error()}
	}
	return err
}

// begin makes a session for a user who has proved the password, or keys of their own. What is zero of limit and the policy's session time
// bounds nothing.
func (s *Server) begin(r *request, cert *twincert.Certificate, limit, now time.Time) (*session, []byte, error) {
	// A client that was killed may come again at once; the session that it left has nobody any more.
	old, watched := s.desk.at(r.from)
	if old != nil {
		if user, _, _ := s.desk.present(old); watched || user.Name != cert.Name {
			return nil, nil, errTaken(r.from)
		}
	}
	if s.news.closes(cert.Group) && s.c.CloseKey() == nil {
		s.refused(cert.Name, r.from, errNoCloseKey)
		return nil, nil, &Error{Code: CodeUnavailable, Message: errNoCloseKey.Error()}
	}
	token := make([]byte, tokenLen)
	if _, err := rand.Read(token); err != nil {
		return nil, nil, err
	}
	e := &session{name: nameOf(token), user: cert, since: now, limit: limit, until: cert.NotAfter, signs: rate.NewLimiter(signsPerSession, signsBurst), gone: make(chan struct{})}
	e.guest = &engine.Guest{Certificate: cert, Address: r.from, Dismissed: func(reason string) { s.desk.remove(e, reason) }}
	if old != nil {
		e.guest.Replaces = old.guest
	}
	terms, err := s.c.Hall.Welcome(r.ctx(), e.guest)
	if err != nil {
		return nil, nil, s.hallError(cert.Name, r.from, err)
	}
	if old != nil {
		s.desk.remove(old, "the user has logged in again")
	}
	e.bound(terms.Session)
	e.until = e.last(cert)
	if !s.desk.add(e, now, func(reason string) {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_ = s.finish(ctx, e, reason) // it fails only in a router that has stopped
	}) {
		return nil, nil, &Error{Code: CodePolicy, Message: s.desk.why(e)}
	}
	return e, token, nil
}

// finish ends a session, if it is not over.
func (s *Server) finish(ctx context.Context, e *session, reason string) error {
	if !s.desk.remove(e, reason) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout) // a client that has gone leaves all the same
	defer cancel()
	return s.c.Hall.Leave(ctx, e.guest, reason)
}

// errNoCloseKey says why a user is not let in whose certificate is to be revoked at the end.
var errNoCloseKey = errors.New("the router has not heard the company's CA yet, which is to revoke the user's certificate at the end of the session")

// lacks says of which certificate a session's client has yet to prove the end, because the policy has it revoked then; nil: of none.
func (s *Server) lacks(e *session) *twincert.Certificate {
	if user, unproved := s.desk.unproved(e); unproved && s.news.closes(user.Group) {
		return user
	}
	return nil
}

// demand returns of which certificate a client has yet to prove the end, and the key to prove it against. From then on it has proveTime.
func (s *Server) demand(e *session) (of twincert.ID, key []byte) {
	user := s.lacks(e)
	if user == nil {
		return of, nil
	}
	if key = s.c.CloseKey(); key == nil { // until it is known nothing is signed
		return of, nil
	}
	s.desk.demand(e, func() {
		if s.lacks(e) == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_ = s.finish(ctx, e, "the client has not proved the end of its session beforehand, as revoke-on-close wants it: is it of an older version?") // it fails only in a router that has stopped
	})
	return user.ID(), key
}

// close takes what proves the end of a session.
func (s *Server) close(r *request) (any, error) {
	e, err := s.authorized(r)
	if err != nil {
		return nil, err
	}
	var in CloseRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	user, _, _ := s.desk.present(e)
	switch {
	case len(in.Proof) != proofLen:
		return nil, &Error{Code: CodeInvalid, Message: fmt.Sprintf("a proof has %d bytes, not %d", proofLen, len(in.Proof))}
	case in.Serial != user.Serial.String():
		return nil, &Error{Code: CodeInvalid, Message: "the session is on another certificate"}
	}
	if d := limit.Wait(e.signs, time.Now()); d > 0 {
		return nil, &Error{Code: CodeBusy, Message: "too many proofs", RetryAfter: d}
	}
	err = s.c.Hall.Prove(r.ctx(), e.guest, engine.Ending{Certificate: user, Proof: in.Proof})
	if errors.Is(err, engine.ErrGone) {
		return nil, errToken
	}
	if err != nil {
		return nil, err
	}
	s.desk.prove(e, user.ID())
	return nil, nil
}

// errToken is the one refusal for no token, a wrong one, one that is over and one of another address.
var errToken = &Error{Code: CodeToken, Message: "nobody is logged in with this token from here"}

// authorized returns the session whose token a request shows.
func (s *Server) authorized(r *request) (*session, error) {
	token, ok := parseToken(r.http.Header.Get("Authorization"))
	if !ok {
		return nil, errToken
	}
	e, ok := s.desk.find(token, r.from)
	if !ok {
		return nil, errToken
	}
	return e, nil
}

func (s *Server) sign(r *request) (any, error) {
	e, err := s.authorized(r)
	if err != nil {
		return nil, err
	}
	var in SignRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if len(in.Hash) != hashLen {
		return nil, &Error{Code: CodeInvalid, Message: fmt.Sprintf("a handshake hash has %d bytes, not %d", hashLen, len(in.Hash))}
	}
	now := time.Now()
	if d := limit.Wait(e.signs, now); d > 0 {
		return nil, &Error{Code: CodeBusy, Message: "too many tunnels", RetryAfter: d}
	}
	if s.lacks(e) != nil { // else a client could keep its certificate by proving nothing
		return nil, &Error{Code: CodeUnproved, Message: "the end of the session is to be proved first"}
	}
	if err := s.c.Trust.Fresh(now); err != nil { // as for a user who logs in at this router: who may be revoked gets no new call
		return nil, &Error{Code: CodeUnavailable, Message: err.Error()}
	}
	good := s.c.Vouch()
	user, end, _ := s.desk.present(e)
	until := now.Add(good)
	if end.Before(until) {
		good, until = 0, end
	}
	st := handshake.Statement{
		Hash: [hashLen]byte(in.Hash), Control: user.Keys.Control, Certificate: user.Raw,
		Bound: native.Held{Address: e.guest.Address, Until: until}.Append(nil),
	}
	digest := st.Digest()
	router, signature, err := s.c.Sign(digest[:])
	if err != nil {
		s.c.Log.Error("client's tunnel not vouched for", "user", user.Name, "error", err)
		return nil, err
	}
	return Voucher{Router: router, Bound: st.Bound, Signature: signature, Good: good.Milliseconds()}, nil
}

func (s *Server) logout(r *request) (any, error) {
	e, err := s.authorized(r)
	if err != nil {
		return nil, err
	}
	return nil, s.finish(r.ctx(), e, "logged out")
}

// watch tells a client what there is to know, until it goes or its session is over.
func (s *Server) watch(r *request) (any, error) {
	e, err := s.authorized(r)
	if err != nil {
		return nil, err
	}
	ctx, cut := context.WithCancel(r.ctx())
	defer cut()
	defer s.desk.attach(e, cut)()
	r.w.Header().Set("Content-Type", "application/x-ndjson")
	ctl, lines := http.NewResponseController(r.w), json.NewEncoder(r.w)
	if err := ctl.SetReadDeadline(time.Time{}); err != nil { // there is no more to come, and it may take for ever
		return nil, err
	}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	user, _, _ := s.desk.present(e)
	known := told{group: user.Group}
	var followed *client.Successor
	var asked twincert.ID // of which the end is to be proved
	for {
		word, more := s.news.next(&known)
		user, _, next := s.desk.present(e) // asked after more was made: none is missed
		if user.Group != known.group {     // a source has put them into another one
			word, more = s.news.regrouped(&known, user.Group)
		}
		if next != followed {
			word.Successor, followed = next, next
		}
		if of, key := s.demand(e); key != nil && of != asked {
			word.Close, asked = key, of
		}
		word.Heard = sinceHeard(s.c.Trust.LastHeard(), time.Now())
		select {
		case <-e.gone:
			word = Word{Ended: s.desk.why(e), Heard: word.Heard}
		default:
		}
		err := ctl.SetWriteDeadline(time.Now().Add(wordTimeout))
		if err == nil {
			err = lines.Encode(word)
		}
		if err == nil {
			err = ctl.Flush()
		}
		if err != nil || word.Ended != "" {
			return nil, errStreamed // the client has gone, or knows all
		}
		select {
		case <-more:
		case <-ticker.C:
		case <-e.gone:
		case <-ctx.Done():
			return nil, errStreamed
		}
	}
}

// sinceHeard is what Word.Heard says.
func sinceHeard(at, now time.Time) int64 {
	if at.IsZero() {
		return -1
	}
	return max(0, now.Sub(at).Milliseconds())
}
