//go:build linux

package udpio

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2): Go pads it at the end as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// rawName is room for a sockaddr_in or a sockaddr_in6.
type rawName [unix.SizeofSockaddrInet6]byte

// call is the memory of one recvmmsg or sendmmsg, used again and again. The kernel is
// handed pointers into it and into the caller's buffers, all of them held by typed pointers here, so
// that the collector sees them.
type call struct {
	msgs  [BatchSize]mmsghdr
	iovs  [BatchSize]unix.Iovec
	names [BatchSize]rawName
	used  int // messages that point at the caller's buffers

	next  int // first message that sendmmsg has not taken
	n     int // messages moved by the last system call
	errno syscall.Errno
	path  *PathError // found in the error queue by the last receive

	// The two functions for syscall.RawConn, made once: a closure a call would be an allocation.
	recvFunc, sendFunc func(fd uintptr) bool
}

func newCall() *call {
	c := new(call)
	c.recvFunc, c.sendFunc = c.recv, c.send
	return c
}

// point aims the messages at buffers to be filled.
func (c *call) point(bufs [][]byte) {
	c.used = len(bufs)
	for i, b := range bufs {
		c.iovs[i].Base = unsafe.SliceData(b)
		c.iovs[i].SetLen(len(b))
		h := &c.msgs[i].hdr
		*h = unix.Msghdr{Name: &c.names[i][0], Namelen: uint32(len(c.names[i])), Iov: &c.iovs[i]}
		h.SetIovlen(1)
	}
}

// aim points the messages at datagrams that go to names[0], which address has set.
func (c *call) aim(bufs [][]byte) {
	c.point(bufs)
	c.next = 0
	namelen := uint32(unix.SizeofSockaddrInet6)
	if binary.NativeEndian.Uint16(c.names[0][:]) == unix.AF_INET {
		namelen = unix.SizeofSockaddrInet4
	}
	for i := range bufs {
		c.msgs[i].hdr.Name, c.msgs[i].hdr.Namelen = &c.names[0][0], namelen
	}
}

// release forgets the caller's buffers, so that a call at rest does not keep them alive.
func (c *call) release() {
	for i := range c.used {
		c.iovs[i].Base = nil
	}
	c.used, c.path = 0, nil
}

func (c *call) recv(fd uintptr) bool {
	c.path = nil
	c.n, c.errno = mmsg(unix.SYS_RECVMMSG, fd, c.msgs[:c.used])
	if c.errno == 0 {
		return true
	}
	// Whoever met the pending error first has cleared it (perhaps a Write), but its particulars stay in
	// the error queue. So the queue is looked at before waiting, not only when a receive fails.
	if c.path = readErrorQueue(int(fd)); c.path != nil {
		return true
	}
	return c.errno != unix.EAGAIN
}

func (c *call) send(fd uintptr) bool {
	c.n, c.errno = mmsg(unix.SYS_SENDMMSG, fd, c.msgs[c.next:c.used])
	return c.errno != unix.EAGAIN
}

// mmsg is recvmmsg or sendmmsg without waiting.
func mmsg(trap, fd uintptr, msgs []mmsghdr) (int, syscall.Errno) {
	//nolint:gosec // the pointer is to pinned-by-use Go memory for the length of the system call
	n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// parseName reads the socket address that recvmmsg wrote.
func parseName(n *rawName) netip.AddrPort {
	port := binary.BigEndian.Uint16(n[2:])
	switch binary.NativeEndian.Uint16(n[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(n[4:8])), port)
	case unix.AF_INET6:
		a := netip.AddrFrom16([16]byte(n[8:24])).Unmap()
		// Only a link-local address means nothing without its interface. The name of a zone is a string, so
		// this one kind of sender costs an allocation.
		if scope := binary.NativeEndian.Uint32(n[24:]); scope != 0 && a.Is6() && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPort{}
}

// address writes the destination into names[0].
func (c *call) address(to netip.AddrPort, v6 bool) error {
	n, a := &c.names[0], to.Addr()
	*n = rawName{}
	binary.BigEndian.PutUint16(n[2:], to.Port())
	switch {
	case !a.IsValid():
		return &PathError{To: to, Err: unix.EDESTADDRREQ}
	case v6:
		binary.NativeEndian.PutUint16(n[:], unix.AF_INET6)
		b := a.As16()
		copy(n[8:], b[:])
		scope, err := scopeOf(a)
		if err != nil {
			return &PathError{To: to, Err: err}
		}
		binary.NativeEndian.PutUint32(n[24:], scope)
	case a.Unmap().Is4():
		binary.NativeEndian.PutUint16(n[:], unix.AF_INET)
		b := a.Unmap().As4()
		copy(n[4:], b[:])
	default: // an IPv6 destination on an IPv4 socket
		return &PathError{To: to, Err: unix.EAFNOSUPPORT}
	}
	return nil
}

// scopeOf is the interface index that a zone names, by number or by name.
func scopeOf(a netip.Addr) (uint32, error) {
	zone := a.Zone()
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(ifi.Index), nil //nolint:gosec // an interface index fits
}
