//go:build linux

package poller

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

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
	fds    []int
	wants  []uint32 // what the kernel is asked for of each
	ready  []unix.EpollEvent
	events []Events
	epoll  int
	wake   int // our own, in the place behind the others

	mu     sync.Mutex
	closed bool
}

// New returns a Poller for fds, which stay the caller's.
func New(fds ...int) (*Poller, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening an event counter: %w", os.NewSyscallError("eventfd", err))
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		_ = unix.Close(wake)
		return nil, fmt.Errorf("opening a poll set: %w", os.NewSyscallError("epoll_create1", err))
	}
	n := len(fds) + 1
	p := &Poller{
		fds: append(append(make([]int, 0, n), fds...), wake), wants: make([]uint32, n), ready: make([]unix.EpollEvent, n),
		events: make([]Events, len(fds)), epoll: epoll, wake: wake,
	}
	p.wants[len(fds)] = unix.EPOLLIN
	for i := range p.fds {
		if err := p.ask(unix.EPOLL_CTL_ADD, i); err != nil {
			return nil, errors.Join(err, p.Free())
		}
	}
	return p, nil
}

// ask tells the kernel what is wanted of the descriptor in a place.
func (p *Poller) ask(op, i int) error {
	ev := unix.EpollEvent{Events: p.wants[i], Fd: int32(i)} //nolint:gosec // a place
	if err := unix.EpollCtl(p.epoll, op, p.fds[i], &ev); err != nil {
		return fmt.Errorf("asking for packets: %w", os.NewSyscallError("epoll_ctl", err))
	}
	return nil
}

// Wait blocks until a descriptor can be read whose place in read is true, or written
// whose place in write is true, or has an error; the events of each follow by its place and
// are valid until the next Wait. After Close the error is net.ErrClosed.
func (p *Poller) Wait(read, write []bool) ([]Events, error) {
	for i := range p.events {
		var want uint32
		if read[i] {
			want = unix.EPOLLIN
		}
		if write[i] {
			want |= unix.EPOLLOUT
		}
		if want != p.wants[i] {
			p.wants[i] = want
			if err := p.ask(unix.EPOLL_CTL_MOD, i); err != nil {
				return nil, err
			}
		}
	}
	n, err := unix.EpollWait(p.epoll, p.ready, -1)
	for err == unix.EINTR { //nolint:errorlint // an Errno as it came
		n, err = unix.EpollWait(p.epoll, p.ready, -1)
	}
	if err != nil {
		return nil, fmt.Errorf("waiting for packets: %w", os.NewSyscallError("epoll_wait", err))
	}
	clear(p.events)
	for _, ev := range p.ready[:n] {
		if int(ev.Fd) == len(p.events) {
			return nil, net.ErrClosed
		}
		r := ev.Events
		p.events[ev.Fd] = Events{Read: r&(unix.EPOLLIN|unix.EPOLLHUP) != 0, Write: r&unix.EPOLLOUT != 0, Error: r&unix.EPOLLERR != 0}
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
	err := errors.Join(os.NewSyscallError("close", unix.Close(p.wake)), os.NewSyscallError("close", unix.Close(p.epoll)))
	p.wake, p.epoll = -1, -1
	return err
}
