package voluntary

import (
	"context"
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
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	ca "twinkey/ca/client"
	"twinkey/directory/client"
	"twinkey/pkg/limit"
	"twinkey/pkg/strictjson"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
	"twinkey/router/internal/engine"
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
	LoginParams(ctx context.Context, uid string) (client.LoginParams, error)
	Release(ctx context.Context, uid string, auth secret.Key) (client.Release, error)
	Own(ctx context.Context, l client.OwnLogin) error
}

// Hall is where guests are known; *engine.Engine is one.
type Hall interface {
	Vacant(ctx context.Context, a netip.Addr) error
	Welcome(ctx context.Context, g *engine.Guest) (policy.Terms, error)
	Leave(ctx context.Context, g *engine.Guest, reason string) error
	SucceedGuest(ctx context.Context, u engine.User, c *twincert.Certificate) (policy.Terms, error)
	Prove(ctx context.Context, g *engine.Guest, end engine.Ending) error
}

// Config is what a Server works with.
type Config struct {
	Name      string // of this router
	Directory Directory
	Hall      Hall
	Trust     *trust.Store
	// Scope is of this router's twin certificate, of the moment.
	Scope func() []string
	// Sign signs by the key of the TLS certificate that it returns, DER; low-S.
	Sign func(digest []byte) (router, signature []byte, err error)
	// Anchors are the company's, of the moment.
	Anchors func() (roots, intermediates []*x509.Certificate)
	// Vouch is how long what is signed for a tunnel is good.
	Vouch func() time.Duration
	// LoginKey fetches the CA's word for the key that passwords are sealed to, nil if the CA has no sources; Ask has the CA ask a user's source about a
	// sealed one. Both nil: only the directory knows users.
	LoginKey func(ctx context.Context) ([]byte, error)
	Ask      func(ctx context.Context, uid string, sealed []byte) (ca.Admission, error)
	// Guesses are the router's, wherever passwords are tried.
	Guesses *limit.Failures
	// Hold keeps back what failed so, of a request that was read then, until when such answers go out: authn.Hold.
	Hold func(ctx context.Context, read time.Time, err error)
	// CloseKey is the CA's, against which ends of sessions are proved; nil: it is not known yet.
	CloseKey func() []byte
	Log      *slog.Logger
}

// Server is the router's side. Safe for concurrent use.
type Server struct {
	// Refused are connections beyond the limits.
	Refused atomic.Uint64

	c          Config
	desk       *desk
	news       *news
	tries      *limiter
	challenges *challenges
	keys       *loginKeys // nil: nobody asks the CA
	said       *sessions
}

// NewServer returns a server without sessions; p is what users may do.
func NewServer(c Config, p *policy.Policy) *Server {
	s := &Server{c: c, desk: newDesk(), news: newNews(), tries: newLimiter(), challenges: newChallenges(), said: newSessions()}
	if c.LoginKey != nil {
		s.keys = newLoginKeys(func(ctx context.Context) ([]byte, error) {
			statement, err := c.LoginKey(ctx)
			if err != nil {
				c.Log.Warn("clients cannot have the ca asked", "error", err)
			}
			return statement, err
		})
	}
	s.news.setPolicy(p)
	return s
}

// Sites takes what the directory says of the other routers, CRL the newest CRL, Revoked what was revoked since, Policy what users may do:
// clients are told.
func (s *Server) Sites(sites []client.Site)  { s.news.setSites(sites) }
func (s *Server) CRL(der []byte)             { s.news.setCRL(der) }
func (s *Server) Revoked(ids ...twincert.ID) { s.news.revoke(ids...) }
func (s *Server) Policy(p *policy.Policy)    { s.news.setPolicy(p) }

// Succeed has a client's session go on with the user's newer certificate, and tells the client, which alone can open it. The group may be another one
// (a source has put them into it): what its rules say of the session holds from then on, and where none is for it the session is over.
func (s *Server) Succeed(ctx context.Context, u engine.User, next client.Successor) error {
	now := time.Now()
	c, err := s.c.Trust.Twin(now, next.Certificate, twincert.User)
	if err == nil && (c.Name != u.Certificate.Name || c.Keys.Data != u.Certificate.Keys.Data) {
		err = fmt.Errorf("certificate %s does not follow on %s", c.Serial, u.Certificate.Serial)
	}
	if err != nil {
		return err
	}
	e, _ := s.desk.at(u.Guest.Address)
	if e == nil || e.guest != u.Guest {
		return engine.ErrGone
	}
	terms, err := s.c.Hall.SucceedGuest(ctx, u, c)
	if err != nil {
		return err
	}
	s.desk.succeed(e, c, next, terms.Session, now)
	s.news.change(func() {}) // which wakes the watch
	return nil
}

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
	if err := srv.Serve(tls.NewListener(limit.NewListener(l, maxConns, maxConnsOfAddr, &s.Refused), c)); !errors.Is(err, http.ErrServerClosed) {
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
		"GET " + pathRoots:      s.roots,
		"POST " + pathParams:    s.params,
		"POST " + pathLogin:     s.login,
		"POST " + pathAsk:       s.ask,
		"POST " + pathChallenge: s.challenge,
		"POST " + pathProve:     s.prove,
		"GET " + pathWatch:      s.watch,
		"POST " + pathClose:     s.close,
		"POST " + pathSign:      s.sign,
		"POST " + pathLogout:    s.logout,
	} {
		mux.HandleFunc(pattern, s.answer(h))
	}
	mux.HandleFunc("/", s.answer(func(*request) (any, error) {
		return nil, &Error{Code: CodeInvalid, Message: "no such path or method"}
	}))
	return mux
}

// request is one request, and whom it comes from.
type request struct {
	w    http.ResponseWriter
	http *http.Request
	from netip.Addr
	read time.Time // when its body was: nobody draws that out
}

func (r *request) ctx() context.Context { return r.http.Context() }

// errStreamed says that a handler has written its answer itself.
var errStreamed = errors.New("answered already")

// answer runs a handler: what it returns goes as JSON, nothing as 204. A refusal may have to wait; nothing but the connection is taken up by it then, and
// only as many wait as the limits on tries let ask in that time.
func (s *Server) answer(h func(*request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		from, ok := addressOf(hr.RemoteAddr)
		if !ok {
			refuse(w, &Error{Code: CodeInvalid, Message: "an address that cannot be read"})
			return
		}
		r := &request{w: w, http: hr, from: from}
		v, err := h(r)
		if err != nil && !r.read.IsZero() {
			s.c.Hold(r.ctx(), r.read, err)
		}
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
	CodeToken: http.StatusUnauthorized, CodeAddress: http.StatusForbidden, CodeTaken: http.StatusConflict, CodeChallenge: http.StatusConflict, CodePolicy: http.StatusForbidden,
	CodeUnproved: http.StatusConflict, CodeLoginKey: http.StatusConflict,
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
		err = strictjson.Decode(b, v)
	}
	if err != nil {
		return &Error{Code: CodeInvalid, Message: "the request cannot be read"}
	}
	r.read = time.Now()
	return nil
}
