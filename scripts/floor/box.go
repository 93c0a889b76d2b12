//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netcfg"
)

// boxRole is the first argument of a copy of the program that is a box.
const boxRole = "box"

const (
	// maxWire is the largest UDP payload.
	maxWire = 65507

	// budget is how many trains one side may have before the other is looked at.
	budget = 8
)

// tally is what a box has done since it began, as it tells it.
type tally struct {
	Trains  uint64        `json:"trains"`  // from TUN to UDP
	Bytes   uint64        `json:"bytes"`   // in them
	Back    uint64        `json:"back"`    // trains from UDP to TUN
	Dropped uint64        `json:"dropped"` // longer than a UDP payload, or refused by the kernel
	Sleeps  uint64        `json:"sleeps"`
	CPU     time.Duration `json:"cpu"` // of the whole process
}

// counters are the same while they grow.
type counters struct{ trains, bytes, back, dropped, sleeps atomic.Uint64 }

func (c *counters) tally() tally {
	return tally{c.trains.Load(), c.bytes.Load(), c.back.Load(), c.dropped.Load(), c.sleeps.Load(), processCPU()}
}

// box forwards between a TUN interface and a UDP socket until ask ends. To each line of ask it answers with a line of counters; the first
// tells that it is ready.
func box(args []string, ask io.Reader, answer io.Writer) error {
	var (
		local, remote netip.AddrPort
		plan          = netcfg.Plan{Link: tunName, Up: true, MTU: packetSize}
		spin          time.Duration
	)
	flags := flag.NewFlagSet(boxRole, flag.ExitOnError)
	flags.TextVar(&local, "local", netip.AddrPort{}, "address and port of this box")
	flags.TextVar(&remote, "remote", netip.AddrPort{}, "address and port of the other")
	flags.DurationVar(&spin, "spin", 0, "look for so long before sleeping")
	flags.Func("address", "of the TUN interface", func(s string) error {
		a, err := netip.ParsePrefix(s)
		plan.Addresses = append(plan.Addresses, a)
		return err
	})
	flags.Func("route", "into the TUN interface", func(s string) error {
		dst, err := netip.ParsePrefix(s)
		plan.Routes = append(plan.Routes, netcfg.Route{Dst: dst})
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	f, err := newForwarder(plan, local, remote, spin)
	if err != nil {
		return err
	}
	debug.SetGCPercent(-1)                            // it would wait for the thread that sleeps; nothing is allocated on the way
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // that thread keeps its place
	stop := make(chan error, 1)
	go func() { stop <- serve(f, ask, answer) }()
	go func() { stop <- f.forward() }()
	return <-stop
}

// serve answers with counters.
func serve(f *forwarder, ask io.Reader, answer io.Writer) error {
	lines, enc := bufio.NewScanner(ask), json.NewEncoder(answer)
	for {
		if err := enc.Encode(f.counters.tally()); err != nil {
			return err
		}
		if !lines.Scan() {
			return lines.Err()
		}
	}
}

// forwarder is the whole data path: one thread, two descriptors, one buffer.
type forwarder struct {
	tun, udp int
	spin     time.Duration
	buf      []byte
	counters counters
}

func newForwarder(plan netcfg.Plan, local, remote netip.AddrPort, spin time.Duration) (*forwarder, error) {
	f := &forwarder{spin: spin, buf: make([]byte, vnetSize+trainSize)}
	var err error
	if f.udp, err = connectedUDP(local, remote); err != nil {
		return nil, err
	}
	for option, value := range map[int]int{unix.UDP_SEGMENT: packetSize, unix.UDP_GRO: 1} {
		if err := unix.SetsockoptInt(f.udp, unix.SOL_UDP, option, value); err != nil {
			return nil, errors.Join(fmt.Errorf("asking for the offloads of UDP: %w", err), unix.Close(f.udp))
		}
	}
	if f.tun, err = openTUN(context.Background(), plan); err != nil {
		return nil, errors.Join(err, unix.Close(f.udp))
	}
	return f, nil
}

func (f *forwarder) forward() error {
	runtime.LockOSThread()
	fds := []unix.PollFd{{Fd: int32(f.tun), Events: unix.POLLIN}, {Fd: int32(f.udp), Events: unix.POLLIN}}
	idle := time.Time{}
	for {
		out, err := f.outbound()
		if err != nil {
			return err
		}
		in, err := f.inbound()
		if err != nil {
			return err
		}
		if out || in {
			idle = time.Time{}
			continue
		}
		if f.spin > 0 {
			now := time.Now()
			if idle.IsZero() {
				idle = now
			}
			if now.Sub(idle) < f.spin {
				continue
			}
		}
		f.counters.sleeps.Add(1)
		if err := sleep(fds); err != nil {
			return err
		}
	}
}

// outbound takes trains from the TUN interface. It tells whether there was one.
func (f *forwarder) outbound() (busy bool, err error) {
	for range budget {
		n, errno := read(f.tun, f.buf)
		if errno == unix.EAGAIN {
			return busy, nil
		}
		if errno != 0 {
			return busy, os.NewSyscallError("reading from TUN", errno)
		}
		busy = true
		f.counters.trains.Add(1)
		f.counters.bytes.Add(uint64(n))
		if n > maxWire {
			f.counters.dropped.Add(1)
			continue
		}
		if _, errno := write(f.udp, f.buf[:n]); errno != 0 {
			f.counters.dropped.Add(1)
		}
	}
	return busy, nil
}

// inbound takes trains from the socket.
func (f *forwarder) inbound() (busy bool, err error) {
	for range budget {
		n, errno := read(f.udp, f.buf)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return busy, nil
		case unix.ECONNREFUSED: // the other box was not there yet
			continue
		default:
			return busy, os.NewSyscallError("reading from UDP", errno)
		}
		busy = true
		f.counters.back.Add(1)
		if n == 0 {
			continue
		}
		if _, errno := write(f.tun, f.buf[:n]); errno != 0 {
			f.counters.dropped.Add(1)
		}
	}
	return busy, nil
}
