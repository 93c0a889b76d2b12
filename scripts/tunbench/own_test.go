//go:build linux

package tunbench

import (
	"errors"
	"fmt"
	"net"
	"runtime"

	"twinkey/pkg/netlab"
	"twinkey/pkg/poller"
	"twinkey/pkg/tun"
	"twinkey/proto/gso"
)

const (
	// headroom and tailroom as in the router.
	headroom, tailroom = 64, 48
	maxPacket          = 65535
	// turn is how often one side is read before the other is looked at, as in the router.
	turn = 64
)

// side is one direction.
type side interface {
	// carry takes one read's worth from one device to the other. n is 0 if nothing waits.
	carry() (n int, err error)
}

// loop is a relay of one thread that waits by package poller, as a worker of the router does.
type loop struct {
	devices      [2]tun.Device
	sides        [2]side
	wait         *poller.Poller
	reads, bytes uint64
}

func (l *loop) names() [2]string    { return [2]string{l.devices[0].Name(), l.devices[1].Name()} }
func (l *loop) read() (_, _ uint64) { return l.reads, l.bytes }
func (l *loop) close() error        { return l.wait.Close() }

func (l *loop) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := l.carry()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, l.wait.Free(), l.devices[0].Close(), l.devices[1].Close())
}

func (l *loop) carry() error {
	for {
		did := false
		for _, s := range l.sides {
			for range turn {
				n, err := s.carry()
				if err != nil {
					return err
				}
				if n == 0 {
					break
				}
				did = true
				l.reads++
				l.bytes += uint64(n)
			}
		}
		if did {
			continue
		}
		if _, err := l.wait.Wait([]bool{true, true}, []bool{false, false}); err != nil {
			return err
		}
	}
}

// openOwn opens a device at each host, joined by sides of a kind.
func openOwn(newSide func(from, to tun.Queue) side) func(a, b *netlab.Host) (relay, error) {
	return func(a, b *netlab.Host) (relay, error) {
		l := &loop{}
		var qs [2]tun.Queue
		for i, h := range []*netlab.Host{a, b} {
			err := h.Do(func() (err error) {
				l.devices[i], err = tun.OpenOffload("tw0", 1)
				return err
			})
			if err != nil {
				return nil, err
			}
			qs[i] = l.devices[i].Queues()[0]
		}
		l.sides = [2]side{newSide(qs[0], qs[1]), newSide(qs[1], qs[0])}
		var err error
		l.wait, err = poller.New(qs[0].FD(), qs[1].FD())
		return l, err
	}
}

// splice is a sending and a receiving router without what is between them.
type splice struct {
	from, to tun.Queue
	leave    bool // checksums are left partial
	buf      []byte
	split    gso.Splitter
	join     *gso.Joiner
}

func newSplice(from, to tun.Queue, leave bool) *splice {
	return &splice{
		from: from, to: to, leave: leave,
		buf:  make([]byte, headroom+maxPacket+tailroom),
		join: gso.NewJoiner(maxPacket),
	}
}

func (s *splice) carry() (int, error) {
	h, n, err := s.from.Read(s.buf, headroom)
	if err != nil || n == 0 {
		return 0, err
	}
	if err := s.split.Reset(h, s.buf, headroom, n, !s.leave); err != nil {
		return 0, err
	}
	for {
		at, size, ok := s.split.Next()
		if !ok {
			break
		}
		// Sealing and opening would write it there.
		slot := s.join.Slot(0)
		pkt := slot[:copy(slot, s.buf[at:at+size])]
		if err := s.write(s.join.Put(pkt, true, s.leave)); err != nil {
			return 0, err
		}
	}
	return n, s.write(s.join.Flush())
}

func (s *splice) write(t gso.Train, ok bool) error {
	if !ok {
		return nil
	}
	if err := s.to.Write(t.Header, t.Buf, t.At); err != nil {
		return fmt.Errorf("a train of %d packets: %w", t.Count, err)
	}
	return nil
}

// whole writes what it reads.
type whole struct {
	from, to tun.Queue
	buf      []byte
}

func newWhole(from, to tun.Queue) side {
	return &whole{from, to, make([]byte, headroom+maxPacket)}
}

func (w *whole) carry() (int, error) {
	h, n, err := w.from.Read(w.buf, headroom)
	if err != nil || n == 0 {
		return 0, err
	}
	return n, w.to.Write(h, w.buf[:headroom+n], headroom)
}
