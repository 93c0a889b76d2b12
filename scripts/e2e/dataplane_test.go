//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Both ways of exchanging packets with the kernel, and both forms of headers, speak with each other.
func TestDevicesAndHeaders(t *testing.T) {
	const offload, water, full = "tun:\n  device: offload\n", "tun:\n  device: water\n", "data:\n  headers: full\n"
	for _, tt := range []struct{ name, a, b, kindA, kindB string }{
		{"offload", offload, offload, "offload", "offload"},
		{"offload and water", offload, water, "offload", "water"},
		{"water", water, water, "water", "water"},
		{"full headers at one end", full, "", "offload", "offload"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := network(t)
			ctx := t.Context()
			check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, tt.a, tt.b))
			for s, want := range map[*lab.Site]string{&lab.SiteA: tt.kindA, &lab.SiteB: tt.kindB} {
				if st := status(t, c, *s); st.Device.Kind != want {
					t.Errorf("%s has a device of kind %q, want %q", s.Name, st.Device.Kind, want)
				}
			}
			mustPing(t, c, lab.SiteA.Host)
			transfers(t, c, 2, 20<<20)
			datagrams(t, c, []int{0, 1, 2, 63, 64, 1300, 1392, 1393, 1394, 1418, 1419, 1472, 3000, 9000, 65000})
		})
	}
}

// Patterned data through the link, both ways at once and with datagrams of any size in between, is what it was.
// TWINKEY_SOAK is the amount in GB; make soak asks for ten.
func TestPatternedData(t *testing.T) {
	gb := 1.0
	if v := os.Getenv("TWINKEY_SOAK"); v != "" {
		var err error
		gb, err = strconv.ParseFloat(v, 64)
		check(t, err)
	}
	c := company(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		for ctx.Err() == nil {
			datagrams(t, c, []int{1, rng.IntN(1400), 1 + rng.IntN(9000), 1})
		}
	})
	const streams = 2 // each way
	transfers(t, c, streams, int64(gb*1e9)/(2*streams))
	stop()
	wg.Wait()
}

// transfers sends n bytes in each of so many streams in each direction at once, and compares.
func transfers(t *testing.T, c *lab.Company, streams int, n int64) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range streams {
		for _, way := range []struct {
			from, to *netlab.Host
			addr     netip.Addr
		}{{c.HostA, c.HostB, lab.SiteB.Host}, {c.HostB, c.HostA, lab.SiteA.Host}} {
			wg.Go(func() {
				tr, err := netlab.Transfer(t.Context(), way.from, way.to, way.addr, io.LimitReader(&pattern{seed: uint64(i)}, n))
				if err != nil {
					t.Error(err)
				} else if !tr.Intact() || tr.Bytes != n {
					t.Errorf("%d bytes sent to %s, %d arrived, intact: %v", n, way.addr, tr.Bytes, tr.Intact())
				}
			})
		}
	}
	wg.Wait()
}

// pattern yields bytes that are the same nowhere, in writes of any length.
type pattern struct{ seed, at uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	b = b[:min(len(b), 1+int(p.at*2654435761%65536))] // so that segments are not all alike
	n := len(b) &^ 7
	if n == 0 {
		n = len(b)
		clear(b)
	}
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], (p.at+uint64(i))*0x9e3779b97f4a7c15^p.seed)
	}
	p.at += uint64(n)
	return n, nil
}

// datagrams sends one of each size from hosta to hostb, which sends it back.
func datagrams(t *testing.T, c *lab.Company, sizes []int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	var pc net.PacketConn
	if err := c.HostB.Do(func() (err error) {
		pc, err = net.ListenPacket("udp4", net.JoinHostPort(lab.SiteB.Host.String(), "0"))
		return err
	}); err != nil {
		t.Error(err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(buf[:n], from)
		}
	}()
	defer func() { _ = pc.Close(); <-done }()
	addr, ok := pc.LocalAddr().(*net.UDPAddr)
	if !ok {
		t.Errorf("listening on %v", pc.LocalAddr())
		return
	}
	conn, err := c.HostA.Dial(ctx, "udp4", addr.AddrPort())
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close() //nolint:errcheck // a test
	buf := make([]byte, 1<<16)
	for _, n := range sizes {
		want := make([]byte, n)
		_, _ = io.ReadFull(&pattern{seed: uint64(n)}, want)
		if err := echo(conn, want, buf); err != nil {
			t.Errorf("datagram of %d bytes: %v", n, err)
		}
	}
}

// echo sends a datagram until it comes back: among bulk transfers a queue may be full.
func echo(conn net.Conn, want, buf []byte) error {
	for range 20 {
		if _, err := conn.Write(want); err != nil {
			return err
		}
		for {
			if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				return err
			}
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EMSGSIZE) {
				break // the kernel has learnt the path's MTU from it, and cuts the next one
			}
			if err != nil {
				return err
			}
			if bytes.Equal(buf[:n], want) {
				return nil
			}
			if n == len(want) {
				return fmt.Errorf("it came back changed: % x...", buf[:min(n, 16)])
			}
		}
	}
	return errors.New("it did not come back in 20 attempts")
}
