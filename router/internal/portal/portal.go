package portal

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"twinkey/pkg/limit"
)

// Bounds of what a LAN can make the portal do.
const (
	maxConns       = 256 // of browsers; each opens a few
	maxConnsOfAddr = 16
	maxPlain       = 64 // at the HTTP listener
	maxPlainOfAddr = 8
	connRate       = 10 // connections a second of one address; with TLS each costs a signature
	connBurst      = 40
	connRateAll    = 200 // of all addresses
	connBurstAll   = 600
	askRate        = 20 // requests a second of one address; a page is two, and made anew every few seconds
	askBurst       = 100
	loginRate      = rate.Limit(1) / 3 // logins a second of one address
	loginBurst     = 6                 // slips of a finger
	loginQueue     = 32                // logins that wait: at some 0.3 s each it is what people still wait for
	hostBits       = 128               // of an IPv6 address: on a LAN every host has one of its own

	headerTimeout = 5 * time.Second // handshake and header
	readTimeout   = 10 * time.Second
	writeTimeout  = 45 * time.Second // a login may take 30
	idleTimeout   = 30 * time.Second
	maxHeader     = 8 << 10
	stopGrace     = 2 * time.Second

	sweepEvery = time.Minute
)

// Login is what somebody asks for. The password is the portal's, which wipes it.
type Login struct {
	User     string
	Password []byte
	Peer     string
	Address  netip.Addr
	// Turn runs what takes the router's cores when it is the login's turn, and returns what that returns: nil says that the password is right. Waiting
	// for the far site does not belong there: turns are few.
	Turn func(f func() error) error
}

// Change is another password that somebody wants. Both are the portal's, which wipes them.
type Change struct {
	User          string
	Password, New []byte
}

// Standing is a login that stands, and its call.
type Standing struct {
	User, Peer     string
	Address        netip.Addr
	Since          time.Time
	Ending         string         // why there is no newer certificate, if it ends soon and is known: the warning of the operator's status
	Last           bool           // there is not much time left
	Up             bool           // what follows is known
	Remote         []netip.Prefix // what the far site has
	Suite          string
	Hybrid         bool
	NotAfter, Ends time.Time // of the certificate; of the session, zero: open
	RxBytes        uint64    // to the user
	RxPackets      uint64
	TxBytes        uint64
	TxPackets      uint64
	Denied         uint64 // packets that the policy did not let through
	Foreign        uint64 // packets dropped for their source address
}

// Guest is a user whose own machine encrypts, and is logged in at this router's listener for those.
type Guest struct {
	User  string
	Since time.Time
}

// Router is what the portal asks of the router that it belongs to.
type Router interface {
	// Login places a call, and returns when it is up. Its errors are those of authn, engine, native and policy.
	Login(ctx context.Context, l Login) error
	// ChangePassword changes it, if the one of before is right; what stands goes on. Its errors are those of authn.ChangePassword. It takes the router's cores.
	ChangePassword(ctx context.Context, c Change) error
	// Logins are those that stand for an address; for the zero address, all.
	Logins(ctx context.Context, at netip.Addr) ([]Standing, error)
	// Guest says whose own machine is logged in from an address; false: nobody's is.
	Guest(ctx context.Context, at netip.Addr) (Guest, bool, error)
	// Logout ends what a user has from an address.
	Logout(ctx context.Context, user string, at netip.Addr) error
	// Peers are the sites that calls can go to; not those that nobody can dial.
	Peers() []string
	// Bridged says whether an address needs no login, and can have none.
	Bridged(a netip.Addr) bool
}

// Config of a portal. All fields but HTTP, DNSName, Company and Captive are needed.
type Config struct {
	Listen, HTTP netip.AddrPort // HTTP invalid: no redirection
	DNSName      string
	Name         string // of the router
	Company      string
	Captive      bool
	Router       Router
	Certificate  func() (*tls.Certificate, error)
	Root         func() *x509.Certificate
	Guesses      *limit.Failures // the router's, wherever passwords are tried
	// Hold keeps the answer to a login, or a change of password, that began then and failed so, until when such answers go out: authn.Hold.
	Hold func(ctx context.Context, began time.Time, err error)
	Log  *slog.Logger
}

// Portal serves the pages. Use New.
type Portal struct {
	c        Config
	sessions *sessions
	hosts    []string // of URLs that mean us
	asks     *limit.Rates
	logins   *limit.Rates
	turns    *semaphore.Weighted
	waiting  atomic.Int64
	refused  atomic.Uint64 // connections
	https    net.Listener
	http     net.Listener

	mu     sync.Mutex
	trying map[netip.Addr]bool // addresses from which a login is going on, or a change of password
}

// New opens the listeners, which Run closes.
func New(ctx context.Context, c Config) (*Portal, error) {
	p, err := newPortal(c)
	if err != nil {
		return nil, err
	}
	if p.https, err = listen(ctx, c.Listen, "portal.listen"); err != nil {
		return nil, err
	}
	if c.HTTP.IsValid() {
		if p.http, err = listen(ctx, c.HTTP, "portal.http"); err != nil {
			return nil, errors.Join(err, p.https.Close())
		}
	}
	return p, nil
}

// Close closes the listeners of a portal that is not going to Run.
func (p *Portal) Close() error {
	err := p.https.Close()
	if p.http != nil {
		err = errors.Join(err, p.http.Close())
	}
	return err
}

func newPortal(c Config) (*Portal, error) {
	s, err := newSessions()
	if err != nil {
		return nil, err
	}
	p := &Portal{
		c: c, sessions: s, trying: make(map[netip.Addr]bool), asks: limit.NewRates(askRate, askBurst, hostBits), logins: limit.NewRates(loginRate, loginBurst, hostBits),
		// Half of the cores are left to packets, whoever tries passwords.
		turns: semaphore.NewWeighted(int64(max(1, runtime.NumCPU()/2))),
	}
	for _, h := range p.Names() {
		p.hosts = append(p.hosts, hostPort(h, c.Listen.Port()))
		if c.Listen.Port() != httpsPort {
			continue
		}
		p.hosts = append(p.hosts, net.JoinHostPort(h, "443"))
	}
	return p, nil
}

func listen(ctx context.Context, a netip.AddrPort, key string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w (it has to be an address of this box on its LAN, and a port that nothing else uses)", key, err)
	}
	return l, nil
}

const httpsPort = 443

// hostPort is how a URL names a host and port.
func hostPort(host string, port uint16) string {
	if port != httpsPort {
		return net.JoinHostPort(host, fmt.Sprint(port))
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + host + "]"
	}
	return host
}

// Names are what the certificate must hold: the DNS name first, if there is one, then the address.
func (p *Portal) Names() []string { return Names(p.c.DNSName, p.c.Listen) }

// Names are what the certificate of a portal must hold.
func Names(dns string, listen netip.AddrPort) []string {
	names := []string{listen.Addr().String()}
	if dns != "" {
		names = []string{dns, names[0]}
	}
	return names
}

// URL is where users go.
func (p *Portal) URL() string { return "https://" + p.hosts[0] + "/" }

// Run serves until ctx ends or a listener fails.
func (p *Portal) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errorLog := slog.NewLogLogger(p.c.Log.Handler(), slog.LevelDebug) // handshakes of strangers
	server := func(h http.Handler) *http.Server {
		return &http.Server{Handler: h, MaxHeaderBytes: maxHeader, ErrorLog: errorLog, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout,
			WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, BaseContext: func(net.Listener) context.Context { return ctx }}
	}
	servers := []*http.Server{server(p.handler())}
	listeners := []net.Listener{tls.NewListener(p.paced(p.https, maxConns, maxConnsOfAddr), p.tls())}
	if p.http != nil {
		servers = append(servers, server(http.HandlerFunc(p.redirect)))
		listeners = append(listeners, p.paced(p.http, maxPlain, maxPlainOfAddr))
	}
	var wg sync.WaitGroup
	for i, srv := range servers {
		wg.Go(func() {
			if err := srv.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serving the portal on %s: %w", listeners[i].Addr(), err))
			}
		})
	}
	wg.Go(func() { p.sweep(ctx) })
	p.c.Log.Info("portal up", "url", p.URL())
	<-ctx.Done()
	stop, end := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer end()
	for _, srv := range servers {
		if srv.Shutdown(stop) != nil {
			_ = srv.Close() // browsers that hold on to their connections
		}
	}
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// paced bounds how many connections there are and how often they may be made.
func (p *Portal) paced(l net.Listener, all, each int) net.Listener {
	return &paced{limit.NewListener(l, all, each, &p.refused), limit.NewRates(connRate, connBurst, hostBits), rate.NewLimiter(connRateAll, connBurstAll), &p.refused}
}

type paced struct {
	net.Listener
	each    *limit.Rates
	all     *rate.Limiter
	refused *atomic.Uint64
}

func (l *paced) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if now := time.Now(); err != nil || l.each.Allow(c.RemoteAddr().String(), now) && l.all.AllowN(now, 1) {
			return c, err
		}
		l.refused.Add(1)
		_ = c.Close()
	}
}

// tls is TLS 1.3 with the newest certificate, HTTP/1.1 alone: its limits are easier to see than those of streams.
func (p *Portal) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.c.Certificate()
		},
	}
}

// sweep forgets sessions whose login is over, so that they can be told from those that still are.
func (p *Portal) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.sweepOnce(ctx)
	}
}

func (p *Portal) sweepOnce(ctx context.Context) {
	began := time.Now()
	all, err := p.c.Router.Logins(ctx, netip.Addr{})
	if err != nil {
		return // the router ends
	}
	type who struct {
		user string
		at   netip.Addr
	}
	standing := map[who]bool{}
	for _, l := range all {
		standing[who{l.User, l.Address}] = true
	}
	p.sessions.sweep(began, func(user string, at netip.Addr) bool { return standing[who{user, at}] })
}

// Session is one that the portal remembers.
type Session struct {
	User        string
	Address     netip.Addr
	Since, Seen time.Time
}

// Sessions lists those whose login stands.
func (p *Portal) Sessions(ctx context.Context) []Session {
	p.sweepOnce(ctx)
	var out []Session
	for _, s := range p.sessions.all() {
		out = append(out, Session{s.user, s.address, s.since, s.seen})
	}
	return out
}

// Refused counts connections that went beyond a limit.
func (p *Portal) Refused() uint64 { return p.refused.Load() }

// fingerprint is a certificate's SHA-256 as people compare it: in groups.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	var groups []string
	for pair := range slices.Chunk(sum[:], 2) {
		groups = append(groups, fmt.Sprintf("%x", pair))
	}
	return strings.Join(groups, " ")
}
