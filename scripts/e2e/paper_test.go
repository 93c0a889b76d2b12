//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// The six steps of the paper, as docs/flows.md tells them, under the same names. Each step stands on the one before.
func TestThePapersSixSteps(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	ra, rb := lab.SiteA, lab.SiteB
	rb.Scope = "group:visitors" // rb may not speak for staff
	check(t, c.UpWith(ctx, ra, rb, "", ""))
	alice, bob := netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("10.1.1.4")
	for _, a := range []netip.Addr{alice, bob} {
		check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(a, ra.Users.Bits())))
	}
	refused := func(t *testing.T, err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("refused with %q, want %q in it", fmt.Sprint(err), words)
		}
	}
	password := func(uid string) string { return filepath.Join(c.Dir, uid+".password") }
	step := func(name string, f func(t *testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow()
		}
	}

	step("1 user information goes to the authentication of the terminal", func(t *testing.T) {
		check(t, os.WriteFile(password("alice"), []byte(rand.Text()), 0o600))
		refused(t, c.Login(ctx, ra, "alice", alice, rb.Name), "refused")
		mustNotPing(t, c, alice)
		for _, uid := range []string{"alice", "bob"} {
			check(t, c.AddUser(ctx, uid, rand.Text()))
		}
		// What the directory keeps holds no password.
		backup := filepath.Join(c.Dir, "directory.backup")
		if _, err := c.DirectoryCommand(ctx, "backup", backup); err != nil {
			t.Fatal(err)
		}
		secret, err := os.ReadFile(password("alice"))
		check(t, err)
		stored, err := os.ReadFile(backup)
		check(t, err)
		if bytes.Contains(stored, secret) {
			t.Error("the directory knows the password")
		}
		if !bytes.Contains(stored, []byte("alice")) {
			t.Error("the back-up does not hold the user: the search proves nothing")
		}
	})
	step("2 the CA issues into the directory and gives the initiating router its query right", func(t *testing.T) {
		out, err := c.CACommand(ctx, "user", "list")
		check(t, err)
		if !strings.Contains(out, "alice") {
			t.Errorf("no alice in\n%s", out)
		}
		at := netip.MustParseAddr("10.2.1.3")
		_, err = c.Router(ctx, rb, "login", "alice", "--address", at.String(), "--peer", ra.Name, "--password-file", password("alice"))
		refused(t, err, "refused") // the right password at a router without the right
	})
	step("3 router certificate, scope, UserID and password release the private keys, nothing less does", func(t *testing.T) {
		wrong := filepath.Join(c.Dir, "wrong.password")
		check(t, os.WriteFile(wrong, []byte(rand.Text()), 0o600))
		_, err := c.Router(ctx, ra, "login", "alice", "--address", alice.String(), "--peer", rb.Name, "--password-file", wrong)
		refused(t, err, "refused")
		_, err = c.Router(ctx, ra, "login", "bob", "--address", bob.String(), "--peer", rb.Name, "--password-file", password("alice"))
		refused(t, err, "refused")
		mustNotPing(t, c, alice)
		check(t, c.Login(ctx, ra, "alice", alice, rb.Name))
		mustPing(t, c, alice)
	})
	step("4 same control key and destination: another call in the standing tunnel", func(t *testing.T) {
		check(t, c.Login(ctx, ra, "bob", bob, rb.Name))
		mustPing(t, c, bob)
		st := status(t, c, ra)
		a, okA := st.UserCall("alice")
		b, okB := st.UserCall("bob")
		if !okA || !okB || a.Tunnel != b.Tunnel || a.SPIIn == b.SPIIn || a.SPIOut == b.SPIOut {
			t.Errorf("not two calls with keys of their own in one tunnel: %+v, %+v", a, b)
		}
		groups := 0
		for _, tun := range st.Tunnels {
			if tun.Group == lab.UserGroup {
				groups++
			}
		}
		if groups != 1 {
			t.Errorf("%d tunnels of the group", groups)
		}
	})
	step("5 decryption at the terminator and delivery", func(t *testing.T) {
		wan, lan := filepath.Join(c.Dir, "steps.wan.pcap"), filepath.Join(c.Dir, "steps.lan.pcap")
		onWAN, err := c.WAN.Capture(wan)
		check(t, err)
		onLAN, err := c.HostB.Capture("eth0", lan)
		check(t, err)
		marker := []byte(rand.Text())
		got := make(chan []byte, 1)
		var in *net.UDPConn
		check(t, c.HostB.Do(func() (err error) {
			in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(rb.Host, 7000)))
			return err
		}))
		defer in.Close()
		check(t, in.SetReadDeadline(time.Now().Add(10*time.Second)))
		go func() {
			b := make([]byte, 200)
			n, _, _ := in.ReadFrom(b)
			got <- b[:n]
		}()
		check(t, c.HostA.Do(func() error {
			conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(alice, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(rb.Host, 7000)))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(marker)
			return err
		}))
		if b := <-got; !bytes.Equal(b, marker) {
			t.Fatalf("hostb received %q", b)
		}
		check(t, onWAN.Close())
		check(t, onLAN.Close())
		if !seen(t, lan, marker) {
			t.Error("it is not in clear on the far LAN: the search proves nothing")
		}
		if seen(t, wan, marker) {
			t.Error("it was in clear on the WAN")
		}
	})
	step("6 a tunnel or call ends only by someone entitled to", func(t *testing.T) {
		a, _ := status(t, c, ra).UserCall("alice")
		conn, err := c.HQ.Dial(ctx, "udp", netip.AddrPortFrom(rb.WAN, 1701))
		check(t, err)
		defer conn.Close()
		for _, tun := range status(t, c, rb).Tunnels {
			for _, typ := range []uint16{4, 14} { // StopCCN, CDN
				for ns := range uint16(8) {
					send(t, conn, forged(tun.ID, typ, ns))
				}
			}
		}
		mustPing(t, c, alice)
		if now, ok := status(t, c, ra).UserCall("alice"); !ok || now.ID != a.ID {
			t.Error("somebody on the WAN ended the call")
		}
		_, err = c.Router(ctx, ra, "logout", "alice") // whoever administers the router
		check(t, err)
		mustNotPing(t, c, alice)
		mustPing(t, c, bob)
		_, err = c.CACommand(ctx, "user", "revoke", "bob") // the CA's operator
		check(t, err)
		check(t, lab.Until(ctx, "the end of bob's call", 5*time.Second, func(context.Context) error {
			if call, up := status(t, c, rb).UserCall("bob"); up {
				return fmt.Errorf("it is up: %+v", call)
			}
			return nil
		}))
		mustNotPing(t, c, bob)
		mustPing(t, c, ra.Host) // the site link is nobody's but the routers'
	})
}

// seen says whether a captured frame holds b.
func seen(t *testing.T, file string, b []byte) bool {
	t.Helper()
	for frame, err := range netlab.Frames(file) {
		check(t, err)
		if bytes.Contains(frame, b) {
			return true
		}
	}
	return false
}
