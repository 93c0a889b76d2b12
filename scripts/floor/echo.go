//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/proto/ip"
)

// An echo request or reply (RFC 792):
//
//	type(1) code(1) checksum(2) identifier(2) sequence(2) data
const (
	icmpEcho    = 8
	icmpReply   = 0
	echoSize    = 64
	echoEvery   = 2 * time.Millisecond // so that all have gone to sleep before the next
	echoTimeout = time.Second
)

// roundTrip is the median of count echo requests. They are sent from a plain thread: what the runtime takes to wake up a
// goroutine is more than the way there and back.
func roundTrip(h *netlab.Host, to netip.Addr, count int) (median time.Duration, err error) {
	err = h.Do(func() (err error) {
		median, err = echoes(to, count)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("pinging %s from %s: %w", to, h.Name(), err)
	}
	return median, nil
}

func echoes(to netip.Addr, count int) (median time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	patience := unix.NsecToTimeval(echoTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return 0, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		return 0, os.NewSyscallError("connect", err)
	}
	request, answer := make([]byte, echoSize), make([]byte, ipv4Header+echoSize)
	trips := make([]time.Duration, 0, count)
	for n := range count {
		rest := unix.NsecToTimespec(echoEvery.Nanoseconds())
		if err := unix.Nanosleep(&rest, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, os.NewSyscallError("nanosleep", err)
		}
		clear(request)
		request[0] = icmpEcho
		binary.BigEndian.PutUint16(request[6:], uint16(n))
		binary.BigEndian.PutUint16(request[2:], ip.Checksum(ip.Sum(0, request)))
		start := time.Now()
		if _, errno := write(fd, request); errno != 0 {
			return 0, os.NewSyscallError("sending", errno)
		}
		for answered := false; !answered; {
			size, errno := read(fd, answer)
			if errno != 0 && errno != unix.EINTR {
				return 0, os.NewSyscallError("waiting for the answer", errno)
			}
			// A raw socket is given the IP header as well, and what belongs to others.
			answered = errno == 0 && size == len(answer) && answer[ipv4Header] == icmpReply && binary.BigEndian.Uint16(answer[ipv4Header+6:]) == uint16(n)
		}
		trips = append(trips, time.Since(start))
	}
	slices.Sort(trips)
	return trips[count/2], nil
}
