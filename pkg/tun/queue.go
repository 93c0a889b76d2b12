//go:build linux

package tun

import (
	"fmt"
	"net"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"twinkey/proto/gso"
)

// queue is one descriptor of a device. It does not wait.
type queue struct {
	fd     int
	name   string
	header bool // a virtio-net header stands before every packet

	// use is held for reading while fd is in use, so that it is not given to somebody else
	// under a system call.
	use    sync.RWMutex
	closed bool
}

func (q *queue) FD() int      { return q.fd }
func (q *queue) Trains() bool { return q.header }

func (q *queue) Read(buf []byte, at int) (h gso.Header, n int, err error) {
	q.use.RLock()
	defer q.use.RUnlock()
	if q.closed {
		return h, 0, net.ErrClosed
	}
	from := at
	if q.header {
		from -= gso.HeaderLen
	}
	n, errno := rw(unix.SYS_READ, q.fd, buf[from:])
	switch {
	case errno == unix.EAGAIN:
		return h, 0, nil
	case errno != 0:
		return h, 0, fmt.Errorf("reading from %s: %w", q.name, errno)
	}
	n -= at - from
	if n <= 0 {
		return h, 0, nil
	}
	if q.header {
		h.Parse(buf[from:])
	}
	return h, n, nil
}

func (q *queue) Write(h gso.Header, buf []byte, at int) error {
	q.use.RLock()
	defer q.use.RUnlock()
	if q.closed {
		return net.ErrClosed
	}
	switch {
	case q.header:
		at -= gso.HeaderLen
		h.Put(buf[at:])
	case h != gso.Header{}:
		return &WriteError{q.name, unix.EOPNOTSUPP}
	}
	if _, errno := rw(unix.SYS_WRITE, q.fd, buf[at:]); errno != 0 {
		return &WriteError{q.name, errno}
	}
	return nil
}

// WriteError says that the kernel did not take a packet: the interface is down, or the packet makes no
// sense to it. The device stays usable.
type WriteError struct {
	Name string
	Err  unix.Errno
}

func (e *WriteError) Error() string { return "writing to " + e.Name + ": " + e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// close gives the descriptor up, by what closes it.
func (q *queue) close(by func() error) error {
	q.use.Lock()
	defer q.use.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	if err := by(); err != nil {
		return fmt.Errorf("closing %s: %w", q.name, err)
	}
	return nil
}

// rw is read(2) or write(2) on a descriptor that does not wait. It is a raw system call: it returns
// soon, and the scheduler need not know of it.
func rw(trap uintptr, fd int, b []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))) //nolint:gosec // b lives as long as the call
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// control is a socket of the network namespace in which a device was made: the MTU must
// be asked there, whichever thread asks.
type control struct{ file *os.File }

func openControl() (control, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return control{}, os.NewSyscallError("socket", err)
	}
	return control{os.NewFile(uintptr(fd), "socket")}, nil
}

func (c control) mtu(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("asking the MTU of %s: %w", name, err)
	}
	conn, err := c.file.SyscallConn()
	if err != nil {
		return 0, net.ErrClosed
	}
	var ierr error
	if err := conn.Control(func(fd uintptr) { ierr = unix.IoctlIfreq(int(fd), unix.SIOCGIFMTU, req) }); err != nil {
		return 0, net.ErrClosed
	}
	if ierr != nil {
		return 0, fmt.Errorf("asking the MTU of %s: %w", name, os.NewSyscallError("SIOCGIFMTU", ierr))
	}
	return int(req.Uint32()), nil
}
