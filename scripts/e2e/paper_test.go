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
	needs(t, "nft", "nftables")
	c := network(t)
	ctx := t.Context()
	ra, rb := lab.SiteA, lab.SiteB
	ra.Scope, rb.Scope = "*", "group:guests" // rb may not speak for staff
	check(t, c.UpWith(ctx, ra, rb, ra.Clients()+"policy:\n  - groups: ["+lab.UserGroup+"]\n  - groups: [guests]\n    revoke-on-close: true\n", ""))
	check(t, lab.Masquerade(ctx, c.RA, "wan0"))
	alice, bob, carol := netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("10.1.1.4"), netip.MustParseAddr("10.1.1.5")
	for _, a := range []netip.Addr{alice, bob, carol} {
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
		refused(t, c.Login(ctx, ra, "alice", alice, rb.Name), "login of alice refused")
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
		out, err := c.DirectoryCommand(ctx, "audit", "--kind", "certificate", "--subject", "alice", "--json")
		check(t, err)
		if strings.Count(out, `"kind"`) != 1 || !strings.Contains(out, `"actor": "twinkey://ca"`) {
			t.Errorf("the directory has noted of her certificate: %s", out)
		}
		at := netip.MustParseAddr("10.2.1.3")
		_, err = c.Router(ctx, rb, "login", "alice", "--address", at.String(), "--peer", ra.Name, "--password-file", password("alice"))
		refused(t, err, "login of alice refused") // the right password at a router without the right
	})
	step("3 voluntary: the user's own machine encrypts, the router in front forwards", func(t *testing.T) {
		p, err := c.StartClient(ctx, c.HostA, ra, "alice", "alice")
		check(t, err)
		reaches(t, c.HostA, alice, 20*time.Second, p)
		if call, up := status(t, c, ra).UserCall("alice"); up {
			t.Errorf("the router in front carries her call: %+v", call)
		}
		if _, up := status(t, c, rb).UserCall("alice"); !up {
			t.Error("the terminator has no call of hers")
		}
		_, err = c.Client(ctx, c.HostA, "alice", "logout")
		check(t, err)
		exits(t, p, 10*time.Second)
		gone(t, c, c.HostA, "alice")
	})
	step("3 router certificate, scope, UserID and password release the private keys, nothing less does", func(t *testing.T) {
		wrong := filepath.Join(c.Dir, "wrong.password")
		check(t, os.WriteFile(wrong, []byte(rand.Text()), 0o600))
		_, err := c.Router(ctx, ra, "login", "alice", "--address", alice.String(), "--peer", rb.Name, "--password-file", wrong)
		refused(t, err, "login of alice refused")
		_, err = c.Router(ctx, ra, "login", "bob", "--address", bob.String(), "--peer", rb.Name, "--password-file", password("alice"))
		refused(t, err, "login of bob refused")
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
	step("6 at the end the certificate is revoked where the policy says revoke-on-close", func(t *testing.T) {
		check(t, os.WriteFile(password("carol"), []byte(rand.Text()), 0o600))
		_, err := c.CACommand(ctx, "user", "add", "carol", "--group", "guests", "--password-file", password("carol"))
		check(t, err)
		check(t, c.Login(ctx, ra, "carol", carol, rb.Name))
		mustPing(t, c, carol)
		_, err = c.Router(ctx, ra, "logout", "carol")
		check(t, err)
		check(t, lab.Until(ctx, "the revocation of carol's certificate", 20*time.Second, func(context.Context) error {
			if got := revocations(t, c, "carol"); len(got) != 1 || !strings.Contains(got[0], "revoke-on-close") {
				return fmt.Errorf("noted: %q", got)
			}
			return nil
		}))
		if got := revocations(t, c, "alice"); len(got) != 0 { // whose sessions have ended as well
			t.Errorf("of alice: %q", got)
		}
		refused(t, c.Login(ctx, ra, "carol", carol, rb.Name), "login of carol refused")
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
