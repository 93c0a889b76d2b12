//go:build linux

package tunbench

import (
	"errors"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/tun"

	"twinkey/pkg/netlab"
)

// offset is where wireguard-go has packets begin (device.MessageTransportHeaderSize).
const offset = 16

// wireGuardDevice is one of the library's.
type wireGuardDevice struct{ tun.Device }

func (d *wireGuardDevice) name() string {
	name, err := d.Name()
	if err != nil {
		return err.Error() // the kernel says that there is no such interface
	}
	return name
}

func openWireGuard(a, b *netlab.Host) (relay, error) {
	var ds [2]*wireGuardDevice
	for i, h := range []*netlab.Host{a, b} {
		err := h.Do(func() error {
			d, err := tun.CreateTUN("tw0", mtu)
			ds[i] = &wireGuardDevice{d}
			return err
		})
		if err != nil {
			return nil, err
		}
		go func() { // or its watchers never end
			for range ds[i].Events() {
			}
		}()
	}
	return &pair{devices: ds, sides: [2]*batch{newBatch(ds[0], ds[1]), newBatch(ds[1], ds[0])}}, nil
}

// batch is one direction. The same buffers are used again and again, which is kinder to the caches than
// wireguard-go's pool.
type batch struct {
	from, to tun.Device
	bufs     [][]byte
	filled   [][]byte
	sizes    []int
}

func newBatch(from, to *wireGuardDevice) *batch {
	n := from.BatchSize()
	b := &batch{from: from, to: to, bufs: make([][]byte, n), filled: make([][]byte, 0, n), sizes: make([]int, n)}
	for i := range b.bufs {
		b.bufs[i] = make([]byte, maxPacket) // all of them: what follows is joined into the first of a train
	}
	return b
}

func (b *batch) carry() (bytes int, err error) {
	n, err := b.from.Read(b.bufs, b.sizes, offset)
	if err != nil {
		return 0, err
	}
	b.filled = b.filled[:0]
	for i, size := range b.sizes[:n] {
		b.filled = append(b.filled, b.bufs[i][:offset+size])
		bytes += size
	}
	_, err = b.to.Write(b.filled, offset)
	return bytes, err
}

// pair is a relay with a goroutine for each direction, which wait in the runtime's poller.
type pair struct {
	devices      [2]*wireGuardDevice
	sides        [2]*batch
	closing      atomic.Bool
	reads, bytes atomic.Uint64
}

func (p *pair) names() [2]string    { return [2]string{p.devices[0].name(), p.devices[1].name()} }
func (p *pair) read() (_, _ uint64) { return p.reads.Load(), p.bytes.Load() }

func (p *pair) close() error {
	p.closing.Store(true)
	return errors.Join(p.devices[0].Close(), p.devices[1].Close())
}

func (p *pair) run() error {
	errs := make(chan error, len(p.sides))
	for _, s := range p.sides {
		go func() {
			for {
				n, err := s.carry()
				if p.closing.Load() {
					err = nil // whatever it is: sometimes Read tells what its watchers died of
				} else if err == nil {
					p.reads.Add(1)
					p.bytes.Add(uint64(n))
					continue
				}
				errs <- err
				return
			}
		}()
	}
	return errors.Join(<-errs, p.close(), <-errs)
}
