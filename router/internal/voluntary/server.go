package voluntary

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"twinkey/directory/client"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/twincert"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

const (
	headerTimeout = 5 * time.Second // handshake and header
	readTimeout   = 15 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 2 * time.Minute
	wordTimeout   = 10 * time.Second // for a client to take one word
	stopTimeout   = 2 * time.Second
	deadPath      = 20 * time.Second // what was sent and not acknowledged for so long was sent to nobody
	maxHeader     = 8 << 10
)

// Directory is what a login asks of the directory; *client.Client is one.
type Directory interface {
	LoginParams(ctx context.Context, uid string) (keybundle.Params, error)
	Release(ctx context.Context, uid string, auth secret.Key) (client.Release, error)
}

// Hall is where guests are known; *engine.Engine is one.
type Hall interface {
	Vacant(ctx context.Context, a netip.Addr) error
	Welcome(ctx context.Context, g *engine.Guest) (policy.Terms, error)
	Leave(ctx context.Context, g *engine.Guest, reason string) error
}

// Config is what a Server works with.
type Config struct {
	Name      string // of this router
	Directory Directory
	Hall      Hall
	Trust     *trust.Store
	// Sign signs by the key of the TLS certificate that it returns, DER; low-S.
	Sign func(digest []byte) (router, signature []byte, err error)
	// Anchors are the company's, of the moment.
	Anchors func() (roots, intermediates []*x509.Certificate)
	// Vouch is how long what is signed for a tunnel is good.
	Vouch func() time.Duration
	Log   *slog.Logger
}

// Server is the router's side. Safe for concurrent use.
type Server struct {
	c     Config
	desk  *desk
	news  *news
	tries *limiter
}

// NewServer returns a server without sessions; p is what users may do.
func NewServer(c Config, p *policy.Policy) *Server {
	s := &Server{c: c, desk: newDesk(), news: newNews(), tries: newLimiter()}
	s.news.setPolicy(p)
	return s
}

// Sites takes what the directory says of the other routers, CRL the newest CRL, Revoked what was revoked since, Policy what users may do:
// clients are told.
func (s *Server) Sites(sites []client.Site)  { s.news.setSites(sites) }
func (s *Server) CRL(der []byte)             { s.news.setCRL(der) }
func (s *Server) Revoked(ids ...twincert.ID) { s.news.revoke(ids...) }
func (s *Server) Policy(p *policy.Policy)    { s.news.setPolicy(p) }

// Listen opens the listener for clients.
func Listen(addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctl := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadPath.Milliseconds())) //nolint:gosec // a file descriptor fits
		})
		return errors.Join(ctl, err)
	}}
	l, err := lc.Listen(context.Background(), "tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening for clients: %w", err)
	}
	return l, nil
}

// Serve answers on l, under c, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener, c *tls.Config) error {
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.c.Log.Handler(), slog.LevelDebug), // handshakes of strangers
	}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			_ = srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(tls.NewListener(newLimited(l), c)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving clients: %w", err)
	}
	for _, e := range s.desk.all() { // timers are not to fire in a router that has stopped
		s.desk.remove(e, "the router has stopped")
	}
	return nil
}

// Handler serves the dialogue.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*request) (any, error){
		"GET " + pathRoots:   s.roots,
		"POST " + pathParams: s.params,
		"POST " + pathLogin:  s.login,
		"GET " + pathWatch:   s.watch,
		"POST " + pathSign:   s.sign,
		"POST " + pathLogout: s.logout,
	} {
		mux.HandleFunc(pattern, answer(h))
	}
	mux.HandleFunc("/", answer(func(*request) (any, error) {
		return nil, &Error{Code: CodeInvalid, Message: "no such path or method"}
	}))
	return mux
}

// request is one request, and whom it comes from.
type request struct {
	w    http.ResponseWriter
	http *http.Request
	from netip.Addr
}

func (r *request) ctx() context.Context { return r.http.Context() }

// errStreamed says that a handler has written its answer itself.
var errStreamed = errors.New("answered already")

// answer runs a handler: what it returns goes as JSON, nothing as 204.
func answer(h func(*request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		from, ok := addressOf(hr.RemoteAddr)
		if !ok {
			refuse(w, &Error{Code: CodeInvalid, Message: "an address that cannot be read"})
			return
		}
		v, err := h(&request{w: w, http: hr, from: from})
		switch {
		case errors.Is(err, errStreamed):
		case err != nil:
			refuse(w, err)
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_ = json.NewEncoder(w).Encode(v) // a client that went away misses its answer
		}
	}
}

var statuses = map[Code]int{
	CodeInvalid: http.StatusBadRequest, CodeDenied: http.StatusForbidden, CodeLocked: http.StatusTooManyRequests, CodeBusy: http.StatusTooManyRequests,
	CodeToken: http.StatusUnauthorized, CodeAddress: http.StatusForbidden, CodeTaken: http.StatusConflict, CodePolicy: http.StatusForbidden,
}

func refuse(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Code: CodeUnavailable, Message: "the router could not do it; its log says why"}
	}
	status, ok := statuses[e.Code]
	if !ok {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{Code: e.Code, Message: e.Message, RetryAfterMS: e.RetryAfter.Milliseconds()})
}

// decode reads a body: one JSON value without fields that we do not know.
func (r *request) decode(v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(r.w, r.http.Body, maxRequest))
	defer clear(b) // it may hold a proof
	if err == nil {
		err = parse(b, v)
	}
	if err != nil {
		return &Error{Code: CodeInvalid, Message: "the request cannot be read"}
	}
	return nil
}

// parse reads one JSON value, nothing behind it, no field that is not known.
func parse(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows")
	}
	return nil
}

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

func (s *Server) params(r *request) (any, error) {
	var in ParamsRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if err := s.try(r); err != nil {
		return nil, err
	}
	p, err := s.c.Directory.LoginParams(r.ctx(), in.User)
	if err != nil {
		return nil, s.directoryError(in.User, r.from, err)
	}
	return p, nil
}

// errUser is the one refusal for whatever concerns the user; the operator sees in the directory's audit which it was.
var errUser = &Error{Code: CodeDenied, Message: "no such user, or a wrong password"}

func (s *Server) directoryError(uid string, from netip.Addr, err error) error {
	var out *Error
	d, _ := errors.AsType[*client.Error](err)
	switch {
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
	s.c.Log.Warn("client refused", "address", from.String(), "user", fmt.Sprintf("%.100q", uid), "reason", err)
	return out
}

func (s *Server) login(r *request) (any, error) {
	var in LoginRequest
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	auth := secret.New(in.Auth)
	defer auth.Wipe()
	if err := s.try(r); err != nil {
		return nil, err
	}
	// What concerns the address is said before a try at the password is spent on it.
	if err := s.c.Hall.Vacant(r.ctx(), r.from); err != nil {
		return nil, s.hallError(in.User, r.from, err)
	}
	if _, watched := s.desk.at(r.from); watched {
		return nil, errTaken(r.from)
	}
	if !s.desk.room() {
		return nil, &Error{Code: CodeBusy, Message: "this router has as many clients as it may have", RetryAfter: time.Minute}
	}
	release, err := s.c.Directory.Release(r.ctx(), in.User, auth)
	if err != nil {
		return nil, s.directoryError(in.User, r.from, err)
	}
	now := time.Now()
	cert, err := s.c.Trust.Twin(now, release.Certificate, twincert.User)
	if err == nil && cert.Name != in.User {
		err = fmt.Errorf("the directory answered with the keys of %s", cert.Name)
	}
	if err != nil {
		return nil, s.directoryError(in.User, r.from, err)
	}
	e, token, err := s.begin(r, cert, now)
	if err != nil {
		return nil, err
	}
	out := Admission{Token: token, Router: s.c.Name, Certificate: release.Certificate, Sealed: release.Sealed, Address: r.from, Until: e.until}
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
	s.c.Log.Warn("client refused", "address", from.String(), "user", fmt.Sprintf("%.100q", uid), "reason", err)
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

// begin makes a session for a user who has proven the password.
func (s *Server) begin(r *request, cert *twincert.Certificate, now time.Time) (*session, []byte, error) {
	// A client that was killed may come again at once; the session that it left has nobody any more.
	if old, watched := s.desk.at(r.from); old != nil {
		if watched || old.user.Name != cert.Name {
			return nil, nil, errTaken(r.from)
		}
		if err := s.finish(r.ctx(), old, "the user has logged in again"); err != nil {
			return nil, nil, err
		}
	}
	token := make([]byte, tokenLen)
	if _, err := rand.Read(token); err != nil {
		return nil, nil, err
	}
	e := &session{name: nameOf(token), user: cert, signs: rate.NewLimiter(signsPerSession, signsBurst), gone: make(chan struct{}), until: cert.NotAfter}
	e.guest = &engine.Guest{Certificate: cert, Address: r.from, Dismissed: func(reason string) { s.desk.remove(e, reason) }}
	terms, err := s.c.Hall.Welcome(r.ctx(), e.guest)
	if err != nil {
		return nil, nil, s.hallError(cert.Name, r.from, err)
	}
	if t := now.Add(terms.Session); terms.Session > 0 && t.Before(e.until) {
		e.until = t
	}
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
	return s.c.Hall.Leave(ctx, e.guest, reason)
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
	if d := pause(e.signs, now); d > 0 {
		return nil, &Error{Code: CodeBusy, Message: "too many tunnels", RetryAfter: d}
	}
	if err := s.c.Trust.Fresh(now); err != nil { // as for a user who logs in at this router: who may be revoked gets no new call
		return nil, &Error{Code: CodeUnavailable, Message: err.Error()}
	}
	good := s.c.Vouch()
	until := now.Add(good)
	if e.until.Before(until) {
		good, until = 0, e.until
	}
	st := handshake.Statement{
		Hash: [hashLen]byte(in.Hash), Control: e.user.Keys.Control, Certificate: e.user.Raw,
		Bound: native.Held{Address: e.guest.Address, Until: until}.Append(nil),
	}
	digest := st.Digest()
	router, signature, err := s.c.Sign(digest[:])
	if err != nil {
		s.c.Log.Error("client's tunnel not vouched for", "user", e.user.Name, "error", err)
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
	known := told{group: e.user.Group}
	for {
		word, more := s.news.next(&known)
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
