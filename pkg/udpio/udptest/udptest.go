package udptest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"twinkey/pkg/udpio"
)

// QueueLength is how many datagrams wait at a Conn; more are lost, as in a kernel.
const QueueLength = 4096

// Datagram is what a script decides about.
type Datagram struct {
	From, To netip.AddrPort
	Data     []byte // read it, do not change or keep it
	N        int    // 1 for the first datagram from From to To
}

// Script returns one delay for each copy of d that shall arrive. It is called under a lock: it
// must not send.
type Script func(d Datagram) []time.Duration

// Network connects Conns. Its zero value is not ready; use NewNetwork.
type Network struct {
	mu     sync.Mutex
	conns  map[netip.AddrPort]*Conn
	script Script
	count  map[[2]netip.AddrPort]int
	lost   int
}

// NewNetwork makes a network in which every datagram arrives at once.
func NewNetwork() *Network {
	return &Network{conns: map[netip.AddrPort]*Conn{}, count: map[[2]netip.AddrPort]int{}}
}

// Script orders what happens to the datagrams sent from now on; nil: all arrive at once.
func (n *Network) Script(s Script) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.script = s
}

// Lost counts the datagrams that a script dropped, or that found a full queue or nobody.
func (n *Network) Lost() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// Listen opens a Conn at addr, which must have a port.
func (n *Network) Listen(addr netip.AddrPort) (*Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !addr.IsValid() || addr.Port() == 0 {
		return nil, fmt.Errorf("listening on %s: %w", addr, syscall.EADDRNOTAVAIL)
	}
	if n.conns[addr] != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, syscall.EADDRINUSE)
	}
	c := &Conn{network: n, addr: addr, queue: make(chan datagram, QueueLength), ready: make(chan struct{}, 1), closed: make(chan struct{})}
	n.conns[addr] = c
	return c, nil
}

func (n *Network) send(from, to netip.AddrPort, data []byte) {
	n.mu.Lock()
	way := [2]netip.AddrPort{from, to}
	n.count[way]++
	delays := []time.Duration{0}
	if n.script != nil {
		delays = n.script(Datagram{From: from, To: to, Data: data, N: n.count[way]})
	}
	if len(delays) == 0 {
		n.lost++
	}
	n.mu.Unlock()
	for _, d := range delays {
		pkt := datagram{from, append([]byte(nil), data...)}
		if d <= 0 {
			n.deliver(to, pkt)
			continue
		}
		time.AfterFunc(d, func() { n.deliver(to, pkt) })
	}
}

func (n *Network) deliver(to netip.AddrPort, pkt datagram) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conns[to]
	if c == nil {
		n.lost++
		return
	}
	select {
	case c.queue <- pkt:
		c.wake()
	default:
		n.lost++
	}
}

type datagram struct {
	from netip.AddrPort
	data []byte
}

// Conn is a udpio.Conn of a Network.
type Conn struct {
	network *Network
	addr    netip.AddrPort
	queue   chan datagram
	ready   chan struct{}
	closed  chan struct{}
	once    sync.Once
}

var _ udpio.Conn = (*Conn)(nil)

// LocalAddr is where the Conn listens.
func (c *Conn) LocalAddr() netip.AddrPort { return c.addr }

// Close frees the address.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.network.mu.Lock()
		defer c.network.mu.Unlock()
		delete(c.network.conns, c.addr)
		close(c.closed)
		c.wake()
	})
	return nil
}

// Ready yields a value when Receive may have something new, and when the Conn is closed.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// Receive implements udpio.Conn.
func (c *Conn) Receive(ts []udpio.Train) (n int, err error) {
	select {
	case <-c.closed: // first: a closed Conn yields nothing, whatever is queued
		return 0, net.ErrClosed
	default:
	}
	for n < len(ts) {
		select {
		case d := <-c.queue:
			t := &ts[n]
			t.N, t.Addr = copy(t.Buf, d.data), d.from
			t.Size = t.N
			n++
		default:
			return n, nil
		}
	}
	c.wake() // there may be more
	return n, nil
}

// Send implements udpio.Conn: trains arrive as their datagrams.
func (c *Conn) Send(ts []udpio.Train) (n int, err error) {
	for _, t := range ts {
		for b := t.Buf[:t.N]; len(b) > 0; b = b[min(len(b), t.Size):] {
			if err := c.Write([][]byte{b[:min(len(b), t.Size)]}, t.Addr); err != nil {
				return n, err
			}
		}
		n++
	}
	return n, nil
}

// Trouble implements udpio.Conn: there is none.
func (c *Conn) Trouble() *udpio.PathError { return nil }

// FD is -1.
func (c *Conn) FD() int { return -1 }

// Offload is true: trains are taken.
func (c *Conn) Offload() bool { return true }

func (c *Conn) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// Write implements udpio.Conn.
func (c *Conn) Write(bufs [][]byte, to netip.AddrPort) error {
	for _, b := range bufs {
		select {
		case <-c.closed:
			return net.ErrClosed
		default:
		}
		c.network.send(c.addr, to, b)
	}
	return nil
}

// Weather is a network's bad day. Probabilities are from 0 to 1.
type Weather struct {
	Loss      float64
	Duplicate float64
	Delay     time.Duration // of every copy
	Jitter    time.Duration // added at random, from 0 to this: it reorders
}

// Script makes a Script from the weather; the same seed makes the same weather.
func (w Weather) Script(seed uint64) Script {
	rng := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // weather, not secrets
	one := func() time.Duration { return w.Delay + time.Duration(rng.Float64()*float64(w.Jitter)) }
	return func(Datagram) []time.Duration {
		if rng.Float64() < w.Loss {
			return nil
		}
		if rng.Float64() < w.Duplicate {
			return []time.Duration{one(), one()}
		}
		return []time.Duration{one()}
	}
}
