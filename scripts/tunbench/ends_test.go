//go:build linux

package tunbench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// roles are the processes on the hosts. Each prints a line when it is ready. Those at the near host read from in how many
// operations they are to do, and print a line when they have.
var roles = map[string]func(in io.Reader, out io.Writer) error{"sink": sink, "source": source, "echo": echo, "ping": ping}

// far is where the far host listens.
var far = netip.AddrPortFrom(addresses[1].Addr(), 5000)

// sink takes what comes by one TCP connection, and answers each MiB with a byte.
func sink(_ io.Reader, out io.Writer) error {
	ln, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(far))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "listening")
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	buf := make([]byte, mib)
	for {
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if _, err := c.Write(buf[:1]); err != nil {
			return err
		}
	}
}

// source sends it.
func source(in io.Reader, out io.Writer) error {
	c, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(far))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "connected")
	sent, answers := make([]byte, mib), make([]byte, 1<<10)
	for {
		var n int
		if _, err := fmt.Fscanln(in, &n); err != nil {
			return err
		}
		got := make(chan error, 1)
		go func() {
			left := n
			for left > 0 {
				k, err := c.Read(answers[:min(left, len(answers))])
				if err != nil {
					got <- err
					return
				}
				left -= k
			}
			got <- nil
		}()
		for range n {
			if _, err := c.Write(sent); err != nil {
				return err
			}
		}
		if err := <-got; err != nil {
			return err
		}
		fmt.Fprintln(out, "done")
	}
}

// pingSize is the payload of a lone packet.
const pingSize = 64

// echo sends back what comes. Sockets of echo and ping are blocking ones, without the runtime's poller, whose wake-ups would be
// most of what is measured.
func echo(_ io.Reader, out io.Writer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(far.Port()), Addr: far.Addr().As4()}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	fmt.Fprintln(out, "listening")
	buf := make([]byte, 2*pingSize)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if err := unix.Sendto(fd, buf[:n], 0, from); err != nil {
			return os.NewSyscallError("sendto", err)
		}
	}
}

// ping sends a packet and waits for it, time after time. One that is lost is an error: nothing else is on the way.
func ping(in io.Reader, out io.Writer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(far.Port()), Addr: far.Addr().As4()}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	fmt.Fprintln(out, "connected")
	buf := make([]byte, pingSize)
	for {
		var n int
		if _, err := fmt.Fscanln(in, &n); err != nil {
			return err
		}
		for range n {
			if _, err := unix.Write(fd, buf); err != nil {
				return os.NewSyscallError("write", err)
			}
			for {
				_, err := unix.Read(fd, buf)
				if err == nil {
					break
				}
				if !errors.Is(err, unix.EINTR) {
					return os.NewSyscallError("read", err)
				}
			}
		}
		fmt.Fprintln(out, "done")
	}
}
