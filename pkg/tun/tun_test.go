//go:build linux

package tun_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netcfg"
	"twinkey/pkg/netlab"
	"twinkey/pkg/poller"
	"twinkey/pkg/tun"
	"twinkey/proto/gso"
	"twinkey/proto/ip"
)

var errPrivileges error

func TestMain(m *testing.M) {
	if errPrivileges = netlab.EnsurePrivileges(); errPrivileges == nil {
		errPrivileges = netlab.CheckTUN()
	}
	os.Exit(m.Run())
}

// host is a machine of the test's own, so that names and addresses meet nobody else's.
func host(t *testing.T) *netlab.Host {
	t.Helper()
	switch {
	case errPrivileges != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrivileges)
	case errPrivileges != nil:
		t.Skip("needs root:", errPrivileges)
	}
	l, err := netlab.New(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	h, err := l.Host("h")
	check(t, err)
	return h
}

// kinds are the back ends.
var kinds = map[string]func(name string) (tun.Device, error){
	"water":   tun.OpenWater,
	"offload": func(name string) (tun.Device, error) { return tun.OpenOffload(name, 2) },
}

// eachKind runs a test on a machine of its own with each back end.
func eachKind(t *testing.T, f func(t *testing.T, h *netlab.Host, open func(name string) tun.Device)) {
	for kind, open := range kinds {
		t.Run(kind, func(t *testing.T) {
			h := host(t)
			f(t, h, func(name string) (d tun.Device) {
				check(t, h.Do(func() (err error) { d, err = open(name); return err }))
				t.Cleanup(func() { check(t, d.Close()) })
				return d
			})
		})
	}
}

// up gives an interface an address and an MTU.
func up(t *testing.T, h *netlab.Host, name, addr string, mtu int) {
	t.Helper()
	check(t, h.Do(func() error {
		_, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: name, Up: true, MTU: mtu, Addresses: []netip.Prefix{netip.MustParsePrefix(addr)}})
		return err
	}))
}

// read waits for a packet or train in any of the device's queues for which want is true: the kernel may have
// other things to say, such as a router solicitation.
func read(t *testing.T, d tun.Device, buf []byte, at int, want func(pkt []byte) bool) (h gso.Header, pkt []byte, q tun.Queue) {
	t.Helper()
	var fds []unix.PollFd
	for _, q := range d.Queues() {
		fds = append(fds, unix.PollFd{Fd: int32(q.FD()), Events: unix.POLLIN})
	}
	for {
		n, err := unix.Poll(fds, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		check(t, err)
		if n == 0 {
			t.Fatal("nothing within 10 s")
		}
		for _, q := range d.Queues() {
			h, n, err := q.Read(buf, at)
			check(t, err)
			if n > 0 && want(buf[at:at+n]) {
				return h, buf[at : at+n], q
			}
		}
	}
}

func is(proto byte) func([]byte) bool {
	return func(p []byte) bool { return p[0]>>4 == 4 && p[9] == proto || p[0]>>4 == 6 && p[6] == proto }
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A UDP datagram routed to the interface comes out of Read as the IP packet that it is, at the offset, and one that is
// written arrives at a socket. A checksum that the kernel left to us is left to it in turn.
func TestPacketsBothWays(t *testing.T) {
	eachKind(t, func(t *testing.T, h *netlab.Host, open func(string) tun.Device) {
		d := open("tw0")
		up(t, h, "tw0", "10.9.0.1/24", 1380)
		if mtu, err := d.MTU(); err != nil || mtu != 1380 { // asked outside the host's namespace
			t.Errorf("MTU %d, %v", mtu, err)
		}
		sock := listenUDP(t, h, "10.9.0.1:5000")
		for _, text := range []string{"ping", "", "x", strings.Repeat("long ", 270)} {
			_, err := sock.WriteTo([]byte(text), &net.UDPAddr{IP: net.IPv4(10, 9, 0, 2), Port: 6000})
			check(t, err)
			const at = 64
			buf := bytes.Repeat([]byte{0xee}, at+1<<16)
			hd, pkt, q := read(t, d, buf, at, is(17))
			if !bytes.Equal(buf[:at-gso.HeaderLen], bytes.Repeat([]byte{0xee}, at-gso.HeaderLen)) {
				t.Error("Read wrote into the headroom")
			}
			if !bytes.HasSuffix(pkt, []byte(text)) || len(pkt) != 20+8+len(text) || hd.Kind != gso.None {
				t.Fatalf("read %+v % x", hd, pkt)
			}
			// Send it back where it came from: addresses and ports crossed leave both checksums as they are.
			reply := append(make([]byte, at), pkt...)
			copy(reply[at+12:], pkt[16:20])
			copy(reply[at+16:], pkt[12:16])
			binary.BigEndian.PutUint16(reply[at+20:], 6000)
			binary.BigEndian.PutUint16(reply[at+22:], 5000)
			check(t, q.Write(hd, reply, at))
			check(t, sock.SetReadDeadline(time.Now().Add(5*time.Second)))
			got := make([]byte, 2000)
			m, from, err := sock.ReadFrom(got)
			check(t, err)
			if string(got[:m]) != text || from.String() != "10.9.0.2:6000" {
				t.Errorf("got %q from %v", got[:m], from)
			}
		}
	})
}

func listenUDP(t *testing.T, h *netlab.Host, addr string) (sock net.PacketConn) {
	t.Helper()
	check(t, h.Do(func() (err error) { sock, err = net.ListenPacket("udp4", addr); return err }))
	t.Cleanup(func() { _ = sock.Close() })
	return sock
}

func TestWaterTakesNoTrains(t *testing.T) {
	h := host(t)
	var d tun.Device
	check(t, h.Do(func() (err error) { d, err = tun.OpenWater("tw0"); return err }))
	t.Cleanup(func() { check(t, d.Close()) })
	up(t, h, "tw0", "10.9.0.1/24", 1380)
	q := d.Queues()[0]
	if _, ok := errors.AsType[*tun.WriteError](q.Write(gso.Header{Kind: gso.TCP4, Size: 100}, make([]byte, 500), 10)); !ok || q.Trains() {
		t.Error("a train is taken")
	}
}

// A packet that the kernel refuses (no IP version that it knows) does not stop the one behind it.
func TestWriteGoesOnAfterRefusal(t *testing.T) {
	eachKind(t, func(t *testing.T, h *netlab.Host, open func(string) tun.Device) {
		d := open("tw0")
		q := d.Queues()[0]
		pkt := append(make([]byte, 10), 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
		if _, ok := errors.AsType[*tun.WriteError](q.Write(gso.Header{}, pkt, 10)); !ok {
			t.Error("an interface that is down takes packets")
		}
		up(t, h, "tw0", "10.9.0.1/24", 1380)
		bad := bytes.Clone(pkt)
		bad[10] = 0xff
		if _, ok := errors.AsType[*tun.WriteError](q.Write(gso.Header{}, bad, 10)); !ok {
			t.Error("a packet of IP version 15 is taken")
		}
		check(t, q.Write(gso.Header{}, pkt, 10))
	})
}

func TestClose(t *testing.T) {
	eachKind(t, func(t *testing.T, h *netlab.Host, open func(string) tun.Device) {
		d := open("")
		if !strings.HasPrefix(d.Name(), "tun") || kinds[d.Kind()] == nil {
			t.Errorf("name %q, kind %q", d.Name(), d.Kind())
		}
		q := d.Queues()[0]
		if _, n, err := q.Read(make([]byte, 2000), 10); n != 0 || err != nil {
			t.Errorf("read %d, %v of an interface that is down", n, err)
		}
		check(t, d.Close())
		if _, _, err := q.Read(make([]byte, 2000), 10); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if err := q.Write(gso.Header{}, make([]byte, 30), 10); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
		if _, err := d.MTU(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("MTU: %v", err)
		}
		check(t, d.Close())
		check(t, h.Do(func() error { // and the interface is gone
			ifs, err := net.Interfaces()
			if len(ifs) != 1 {
				t.Errorf("interfaces left: %v", ifs)
			}
			return err
		}))
	})
}

func TestOpenRefusals(t *testing.T) {
	eachKind(t, func(t *testing.T, h *netlab.Host, open func(string) tun.Device) {
		again := kinds[open("tw0").Kind()]
		for _, c := range []struct {
			name string
			want error
		}{
			{"tw0", tun.ErrInUse}, // also of a device with several queues, of which we could have another
			{"lo", tun.ErrInUse},
			{"sixteen-letters-", tun.ErrName},
			{"a/b", tun.ErrName},
			{"tw%d", tun.ErrName},
			{"tw 0", tun.ErrName},
			{"..", tun.ErrName},
		} {
			err := h.Do(func() error { _, err := again(c.name); return err })
			var oe *tun.OpenError
			if !errors.Is(err, c.want) || !errors.As(err, &oe) || oe.Hint == "" {
				t.Errorf("%q: %v", c.name, err)
			}
		}
	})
}

func TestOpenPrefersOffload(t *testing.T) {
	h := host(t)
	var d tun.Device
	check(t, h.Do(func() (err error) { d, err = tun.Open("tw0", 3); return err }))
	defer d.Close() //nolint:errcheck // a test
	if d.Kind() != "offload" || len(d.Queues()) != 3 {
		t.Errorf("%s with %d queues", d.Kind(), len(d.Queues()))
	}
}

// The kernel hands out a TCP stream as trains, and takes trains: what a connection sends into the interface is taken
// apart, put together and written to another one; it arrives as it was.
func TestTrainsOfTCP(t *testing.T) {
	for _, family := range []struct{ name, a, b, prefix string }{
		{"IPv4", "10.9.1.1", "10.9.2.1", "/16"}, {"IPv6", "fd00:9::1:1", "fd00:9::2:1", "/64"},
	} {
		t.Run(family.name, func(t *testing.T) {
			l, err := netlab.New(t.Context())
			check(t, err)
			t.Cleanup(func() { check(t, l.Close()) })
			var hosts [2]*netlab.Host
			var devs [2]tun.Device
			for i, addr := range []string{family.a, family.b} {
				hosts[i], err = l.Host(string(rune('a' + i)))
				check(t, err)
				check(t, hosts[i].Do(func() (err error) { devs[i], err = tun.OpenOffload("tw0", 1); return err }))
				up(t, hosts[i], "tw0", addr+family.prefix, 1400)
			}
			largest := bridge(t, devs[0].Queues()[0], devs[1].Queues()[0])
			data := bytes.Repeat([]byte("patterned, and not by a power of two. "), 200_000)
			tr, err := netlab.Transfer(t.Context(), hosts[0], hosts[1], netip.MustParseAddr(family.b), bytes.NewReader(data))
			check(t, err)
			if !tr.Intact() || tr.Bytes != int64(len(data)) {
				t.Errorf("%+v", tr)
			}
			if n := largest(); n < 8000 {
				t.Errorf("the longest train had %d bytes", n)
			}
		})
	}
}

// bridge carries packets between two queues until the test ends: taken apart with complete checksums, and put
// together as far as they fit. It says how long the longest train was.
func bridge(t *testing.T, a, b tun.Queue) (largest func() int) {
	p, err := poller.New(a.FD(), b.FD())
	check(t, err)
	var longest atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		src, j := make([]byte, 64+1<<16), gso.NewJoiner(1<<16)
		var s gso.Splitter
		out := func(q tun.Queue, tr gso.Train, ok bool) {
			if ok {
				longest.Store(max(longest.Load(), int64(len(tr.Buf)-tr.At)))
				_ = q.Write(tr.Header, tr.Buf, tr.At)
			}
		}
		for {
			if _, err := p.Wait([]bool{true, true}, []bool{false, false}); err != nil {
				return
			}
			for _, way := range [][2]tun.Queue{{a, b}, {b, a}} {
				h, n, err := way[0].Read(src, 64)
				if n == 0 || err != nil || s.Reset(h, src, 64, n, true) != nil {
					continue
				}
				for {
					at, n, ok := s.Next()
					if !ok {
						break
					}
					tr, full := j.Put(j.Slot(0)[:copy(j.Slot(0), src[at:at+n])], true, false)
					out(way[1], tr, full)
				}
				tr, ok := j.Flush()
				out(way[1], tr, ok)
			}
		}
	}()
	t.Cleanup(func() { check(t, p.Close()); <-done; check(t, p.Free()) })
	return func() int { return int(longest.Load()) }
}

// Both directions of a flow stay on one queue: what we write through a queue decides where the answers come out.
func TestFlowsStayOnTheirQueue(t *testing.T) {
	h := host(t)
	var d tun.Device
	check(t, h.Do(func() (err error) { d, err = tun.OpenOffload("tw0", 4); return err }))
	t.Cleanup(func() { check(t, d.Close()) })
	up(t, h, "tw0", "10.9.0.1/24", 1380)
	sock := listenUDP(t, h, "10.9.0.1:5000")
	buf := make([]byte, 64+1<<16)
	for i := range 20 {
		q := d.Queues()[i%4]
		udp := []byte{0x17, 0x70, 0x13, 0x88, 0, 12, 0, 0, 'p', 'i', 'n', 'g'} // from port 6000 + i to 5000, without a checksum
		binary.BigEndian.PutUint16(udp, uint16(6000+i))
		pkt := append(make([]byte, 64), 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1)
		binary.BigEndian.PutUint16(pkt[64+10:], ip.Checksum(ip.Sum(0, pkt[64:])))
		check(t, q.Write(gso.Header{}, append(pkt, udp...), 64))
		got := make([]byte, 100)
		_, from, err := sock.ReadFrom(got)
		check(t, err)
		_, err = sock.WriteTo([]byte("pong"), from)
		check(t, err)
		if _, _, came := read(t, d, buf, 64, is(17)); came != q {
			t.Errorf("flow %d was answered through another queue", i)
		}
	}
}

// BenchmarkWrite is a packet, and a train of 46, into the kernel.
func BenchmarkWrite(b *testing.B) {
	if errPrivileges != nil {
		b.Skip("needs root:", errPrivileges)
	}
	for kind, open := range kinds {
		b.Run(kind, func(b *testing.B) {
			d, err := open("")
			check(b, err)
			defer d.Close() //nolint:errcheck // a benchmark
			_, err = netcfg.Apply(b.Context(), netcfg.Plan{Link: d.Name(), Up: true})
			check(b, err)
			pkt := append(make([]byte, 64), make([]byte, 1400)...)
			copy(pkt[64:], []byte{0x45, 0, 1400 >> 8, 1400 & 0xff, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
			b.SetBytes(1400)
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Queues()[0].Write(gso.Header{}, pkt, 64); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
