package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"twinkey/ca/internal/accounts"
	"twinkey/ca/internal/board"
	"twinkey/ca/internal/enroll"
	"twinkey/ca/internal/home"
	"twinkey/ca/internal/login"
	"twinkey/ca/internal/source"
	dirclient "twinkey/directory/client"
	"twinkey/pkg/limit"
	"twinkey/pkg/operator"
)

// Bounds of the servers.
const (
	maxConnections = 4096
	maxOfAddress   = 256 // many routers may share one NAT, each with logins of a whole site
	headerTimeout  = 5 * time.Second
	readTimeout    = 15 * time.Second
	writeTimeout   = 90 * time.Second // the desk may wait for the directory, twice its patience
	idleTimeout    = 60 * time.Second
	maxHeader      = 16 << 10
	stopGrace      = 10 * time.Second // for requests that are being answered
)

// Limits on what strangers can make the CA do.
const (
	ratePerAddress  = 5  // requests a second that cost a signature or a key agreement
	burstPerAddress = 50 // a site of routers behind one address, all at once after a power cut
	plainRate       = 50 // requests a second to smallstep's part
	plainBurst      = 200
	hostBits        = 64 // of an IPv6 address: a user has them all
)

// Config of a server.
type Config struct {
	CA   *home.CA
	Port uint16 // of the TLS listener, for links in ACME answers
	Now  func() time.Time
	Log  *slog.Logger
}

// Server is the running CA.
type Server struct {
	cfg           Config
	challenger    *enroll.Challenger
	board         *board.Board
	door          *login.Door
	costly, plain *limit.Rates
	closeKey      []byte        // X25519, public
	kick          chan struct{} // there is something to tend to
	untended      string        // why that did not go; belongs to keep
	refused       atomic.Uint64 // connections, since there were too many
}

// New returns a server; Serve runs it.
func New(c Config) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	ch, err := enroll.NewChallenger()
	if err != nil {
		return nil, err
	}
	k, err := c.CA.Desk.CloseKey()
	if err != nil {
		return nil, err
	}
	d := login.Config{Desk: c.CA.Desk, Ledger: c.CA.Ledger, Sources: c.CA.Sources, Lockout: c.CA.Config.Lockout.Policy(), Strangers: c.CA.Config.Lockout.Strangers, Now: c.Now, Log: c.Log,
		TLS: func() tls.Certificate { return c.CA.Identity.Bundle().TLS }}
	if c.CA.Directory != nil {
		d.Vouch, d.Refused = c.CA.Directory.Vouch, c.CA.Directory.Refused
	}
	return &Server{cfg: c, challenger: ch, door: login.New(d), board: board.New(c.Now), costly: limit.NewRates(ratePerAddress, burstPerAddress, hostBits), plain: limit.NewRates(plainRate, plainBurst, hostBits), closeKey: k.Bytes(), kick: make(chan struct{}, 1)}, nil
}

// ListenAdmin opens the operator's socket of a home that this process has open. What a
// killed process left there is replaced.
func ListenAdmin(dir string) (net.Listener, error) {
	path := home.Socket(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("opening the operator's socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening the operator's socket: %w", err)
	}
	// The home is 0700, so nobody came in before this.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the operator's socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers on both listeners, which it closes, and looks after the journal, the CRL
// and its own certificate, until ctx ends or a listener fails. Requests that are being
// answered then are given time.
func (s *Server) Serve(ctx context.Context, public, admin net.Listener) error {
	handler, err := s.public()
	if err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errorLog := slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)
	servers := []*http.Server{
		{Handler: handler, MaxHeaderBytes: maxHeader, ErrorLog: errorLog,
			ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout},
		{Handler: s.admin(), MaxHeaderBytes: maxHeader, ErrorLog: errorLog, ConnContext: operator.Context,
			ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout},
	}
	listeners := []net.Listener{tls.NewListener(s.limitedListener(public), tlsConfig(s.cfg.CA.Identity)), admin}
	var wg sync.WaitGroup
	for i, srv := range servers {
		wg.Go(func() {
			if err := srv.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serving %s: %w", listeners[i].Addr(), err))
			}
		})
	}
	wg.Go(func() { s.keep(ctx) })
	wg.Go(func() { s.door.Run(ctx) })
	for _, c := range s.clerks() {
		wg.Go(func() { c.Run(ctx) })
	}
	<-ctx.Done()
	var errs []error
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		errs = append(errs, cause)
	}
	stop, end := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer end()
	for _, srv := range servers {
		errs = append(errs, srv.Shutdown(stop))
	}
	wg.Wait()
	return errors.Join(errs...)
}

// limitedListener leaves room for others, whoever connects.
func (s *Server) limitedListener(l net.Listener) net.Listener {
	limited := limit.NewListener(l, maxConnections, maxOfAddress, &s.refused)
	limited.Bits6 = hostBits
	return limited
}

// clerks tell those sources of calls that want to know.
func (s *Server) clerks() (out []*accounts.Clerk) {
	for _, src := range s.cfg.CA.Sources {
		to, ok := src.(source.Accountant)
		if !ok || s.cfg.CA.Directory == nil {
			continue
		}
		out = append(out, accounts.New(accounts.Config{Source: src.Name(), To: to, Read: s.cfg.CA.Directory.UserCalls, Ledger: s.cfg.CA.Ledger, Now: s.cfg.Now, Log: s.cfg.Log}))
	}
	return out
}

// How often things are looked after.
const (
	keepEvery        = 2 * time.Second
	warnEvery        = 24 * time.Hour
	warnRoot         = 90 * 24 * time.Hour
	warnIntermediate = 30 * 24 * time.Hour
	retryEvery       = time.Minute // what failed, or might be due
)

// keep looks after the journal, groups and users, the CRL, our own certificate and warnings.
func (s *Server) keep(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var crl, own, warned time.Time // when each is due next; at once
	for {
		now := s.cfg.Now()
		if err := s.cfg.CA.Desk.Settle(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Debug("journal not settled", "error", err)
		}
		s.tend(ctx)
		if !now.Before(crl) || crl.Sub(now) > s.cfg.CA.Config.Validity.CRL { // the clock was set back
			crl = now.Add(s.publish(ctx))
		}
		if !now.Before(own) || own.Sub(now) > retryEvery {
			s.renewOwn(ctx, now)
			own = now.Add(retryEvery)
		}
		if !now.Before(warned) || warned.Sub(now) > warnEvery {
			for _, w := range s.warnings(now) {
				s.cfg.Log.Warn("needs attention", "what", w)
			}
			warned = now.Add(warnEvery)
		}
		select {
		case <-tick.C:
		case <-s.kick:
		case <-ctx.Done():
			return
		}
	}
}

// tend does what is due for groups and users, piece by piece; commands come in between.
func (s *Server) tend(ctx context.Context) {
	for ctx.Err() == nil {
		more, err := s.cfg.CA.Desk.Tend(ctx)
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, dirclient.ErrUnavailable) || err.Error() == s.untended):
			s.cfg.Log.Debug("groups and users not tended to", "error", err)
			return
		case err != nil: // once, not every two seconds
			s.cfg.Log.Warn("groups and users not tended to", "error", err)
			s.untended = err.Error()
			return
		case !more:
			s.untended = ""
			return
		}
	}
}

// publish makes a new CRL and says after how long to do it again.
func (s *Server) publish(ctx context.Context) time.Duration {
	third := s.cfg.CA.Config.Validity.CRL / 3
	if err := s.cfg.CA.Desk.CheckClock(); err != nil {
		s.cfg.Log.Error("CRL not renewed", "error", err)
		return min(third, retryEvery)
	}
	if err := s.cfg.CA.Desk.PublishCRL(ctx); err != nil {
		if ctx.Err() == nil {
			s.cfg.Log.Warn("CRL not published to the directory", "error", err)
		}
		return min(third, retryEvery)
	}
	return third
}

// renewOwn replaces the CA's own TLS certificate when two thirds of its life have passed.
func (s *Server) renewOwn(ctx context.Context, now time.Time) {
	c := s.cfg.CA.Identity.Bundle().TLS.Leaf
	if now.Before(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)) {
		return
	}
	if err := s.cfg.CA.RenewOwn(ctx); err != nil {
		s.cfg.Log.Error("own certificate not renewed", "error", err, "not_after", c.NotAfter)
		return
	}
	s.cfg.Log.Info("own certificate renewed", "not_after", s.cfg.CA.Identity.Bundle().TLS.Leaf.NotAfter)
}

// own lists the CA's own certificates.
func (s *Server) own() []OwnCert {
	a := s.cfg.CA.Authority
	return []OwnCert{{"root", a.Root().NotAfter}, {"intermediate", a.Intermediate().NotAfter}, {"tls", s.cfg.CA.Identity.Bundle().TLS.Leaf.NotAfter}}
}

// warnings are what an operator has to do something about.
func (s *Server) warnings(now time.Time) []string {
	out := []string{}
	for _, c := range s.own() {
		limit := map[string]time.Duration{"root": warnRoot, "intermediate": warnIntermediate}[c.What]
		if left := c.NotAfter.Sub(now); left < limit {
			out = append(out, fmt.Sprintf("the CA's %s certificate ends at %s", c.What, c.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	out = append(out, s.door.Problems()...)
	if err := s.cfg.CA.Desk.CheckClock(); err != nil {
		out = append(out, err.Error())
	}
	if forgot, err := s.cfg.CA.Desk.Setback(); err != nil {
		out = append(out, err.Error())
	} else if forgot != "" {
		out = append(out, forgot)
	}
	if crl, err := s.cfg.CA.Authority.CRL(); err != nil {
		out = append(out, err.Error())
	} else if now.After(crl.Next) {
		out = append(out, fmt.Sprintf("the CRL is out of date since %s", crl.Next.UTC().Format(time.RFC3339)))
	}
	for _, st := range s.sources() {
		out = append(out, st.Warnings...)
	}
	return out
}

// sources tells how the sources do.
func (s *Server) sources() []source.State {
	var out []source.State
	for _, src := range s.cfg.CA.Sources {
		if r, ok := src.(source.Reporter); ok {
			out = append(out, r.State())
		}
	}
	return out
}
