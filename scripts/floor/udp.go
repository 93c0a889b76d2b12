//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
)

const (
	// batch is how many messages one system call takes where it may take several.
	batch = 64

	// trainDatagrams is how many datagrams one UDP_SEGMENT call sends: no UDP payload is longer than 65,507 bytes.
	trainDatagrams = 46

	// drainTime is how long the receiver waits for more after the sender has ended.
	drainTime = 20 * time.Millisecond
)

// overCable are the rows of UDP from one namespace to another, which a cable joins. The sockets stay as long as the lab.
func overCable(lab *netlab.Lab) (*table, error) {
	t := &table{
		Name:  "udp",
		Title: "UDP over a cable",
		Note: "One thread sends datagrams of 1,400 bytes as fast as it can, another receives. CPU time is of the thread, " +
			"and the kernel delivers within the sender's call. What is lost did not fit the receiver's buffer of " + fmt.Sprint(socketBuffer>>20) + " MiB.",
		Columns: []column{{"Gbit/s received", 2}, {"sender, ns CPU a datagram", 0}, {"receiver, ns CPU a datagram", 0}, {"lost, %", 1}},
	}
	a, err := lab.Host("udp-a")
	if err != nil {
		return nil, err
	}
	b, err := lab.Host("udp-b")
	if err != nil {
		return nil, err
	}
	addrA, addrB := netip.MustParseAddr("198.18.1.1"), netip.MustParseAddr("198.18.1.2")
	if err := lab.Link(a, "wan0", netip.PrefixFrom(addrA, 24), b, "wan0", netip.PrefixFrom(addrB, 24)); err != nil {
		return nil, err
	}
	port := uint16(5000)
	for _, gro := range []bool{false, true} {
		for _, how := range []string{"single write", "sendmmsg of 64", "UDP_SEGMENT of 46"} {
			port++
			f, err := newFlow(a, b, netip.AddrPortFrom(addrA, port), netip.AddrPortFrom(addrB, port), how, gro)
			if err != nil {
				return nil, err
			}
			received := "recvmmsg of 64"
			if gro {
				received = "the same with UDP_GRO"
			}
			t.Rows = append(t.Rows, &row{Name: how + ", " + received, run: f.run})
		}
	}
	return t, nil
}

// flow is a sender and a receiver.
type flow struct {
	from, to int
	send     func() (datagrams int, errno unix.Errno)
	in       *vector
}

func newFlow(a, b *netlab.Host, from, to netip.AddrPort, how string, gro bool) (*flow, error) {
	f := &flow{}
	var err error
	if f.from, err = udpSocket(a, from, to); err != nil {
		return nil, err
	}
	if f.to, err = udpSocket(b, to, from); err != nil {
		return nil, err
	}
	switch how {
	case "single write":
		p := make([]byte, packetSize)
		f.send = func() (int, unix.Errno) {
			_, errno := write(f.from, p)
			return 1, errno
		}
	case "sendmmsg of 64":
		v := newVector(batch, packetSize)
		f.send = func() (int, unix.Errno) { return v.send(f.from) }
	default:
		if err := unix.SetsockoptInt(f.from, unix.SOL_UDP, unix.UDP_SEGMENT, packetSize); err != nil {
			return nil, fmt.Errorf("asking for UDP_SEGMENT: %w", err)
		}
		p := make([]byte, trainDatagrams*packetSize)
		f.send = func() (int, unix.Errno) {
			_, errno := write(f.from, p)
			return trainDatagrams, errno
		}
	}
	size := packetSize
	if gro {
		size = trainSize
		if err := unix.SetsockoptInt(f.to, unix.SOL_UDP, unix.UDP_GRO, 1); err != nil {
			return nil, fmt.Errorf("asking for UDP_GRO: %w", err)
		}
	}
	f.in = newVector(batch, size)
	return f, nil
}

// received is what a receiver has seen.
type received struct {
	bytes int
	cpu   time.Duration
	err   error
}

func (f *flow) run(_ context.Context, d time.Duration) ([]float64, error) {
	var over atomic.Bool
	end := make(chan received, 1)
	go func() { end <- f.receive(&over) }()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sent, start, cpu := 0, time.Now(), threadCPU()
	var err error
	for time.Since(start) < d && err == nil {
		for range 16 { // the clock is not asked for each
			n, errno := f.send()
			switch errno {
			case 0:
				sent += n
			case unix.EAGAIN: // the send buffer is full, which on a cable it hardly is
			default:
				err = fmt.Errorf("sending: %w", errno)
			}
		}
	}
	took, cpu := time.Since(start), threadCPU()-cpu
	over.Store(true)
	r := <-end
	if err == nil {
		err = r.err
	}
	if err != nil {
		return nil, err
	}
	got := r.bytes / packetSize
	return []float64{
		float64(r.bytes) * 8 / float64(took.Nanoseconds()),
		float64(cpu.Nanoseconds()) / float64(max(sent, 1)),
		float64(r.cpu.Nanoseconds()) / float64(max(got, 1)),
		100 * float64(sent-got) / float64(max(sent, 1)),
	}, nil
}

func (f *flow) receive(over *atomic.Bool) (r received) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu := threadCPU()
	defer func() { r.cpu = threadCPU() - cpu }()
	fds := []unix.PollFd{{Fd: int32(f.to), Events: unix.POLLIN}}
	for {
		n, errno := f.in.receive(f.to)
		switch errno {
		case 0:
			r.bytes += n
		case unix.EAGAIN:
			last := over.Load()
			if r.err = wait(fds, int(drainTime.Milliseconds())); r.err != nil || last && fds[0].Revents == 0 {
				return r
			}
		default:
			r.err = fmt.Errorf("receiving: %w", errno)
			return r
		}
	}
}

// threadCPU is the processor time of the calling thread, in and out of the kernel.
func threadCPU() time.Duration { return cpuTime(unix.RUSAGE_THREAD) }

// processCPU is that of all threads of this process.
func processCPU() time.Duration { return cpuTime(unix.RUSAGE_SELF) }

func cpuTime(who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		panic(os.NewSyscallError("getrusage", err)) // it takes constants
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
