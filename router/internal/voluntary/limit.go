package voluntary

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits on what strangers on the LAN can make the router do. An address has one client; it tries a few passwords.
const (
	triesPerAddress = 0.5 // a second: questions for parameters and logins
	triesBurst      = 12
	triesInAll      = 20
	triesInAllBurst = 200
	maxAddresses    = 8192

	signsPerSession = 2 // a second
	signsBurst      = 64

	maxSessions    = 4096
	maxConns       = 2*maxSessions + 512 // a watch and a question each
	maxConnsOfAddr = 16
)

// limiter bounds tries, by address and in all. An IPv6 user has a whole /64, which counts as one.
type limiter struct {
	mu   sync.Mutex
	all  *rate.Limiter
	by   map[netip.Addr]*rate.Limiter
	seen time.Time // when the table was looked through
}

func newLimiter() *limiter {
	return &limiter{all: rate.NewLimiter(triesInAll, triesInAllBurst), by: make(map[netip.Addr]*rate.Limiter)}
}

// wait is how long the next try from an address has to wait; 0: it may be now, and is counted.
func (l *limiter) wait(from netip.Addr, now time.Time) time.Duration {
	if from.Is6() {
		if p, err := from.Prefix(64); err == nil {
			from = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	own, ok := l.by[from]
	if !ok {
		l.shrink(now)
		own = rate.NewLimiter(triesPerAddress, triesBurst)
		l.by[from] = own
	}
	if d := pause(own, now); d > 0 {
		return d
	}
	return pause(l.all, now) // who is refused for the others' sake has used a try
}

// pause takes one from r, or says when there will be one.
func pause(r *rate.Limiter, now time.Time) time.Duration {
	if r.AllowN(now, 1) {
		return 0
	}
	missing := 1 - r.TokensAt(now)
	return max(time.Duration(missing/float64(r.Limit())*float64(time.Second)), time.Millisecond)
}

// shrink keeps the table bounded: those go first that have their full allowance, which is as good as not being there.
func (l *limiter) shrink(now time.Time) {
	if len(l.by) < maxAddresses {
		return
	}
	if d := now.Sub(l.seen); d < 0 || d >= time.Second {
		l.seen = now
		for a, r := range l.by {
			if r.TokensAt(now) >= triesBurst {
				delete(l.by, a)
			}
		}
	}
	for a := range l.by {
		if len(l.by) < maxAddresses {
			return
		}
		delete(l.by, a)
	}
}

// limited is a listener that closes what comes beyond its limits.
type limited struct {
	net.Listener

	mu  sync.Mutex
	all int
	by  map[netip.Addr]int
}

func newLimited(l net.Listener) *limited { return &limited{Listener: l, by: make(map[netip.Addr]int)} }

// Accept returns the next connection within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, ok := addressOf(c.RemoteAddr().String())
		if ok && l.enter(from) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		_ = c.Close()
	}
}

func (l *limited) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConns || l.by[from] >= maxConnsOfAddr {
		return false
	}
	l.all++
	l.by[from]++
	return true
}

func (l *limited) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.by[from]--; l.by[from] == 0 {
		delete(l.by, from)
	}
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// addressOf is the address of "address:port".
func addressOf(remote string) (netip.Addr, bool) {
	a, err := netip.ParseAddrPort(remote)
	return a.Addr().Unmap().WithZone(""), err == nil
}
