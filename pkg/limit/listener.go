package limit

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Listener closes at once what comes beyond its limits.
type Listener struct {
	net.Listener
	// Bits6 is how many bits of an IPv6 address count, as with Rates; 0: all. Set it before Accept.
	Bits6 int

	all, each int
	refused   *atomic.Uint64

	mu    sync.Mutex
	open  int
	conns map[netip.Addr]int
}

// NewListener lets all connections be open on l, and each of them from one address. What is refused is counted in refused.
func NewListener(l net.Listener, all, each int, refused *atomic.Uint64) *Listener {
	return &Listener{Listener: l, all: all, each: each, refused: refused, conns: make(map[netip.Addr]int)}
}

// Accept returns the next connection within the limits.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		from := a.Addr().Unmap()
		if l.Bits6 > 0 {
			from = network(from, l.Bits6)
		}
		if l.enter(from) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		l.refused.Add(1)
		_ = c.Close()
	}
}

func (l *Listener) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.all || l.conns[from] >= l.each {
		return false
	}
	l.open++
	l.conns[from]++
	return true
}

func (l *Listener) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.conns[from]--; l.conns[from] == 0 {
		delete(l.conns, from)
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
