package tuntest

import (
	"context"
	"net"
	"sync"

	"twinkey/pkg/tun"
)

// QueueLength is how many packets wait in each direction before a writer blocks.
const QueueLength = 1024

// Device is a tun.Device in memory.
type Device struct {
	name      string
	mtu       int
	batch     int
	in        <-chan []byte // what Read yields
	out       chan<- []byte // where Write goes
	closed    chan struct{}
	closeOnce sync.Once

	inject  chan<- []byte // the test's side; nil for a Pair
	deliver <-chan []byte
}

var _ tun.Device = (*Device)(nil)

// New makes a device whose other side is the test. batch is what BatchSize returns.
func New(name string, mtu, batch int) *Device {
	in, out := make(chan []byte, QueueLength), make(chan []byte, QueueLength)
	return &Device{name: name, mtu: mtu, batch: batch, in: in, out: out, inject: in, deliver: out, closed: make(chan struct{})}
}

// Pair makes two devices; each reads what the other wrote.
func Pair(mtu, batch int) (a, b *Device) {
	ab, ba := make(chan []byte, QueueLength), make(chan []byte, QueueLength)
	a = &Device{name: "pair0", mtu: mtu, batch: batch, in: ba, out: ab, closed: make(chan struct{})}
	b = &Device{name: "pair1", mtu: mtu, batch: batch, in: ab, out: ba, closed: make(chan struct{})}
	return a, b
}

// Inject hands a copy of pkt to the device's Read. It fails with net.ErrClosed once the
// device is closed and with ctx's error when the queue stays full for as long as ctx lives.
func (d *Device) Inject(ctx context.Context, pkt []byte) error {
	return d.send(ctx, d.inject, pkt)
}

// Delivered waits for the next packet written to the device.
func (d *Device) Delivered(ctx context.Context) ([]byte, error) {
	select {
	case p := <-d.deliver:
		return p, nil
	default:
	}
	select {
	case p := <-d.deliver:
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

// BatchSize is what the device was made with.
func (d *Device) BatchSize() int { return d.batch }

// Kind is "memory".
func (d *Device) Kind() string { return "memory" }

// Close unblocks Read, Write, Inject and Delivered.
func (d *Device) Close() error {
	d.closeOnce.Do(func() { close(d.closed) })
	return nil
}

// Read implements tun.Device: it waits for one packet and takes along what else is there.
func (d *Device) Read(bufs [][]byte, sizes []int, offset int) (n int, err error) {
	limit := min(len(bufs), len(sizes), d.batch)
	if limit == 0 {
		return 0, nil
	}
	select {
	case <-d.closed: // first: a closed device yields nothing, whatever is queued
		return 0, net.ErrClosed
	default:
	}
	select {
	case <-d.closed:
		return 0, net.ErrClosed
	case p := <-d.in:
		sizes[0] = copy(bufs[0][offset:], p)
	}
	for n = 1; n < limit; n++ {
		select {
		case p := <-d.in:
			sizes[n] = copy(bufs[n][offset:], p)
		default:
			return n, nil
		}
	}
	return n, nil
}

// Write implements tun.Device.
func (d *Device) Write(bufs [][]byte, offset int) (n int, err error) {
	for _, b := range bufs {
		if err := d.send(context.Background(), d.out, b[offset:]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
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
