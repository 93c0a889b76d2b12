package api

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// callers is a listener at which connections from these addresses arrive.
type callers struct {
	net.Listener
	from []string
}

// caller is one of them.
type caller struct {
	net.Conn
	addr   net.Addr
	closed bool
}

func (c *caller) RemoteAddr() net.Addr { return c.addr }
func (c *caller) Close() error         { c.closed = true; return nil }

var errNoMore = errors.New("nobody else comes")

func (c *callers) Accept() (net.Conn, error) {
	if len(c.from) == 0 {
		return nil, errNoMore
	}
	a := netip.AddrPortFrom(netip.MustParseAddr(c.from[0]), 1024)
	c.from = c.from[1:]
	return &caller{addr: net.TCPAddrFromAddrPort(a)}, nil
}

// Whoever connects often, from one address or from all that an IPv6 user has, leaves room for others.
func TestConnectionsOfOneStranger(t *testing.T) {
	b := newBox(t)
	c := &callers{}
	for i := range 2 * maxOfAddress {
		v6 := netip.MustParseAddr("2001:db8::").As16()
		v6[14], v6[15] = byte(i>>8), byte(i)
		c.from = append(c.from, "192.0.2.1", netip.AddrFrom16(v6).String())
	}
	c.from = append(c.from, "192.0.2.2", "2001:db8:0:1::1")
	l := b.srv.limitedListener(c)
	open := map[string]int{}
	for {
		conn, err := l.Accept()
		if errors.Is(err, errNoMore) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		a := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr()
		bits := 32
		if a.Is6() {
			bits = hostBits
		}
		p, err := a.Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		open[p.String()]++
	}
	for p, want := range map[string]int{"192.0.2.1/32": maxOfAddress, "2001:db8::/64": maxOfAddress, "192.0.2.2/32": 1, "2001:db8:0:1::/64": 1} {
		if open[p] != want {
			t.Errorf("%d connections from %s, want %d", open[p], p, want)
		}
	}
	if got := b.srv.refused.Load(); got != 2*maxOfAddress {
		t.Errorf("%d are counted as refused", got)
	}
}
