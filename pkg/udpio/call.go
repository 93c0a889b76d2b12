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

// rawControl is room for one control message with an int in it, aligned as the kernel wants it.
type rawControl [3]uint64

// The control message that says how long the datagrams of a train are (linux/udp.h): a
// cmsghdr, then a uint16 to the kernel, an int from it.
const (
	controlHeader = unix.SizeofCmsghdr
	segmentLen    = controlHeader + 2
)

// call is the memory of one recvmmsg or sendmmsg, used again and again. The kernel is
// handed pointers into it and into the caller's buffers, all of them held by typed pointers
// here, so that the collector sees them.
type call struct {
	msgs     [BatchSize]mmsghdr
	iovs     [BatchSize]unix.Iovec
	names    [BatchSize]rawName
	controls [BatchSize]rawControl
	used     int // messages that point at the caller's buffers
}

// point aims message i at a buffer.
func (c *call) point(i int, b []byte, name int, namelen uint32) {
	c.iovs[i].Base = unsafe.SliceData(b)
	c.iovs[i].SetLen(len(b))
	h := &c.msgs[i].hdr
	*h = unix.Msghdr{Name: &c.names[name][0], Namelen: namelen, Iov: &c.iovs[i]}
	h.SetIovlen(1)
	c.used = max(c.used, i+1)
}

// await makes message i ready to be filled. Most often it is as the last call left it, and only what the kernel
// has written is to be undone.
func (c *call) await(i int, b []byte) {
	h := &c.msgs[i].hdr
	if c.iovs[i].Base != unsafe.SliceData(b) || c.iovs[i].Len != uint64(len(b)) || h.Iov == nil {
		c.point(i, b, i, 0)
		c.room(i)
	}
	h.Namelen = uint32(len(c.names[i]))
	h.SetControllen(int(unsafe.Sizeof(c.controls[i])))
}

// room lets the kernel say how long the datagrams of message i are.
func (c *call) room(i int) {
	c.msgs[i].hdr.Control = (*byte)(unsafe.Pointer(&c.controls[i])) //nolint:gosec // a fixed array of c
}

// segment tells the kernel to cut message i into datagrams of size bytes.
func (c *call) segment(i, size int) {
	h := &c.msgs[i].hdr
	b := (*[unsafe.Sizeof(rawControl{})]byte)(unsafe.Pointer(&c.controls[i])) //nolint:gosec // a fixed array of c
	e := binary.NativeEndian
	e.PutUint64(b[0:], segmentLen)
	e.PutUint32(b[8:], unix.SOL_UDP)
	e.PutUint32(b[12:], unix.UDP_SEGMENT)
	e.PutUint16(b[16:], uint16(size)) //nolint:gosec // a train is no longer than 64 KiB
	h.Control = &b[0]
	h.SetControllen(int(unsafe.Sizeof(c.controls[i])))
}

// segmentSize is what the kernel says of message i; 0 if it is one datagram.
func (c *call) segmentSize(i int) int {
	if c.msgs[i].hdr.Controllen < controlHeader+4 {
		return 0
	}
	b := (*[unsafe.Sizeof(rawControl{})]byte)(unsafe.Pointer(&c.controls[i])) //nolint:gosec // a fixed array of c
	e := binary.NativeEndian
	if e.Uint32(b[8:]) != unix.SOL_UDP || e.Uint32(b[12:]) != unix.UDP_GRO {
		return 0
	}
	return int(e.Uint32(b[16:]))
}

// release forgets the caller's buffers, so that a call at rest does not keep them alive.
func (c *call) release() {
	for i := range c.used {
		c.iovs[i].Base = nil
	}
	c.used = 0
}

// mmsg is recvmmsg or sendmmsg without waiting. It is a raw system call: it returns soon, and
// the scheduler need not know of it.
func mmsg(trap uintptr, fd int, msgs []mmsghdr) (int, syscall.Errno) {
	for {
		//nolint:gosec // the pointer is to pinned-by-use Go memory for the length of the system call
		n, _, errno := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
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

// address writes a destination into names[i] and returns its length.
func (c *call) address(i int, to netip.AddrPort, v6 bool) (uint32, error) {
	n, a := &c.names[i], to.Addr()
	*n = rawName{}
	binary.BigEndian.PutUint16(n[2:], to.Port())
	switch {
	case !a.IsValid():
		return 0, &PathError{To: to, Err: unix.EDESTADDRREQ}
	case v6:
		binary.NativeEndian.PutUint16(n[:], unix.AF_INET6)
		b := a.As16()
		copy(n[8:], b[:])
		scope, err := scopeOf(a)
		if err != nil {
			return 0, &PathError{To: to, Err: err}
		}
		binary.NativeEndian.PutUint32(n[24:], scope)
		return unix.SizeofSockaddrInet6, nil
	case a.Unmap().Is4():
		binary.NativeEndian.PutUint16(n[:], unix.AF_INET)
		b := a.Unmap().As4()
		copy(n[4:], b[:])
		return unix.SizeofSockaddrInet4, nil
	}
	return 0, &PathError{To: to, Err: unix.EAFNOSUPPORT} // an IPv6 destination on an IPv4 socket
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
