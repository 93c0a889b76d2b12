package api

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

const (
	maxConns       = 8192
	maxConnsOfAddr = 512 // many routers may share one NAT
)

// limited is a listener that closes what comes beyond its limits.
type limited struct {
	net.Listener
	refused *atomic.Uint64

	mu    sync.Mutex
	all   int
	conns map[netip.Addr]int
}

func newLimited(l net.Listener, refused *atomic.Uint64) *limited {
	return &limited{Listener: l, refused: refused, conns: make(map[netip.Addr]int)}
}

// Accept returns the next connection within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		if from := a.Addr().Unmap(); l.enter(from) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.leave(from) })}, nil
		}
		l.refused.Add(1)
		_ = c.Close()
	}
}

func (l *limited) enter(from netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConns || l.conns[from] >= maxConnsOfAddr {
		return false
	}
	l.all++
	l.conns[from]++
	return true
}

func (l *limited) leave(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
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
