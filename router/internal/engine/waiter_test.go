package engine

import (
	"net"
	"sync"

	"twinkey/pkg/poller"
	"twinkey/pkg/tun/tuntest"
	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
)

// port is what a worker of a test serves: an interface in memory, and a socket there or in the kernel.
func port(dev *tuntest.Device, conn udpio.Conn) Port {
	c, ok := conn.(*udptest.Conn)
	if !ok {
		return Port{dev, conn, &socketWaiter{must(poller.New(conn.FD()))}}
	}
	return Port{dev, c, &memoryWaiter{dev: dev.Ready(), conn: c.Ready(), closed: make(chan struct{})}}
}

// memoryWaiter waits as a Poller does, for channels, so that synctest sees it waiting.
type memoryWaiter struct {
	dev, conn <-chan struct{}
	closed    chan struct{}
	once      sync.Once
}

func (w *memoryWaiter) Wait(_, _ []bool) ([]poller.Events, error) {
	ev := make([]poller.Events, 2)
	select {
	case <-w.dev:
		ev[0].Read = true
	case <-w.conn:
		ev[1].Read = true
	case <-w.closed:
		return nil, net.ErrClosed
	}
	return ev, nil
}

func (w *memoryWaiter) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *memoryWaiter) Free() error { return nil }

// socketWaiter waits for a kernel's socket; nothing comes from the interface.
type socketWaiter struct{ *poller.Poller }

func (w *socketWaiter) Wait(read, write []bool) ([]poller.Events, error) {
	ev, err := w.Poller.Wait(read[1:], write[1:])
	if err != nil {
		return nil, err
	}
	return []poller.Events{{}, ev[0]}, nil
}
