//go:build linux

package udpio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long Write waits for room in a full socket, in all.
const patience = 100 * time.Millisecond

// maxTries is how often a message is given to the kernel before its error is taken to be the message's own.
const maxTries = 4

// socket is a Conn over one UDP socket of the kernel.
type socket struct {
	fd    int
	local netip.AddrPort
	v6    bool // the socket is AF_INET6, so destinations are written as sockaddr_in6

	// use is held for reading while fd is in use, so that Close does not give the number to
	// somebody else under a system call.
	use    sync.RWMutex
	closed bool

	offload atomic.Bool // trains go whole
	rx, tx  call

	mu  sync.Mutex // guards ctl
	ctl call
}

// Listen opens sockets on addr in the network namespace of the calling thread, as many as o says, all on
// one port. Port 0 lets the kernel choose. The address :: serves IPv4 as well.
func Listen(addr netip.AddrPort, o Options) (conns []Conn, err error) {
	if !addr.IsValid() {
		return nil, errors.New("listening on UDP: no valid address")
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	n := max(o.Sockets, 1)
	for i := range n {
		s, err := open(addr, o, n > 1)
		if err != nil {
			for _, c := range conns {
				err = errors.Join(err, c.Close())
			}
			return nil, fmt.Errorf("listening on UDP %s: %w", addr, err)
		}
		conns = append(conns, s)
		addr = netip.AddrPortFrom(addr.Addr(), s.local.Port())
		if i == n-1 && n > 1 {
			if err := steer(s.fd, n); err != nil {
				for _, c := range conns {
					err = errors.Join(err, c.Close())
				}
				return nil, fmt.Errorf("listening on UDP %s: sharing the port among %d sockets: %w", addr, n, err)
			}
		}
	}
	return conns, nil
}

func open(addr netip.AddrPort, o Options, shared bool) (s *socket, err error) {
	family := unix.AF_INET6
	if addr.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s = &socket{fd: fd, v6: family == unix.AF_INET6}
	if err := s.configure(o, shared); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.bind(addr); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *socket) bind(addr netip.AddrPort) error {
	var sa unix.Sockaddr
	if s.v6 {
		scope, err := scopeOf(addr.Addr())
		if err != nil {
			return err
		}
		sa = &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port()), ZoneId: scope}
	} else {
		sa = &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	s.local = nameOf(name)
	return nil
}

// configure sets what must hold before the first datagram.
func (s *socket) configure(o Options, shared bool) error {
	set := func(level, opt, value int, what string) error {
		if err := unix.SetsockoptInt(s.fd, level, opt, value); err != nil {
			return fmt.Errorf("setting %s: %w", what, err)
		}
		return nil
	}
	// A dual-stack socket takes the IPv4 options too; an IPv6-only one may refuse them, and
	// then needs none.
	err := errors.Join(
		set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER"),
		set(unix.IPPROTO_IP, unix.IP_RECVERR, 1, "IP_RECVERR"))
	if s.v6 {
		err = errors.Join(
			set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0, "IPV6_V6ONLY"),
			set(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, "IPV6_MTU_DISCOVER"),
			set(unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1, "IPV6_RECVERR"))
	}
	if shared {
		err = errors.Join(err, set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"))
	}
	if !o.NoOffload {
		// Kernels without UDP_GRO deliver one by one; those without UDP_SEGMENT refuse the first
		// train, and Send takes it apart.
		s.offload.Store(true)
		_ = unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	}
	return errors.Join(err,
		setBuffer(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, o.RcvBuf),
		setBuffer(s.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, o.SndBuf))
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
	if !isSocket || !s.enter() {
		return 0, 0, false
	}
	defer s.use.RUnlock()
	rcv, rerr := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	snd, serr := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	return rcv, snd, rerr == nil && serr == nil
}

func (s *socket) LocalAddr() netip.AddrPort { return s.local }
func (s *socket) FD() int                   { return s.fd }
func (s *socket) Offload() bool             { return s.offload.Load() }

func (s *socket) Close() error {
	s.use.Lock()
	defer s.use.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("closing UDP %s: %w", s.local, err)
	}
	return nil
}

// enter says whether the socket is open, and keeps it so until use.RUnlock.
func (s *socket) enter() bool {
	s.use.RLock()
	if s.closed {
		s.use.RUnlock()
	}
	return !s.closed
}

func (s *socket) Receive(ts []Train) (int, error) {
	if !s.enter() {
		return 0, net.ErrClosed
	}
	defer s.use.RUnlock()
	c := &s.rx
	limit := min(len(ts), BatchSize)
	if limit == 0 {
		return 0, nil
	}
	for i := range limit {
		c.await(i, ts[i].Buf)
	}
	n, err := s.receive(c, limit)
	for i := range ts[:n] {
		t := &ts[i]
		t.N, t.Size, t.Addr = int(c.msgs[i].len), c.segmentSize(i), parseName(&c.names[i])
		if t.Size == 0 || t.Size > t.N {
			t.Size = t.N
		}
	}
	return n, err
}

// receive asks again where it is told of an ICMP error, which is handed to whichever call comes first:
// its particulars wait in the error queue, for Trouble.
func (s *socket) receive(c *call, limit int) (int, error) {
	for {
		n, errno := mmsg(unix.SYS_RECVMMSG, s.fd, c.msgs[:limit])
		switch {
		case errno == 0:
			return n, nil
		case errno == unix.EAGAIN:
			return 0, nil
		case !pathErrno(errno):
			return 0, fmt.Errorf("reading from UDP %s: %w", s.local, errno)
		}
	}
}

func (s *socket) Trouble() *PathError {
	if !s.enter() {
		return nil
	}
	defer s.use.RUnlock()
	return readErrorQueue(s.fd)
}

func (s *socket) Send(ts []Train) (done int, err error) {
	if !s.enter() {
		return 0, net.ErrClosed
	}
	defer s.use.RUnlock()
	return s.send(&s.tx, ts)
}

// send is Send with the memory c.
func (s *socket) send(c *call, ts []Train) (done int, err error) {
	defer c.release()
	var first error
	for done < len(ts) {
		var n int
		if s.offload.Load() || ts[done].N <= ts[done].Size {
			n, err = s.whole(c, ts[done:])
		} else {
			n, err = s.apart(c, &ts[done])
		}
		if err != nil && first == nil {
			first = err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, first
}

// whole sends trains, each as one message; 0 and no error: the socket is full.
func (s *socket) whole(c *call, ts []Train) (int, error) {
	limit := 0
	for i, t := range ts[:min(len(ts), BatchSize)] {
		if t.N > t.Size && !s.offload.Load() {
			break
		}
		namelen, err := c.address(i, t.Addr, s.v6)
		if err != nil {
			if i > 0 { // those before it first
				break
			}
			return 1, err
		}
		c.point(i, t.Buf[:t.N], i, namelen)
		if t.N > t.Size {
			c.segment(i, t.Size)
		}
		limit++
	}
	for tries := 1; ; tries++ {
		n, errno := mmsg(unix.SYS_SENDMMSG, s.fd, c.msgs[:limit])
		t := &ts[0]
		switch {
		case errno == 0:
			return n, nil
		case errno == unix.EAGAIN:
			return 0, nil
		case errno == unix.ENOBUFS: // the queue behind the socket was full, and dropped it
			return 1, &PathError{To: t.Addr, Err: errno}
		case tries < maxTries:
			// The error may be an ICMP error about an earlier datagram to somebody else, which a socket
			// hands to whichever call comes first. It is handed out once: ask again.
		case t.N > t.Size && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EOPNOTSUPP):
			// The device that the route leads to cannot, or can no more, or the segments do not fit it.
			// EIO alone is the device's word, and lasts: the others any stranger's ICMP error can bring about.
			if errno == unix.EIO {
				s.offload.Store(false)
			}
			return s.apart(c, t)
		default:
			return 1, &PathError{To: t.Addr, Err: errno}
		}
	}
}

// apart sends a train datagram by datagram; 0: the socket is full, t is what is left.
func (s *socket) apart(c *call, t *Train) (int, error) {
	var first error
	for t.N > 0 {
		limit := min((t.N+t.Size-1)/t.Size, BatchSize)
		namelen, err := c.address(0, t.Addr, s.v6)
		if err != nil {
			return 1, err
		}
		for i := range limit {
			c.point(i, t.Buf[i*t.Size:min((i+1)*t.Size, t.N)], 0, namelen)
		}
		n, errno := mmsg(unix.SYS_SENDMMSG, s.fd, c.msgs[:limit])
		if errno != 0 && errno != unix.EAGAIN && errno != unix.ENOBUFS { // ask again, as whole does
			n, errno = mmsg(unix.SYS_SENDMMSG, s.fd, c.msgs[:limit])
		}
		switch {
		case errno == unix.EAGAIN:
			return 0, first
		case errno != 0:
			n = 1
			if first == nil {
				first = &PathError{To: t.Addr, Err: errno}
			}
		}
		sent := min(n*t.Size, t.N)
		t.Buf, t.N = t.Buf[sent:], t.N-sent
	}
	return 1, first
}

func (s *socket) Write(bufs [][]byte, to netip.AddrPort) error {
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.use.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var first error
	end := time.Now().Add(patience)
	for _, b := range bufs {
		ts := [1]Train{{Buf: b, N: len(b), Size: len(b), Addr: to}}
		for {
			n, err := s.send(&s.ctl, ts[:])
			if err != nil && first == nil {
				first = err
			}
			if n > 0 {
				break
			}
			left := time.Until(end)
			if left <= 0 {
				return errors.Join(first, &PathError{To: to, Err: unix.EAGAIN})
			}
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, int(left/time.Millisecond)+1) //nolint:gosec // a descriptor fits
		}
	}
	return first
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
