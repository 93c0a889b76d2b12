//go:build linux

package e2e

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Somebody on the WAN sends whatever they like: noise, first messages without end, every
// datagram that they have captured, cut, flipped and again. What is up stays up.
func TestHostileWAN(t *testing.T) {
	c := company(t)
	ctx := t.Context()
	wan := filepath.Join(c.Dir, "wan.pcap")
	capture, err := c.WAN.Capture(wan)
	check(t, err)
	mustPing(t, c, lab.SiteA.Host)
	check(t, capture.Close())
	before := siteCall(t, c, lab.SiteA)
	tunnel := status(t, c, lab.SiteA).Tunnels[0].ID

	var datagrams [][]byte
	for frame, err := range netlab.Frames(wan) {
		check(t, err)
		if p := udpPayload(frame); p != nil {
			datagrams = append(datagrams, append([]byte(nil), p...))
		}
	}
	if len(datagrams) == 0 {
		t.Fatal("nothing was captured")
	}
	to := netip.AddrPortFrom(lab.SiteA.WAN, 1701)
	conn, err := c.HQ.Dial(ctx, "udp", to)
	check(t, err)
	defer conn.Close()
	for _, d := range datagrams {
		send(t, conn, d)                                  // replayed
		send(t, conn, d[:len(d)/2])                       // truncated
		send(t, conn, append(d, make([]byte, 600)...))    // longer than it was
		flipped := append([]byte(nil), d...)              //
		flipped[mrand.IntN(len(d))] ^= 1 << mrand.IntN(8) //nolint:gosec // noise
		send(t, conn, flipped)
	}
	noise := make([]byte, 1400)
	for i := range 3000 {
		_, _ = rand.Read(noise)
		if i%3 == 0 {
			clear(noise[:4]) // as if it were a control message
		}
		send(t, conn, noise[:1+mrand.IntN(len(noise)-1)]) //nolint:gosec // noise
	}
	// StopCCN and CDN in the clear, with the right tunnel ID.
	for _, typ := range []uint16{4, 14} {
		for ns := range uint16(8) {
			send(t, conn, forged(tunnel, typ, ns))
		}
	}
	mustPing(t, c, lab.SiteA.Host)
	if after := siteCall(t, c, lab.SiteA); after.ID != before.ID || after.SPIOut != before.SPIOut {
		t.Errorf("the site link was %+v and is %+v", before, after)
	}
	out, err := c.Router(ctx, lab.SiteA, "status", "--json")
	check(t, err)
	var st struct {
		Drops map[string]uint64 `json:"drops"`
		Calls []struct {
			Replayed uint64 `json:"replayed"`
			Forged   uint64 `json:"forged"`
		} `json:"calls"`
	}
	check(t, json.Unmarshal([]byte(out), &st))
	if st.Drops["unknown_spi"] == 0 || st.Drops["malformed_control"]+st.Drops["stray_control"] == 0 || st.Calls[0].Replayed+st.Calls[0].Forged == 0 {
		t.Errorf("not counted: %s", out)
	}
}

func send(t *testing.T, conn net.Conn, d []byte) {
	t.Helper()
	if len(d) == 0 {
		return
	}
	if _, err := conn.Write(d); err != nil {
		time.Sleep(time.Millisecond) // a full queue: give the kernel a moment
	}
}

// udpPayload returns what a captured Ethernet frame carries in UDP over IPv4.
func udpPayload(f []byte) []byte {
	const eth, ip, udp = 14, 20, 8
	if len(f) < eth+ip+udp || binary.BigEndian.Uint16(f[12:]) != 0x0800 || f[eth+9] != 17 {
		return nil
	}
	return f[eth+ip+udp:]
}

// forged is a control message behind the non-ESP marker.
func forged(tunnel, typ, ns uint16) []byte {
	b := []byte{0, 0, 0, 0, 0xc8, 0x02, 0, 0}
	b = binary.BigEndian.AppendUint16(b, tunnel)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, ns)
	b = append(b, 0, 0)
	b = append(b, 0x80, 8, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = append(b, 0x80, 8, 0, 0, 0, 1, 0, 6)
	binary.BigEndian.PutUint16(b[6:], uint16(len(b)-4))
	return b
}

// A packet of the LAN with a source that no certificate covers stays here, and is counted.
func TestForeignSourceStaysHere(t *testing.T) {
	t.Parallel()
	c := company(t)
	foreign := netip.MustParseAddr("10.1.7.7")
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(foreign, 32)))
	mustNotPing(t, c, foreign)
	mustPing(t, c, lab.SiteA.Host)
	out, err := c.Router(t.Context(), lab.SiteA, "status", "--json")
	check(t, err)
	var st struct {
		Calls []struct {
			Foreign uint64 `json:"foreign_source"`
		} `json:"calls"`
	}
	check(t, json.Unmarshal([]byte(out), &st))
	if st.Calls[0].Foreign == 0 {
		t.Errorf("not counted: %s", out)
	}
}
