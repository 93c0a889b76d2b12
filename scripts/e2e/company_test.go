//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

var errPrepare error

func TestMain(m *testing.M) {
	errPrepare = lab.Prepare()
	if errPrepare != nil && !errors.Is(errPrepare, netlab.ErrPrivileges) {
		fmt.Fprintln(os.Stderr, errPrepare)
		os.Exit(1)
	}
	flag.Parse()
	if !isSet("test.parallel") { // those that run at the same time mostly wait: for routers, for each other's time-outs
		_ = flag.Set("test.parallel", strconv.Itoa(atOnce)) // it cannot fail for a number
	}
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // where Debian has slapd and freeradius; it cannot fail for this name
	os.Exit(m.Run())
}

// atOnce is how many of the tests run at a time that call t.Parallel. Those that measure or fill the machine do not.
const atOnce = 3

// isSet says whether a flag was given.
func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// leaveOut skips the test, or fails it where nothing may be left out.
func leaveOut(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func needs(t *testing.T, tool, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		leaveOut(t, fmt.Sprintf("needs %s (apt install %s)", tool, pkg))
	}
}

// company makes a whole company with its site link up; it stops with the test, whose
// failure shows the logs.
func company(t *testing.T) *lab.Company {
	t.Helper()
	c := network(t)
	check(t, c.Up(t.Context()))
	return c
}

// network makes the company's network and no process.
func network(t *testing.T) *lab.Company {
	t.Helper()
	if errPrepare != nil {
		leaveOut(t, "needs root: "+errPrepare.Error())
	}
	c, err := lab.New(t.Context())
	check(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			var logs bytes.Buffer
			if err := c.WriteLogs(&logs); err == nil {
				t.Logf("logs:\n%s", logs.Bytes())
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("stopping the company: %v", err)
		}
	})
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustPing demands that every request from hosta to hostb is answered.
func mustPing(t *testing.T, c *lab.Company, from netip.Addr) {
	t.Helper()
	pong, err := c.HostA.Ping(t.Context(), netlab.Ping{To: lab.SiteB.Host, From: from, Count: 3})
	check(t, err)
	if pong.Received != pong.Sent {
		t.Fatalf("%d of %d pings from %s were lost", pong.Sent-pong.Received, pong.Sent, from)
	}
}

// mustNotPing demands that none is.
func mustNotPing(t *testing.T, c *lab.Company, from netip.Addr) {
	t.Helper()
	pong, err := c.HostA.Ping(t.Context(), netlab.Ping{To: lab.SiteB.Host, From: from, Count: 2, Wait: 300 * time.Millisecond})
	if !errors.Is(err, netlab.ErrNoAnswer) {
		t.Fatalf("%d of %d pings from %s were answered: %v", pong.Received, pong.Sent, from, err)
	}
}

// pingsAgain waits until hosta reaches hostb.
func pingsAgain(t *testing.T, c *lab.Company, within time.Duration) {
	t.Helper()
	check(t, lab.Until(t.Context(), "an answered ping", within, func(ctx context.Context) error {
		_, err := c.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, Count: 1, Wait: 300 * time.Millisecond})
		return err
	}))
}

func status(t *testing.T, c *lab.Company, s lab.Site) lab.Status {
	t.Helper()
	st, err := c.Status(t.Context(), s)
	check(t, err)
	return st
}

// siteCall is the ID of the site link that is up at s.
func siteCall(t *testing.T, c *lab.Company, s lab.Site) lab.Call {
	t.Helper()
	call, ok := status(t, c, s).SiteCall()
	if !ok {
		t.Fatalf("%s has no site link", s.Name)
	}
	return call
}

// user adds a user, gives hosta the address and logs in at ra.
func user(t *testing.T, c *lab.Company, uid, address string) netip.Addr {
	t.Helper()
	a := netip.MustParseAddr(address)
	check(t, c.AddUser(t.Context(), uid, rand.Text()))
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(a, lab.SiteA.Users.Bits())))
	check(t, c.Login(t.Context(), lab.SiteA, uid, a, lab.SiteB.Name))
	return a
}
