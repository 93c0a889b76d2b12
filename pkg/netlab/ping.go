//go:build linux

package netlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Ping says what to send.
type Ping struct {
	To       netip.Addr
	From     netip.Addr    // zero: the kernel's choice
	Count    int           // 0: one
	Interval time.Duration // between two; 0: send the next when the last is answered or given up
	Wait     time.Duration // for an answer; 0: one second
	Size     int           // bytes of payload, at least 16
}

// Pong says what came back. Round trips are of the answered ones only.
type Pong struct {
	Sent, Received int
	Min, Avg, Max  time.Duration
}

func (p Pong) String() string {
	return fmt.Sprintf("%d of %d answered, round trip %v (%v to %v)", p.Received, p.Sent,
		p.Avg.Round(time.Microsecond), p.Min.Round(time.Microsecond), p.Max.Round(time.Microsecond))
}

// ErrNoAnswer is wrapped by Ping if nothing came back at all.
var ErrNoAnswer = errors.New("no answer")

const (
	protocolICMP   = 1
	protocolICMPv6 = 58
	tokenLength    = 16
)

// Ping sends ICMP echo requests from this host, one after the other. It fails if none was answered, with what it saw
// meanwhile in Pong.
func (h *Host) Ping(ctx context.Context, p Ping) (Pong, error) {
	p.Count, p.Size = max(p.Count, 1), max(p.Size, tokenLength)
	if p.Wait == 0 {
		p.Wait = time.Second
	}
	e, err := h.newEcho(p)
	if err != nil {
		return Pong{}, fmt.Errorf("pinging %s from %s: %w", p.To, h.name, err)
	}
	defer func() { _ = e.conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = e.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	var out Pong
	var total time.Duration
	for seq := range p.Count {
		start := time.Now()
		rtt, err := e.once(ctx, p, seq)
		out.Sent++
		switch {
		case err == nil:
			out.Received++
			total += rtt
			out.Max = max(out.Max, rtt)
			if out.Min == 0 || rtt < out.Min {
				out.Min = rtt
			}
		case ctx.Err() != nil:
			return out, fmt.Errorf("pinging %s from %s: %w", p.To, h.name, ctx.Err())
		}
		if rest := p.Interval - time.Since(start); rest > 0 && seq < p.Count-1 {
			select {
			case <-time.After(rest):
			case <-ctx.Done():
			}
		}
	}
	if out.Received == 0 {
		return out, fmt.Errorf("pinging %s from %s: %w to %d requests", p.To, h.name, ErrNoAnswer, out.Sent)
	}
	out.Avg = total / time.Duration(out.Received)
	return out, nil
}

// echo is one pinger. A raw socket sees the answers to everybody's requests, so each request carries a random token.
type echo struct {
	conn   *icmp.PacketConn
	proto  int
	kind   icmp.Type
	answer icmp.Type
	id     int
}

func (h *Host) newEcho(p Ping) (*echo, error) {
	e := &echo{proto: protocolICMP, kind: ipv4.ICMPTypeEcho, answer: ipv4.ICMPTypeEchoReply, id: rand.IntN(1 << 16)} //nolint:gosec // a label
	network, from := "ip4:icmp", "0.0.0.0"
	if p.To.Is6() {
		e.proto, e.kind, e.answer = protocolICMPv6, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
		network, from = "ip6:ipv6-icmp", "::"
	}
	if p.From.IsValid() {
		from = p.From.String()
	}
	err := h.Do(func() (err error) {
		e.conn, err = icmp.ListenPacket(network, from)
		return err
	})
	return e, err
}

func (e *echo) once(ctx context.Context, p Ping, seq int) (time.Duration, error) {
	payload := make([]byte, p.Size)
	for i := 0; i+8 <= len(payload); i += 8 {
		binary.BigEndian.PutUint64(payload[i:], rand.Uint64()) //nolint:gosec // a label
	}
	msg := icmp.Message{Type: e.kind, Body: &icmp.Echo{ID: e.id, Seq: seq & 0xffff, Data: payload}}
	b, err := msg.Marshal(nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := e.conn.SetReadDeadline(start.Add(p.Wait)); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if _, err := e.conn.WriteTo(b, &net.IPAddr{IP: p.To.AsSlice(), Zone: p.To.Zone()}); err != nil {
		return 0, err
	}
	buf := make([]byte, p.Size+256)
	for {
		n, _, err := e.conn.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		got, err := icmp.ParseMessage(e.proto, buf[:n])
		if err != nil || got.Type != e.answer {
			continue
		}
		if body, ok := got.Body.(*icmp.Echo); ok && bytes.Equal(body.Data, payload) {
			return time.Since(start), nil
		}
	}
}
