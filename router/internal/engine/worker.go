package engine

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/poller"
	"twinkey/pkg/tun"
	"twinkey/pkg/udpio"
)

// Port is what one worker serves. The engine closes all of it.
type Port struct {
	Queue tun.Queue
	Conn  udpio.Conn
	// Wait waits for the queue, its first place, and the socket, its second.
	Wait Waiter
}

// Waiter is a poller.Poller, or stands for one.
type Waiter interface {
	Wait(read, write []bool) ([]poller.Events, error)
	Close() error
	Free() error
}

// Turns of a worker. One direction hands over to the other after so much, so that neither starves
// the other, and a reply does not wait behind a bulk transfer.
const (
	turnReads    = 64 // packets or trains from the TUN interface
	turnReceives = 4  // batches from the socket
)

// timerSlack is by how many nanoseconds the kernel may prolong a worker's pauses.
const timerSlack = 1000

// worker carries packets both ways between one queue and one socket.
type worker struct {
	e    *Engine
	port Port
	out  outbox
	in   inbox
	lz4  *packer // nil: nothing is compressed
	rest rest
}

func newWorker(e *Engine, p Port) *worker {
	w := &worker{e: e, port: p}
	w.out.init()
	w.in.init(p.Queue.Trains())
	if e.c.Native.Compression {
		w.lz4 = newPacker(int(e.c.Native.MRU))
	}
	return w
}

// run carries packets until the port is closed. It keeps a thread to itself: the scheduler then has
// nothing to move.
func (w *worker) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0) // without it a pause is somewhat longer
	read, write := []bool{true, true}, []bool{false, false}
	fromLAN, fromWAN := true, true
	for {
		var sent, received bool
		var err error
		if fromLAN {
			if sent, err = w.outbound(); err != nil {
				return w.ended(err)
			}
		}
		if fromWAN {
			if received, err = w.inbound(); err != nil {
				return w.ended(err)
			}
		}
		if sent || received {
			gathers := w.rest.gather()
			if gathers {
				w.rest.pause()
			}
			if gathers || !w.rest.light() {
				fromLAN, fromWAN = true, true
				continue
			}
			if received { // the answer may be there already
				fromLAN, fromWAN = true, false
				continue
			}
		}
		// A socket that is full holds up what comes from the LAN and nothing else.
		full := w.out.pending()
		read[0], write[1] = !full, full
		w.rest.sleeps()
		events, err := w.port.Wait.Wait(read, write)
		if err != nil {
			return w.ended(err)
		}
		fromLAN = events[0].Read || events[0].Error || events[1].Write // an error is for Read to tell
		fromWAN = events[1].Read
		if events[1].Error {
			w.trouble()
		}
	}
}

func (w *worker) ended(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("carrying packets: %w", err)
}

// trouble counts what ICMP says of our datagrams. It may be forged, and decides nothing: that a datagram was
// too big is a reason to probe the path.
func (w *worker) trouble() {
	for range udpio.BatchSize {
		p := w.port.Conn.Trouble()
		if p == nil {
			return
		}
		w.e.drops.PathErrors.Add(1)
		if p.TooBig() {
			w.e.queueTo(w.e.strangers, message{kind: pathTooBig, from: p.To, mtu: p.MTU})
		}
	}
}

// heard is the time since the engine's start.
func (w *worker) heard() time.Duration { return time.Since(w.e.epoch) }
