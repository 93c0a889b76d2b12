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
	"testing"
	"time"

	"twinkey/pkg/netcfg"
	"twinkey/pkg/netlab"
	"twinkey/pkg/tun"
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

func open(t *testing.T, h *netlab.Host, name string) tun.Device {
	t.Helper()
	var d tun.Device
	check(t, h.Do(func() (err error) { d, err = tun.OpenWater(name); return err }))
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A UDP datagram routed to the interface comes out of Read as the IP packet that it is, at the offset, and one that is
// written arrives at a socket.
func TestPacketsBothWays(t *testing.T) {
	h := host(t)
	d := open(t, h, "tw0")
	check(t, h.Do(func() error {
		_, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: "tw0", Up: true, MTU: 1380, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}})
		return err
	}))
	if mtu, err := d.MTU(); err != nil || mtu != 1380 { // asked outside the host's namespace
		t.Errorf("MTU %d, %v", mtu, err)
	}
	var sock net.PacketConn
	check(t, h.Do(func() (err error) { sock, err = net.ListenPacket("udp4", "10.9.0.1:5000"); return err }))
	defer sock.Close() //nolint:errcheck // a test
	_, err := sock.WriteTo([]byte("ping"), &net.UDPAddr{IP: net.IPv4(10, 9, 0, 2), Port: 6000})
	check(t, err)

	const offset = 64
	buf := bytes.Repeat([]byte{0xee}, offset+1380)
	sizes := make([]int, 1)
	for { // the kernel may have something to say first, such as a router solicitation
		n, err := d.Read([][]byte{buf}, sizes, offset)
		check(t, err)
		if n == 1 && buf[offset]>>4 == 4 && buf[offset+9] == 17 {
			break
		}
	}
	pkt := buf[offset : offset+sizes[0]]
	if !bytes.Equal(buf[:offset], bytes.Repeat([]byte{0xee}, offset)) {
		t.Error("Read wrote into the headroom")
	}
	if !bytes.HasSuffix(pkt, []byte("ping")) || len(pkt) != 20+8+4 {
		t.Fatalf("read % x", pkt)
	}

	// Send it back where it came from: addresses and ports crossed leave both checksums as they are.
	reply := append(make([]byte, offset), pkt...)
	copy(reply[offset+12:], pkt[16:20])
	copy(reply[offset+16:], pkt[12:16])
	binary.BigEndian.PutUint16(reply[offset+20:], 6000)
	binary.BigEndian.PutUint16(reply[offset+22:], 5000)
	n, err := d.Write([][]byte{reply}, offset)
	if n != 1 || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	check(t, sock.SetReadDeadline(time.Now().Add(5*time.Second)))
	got := make([]byte, 100)
	m, from, err := sock.ReadFrom(got)
	check(t, err)
	if string(got[:m]) != "ping" || from.String() != "10.9.0.2:6000" {
		t.Errorf("got %q from %v", got[:m], from)
	}
}

// A packet that the kernel refuses (no IP version that it knows) does not stop the one behind it.
func TestWriteGoesOnAfterRefusal(t *testing.T) {
	h := host(t)
	d := open(t, h, "tw0")
	check(t, h.Do(func() error {
		_, err := netcfg.Apply(t.Context(), netcfg.Plan{Link: "tw0", Up: true})
		return err
	}))
	good := []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	n, err := d.Write([][]byte{{0xff, 1, 2, 3}, good, {}, good}, 0)
	if n < 2 || err == nil {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestCloseUnblocksRead(t *testing.T) {
	h := host(t)
	d := open(t, h, "")
	if !strings.HasPrefix(d.Name(), "tun") || d.Kind() != "water" || d.BatchSize() != 1 {
		t.Errorf("name %q, kind %q, batch %d", d.Name(), d.Kind(), d.BatchSize())
	}
	done := make(chan error)
	go func() {
		for {
			if _, err := d.Read([][]byte{make([]byte, 2000)}, make([]int, 1), 0); err != nil {
				done <- err
				return
			}
		}
	}()
	time.Sleep(10 * time.Millisecond) // so that Read is usually blocked; either order must work
	check(t, d.Close())
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Read still blocks")
	}
	if _, err := d.Write([][]byte{{0x45}}, 0); !errors.Is(err, net.ErrClosed) {
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
}

func TestOpenRefusals(t *testing.T) {
	h := host(t)
	open(t, h, "tw0")
	for _, c := range []struct {
		name string
		want error
	}{
		{"tw0", tun.ErrInUse},
		{"lo", tun.ErrInUse},
		{"sixteen-letters-", tun.ErrName},
		{"a/b", tun.ErrName},
		{"tw%d", tun.ErrName},
		{"tw 0", tun.ErrName},
		{"..", tun.ErrName},
	} {
		err := h.Do(func() error { _, err := tun.OpenWater(c.name); return err })
		var oe *tun.OpenError
		if !errors.Is(err, c.want) || !errors.As(err, &oe) || oe.Hint == "" {
			t.Errorf("%q: %v", c.name, err)
		}
	}
}

func BenchmarkWaterWrite(b *testing.B) {
	if errPrivileges != nil {
		b.Skip("needs root:", errPrivileges)
	}
	d, err := tun.OpenWater("")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close() //nolint:errcheck // a benchmark
	if _, err := netcfg.Apply(b.Context(), netcfg.Plan{Link: d.Name(), Up: true}); err != nil {
		b.Fatal(err)
	}
	bufs := [][]byte{make([]byte, 1400)}
	copy(bufs[0], []byte{0x45, 0, 1400 >> 8, 1400 & 0xff, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	b.SetBytes(1400)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Write(bufs, 0); err != nil {
			b.Fatal(err)
		}
	}
}
