package radius

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"sync"
	"time"

	"layeh.com/radius"
)

const (
	// identifiers is how many requests can be under way in one connection.
	identifiers = 256
	// idle is how long a connection is kept that nobody uses. It is longer than any request is given, and shorter than
	// what firewalls on the way have patience for.
	idle = 60 * time.Second
)

// Why a connection ended.
var (
	errBroken  = errors.New("the connection broke off")
	errIdle    = fmt.Errorf("%w: nobody used it", errBroken)
	errOverdue = errors.New("no answer came through the connection in time")
)

// link is the way to one server by TLS: a connection while there is use for it.
type link struct {
	server string
	s      *Source

	dial sync.Mutex // held while a connection is made: the others wait for it
	mu   sync.Mutex
	conn *conn // nil if there is none
}

// conn is one TLS connection. Answers are told apart by their Identifiers.
type conn struct {
	tls *tls.Conn

	write sync.Mutex // one request at a time

	mu      sync.Mutex
	waiting [identifiers]*waiter // by Identifier; its place is free when the answer has come, not before
	err     error                // why it ended
	ended   chan struct{}
}

// waiter waits for one answer; there is room for it, so nobody has to be there.
type waiter struct {
	r      *request
	answer chan packet
}

// ask sends a request and waits for the answer. If a connection that was there before breaks, another one is tried once: the server
// may have closed it while nobody was looking.
func (l *link) ask(ctx context.Context, code radius.Code, fill func(*radius.Packet) error) (packet, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.s.cfg.waiting(), errOverdue)
	defer cancel()
	for {
		c, fresh, err := l.connect(ctx)
		if err != nil {
			return packet{}, err
		}
		began := time.Now()
		p, err := c.ask(ctx, l.s.secret.Bytes(), code, fill)
		if err == nil || fresh || !errors.Is(err, errBroken) {
			// Whoever asks may give up before we would. With no time left to wait nothing is said of the connection.
			if errors.Is(err, errOverdue) || errors.Is(err, context.DeadlineExceeded) && time.Since(began) >= l.s.cfg.Wait {
				l.drop(c, errOverdue)
			}
			return p, err
		}
		l.s.count.repeated.Add(1)
	}
}

// connect returns the connection that there is, or makes one.
func (l *link) connect(ctx context.Context) (c *conn, fresh bool, err error) {
	l.dial.Lock()
	defer l.dial.Unlock()
	l.mu.Lock()
	c = l.conn
	l.mu.Unlock()
	if c != nil {
		return c, false, nil
	}
	d := tls.Dialer{Config: l.s.tls}
	raw, err := d.DialContext(ctx, "tcp", l.server)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, false, fmt.Errorf("connecting: %w", err)
	}
	t, ok := raw.(*tls.Conn)
	if !ok {
		return nil, false, errors.Join(errors.New("connecting: this is no TLS"), raw.Close())
	}
	c = &conn{tls: t, ended: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.s.life.Err() != nil {
		return nil, false, errors.Join(errClosed, c.tls.Close())
	}
	l.conn = c
	l.s.wg.Go(func() { l.read(c) })
	return c, true, nil
}

// close ends the connection, if there is one.
func (l *link) close(why error) {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil {
		l.drop(c, why)
	}
}

// drop ends a connection; whoever still waits is told why.
func (l *link) drop(c *conn, why error) {
	l.mu.Lock()
	if l.conn == c {
		l.conn = nil
	}
	l.mu.Unlock()
	c.end(why)
}

// read takes answers until the connection ends.
func (l *link) read(c *conn) {
	for {
		err := c.tls.SetReadDeadline(time.Now().Add(idle))
		var b []byte
		if err == nil {
			b, err = readPacket(c.tls)
		}
		if err == nil {
			err = c.deliver(b)
		}
		if err == nil {
			continue
		}
		switch e, ok := errors.AsType[net.Error](err); {
		case disbelieved(err): // RFC 6613 2.6.4: close it
			l.s.count.dropped(err)
			l.s.log.Warn("an answer is not believed, the connection is closed", "server", l.server, "why", err)
		case ok && e.Timeout():
			err = errIdle
		default:
			err = fmt.Errorf("%w: %w", errBroken, err)
		}
		l.drop(c, err)
		return
	}
}

// readPacket takes one packet from a stream; its own length says where it ends.
func readPacket(r io.Reader) ([]byte, error) {
	var head [authAt]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if n < headerLen || n > maxPacket {
		return nil, errMalformed
	}
	b := make([]byte, n)
	copy(b, head[:])
	_, err := io.ReadFull(r, b[authAt:])
	return b, err
}

// ask sends one request through c.
func (c *conn) ask(ctx context.Context, secret []byte, code radius.Code, fill func(*radius.Packet) error) (packet, error) {
	w, alone, err := c.reserve(secret, code, fill)
	if err != nil {
		return packet{}, err
	}
	if err := c.send(ctx, w.r.wire, alone); err != nil {
		err = fmt.Errorf("%w: %w", errBroken, err)
		c.end(err)
		return packet{}, err
	}
	select {
	case p := <-w.answer:
		return p, nil
	case <-c.ended:
		select {
		case p := <-w.answer: // it came before the end
			return p, nil
		default:
			return packet{}, c.err
		}
	case <-ctx.Done():
		return packet{}, context.Cause(ctx)
	}
}

// reserve makes a request with an Identifier that is free, a random one. alone says that no other waits for an answer.
func (c *conn) reserve(secret []byte, code radius.Code, fill func(*radius.Packet) error) (w *waiter, alone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, false, c.err
	}
	alone = c.waiting == [identifiers]*waiter{}
	first := mrand.N(identifiers) //nolint:gosec // nobody gains by guessing it: it is within TLS
	for i := range identifiers {
		id := (first + i) % identifiers
		if c.waiting[id] != nil {
			continue
		}
		r, err := newRequest(code, byte(id), secret, fill)
		if err != nil {
			return nil, false, err
		}
		c.waiting[id] = &waiter{r: r, answer: make(chan packet, 1)}
		return c.waiting[id], alone, nil
	}
	return nil, false, errBusy
}

// send writes a request. If others wait already, it is since theirs that the connection has been silent.
func (c *conn) send(ctx context.Context, wire []byte, alone bool) error {
	c.write.Lock()
	defer c.write.Unlock()
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(idle)
	}
	err := c.tls.SetWriteDeadline(until)
	if alone {
		err = errors.Join(err, c.tls.SetReadDeadline(time.Now().Add(idle)))
	}
	if err != nil {
		return err
	}
	_, err = c.tls.Write(wire)
	return err
}

// deliver hands an answer to whoever waits for it.
func (c *conn) deliver(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[b[1]]
	if w == nil {
		return errStray
	}
	p, err := w.r.believe(b)
	if err != nil {
		return err
	}
	c.waiting[b[1]] = nil
	w.answer <- p
	return nil
}

// end closes c, the first time.
func (c *conn) end(why error) {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = why
		close(c.ended)
	}
	c.mu.Unlock()
	if first {
		_ = c.tls.Close() // it is of no use any more
	}
}
