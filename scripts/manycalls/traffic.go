//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	tcpPort = 5201
	udpPort = 5202

	// warmTime is how long traffic flows before it is counted: windows open, queues fill.
	warmTime = time.Second

	chunk        = 64 << 10 // bytes of a write and of a read of TCP
	datagramSize = 1300     // bytes of UDP payload
	readBatch    = 64       // datagrams that the receiver takes at once
	readBuffer   = 8 << 20
)

// load is what one kind of traffic did in its time.
type load struct {
	bytes float64
	took  time.Duration
	cpu   time.Duration // of both routers
	most  memory
}

func (l load) gigabits() float64 { return l.bytes * 8 / 1e9 / l.took.Seconds() }

// measure runs the kinds of traffic one after the other: as many flows through any number of calls.
func (s *set) measure(ctx context.Context, d time.Duration, flows int) (sample, error) {
	if s.idle == (memory{}) { // before the first load: afterwards it is that of a router that was busy once
		var err error
		if s.idle, err = s.memory(residentNow); err != nil {
			return sample{}, err
		}
		if s.login, err = s.memory(residentPeak); err != nil {
			return sample{}, err
		}
	}
	one, err := s.loaded(ctx, d, s.streams(1))
	if err != nil {
		return sample{}, fmt.Errorf("one stream of TCP: %w", err)
	}
	tcp, err := s.loaded(ctx, d, s.streams(flows))
	if err != nil {
		return sample{}, fmt.Errorf("TCP: %w", err)
	}
	udp, err := s.loaded(ctx, d, s.datagrams(flows))
	if err != nil {
		return sample{}, fmt.Errorf("UDP: %w", err)
	}
	most := one.most.max(tcp.most).max(udp.most)
	return sample{
		TCP1: one.gigabits(), TCP: tcp.gigabits(), UDP: udp.gigabits(), CPU: tcp.cpu.Seconds() / (tcp.bytes / 1e9),
		NearLogin: s.login.near / mebi, NearIdle: s.idle.near / mebi, FarIdle: s.idle.far / mebi, NearLoaded: most.near / mebi, FarLoaded: most.far / mebi,
	}, nil
}

const mebi = 1 << 20

// loaded starts a kind of traffic, lets it come to speed and counts for d. traffic returns when its context ends.
func (s *set) loaded(ctx context.Context, d time.Duration, traffic func(context.Context, *atomic.Int64) error) (l load, err error) {
	flowing, stop := context.WithCancel(ctx)
	defer stop()
	var received atomic.Int64
	ended := make(chan error, 1)
	go func() {
		ended <- traffic(flowing, &received)
		stop() // so that nobody goes on measuring what has failed
	}()
	l, err = s.count(flowing, d, &received)
	stop()
	return l, errors.Join(<-ended, ctx.Err(), err)
}

// count is the measurement itself.
func (s *set) count(ctx context.Context, d time.Duration, received *atomic.Int64) (l load, err error) {
	if err := rest(ctx, warmTime); err != nil {
		return l, err
	}
	cpu, err := s.cpu()
	if err != nil {
		return l, err
	}
	start, bytes := time.Now(), received.Load()
	watching, stop := context.WithTimeout(ctx, d)
	defer stop()
	if l.most, err = s.watch(watching); err != nil {
		return l, err
	}
	l.bytes, l.took = float64(received.Load()-bytes), time.Since(start)
	after, err := s.cpu()
	l.cpu = after - cpu
	if err == nil && l.bytes == 0 {
		err = errors.New("nothing arrived")
	}
	return l, errors.Join(err, ctx.Err())
}

// over says whether an error is only that the traffic was ended.
func over(ctx context.Context, err error) bool {
	return err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// streams sends n TCP streams to hostb, from each user in turn.
func (s *set) streams(n int) func(context.Context, *atomic.Int64) error {
	return func(ctx context.Context, received *atomic.Int64) error { return s.stream(ctx, n, received) }
}

func (s *set) stream(ctx context.Context, n int, received *atomic.Int64) error {
	ln, err := s.HostB.Listen(ctx, netip.AddrPortFrom(s.siteB.Host, tcpPort))
	if err != nil {
		return err
	}
	f := flows{ctx: ctx, close: []func() error{ln.Close}}
	f.Go(func() error { return f.sink(ln, received) })
	err = s.HostA.Do(func() error {
		data := make([]byte, chunk)
		for i := range n {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.user(i), 0))}
			c, err := d.DialContext(ctx, "tcp4", ln.Addr().String())
			if err != nil {
				return err
			}
			f.closes(c.Close)
			f.Go(func() error {
				for {
					if _, err := c.Write(data); err != nil {
						return err
					}
				}
			})
		}
		return nil
	})
	return f.end(err)
}

// user is the address of the user whose the flow i is.
func (s *set) user(i int) netip.Addr { return s.addresses[i%len(s.addresses)] }

// flows are the goroutines of one kind of traffic.
type flows struct {
	ctx   context.Context // of the traffic, which the goroutines outlive by no more than an error
	group sync.WaitGroup
	mu    sync.Mutex
	close []func() error
	err   error // the first
}

// Go runs f until its connection is closed.
func (f *flows) Go(run func() error) {
	f.group.Go(func() {
		if err := run(); !over(f.ctx, err) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.err = errors.Join(f.err, err)
		}
	})
}

func (f *flows) closes(c func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close = append(f.close, c)
}

// end waits until the traffic is to end, if it has begun at all, and ends it.
func (f *flows) end(err error) error {
	if err == nil {
		<-f.ctx.Done()
	}
	f.mu.Lock()
	for _, c := range f.close {
		_ = c() // both ends are closed at once: that one finds the other gone is nothing
	}
	f.mu.Unlock()
	f.group.Wait()
	if over(f.ctx, err) {
		err = nil
	}
	return errors.Join(f.err, err)
}

// sink accepts connections and reads them empty.
func (f *flows) sink(ln net.Listener, received *atomic.Int64) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		f.closes(c.Close)
		f.Go(func() error {
			buf := make([]byte, chunk)
			for {
				n, err := c.Read(buf)
				received.Add(int64(n))
				if err != nil {
					return err
				}
			}
		})
	}
}

// datagrams sends from n sockets in turn to hostb, which are of each user in turn.
func (s *set) datagrams(n int) func(context.Context, *atomic.Int64) error {
	return func(ctx context.Context, received *atomic.Int64) error { return s.datagram(ctx, n, received) }
}

func (s *set) datagram(ctx context.Context, n int, received *atomic.Int64) error {
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.siteB.Host, udpPort))
	var in *net.UDPConn
	err := s.HostB.Do(func() (err error) {
		in, err = net.ListenUDP("udp4", to)
		return err
	})
	if err != nil {
		return err
	}
	_ = in.SetReadBuffer(readBuffer) // as much as is allowed: what does not fit is lost, as on any host
	f := flows{ctx: ctx, close: []func() error{in.Close}}
	f.Go(func() error { return drain(in, received) })
	var out []*net.UDPConn
	err = s.HostA.Do(func() error {
		for i := range n {
			c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.user(i), 0)), to)
			if err != nil {
				return err
			}
			f.closes(c.Close)
			out = append(out, c)
		}
		return nil
	})
	if err == nil {
		f.Go(func() error {
			data := make([]byte, datagramSize)
			for i := 0; ; i++ {
				if _, err := out[i%len(out)].Write(data); err != nil {
					return err
				}
			}
		})
	}
	return f.end(err)
}

// drain reads datagrams, many at a time so that the receiver is not what is measured.
func drain(in *net.UDPConn, received *atomic.Int64) error {
	p := ipv4.NewPacketConn(in)
	msgs := make([]ipv4.Message, readBatch)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, datagramSize)}
	}
	for {
		n, err := p.ReadBatch(msgs, 0)
		for _, m := range msgs[:max(n, 0)] {
			received.Add(int64(m.N))
		}
		if err != nil {
			return err
		}
	}
}
