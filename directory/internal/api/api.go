package api

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"twinkey/directory/client"
	"twinkey/directory/internal/access"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/watch"
	"twinkey/pkg/limit"
	"twinkey/pkg/strictjson"
)

const (
	headerTimeout = 5 * time.Second // handshake and header
	readTimeout   = 30 * time.Second
	writeTimeout  = 60 * time.Second
	idleTimeout   = 60 * time.Second
	stopTimeout   = 5 * time.Second // for requests that are under way
	maxHeader     = 16 << 10

	maxConns       = 8192
	maxConnsOfAddr = 512 // many routers may share one NAT

	// A site where a thousand users log in at nine: two requests each. It is more than a router can derive keys for; what
	// stops one that guesses is the lock-out.
	callerRate  = 800
	callerBurst = 2000
	// Records of calls stay for ever. A thousand users who come at nine are a burst; more than that all day is a router that
	// wants to fill the disk.
	recordRate  = 20
	recordBurst = 4000
)

// Server answers for one register.
type Server struct {
	reg   *store.Register
	guard *access.Guard
	hub   *watch.Hub
	log   *slog.Logger
	start time.Time

	// ReadTimeout is how long a request may take to arrive. Set it before Serve.
	ReadTimeout time.Duration

	limits limiters // of requests
	told   limiters // of records of calls
	noisy  rate.Sometimes
	Counters
}

// New returns a server over what it is handed.
func New(reg *store.Register, guard *access.Guard, hub *watch.Hub, log *slog.Logger) *Server {
	return &Server{reg: reg, guard: guard, hub: hub, log: log, start: reg.Now(), ReadTimeout: readTimeout, noisy: rate.Sometimes{First: 20, Interval: time.Second}}
}

// Serve answers on l, under c, until ctx ends; then it ends the watches, lets requests that
// are under way finish for a short while, and returns nil.
func (s *Server) Serve(ctx context.Context, l net.Listener, c *tls.Config) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       s.ReadTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // handshakes of strangers
	}
	return s.run(ctx, srv, tls.NewListener(limit.NewListener(l, maxConns, maxConnsOfAddr, &s.Refused), c))
}

func (s *Server) run(ctx context.Context, srv *http.Server, l net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.hub.Stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	if end := <-ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// Handler serves the protocol of directory/client on requests whose TLS state is set.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+client.PathHealth, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]string{"status": "ok"})
	})
	for pattern, route := range map[string]struct {
		right  access.Right
		handle func(*request) (any, error)
	}{
		"POST " + client.PathChanges:          {access.Change, s.apply},
		"GET " + client.PathChanges + "/{id}": {access.Change, s.applied},
		"GET " + client.PathSites:             {access.Read, s.sites},
		"PUT " + client.PathSite:              {access.Own, s.announce},
		"GET " + client.PathCRL:               {access.Read, s.crl},
		"GET " + client.PathRevocations:       {access.Read, s.revocations},
		"POST " + client.PathParams:           {access.Own, s.params},
		"POST " + client.PathRelease:          {access.Own, s.release},
		"POST " + client.PathReseal:           {access.Own, s.reseal},
		"POST " + client.PathSuccessors:       {access.Own, s.successors},
		"POST " + client.PathOwn:              {access.Own, s.own},
		"POST " + client.PathCalls:            {access.Own, s.calls},
		"POST " + client.PathVouches:          {access.Change, s.vouch},
		"POST " + client.PathRefusals:         {access.Change, s.refused},
		"POST " + client.PathUserCalls:        {access.Change, s.userCalls},
		"GET " + client.PathLocks:             {access.Change, func(r *request) (any, error) { return s.locks(r.ctx()) }},
		"POST " + client.PathUnlock:           {access.Change, s.unlock},
		"GET " + client.PathWatch:             {access.Read, s.watch},
	} {
		mux.HandleFunc(pattern, s.as(route.right, route.handle))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, fmt.Errorf("%w: no such path or method", client.ErrNotFound))
	})
	return mux
}

// request is one request of a caller who may make it.
type request struct {
	w    http.ResponseWriter
	http *http.Request
	who  access.Caller
}

func (r *request) ctx() context.Context { return r.http.Context() }

// as runs handle for callers who have the right. What it returns is the answer: []byte as
// it is, nil for none, errStreamed if it wrote the answer itself, all else as JSON.
func (s *Server) as(right access.Right, handle func(*request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		s.Requests.Add(1)
		r := &request{w: w, http: hr}
		v, err := s.admitted(r, right, handle)
		switch {
		case errors.Is(err, errStreamed):
			return
		case err != nil:
			s.note(r, err)
			s.refuse(w, err)
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			answer(w, v)
		}
	}
}

var errStreamed = errors.New("answered already")

func (s *Server) admitted(r *request, right access.Right, handle func(*request) (any, error)) (any, error) {
	who, err := access.Who(r.http.TLS)
	if err == nil {
		r.who = who
		err = s.guard.Admit(r.ctx(), who, right)
	}
	if err != nil {
		if errors.Is(err, client.ErrDenied) {
			r.w.Header().Set("Connection", "close")
		}
		return nil, err
	}
	if right == access.Own && !s.limits.of(who, callerRate, callerBurst).Allow() {
		return nil, fmt.Errorf("%w: more than %d a second", client.ErrTooMany, callerRate)
	}
	return handle(r)
}

// limiters has one for each admitted caller, by URI.
type limiters struct{ m sync.Map }

func (s *limiters) of(who access.Caller, perSecond rate.Limit, burst int) *rate.Limiter {
	l, ok := s.m.Load(who.URI)
	if !ok {
		l, _ = s.m.LoadOrStore(who.URI, rate.NewLimiter(perSecond, burst))
	}
	return l.(*rate.Limiter) //nolint:forcetypeassert // nothing else is stored
}

// decode reads a body of at most limit bytes: one JSON value with no field that we do not
// know, since what we would overlook the caller means.
func (r *request) decode(limit int64, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(r.w, r.http.Body, limit))
	defer clear(b) // a release holds a password proof
	if err != nil {
		return fmt.Errorf("%w: reading the request: %w", client.ErrInvalid, err)
	}
	if err := strictjson.Decode(b, v); err != nil {
		return fmt.Errorf("%w: decoding the request: %w", client.ErrInvalid, err)
	}
	return nil
}

func answer(w http.ResponseWriter, v any) {
	if raw, ok := v.([]byte); ok {
		w.Header().Set("Content-Type", "application/pkix-crl")
		_, _ = w.Write(raw) //nolint:gosec // a CRL, said to be one
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
