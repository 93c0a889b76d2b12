//go:build linux

package netlab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Transferred tells what Transfer did. The transfer went well if the two digests are equal.
type Transferred struct {
	Bytes          int64
	Duration       time.Duration // from the first byte sent to the last received
	Sent, Received [sha256.Size]byte
}

// Intact says that what was received is what was sent.
func (t Transferred) Intact() bool { return t.Sent == t.Received }

// Rate is the throughput in bits a second.
func (t Transferred) Rate() float64 { return float64(t.Bytes*8) / t.Duration.Seconds() }

// Transfer sends the bytes of r over TCP from one host to an address that another host holds. The bytes are hashed where they
// leave and where they arrive. It ends when ctx does.
func Transfer(ctx context.Context, from, to *Host, addr netip.Addr, r io.Reader) (Transferred, error) {
	fail := func(err error) (Transferred, error) {
		return Transferred{}, fmt.Errorf("transferring from %s to %s %s: %w", from.name, to.name, addr, err)
	}
	ln, err := to.Listen(ctx, netip.AddrPortFrom(addr, 0))
	if err != nil {
		return fail(err)
	}
	defer func() { _ = ln.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()

	var t Transferred
	receiving := make(chan error, 1)
	go func() { receiving <- t.receive(ctx, ln) }()

	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return fail(fmt.Errorf("unexpected address %v", ln.Addr()))
	}
	start := time.Now()
	serr := t.send(ctx, from, netip.AddrPortFrom(addr, tcp.AddrPort().Port()), r)
	if serr != nil {
		_ = ln.Close() // so that the receiver, which may wait for a connection, ends as well
	}
	if err := errors.Join(serr, <-receiving); err != nil {
		return fail(errors.Join(ctx.Err(), err))
	}
	t.Duration = time.Since(start)
	return t, nil
}

func (t *Transferred) send(ctx context.Context, from *Host, to netip.AddrPort, r io.Reader) error {
	c, err := from.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(c, h), r)
	h.Sum(t.Sent[:0])
	return errors.Join(err, c.Close())
}

func (t *Transferred) receive(ctx context.Context, ln net.Listener) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	h := sha256.New()
	t.Bytes, err = io.Copy(h, c)
	h.Sum(t.Received[:0])
	return errors.Join(err, c.Close())
}
