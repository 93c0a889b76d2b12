//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
)

var errPrepare error

func TestMain(m *testing.M) {
	errPrepare = Prepare()
	if errPrepare != nil && !errors.Is(errPrepare, netlab.ErrPrivileges) {
		fmt.Fprintln(os.Stderr, errPrepare)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func needsLab(t *testing.T) {
	t.Helper()
	switch {
	case errPrepare != nil && os.Getenv("TWINKEY_NO_SKIP") == "1":
		t.Fatal("needs root:", errPrepare)
	case errPrepare != nil:
		t.Skip("needs root:", errPrepare)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func machine(t *testing.T) *netlab.Host {
	t.Helper()
	needsLab(t)
	l, err := netlab.New(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, l.Close()) })
	h, err := l.Host("h")
	check(t, err)
	return h
}

func TestProcessStopsCleanlyAndLogs(t *testing.T) {
	p, err := start(t.Context(), machine(t), t.TempDir(), "daemon", "sh", "-c", `trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.02; done`)
	check(t, err)
	check(t, Until(t.Context(), "hello", 5*time.Second, func(context.Context) error {
		if !strings.Contains(p.Tail(), "hello") {
			return errors.New("silent")
		}
		return nil
	}, p))
	check(t, p.Stop())
	check(t, p.Stop())
	if !strings.Contains(p.Tail(), "daemon: bye") {
		t.Errorf("log:\n%s", p.Tail())
	}
}

func TestUntilTellsWhoDiedAndWhy(t *testing.T) {
	p, err := start(t.Context(), machine(t), t.TempDir(), "daemon", "sh", "-c", `echo cannot open the database; exit 3`)
	check(t, err)
	begin := time.Now()
	err = Until(t.Context(), "the daemon", time.Hour, func(context.Context) error { return errors.New("connection refused") }, p)
	for _, want := range []string{"waiting for the daemon", "daemon has ended: exit status 3", "connection refused", "cannot open the database"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if time.Since(begin) > 5*time.Second {
		t.Error("waited although nothing could come any more")
	}
	if err := p.Stop(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("stopping what failed: %v", err)
	}
	if err := Until(t.Context(), "nothing", 50*time.Millisecond, func(context.Context) error { return errors.New("still not") }); err == nil || !strings.Contains(err.Error(), "not within 50ms: still not") {
		t.Errorf("timeout: %v", err)
	}
}

func TestKillAndPause(t *testing.T) {
	p, err := start(t.Context(), machine(t), t.TempDir(), "daemon", "sleep", "1000")
	check(t, err)
	check(t, p.Pause())
	check(t, p.Continue())
	p.Kill()
	select {
	case <-p.Exited():
	default:
		t.Error("killed and not ended")
	}
	if err := p.Signal(unix.SIGHUP); err == nil {
		t.Error("signalled the dead")
	}
}

func TestRunSaysWhatFailed(t *testing.T) {
	h := machine(t)
	out, err := Run(t.Context(), h, "sh", "-c", "echo out; echo noise >&2")
	if out != "out\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	_, err = Run(t.Context(), h, "sh", "-c", "echo no such thing >&2; exit 2")
	if err == nil || !strings.Contains(err.Error(), "no such thing") || !strings.Contains(err.Error(), "exit status 2") {
		t.Errorf("got %v", err)
	}
}

// The wiring before any program of ours runs: neighbours reach each other, LANs do not.
func TestNetworkHasNoWayAcrossButTheTunnel(t *testing.T) {
	needsLab(t)
	c, err := New(t.Context())
	check(t, err)
	defer func() { check(t, c.Close()) }()
	for _, x := range []struct {
		from *netlab.Host
		to   netip.Addr
		want bool
	}{
		{c.HostA, SiteA.Router, true},
		{c.HostB, SiteB.Router, true},
		{c.RA, SiteB.WAN, true},
		{c.RB, HQAddr, true},
		{c.HostA, SiteB.Host, false},
		{c.HostB, SiteA.Host, false},
		{c.RA, SiteB.Host, false},
	} {
		_, err := x.from.Ping(t.Context(), netlab.Ping{To: x.to, Wait: 200 * time.Millisecond, Count: 2})
		if (err == nil) != x.want {
			t.Errorf("%s to %s: %v", x.from.Name(), x.to, err)
		}
	}
}

func TestCompanyUpAndDown(t *testing.T) {
	needsLab(t)
	c, err := New(t.Context())
	check(t, err)
	defer func() { check(t, c.Close()) }()
	check(t, c.Up(t.Context()))
	pong, err := c.HostA.Ping(t.Context(), netlab.Ping{To: SiteB.Host, Count: 5})
	if err != nil || pong.Received != 5 {
		t.Errorf("%v, %v", pong, err)
	}
}
