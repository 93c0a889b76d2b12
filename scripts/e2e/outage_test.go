//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Whatever goes away and comes back, nobody has to do anything. A peer that dies takes
// the link with it; CA and directory do not.
func TestOutages(t *testing.T) {
	c := company(t)
	ctx := t.Context()
	mustPing(t, c, lab.SiteA.Host)

	t.Run("the CA is gone", func(t *testing.T) {
		before := siteCall(t, c, lab.SiteA)
		check(t, c.CA.Stop())
		mustPing(t, c, lab.SiteA.Host)
		check(t, c.ServeCA(ctx))
		if after := siteCall(t, c, lab.SiteA); after.ID != before.ID {
			t.Errorf("the site link was call %d and is %d", before.ID, after.ID)
		}
	})
	t.Run("the directory is gone", func(t *testing.T) {
		before := siteCall(t, c, lab.SiteA)
		check(t, c.Directory.Stop())
		mustPing(t, c, lab.SiteA.Host)
		check(t, c.ServeDirectory(ctx))
		user(t, c, "carol", "10.1.1.5") // its router must have found the directory again
		if after := siteCall(t, c, lab.SiteA); after.ID != before.ID {
			t.Errorf("the site link was call %d and is %d", before.ID, after.ID)
		}
	})
	t.Run("the peer is killed and comes back", func(t *testing.T) {
		c.Routers[lab.SiteB.Name].Kill()
		check(t, c.RouterUp(ctx, lab.SiteB))
		pingsAgain(t, c, 90*time.Second)
	})
	t.Run("the peer stops, says so, and comes back", func(t *testing.T) {
		check(t, c.Routers[lab.SiteB.Name].Stop())
		check(t, lab.Until(ctx, "the end of the site link at ra", 10*time.Second, func(ctx context.Context) error {
			st, err := c.Status(ctx, lab.SiteA)
			if _, up := st.SiteCall(); err == nil && up {
				err = errors.New("it is still up")
			}
			return err
		}))
		check(t, c.RouterUp(ctx, lab.SiteB))
		pingsAgain(t, c, 60*time.Second)
	})
	t.Run("the path is cut and mended", func(t *testing.T) {
		before := siteCall(t, c, lab.SiteA)
		check(t, c.RA.LinkDown("wan0"))
		mustNotPing(t, c, lab.SiteA.Host)
		check(t, c.RA.LinkUp("wan0"))
		pingsAgain(t, c, 60*time.Second)
		if after := siteCall(t, c, lab.SiteA); after.ID != before.ID {
			t.Logf("the link was placed anew: call %d became %d", before.ID, after.ID)
		}
	})
	t.Run("the path is cut for longer than a tunnel lives", func(t *testing.T) {
		check(t, c.RA.LinkDown("wan0"))
		check(t, lab.Until(ctx, "the end of the site link at ra", 120*time.Second, func(ctx context.Context) error {
			st, err := c.Status(ctx, lab.SiteA)
			if _, up := st.SiteCall(); err == nil && up {
				err = errors.New("it is still up")
			}
			return err
		}))
		check(t, c.RA.LinkUp("wan0"))
		pingsAgain(t, c, 90*time.Second)
	})
}

// A router that stops leaves neither interface nor routes, and one that is started again
// finds its own leftovers no obstacle.
func TestStopLeavesNothing(t *testing.T) {
	c := company(t)
	routes := func() string {
		out, err := c.RA.Command(t.Context(), "ip", "-o", "route", "show", "proto", "77").CombinedOutput()
		check(t, err)
		links, err := c.RA.Command(t.Context(), "ip", "-o", "link", "show", "type", "tun").CombinedOutput()
		check(t, err)
		return string(out) + string(links)
	}
	needs(t, "ip", "iproute2")
	if up := routes(); up == "" {
		t.Fatal("no route and no interface while the router is up")
	}
	check(t, c.Routers[lab.SiteA.Name].Stop())
	if left := routes(); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	for range 2 {
		check(t, c.RouterUp(t.Context(), lab.SiteA))
		c.Routers[lab.SiteA.Name].Kill()
	}
	check(t, c.RouterUp(t.Context(), lab.SiteA))
	pingsAgain(t, c, 90*time.Second)
}

// A file keeps its bytes while SAs are rekeyed under it every ten seconds.
func TestRekeyUnderLoad(t *testing.T) {
	c := network(t)
	ctx := t.Context()
	const often = "security:\n  rekey-time: 10s\n  rekey-grace: 5s\n"
	check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, often, often))
	lost := 0
	end := time.Now().Add(25 * time.Second)
	for time.Now().Before(end) {
		pong, err := c.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, Count: 200, Interval: 2 * time.Millisecond})
		check(t, err)
		lost += pong.Sent - pong.Received
	}
	if lost > 0 {
		t.Errorf("%d pings were lost", lost)
	}
	if _, err := c.Router(ctx, lab.SiteA, "calls"); err != nil {
		t.Error(err)
	}
	st := status(t, c, lab.SiteA)
	if len(st.Calls) != 1 || st.Calls[0].Rekeys < 2 {
		t.Errorf("calls: %s", fmt.Sprintf("%+v", st.Calls))
	}
}
