//go:build linux

package udpio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a Conn over one UDP socket of the kernel.
type socket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort
	v6    bool // the socket is AF_INET6, so destinations are written as sockaddr_in6

	// Calls that are not under way. A sync.Pool would be emptied by every collection, and a call is 8 KiB.
	mu   sync.Mutex
	free []*call
}

// freeCalls is how many calls are kept: more goroutines than that are not at one socket at a time, and if they
// are, they allocate.
const freeCalls = 16

// Listen opens a socket on addr in the network namespace of the calling thread. Port 0 lets the
// kernel choose. The address :: serves IPv4 as well.
func Listen(ctx context.Context, addr netip.AddrPort, o Options) (Conn, error) {
	if !addr.IsValid() {
		return nil, errors.New("listening on UDP: no valid address")
	}
	var lc net.ListenConfig
	var v6 bool
	lc.Control = func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) { v6, err = configure(int(fd), o) }); cerr != nil {
			return cerr
		}
		return err
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	network := "udp"
	if addr.Addr().Is4() {
		network = "udp4" // plain "udp" makes 0.0.0.0 a dual-stack socket
	}
	pc, err := lc.ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening on UDP %s: %w", addr, err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listening on UDP %s: unexpected %T", addr, pc), pc.Close())
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening on UDP %s: %w", addr, err), conn.Close())
	}
	s := &socket{conn: conn, raw: raw, v6: v6, free: make([]*call, 0, freeCalls)}
	if la, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		ap := la.AddrPort()
		s.local = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return s, nil
}

// configure sets what must hold before the first datagram, and tells the socket's family.
func configure(fd int, o Options) (v6 bool, err error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return false, fmt.Errorf("asking the socket's family: %w", err)
	}
	v6 = domain == unix.AF_INET6
	set := func(level, opt, value int, what string) error {
		if err := unix.SetsockoptInt(fd, level, opt, value); err != nil {
			return fmt.Errorf("setting %s: %w", what, err)
		}
		return nil
	}
	// A dual-stack socket takes the IPv4 options too; an IPv6-only one may refuse them, and
	// then needs none.
	err = errors.Join(
		set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER"),
		set(unix.IPPROTO_IP, unix.IP_RECVERR, 1, "IP_RECVERR"))
	if v6 {
		err = errors.Join(
			set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, "IPV6_MTU_DISCOVER"),
			set(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1, "IPV6_RECVERR"))
	}
	return v6, errors.Join(err,
		setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, o.RcvBuf),
		setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.SndBuf))
}

func setBuffer(fd, force, ordinary, size int) error {
	if size <= 0 {
		return nil
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, ordinary, size); err != nil {
		return fmt.Errorf("sizing the socket's buffers: %w", err)
	}
	return nil
}

// Buffers tells the sizes of the kernel's buffers of c in bytes, as the kernel accounts for them
// (twice what was asked for, its own bookkeeping included). ok is false if c is no kernel socket.
func Buffers(c Conn) (rcv, snd int, ok bool) {
	s, isSocket := c.(*socket)
	if !isSocket {
		return 0, 0, false
	}
	err := s.raw.Control(func(fd uintptr) {
		var rerr, serr error
		rcv, rerr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		snd, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
		ok = rerr == nil && serr == nil
	})
	return rcv, snd, ok && err == nil
}

func (s *socket) LocalAddr() netip.AddrPort { return s.local }

func (s *socket) Close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing UDP %s: %w", s.local, err)
	}
	return nil
}

// pollerPause is how long Read waits where the runtime's poller declares the socket unusable. It
// does so when epoll reports nothing but an error, which for us means an ICMP error while the send
// buffer is full, and takes it back with the next event.
const pollerPause = time.Millisecond

func (s *socket) Read(bufs [][]byte, sizes []int, from []netip.AddrPort) (int, error) {
	limit := min(len(bufs), len(sizes), len(from), BatchSize)
	if limit == 0 {
		return 0, nil
	}
	c := s.get()
	defer s.put(c)
	c.point(bufs[:limit])
	for {
		if err := s.raw.Read(c.recvFunc); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return 0, net.ErrClosed
			}
			time.Sleep(pollerPause)
			continue
		}
		if c.errno == 0 {
			break
		}
		if err := s.readError(c); err != nil {
			return 0, err
		}
	}
	for i := range c.n {
		sizes[i], from[i] = int(c.msgs[i].len), parseName(&c.names[i])
	}
	return c.n, nil
}

// readError turns the failure of a receive into what Read returns; nil means try again.
func (s *socket) readError(c *call) error {
	if c.path != nil {
		return c.path
	}
	if c.errno == unix.EINTR || pathErrno(c.errno) {
		// The ICMP error that it stands for is in the queue, or somebody has read it already.
		return nil
	}
	return fmt.Errorf("reading from UDP %s: %w", s.local, c.errno)
}

func (s *socket) Write(bufs [][]byte, to netip.AddrPort) error {
	c := s.get()
	defer s.put(c)
	if err := c.address(to, s.v6); err != nil {
		return err
	}
	var first error
	for len(bufs) > 0 {
		batch := bufs[:min(len(bufs), BatchSize)]
		bufs = bufs[len(batch):]
		if err := s.send(c, batch, to); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			if first == nil {
				first = err
			}
		}
	}
	return first
}

// send sends at most BatchSize datagrams.
func (s *socket) send(c *call, batch [][]byte, to netip.AddrPort) (first error) {
	c.aim(batch)
	for retried := false; c.next < len(batch); {
		if err := s.raw.Write(c.sendFunc); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return net.ErrClosed
			}
			return fmt.Errorf("writing to UDP %s: %w", to, err)
		}
		switch {
		case c.errno == 0:
			c.next += c.n
			retried = false
		case c.errno == unix.EINTR:
		case !retried:
			// The error may be an ICMP error about an earlier datagram to somebody else, which a socket
			// hands to whichever call comes first. It is handed out once: ask again.
			retried = true
		default:
			if first == nil {
				first = &PathError{To: to, Err: c.errno}
			}
			c.next++
			retried = false
		}
	}
	return first
}

func (s *socket) get() *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.free)
	if n == 0 {
		return newCall()
	}
	c := s.free[n-1]
	s.free = s.free[:n-1]
	return c
}

func (s *socket) put(c *call) {
	c.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < freeCalls {
		s.free = append(s.free, c)
	}
}

// pathErrno says whether the kernel may answer a receive with this error because of an ICMP
// message (icmp_err_convert and icmpv6_err_convert in the kernel).
func pathErrno(e syscall.Errno) bool {
	switch e {
	case unix.ECONNREFUSED, unix.EMSGSIZE, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENOPROTOOPT,
		unix.EOPNOTSUPP, unix.EHOSTDOWN, unix.ENONET, unix.EPROTO, unix.EACCES, unix.EPERM:
		return true
	}
	return false
}
