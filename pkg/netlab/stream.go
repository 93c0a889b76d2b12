//go:build linux

package netlab

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrEnded is of a Stream that has ended before it was to.
var ErrEnded = errors.New("the stream has ended by itself")

// Stream is a TCP connection over which random bytes go until it is ended. They are hashed where they leave and where they arrive.
type Stream struct {
	name      string
	from, to  net.Conn
	begin     time.Time
	received  atomic.Int64
	stop      chan struct{}
	closeOnce sync.Once
	done      chan struct{} // closed when t and err are there
	t         Transferred
	err       error
}

// StartStream connects src, an address of one host, with dst, one of another, and sends so many bytes a second.
func StartStream(ctx context.Context, from *Host, src netip.Addr, to *Host, dst netip.Addr, rate int) (*Stream, error) {
	s := &Stream{name: fmt.Sprintf("stream from %s %s to %s %s", from.name, src, to.name, dst), stop: make(chan struct{}), done: make(chan struct{}), begin: time.Now()}
	ln, err := to.Listen(ctx, netip.AddrPortFrom(dst, 0))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	defer func() { _ = ln.Close() }()
	err = from.Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), Timeout: 10 * time.Second}
		s.from, err = d.DialContext(ctx, "tcp", ln.Addr().String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if s.to, err = ln.Accept(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.name, err), s.from.Close())
	}
	receiving := make(chan error, 1)
	go func() {
		h := sha256.New()
		_, err := io.Copy(io.MultiWriter(h, counter{&s.received}), s.to)
		h.Sum(s.t.Received[:0])
		receiving <- errors.Join(err, s.to.Close())
	}()
	go func() {
		defer close(s.done)
		h := sha256.New()
		err := trickle(io.MultiWriter(s.from, h), rate, s.stop)
		h.Sum(s.t.Sent[:0])
		s.err = errors.Join(err, s.from.Close(), <-receiving)
		s.t.Bytes, s.t.Duration = s.received.Load(), time.Since(s.begin)
	}()
	return s, nil
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// trickle writes random bytes, a hundredth of the rate every hundredth of a second.
func trickle(w io.Writer, rate int, stop <-chan struct{}) error {
	const every = 10 * time.Millisecond
	block := make([]byte, max(1, rate/int(time.Second/every)))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if _, err := rand.Read(block); err != nil {
			return err
		}
		if _, err := w.Write(block); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-stop:
			return nil
		}
	}
}

// Received is how many bytes have arrived by now.
func (s *Stream) Received() int64 { return s.received.Load() }

// End has it send no more, and returns when all that was sent has arrived. The error is ErrEnded if it was over before, or
// ctx's.
func (s *Stream) End(ctx context.Context) (Transferred, error) {
	select {
	case <-s.done:
		return s.t, fmt.Errorf("%s: %w: %w", s.name, ErrEnded, s.err)
	default:
	}
	s.closeOnce.Do(func() { close(s.stop) })
	select {
	case <-s.done:
		if s.err != nil {
			return s.t, fmt.Errorf("%s: %w", s.name, s.err)
		}
		return s.t, nil
	case <-ctx.Done():
		return Transferred{}, fmt.Errorf("%s does not come to its end: %w", s.name, context.Cause(ctx))
	}
}

// Break breaks it off: what has not arrived will not. It may be called after End.
func (s *Stream) Break() {
	s.closeOnce.Do(func() { close(s.stop) })
	_, _ = s.from.Close(), s.to.Close()
	<-s.done
}
