//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	chatterPort  = 5203
	chatterEvery = 5 * time.Millisecond
	// goesOn is how long a user goes on sending after the revocation: twice what it may take.
	goesOn = 2 * promised
)

// chatter are users who send small datagrams to hostb all the time, and when the last of each arrived there.
type chatter struct {
	s    *set
	in   *net.UDPConn
	runs sync.WaitGroup

	mu   sync.Mutex
	last map[netip.Addr]time.Time
	err  error // the first
}

// hear listens at hostb.
func (s *set) hear() (*chatter, error) {
	c := &chatter{s: s, last: make(map[netip.Addr]time.Time)}
	err := s.HostB.Do(func() (err error) {
		c.in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.siteB.Host, chatterPort)))
		return err
	})
	if err != nil {
		return nil, err
	}
	_ = c.in.SetReadBuffer(readBuffer)
	c.runs.Go(func() { c.fail(c.listen()) })
	return c, nil
}

func (c *chatter) listen() error {
	var b [64]byte
	for {
		_, from, err := c.in.ReadFromUDPAddrPort(b[:])
		if err != nil {
			return err
		}
		now := time.Now()
		c.mu.Lock()
		c.last[from.Addr().Unmap()] = now
		c.mu.Unlock()
	}
}

func (c *chatter) fail(err error) {
	if errors.Is(err, net.ErrClosed) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// heard is when the last datagram of an address arrived; zero: none has.
func (c *chatter) heard(a netip.Addr) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[a]
}

// talk has a user send until the end of ctx, and returns when the first datagram has arrived.
func (c *chatter) talk(ctx context.Context, a netip.Addr) error {
	var out *net.UDPConn
	err := c.s.HostA.Do(func() (err error) {
		// Not connected: nobody tells it that nothing goes through any more.
		out, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
		return err
	})
	if err != nil {
		return err
	}
	c.runs.Go(func() {
		defer func() { _ = out.Close() }()
		t := time.NewTicker(chatterEvery)
		defer t.Stop()
		for {
			if _, err := out.WriteToUDPAddrPort([]byte("still here"), netip.AddrPortFrom(c.s.siteB.Host, chatterPort)); err != nil {
				c.fail(fmt.Errorf("sending from %s: %w", a, err))
				return
			}
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
		}
	})
	for began := time.Now(); c.heard(a).IsZero(); {
		if time.Since(began) > checkTime {
			return fmt.Errorf("nothing arrives from %s", a)
		}
		if err := rest(ctx, chatterEvery); err != nil {
			return err
		}
	}
	return nil
}

// close ends it when everybody has stopped talking.
func (c *chatter) close() error {
	err := c.in.Close()
	c.runs.Wait()
	return errors.Join(err, c.err)
}
