//go:build linux

package udpio

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Layout of struct sock_extended_err (linux/errqueue.h), the payload of the control message:
//
//	0        4      5      6      7        8       12       16
//	| errno  | orig | type | code | pad    | info  | data   |  offender (sockaddr) ...
const (
	extErrLen  = 16
	extErrno   = 0
	extOrigin  = 4
	extInfo    = 8
	controlLen = 128 // one control message: its header, the above, a sockaddr_in6
)

// readErrorQueue takes one entry off the socket's error queue, nil if it is empty. It allocates,
// but only for datagrams that failed.
func readErrorQueue(fd int) *PathError {
	var payload [1]byte // the datagram that failed comes along; we do not want it
	var control [controlLen]byte
	_, n, _, sa, err := unix.Recvmsg(fd, payload[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return nil
	}
	e := &PathError{To: nameOf(sa), Err: unix.EPROTO}
	msgs, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return e
	}
	for _, m := range msgs {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !v4 && !v6 || len(m.Data) < extErrLen {
			continue
		}
		errno := syscall.Errno(binary.NativeEndian.Uint32(m.Data[extErrno:]))
		e.Err = errno
		e.ICMP = m.Data[extOrigin] == unix.SO_EE_ORIGIN_ICMP || m.Data[extOrigin] == unix.SO_EE_ORIGIN_ICMP6
		if errno == unix.EMSGSIZE {
			// A router that names no MTU or a nonsensical one has said "too big", no more.
			if mtu := binary.NativeEndian.Uint32(m.Data[extInfo:]); mtu <= 65535 {
				e.MTU = int(mtu)
			}
		}
	}
	return e
}

// nameOf is the destination that the failed datagram had.
func nameOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)) //nolint:gosec // a port
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)) //nolint:gosec // a port
	}
	return netip.AddrPort{}
}
