//go:build linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/scripts/lab"
)

// A user reaches what the policy names and nothing else, from where it says and for as long; a change counts at once.
func TestPolicy(t *testing.T) {
	t.Parallel()
	const port = 4433
	rules := func(allow string) string {
		return fmt.Sprintf("policy:\n  - groups: [%s]\n    to: [%s]\n    allow: [%s]\n    from: [%s]\n", lab.UserGroup, lab.SiteB.LAN, allow, netip.PrefixFrom(netip.MustParseAddr("10.1.1.0"), 29))
	}
	c := network(t)
	ctx := t.Context()
	check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, rules(fmt.Sprintf("icmp, tcp/%d", port)), ""))
	alice := user(t, c, "alice", "10.1.1.3")
	mustPing(t, c, alice)
	if err := connects(t, c, alice, port); err != nil {
		t.Errorf("to the port that is allowed: %v", err)
	}
	if err := connects(t, c, alice, port+1); err == nil {
		t.Error("connected to a port that is not allowed")
	}
	if err := connects(t, c, lab.SiteA.Host, port+1); err != nil {
		t.Errorf("over the site link: %v", err)
	}
	out, err := c.Router(ctx, lab.SiteA, "calls", "--json")
	check(t, err)
	if !strings.Contains(out, `"denied": `) || strings.Count(out, `"denied": 0`) != 1 {
		t.Errorf("not counted: %s", out)
	}

	// From an address of no rule there is no login.
	bob := netip.MustParseAddr("10.1.1.9")
	check(t, c.AddUser(ctx, "bob", "correct horse"))
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(bob, lab.SiteA.Users.Bits())))
	if err := c.Login(ctx, lab.SiteA, "bob", bob, lab.SiteB.Name); err == nil || !strings.Contains(err.Error(), "there are no logins") {
		t.Errorf("login from %s: %v", bob, err)
	}

	// Another policy, without a restart: ping goes no more, the call stays; then nobody has any.
	file := filepath.Join(c.Dir, lab.SiteA.Name+".yaml")
	text, err := os.ReadFile(file)
	check(t, err)
	head, _, _ := strings.Cut(string(text), "policy:")
	reload := func(policy string) {
		t.Helper()
		check(t, os.WriteFile(file, []byte(head+policy), 0o600))
		_, err := c.Router(ctx, lab.SiteA, "reload")
		check(t, err)
	}
	reload(rules(fmt.Sprintf("tcp/%d", port)))
	mustNotPing(t, c, alice)
	if err := connects(t, c, alice, port); err != nil {
		t.Errorf("after the change: %v", err)
	}
	reload("")
	if _, up := status(t, c, lab.SiteA).UserCall("alice"); up {
		t.Error("alice has a call without a rule")
	}
	if err := connects(t, c, alice, port); err == nil {
		t.Error("connected without a call")
	}
	if err := c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name); err == nil || !strings.Contains(err.Error(), "no rule is for users of group") {
		t.Errorf("login without a rule: %v", err)
	}
	mustPing(t, c, lab.SiteA.Host)

	// An idle call ends by itself.
	reload(fmt.Sprintf("policy:\n  - groups: [%s]\n    idle: 2s\n", lab.UserGroup))
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, up := status(t, c, lab.SiteA).UserCall("alice"); !up {
			break
		}
		if time.Now().After(end) {
			t.Fatal("alice's call is idle and still up")
		}
	}
	if _, up := status(t, c, lab.SiteB).UserCall("alice"); up {
		t.Error("and up at the far end")
	}
}

// connects tries a TCP connection from an address of hosta to hostb and sends something over it.
func connects(t *testing.T, c *lab.Company, from netip.Addr, port uint16) error {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	ln, err := c.HostB.Listen(ctx, netip.AddrPortFrom(lab.SiteB.Host, port))
	check(t, err)
	defer func() { _ = ln.Close() }()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	}()
	var conn net.Conn
	if err := c.HostA.Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		conn, err = d.DialContext(ctx, "tcp4", netip.AddrPortFrom(lab.SiteB.Host, port).String())
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	check(t, conn.SetReadDeadline(time.Now().Add(2*time.Second)))
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}
