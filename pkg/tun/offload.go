//go:build linux

package tun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Offloads that the kernel is asked for: it may hand out what these make possible. Those of
// UDP are younger (Linux 6.2) and done without where they are missing.
const (
	offloadTCP = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUDP = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// offloadDevice is the kernel's TUN device with virtio-net headers.
type offloadDevice struct {
	name    string
	queues  []*queue
	control control
	udp     bool
}

// OpenOffload is Open with offloads or not at all: it fails with ErrNoOffload where the kernel has none.
func OpenOffload(name string, queues int) (Device, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	ctl, err := openControl()
	if err != nil {
		return nil, &OpenError{Name: name, Err: err}
	}
	d := &offloadDevice{name: name, control: ctl}
	for range min(max(queues, 1), MaxQueues) {
		if err := d.open(); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// open opens one more queue. The first one makes the interface and finds its name.
func (d *offloadDevice) open() error {
	fd, err := unix.Open(devNetTun, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return explain(d.name, err)
	}
	q := &queue{fd: fd, header: true}
	if err := d.attach(q); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	d.queues = append(d.queues, q)
	return nil
}

func (d *offloadDevice) attach(q *queue) error {
	features, err := unix.IoctlGetInt(q.fd, unix.TUNGETFEATURES)
	if err != nil || features&(unix.IFF_VNET_HDR|unix.IFF_MULTI_QUEUE) != unix.IFF_VNET_HDR|unix.IFF_MULTI_QUEUE {
		return &OpenError{d.name, "set tun.device to water, or use a newer kernel", ErrNoOffload}
	}
	req, err := unix.NewIfreq(d.name)
	if err != nil {
		return &OpenError{Name: d.name, Err: err}
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE)
	if len(d.queues) == 0 {
		flags |= unix.IFF_TUN_EXCL // or we would take queues, and packets, of another process's interface
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(q.fd, unix.TUNSETIFF, req); err != nil {
		return explain(d.name, err)
	}
	d.name, q.name = req.Name(), req.Name()
	if unix.IoctlSetInt(q.fd, unix.TUNSETOFFLOAD, offloadTCP|offloadUDP) == nil {
		d.udp = true
		return nil
	}
	if err := unix.IoctlSetInt(q.fd, unix.TUNSETOFFLOAD, offloadTCP); err != nil {
		return &OpenError{d.name, "set tun.device to water, or use a newer kernel", fmt.Errorf("%w: %w", ErrNoOffload, os.NewSyscallError("TUNSETOFFLOAD", err))}
	}
	return nil
}

func (d *offloadDevice) Name() string      { return d.name }
func (d *offloadDevice) Kind() string      { return "offload" }
func (d *offloadDevice) MTU() (int, error) { return d.control.mtu(d.name) }

func (d *offloadDevice) Queues() []Queue {
	qs := make([]Queue, len(d.queues))
	for i, q := range d.queues {
		qs[i] = q
	}
	return qs
}

func (d *offloadDevice) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.close(func() error { return unix.Close(q.fd) }))
	}
	if err := d.control.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
