//go:build linux

package tun

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/songgao/water"
)

// waterDevice is a Device over github.com/songgao/water.
type waterDevice struct {
	ifce    *water.Interface
	q       *queue
	control control
}

// OpenWater is Open without offloads: one queue, one packet a system call.
func OpenWater(name string) (Device, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	ctl, err := openControl()
	if err != nil {
		return nil, &OpenError{Name: name, Err: err}
	}
	// New, not NewTUN: the latter prints to standard output.
	ifce, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name},
	})
	if err != nil {
		return nil, errors.Join(explain(name, err), ctl.file.Close())
	}
	fd, err := descriptor(ifce)
	if err != nil {
		return nil, errors.Join(&OpenError{Name: name, Err: err}, ifce.Close(), ctl.file.Close())
	}
	return &waterDevice{ifce: ifce, q: &queue{fd: fd, name: ifce.Name()}, control: ctl}, nil
}

// descriptor is what water opened: it does not wait, and is read without the detour over the
// runtime's poller.
func descriptor(ifce *water.Interface) (fd int, err error) {
	file, ok := ifce.ReadWriteCloser.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("water gave a %T, which has no descriptor", ifce.ReadWriteCloser)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(p uintptr) { fd = int(p) })
	return fd, err
}

func (d *waterDevice) Name() string      { return d.ifce.Name() }
func (d *waterDevice) Kind() string      { return "water" }
func (d *waterDevice) Queues() []Queue   { return []Queue{d.q} }
func (d *waterDevice) MTU() (int, error) { return d.control.mtu(d.Name()) }

func (d *waterDevice) Close() error {
	err := d.q.close(d.ifce.Close)
	if cerr := d.control.file.Close(); cerr != nil && !errors.Is(cerr, os.ErrClosed) {
		err = errors.Join(err, cerr)
	}
	return err
}
