//go:build linux

package poller

import (
	"fmt"
	"net"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Events are what a descriptor is ready for.
type Events struct {
	Read, Write bool
	// Error says that there is something in a socket's error queue, or that the
	// descriptor is broken: the next system call on it tells.
	Error bool
}

// Poller waits for a fixed set of descriptors. Wait belongs to one goroutine.
type Poller struct {
	fds    []unix.PollFd // the last one is our own
	events []Events
	wake   int

	mu     sync.Mutex
	closed bool
}

// New returns a Poller for fds, which stay the caller's.
func New(fds ...int) (*Poller, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening an event counter: %w", os.NewSyscallError("eventfd", err))
	}
	p := &Poller{wake: wake, events: make([]Events, len(fds))}
	for _, fd := range append(fds, wake) {
		p.fds = append(p.fds, unix.PollFd{Fd: int32(fd)}) //nolint:gosec // a descriptor fits
	}
	return p, nil
}

// Wait blocks until a descriptor can be read whose place in read is true, or written
// whose place in write is true, or has an error; the events of each follow by its place and
// are valid until the next Wait. After Close the error is net.ErrClosed.
func (p *Poller) Wait(read, write []bool) ([]Events, error) {
	last := len(p.fds) - 1
	for i := range p.fds[:last] {
		p.fds[i].Events = 0
		if read[i] {
			p.fds[i].Events |= unix.POLLIN
		}
		if write[i] {
			p.fds[i].Events |= unix.POLLOUT
		}
	}
	p.fds[last].Events = unix.POLLIN
	for {
		//nolint:gosec // the slice lives as long as p
		_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(p.fds))), uintptr(len(p.fds)), 0, 0, 0, 0)
		if errno == 0 {
			break
		}
		if errno != unix.EINTR {
			return nil, fmt.Errorf("waiting for packets: %w", os.NewSyscallError("ppoll", errno))
		}
	}
	if p.fds[last].Revents != 0 {
		return nil, net.ErrClosed
	}
	for i := range p.events {
		r := p.fds[i].Revents
		p.events[i] = Events{Read: r&(unix.POLLIN|unix.POLLHUP) != 0, Write: r&unix.POLLOUT != 0, Error: r&(unix.POLLERR|unix.POLLNVAL) != 0}
	}
	return p.events, nil
}

// Close ends a Wait under way and every later one. It may be called by anybody and more than once;
// Free must follow when nobody waits any more.
func (p *Poller) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	one := [8]byte{1}
	if _, err := unix.Write(p.wake, one[:]); err != nil {
		return fmt.Errorf("ending a wait: %w", os.NewSyscallError("write", err))
	}
	return nil
}

// Free gives the Poller's own descriptor back. Nobody may be in Wait, or come there again.
func (p *Poller) Free() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.wake < 0 {
		return nil
	}
	fd := p.wake
	p.wake = -1
	return os.NewSyscallError("close", unix.Close(fd))
}
