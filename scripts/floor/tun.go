//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netcfg"
	"twinkey/pkg/netlab"
)

const tunName = "tw0"

// tunOffloads are what a TUN interface may leave to its reader.
const tunOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6

// openTUN makes a TUN interface with virtio-net header in the namespace of the calling thread. Reads do not block.
func openTUN(ctx context.Context, plan netcfg.Plan) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	fail := func(doing string, err error) (int, error) {
		return -1, errors.Join(fmt.Errorf("%s %s: %w", doing, plan.Link, err), unix.Close(fd))
	}
	req, err := unix.NewIfreq(plan.Link)
	if err != nil {
		return fail("naming", err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fail("making", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunOffloads); err != nil {
		return fail("asking for the offloads of", err)
	}
	if _, err := netcfg.Apply(ctx, plan); err != nil {
		return fail("configuring", err)
	}
	return fd, nil
}

// acrossTUN are the rows of a TUN interface's system calls.
func acrossTUN(ctx context.Context, lab *netlab.Lab) (*table, error) {
	t := &table{
		Name:  "tun",
		Title: "TUN interface",
		Note: "One system call each, with virtio-net header. To be read, packets were laid into the interface's queue before by a packet socket, 64 at a time, " +
			"which is not counted. What is written goes through the kernel's input as far as routing, which has no way for it and drops it.",
		Columns: []column{{"ns a call", 0}, {"ns a segment", 0}, {"GB/s", 1}},
	}
	h, err := lab.Host("tun")
	if err != nil {
		return nil, err
	}
	d := &device{}
	err = h.Do(func() (err error) {
		d.tun, err = openTUN(ctx, netcfg.Plan{Link: tunName, Up: true, MTU: packetSize, Addresses: []netip.Prefix{
			netip.MustParsePrefix("10.78.0.1/24"), netip.MustParsePrefix("fd78::1/64"),
		}})
		if err != nil {
			return err
		}
		d.feed, d.ifindex, err = packetSocket(tunName)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, s := range shapes {
		t.Rows = append(t.Rows, d.row("read, "+s.name, s, d.read))
	}
	for _, s := range shapes {
		t.Rows = append(t.Rows, d.row("write, "+s.name, s, d.write))
	}
	return t, nil
}

// packetSocket opens a socket that lays packets with a virtio-net header into an interface's queue.
func packetSocket(ifname string) (fd, ifindex int, err error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return -1, 0, err
	}
	// Protocol 0: it sends and hears nothing.
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return -1, 0, errors.Join(os.NewSyscallError("setsockopt PACKET_VNET_HDR", err), unix.Close(fd))
	}
	return fd, ifi.Index, nil
}

// device is a TUN interface and what feeds it. It stays as long as the lab.
type device struct {
	tun, feed, ifindex int
}

// row measures calls: call does the work on p again and again for d and says how long a call took on average.
func (d *device) row(name string, s shape, call func(p []byte, v6 bool, d time.Duration) (float64, error)) *row {
	neighbour := netip.MustParseAddr("10.78.0.2")
	nowhere := netip.MustParseAddr("203.0.113.9")
	if s.v6 {
		neighbour = netip.MustParseAddr("fd78::2")
		nowhere = netip.MustParseAddr("2001:db8:9::9")
	}
	p := s.build(neighbour, nowhere)
	return &row{Name: name, run: func(_ context.Context, t time.Duration) ([]float64, error) {
		ns, err := call(p, s.v6, t)
		return []float64{ns, ns / float64(s.segments), float64(len(p)-vnetSize) / ns}, err
	}}
}

// read lays p into the queue some times, then reads it as often.
func (d *device) read(p []byte, v6 bool, t time.Duration) (float64, error) {
	if err := d.drain(); err != nil {
		return 0, err
	}
	protocol := uint16(unix.ETH_P_IP)
	if v6 {
		protocol = unix.ETH_P_IPV6
	}
	to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol)), Ifindex: d.ifindex}
	var (
		buf   = make([]byte, vnetSize+trainSize)
		spent time.Duration
		reads int
	)
	for begin := time.Now(); spent < t && time.Since(begin) < 4*t; {
		for range batch {
			if err := unix.Sendto(d.feed, p, 0, to); err != nil {
				return 0, fmt.Errorf("laying a packet of %d bytes into the queue: %w", len(p), err)
			}
		}
		start := time.Now()
		for n := 0; n < batch; {
			size, errno := read(d.tun, buf)
			switch {
			case errno != 0:
				return 0, fmt.Errorf("reading: %w", errno)
			case size == len(p):
				n++
			case size >= packetSize/2: // smaller ones are the kernel's own: neighbours and multicast groups
				return 0, fmt.Errorf("read %d bytes where %d were sent: the kernel has split the train", size, len(p))
			}
		}
		spent += time.Since(start)
		reads += batch
	}
	return float64(spent.Nanoseconds()) / float64(reads), nil
}

// write writes p again and again.
func (d *device) write(p []byte, _ bool, t time.Duration) (float64, error) {
	var err error
	ns := perOp(t, func() {
		if n, errno := write(d.tun, p); errno != 0 || n != len(p) {
			err = fmt.Errorf("writing a packet of %d bytes: %d, %w", len(p), n, errno)
		}
	})
	return ns, errors.Join(err, d.drain())
}

// drain takes out what the kernel has to say of its own: router solicitations, unreachable messages.
func (d *device) drain() error {
	buf := make([]byte, vnetSize+trainSize)
	for {
		switch _, errno := read(d.tun, buf); errno {
		case 0:
		case unix.EAGAIN:
			return nil
		default:
			return fmt.Errorf("reading what is left: %w", errno)
		}
	}
}
