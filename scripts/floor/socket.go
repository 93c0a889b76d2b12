//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
)

// socketBuffer is enough that a receiver which is late by a time slice loses nothing, in bytes.
const socketBuffer = 8 << 20

// udpSocket opens a connected UDP socket on h.
func udpSocket(h *netlab.Host, local, remote netip.AddrPort) (fd int, err error) {
	err = h.Do(func() (err error) {
		fd, err = connectedUDP(local, remote)
		return err
	})
	return fd, err
}

// connectedUDP opens a connected UDP socket, which does not block, in the namespace of the calling thread.
func connectedUDP(local, remote netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer) // as much as is allowed: what is lost is in the table
		}
	}
	sockaddr := func(a netip.AddrPort) unix.Sockaddr {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	if err := unix.Bind(fd, sockaddr(local)); err != nil {
		return -1, errors.Join(fmt.Errorf("binding UDP %s: %w", local, err), unix.Close(fd))
	}
	if err := unix.Connect(fd, sockaddr(remote)); err != nil {
		return -1, errors.Join(fmt.Errorf("connecting UDP %s to %s: %w", local, remote, err), unix.Close(fd))
	}
	return fd, nil
}

// write and read are the bare system calls for descriptors that do not block: the runtime is not told, as it need not
// be of a call that returns at once.
func write(fd int, b []byte) (int, unix.Errno) { return rw(unix.SYS_WRITE, fd, b) }
func read(fd int, b []byte) (int, unix.Errno)  { return rw(unix.SYS_READ, fd, b) }

func rw(call uintptr, fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// mmsghdr is struct mmsghdr, see sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// vector is what sendmmsg and recvmmsg take: one buffer a message.
type vector struct {
	hdrs []mmsghdr
	iovs []unix.Iovec
	mem  []byte
}

func newVector(n, size int) *vector {
	v := &vector{hdrs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n), mem: make([]byte, n*size)}
	for i := range v.hdrs {
		v.iovs[i].Base = &v.mem[i*size]
		v.iovs[i].SetLen(size)
		v.hdrs[i].hdr.Iov = &v.iovs[i]
		v.hdrs[i].hdr.Iovlen = 1
	}
	return v
}

// send sends all messages, or as many as fit.
func (v *vector) send(fd int) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.hdrs[0])), uintptr(len(v.hdrs)), 0, 0, 0)
	return int(n), errno
}

// receive takes what is there, without waiting, and returns the bytes of it.
func (v *vector) receive(fd int) (bytes int, errno unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.hdrs[0])), uintptr(len(v.hdrs)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	for _, h := range v.hdrs[:n] {
		bytes += int(h.len)
	}
	return bytes, 0
}

// wait sleeps until one of the descriptors can be read, or the time is over. It tells the runtime, so that others may
// run meanwhile.
func wait(fds []unix.PollFd, milliseconds int) error {
	for {
		_, err := unix.Poll(fds, milliseconds)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return os.NewSyscallError("poll", err)
	}
}

// sleep is wait without an end, and without the runtime: nobody else can have this thread's place, which saves a few
// microseconds of each waking up. It is for threads that are alone with their work.
func sleep(fds []unix.PollFd) error {
	for {
		const forever = ^uintptr(0)
		_, _, errno := unix.RawSyscall(unix.SYS_POLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), forever)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("poll", errno)
		}
	}
}
