package tuntest

import (
	"context"
	"fmt"
	"net"
	"sync"

	"twinkey/pkg/tun"
	"twinkey/proto/gso"
)

// QueueLength is how many packets wait in each direction before a writer blocks.
const QueueLength = 1024

// Device is a tun.Device in memory with one queue, itself. It has no trains of its own to
// hand out, but takes those that are written and delivers their packets.
type Device struct {
	name      string
	mtu       int
	in        chan []byte // what Read yields
	out       chan []byte // where Write goes
	ready     chan struct{}
	closed    chan struct{}
	closeOnce sync.Once
}

var (
	_ tun.Device = (*Device)(nil)
	_ tun.Queue  = (*Device)(nil)
)

// New makes a device whose other side is the test.
func New(name string, mtu int) *Device {
	return &Device{name: name, mtu: mtu, in: make(chan []byte, QueueLength), out: make(chan []byte, QueueLength), ready: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Inject hands a copy of pkt to the device's Read. It fails with net.ErrClosed once the
// device is closed and with ctx's error when the queue stays full for as long as ctx lives.
func (d *Device) Inject(ctx context.Context, pkt []byte) error {
	if err := d.send(ctx, d.in, pkt); err != nil {
		return err
	}
	d.wake()
	return nil
}

// Delivered waits for the next packet written to the device.
func (d *Device) Delivered(ctx context.Context) ([]byte, error) {
	select {
	case p := <-d.out:
		return p, nil
	default:
	}
	select {
	case p := <-d.out:
		return p, nil
	case <-d.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Name is the name that the device was made with.
func (d *Device) Name() string { return d.name }

// MTU is what the device was made with.
func (d *Device) MTU() (int, error) { return d.mtu, nil }

// Queues is the device itself.
func (d *Device) Queues() []tun.Queue { return []tun.Queue{d} }

// Kind is "memory".
func (d *Device) Kind() string { return "memory" }

// Trains is true.
func (d *Device) Trains() bool { return true }

// FD is -1.
func (d *Device) FD() int { return -1 }

// Ready yields a value when Read may have something new, and when the Device is closed.
func (d *Device) Ready() <-chan struct{} { return d.ready }

func (d *Device) wake() {
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

// Close unblocks Write, Inject and Delivered.
func (d *Device) Close() error {
	d.closeOnce.Do(func() {
		close(d.closed)
		d.wake()
	})
	return nil
}

// Read implements tun.Queue.
func (d *Device) Read(buf []byte, at int) (h gso.Header, n int, err error) {
	select {
	case <-d.closed: // first: a closed device yields nothing, whatever is queued
		return h, 0, net.ErrClosed
	default:
	}
	select {
	case p := <-d.in:
		if len(d.in) > 0 {
			d.wake()
		}
		return h, copy(buf[at:], p), nil
	default:
		return h, 0, nil
	}
}

// Write implements tun.Queue: trains arrive as their packets, checksums completed.
func (d *Device) Write(h gso.Header, buf []byte, at int) error {
	var s gso.Splitter
	train := append(make([]byte, gso.Room), buf[at:]...)
	if err := s.Reset(h, train, gso.Room, len(buf)-at, true); err != nil {
		return fmt.Errorf("writing to %s: %w", d.name, err)
	}
	for {
		at, n, ok := s.Next()
		if !ok {
			return nil
		}
		if err := d.send(context.Background(), d.out, train[at:at+n]); err != nil {
			return err
		}
	}
}

func (d *Device) send(ctx context.Context, to chan<- []byte, pkt []byte) error {
	select {
	case <-d.closed:
		return net.ErrClosed
	default:
	}
	select {
	case to <- append([]byte(nil), pkt...):
		return nil
	case <-d.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
