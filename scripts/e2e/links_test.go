//go:build linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	"twinkey/scripts/lab"
)

// A link on demand is not there until a packet wants it.
func TestLinkOnDemand(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	check(t, c.StartDirectory(ctx))
	const demand = "  links: demand\n" // goes on with the section site
	check(t, c.StartRouter(ctx, lab.SiteA, demand))
	check(t, c.StartRouter(ctx, lab.SiteB, demand))
	time.Sleep(2 * time.Second) // long enough for a link that nobody wants to be there
	if st := status(t, c, lab.SiteA); len(st.Tunnels) != 0 || len(st.Calls) != 0 {
		t.Fatalf("nobody asked, and there are %+v %+v", st.Tunnels, st.Calls)
	}
	pingsAgain(t, c, 10*time.Second)
	if st := status(t, c, lab.SiteB); len(st.Calls) != 1 {
		t.Errorf("calls at rb: %+v", st.Calls)
	}
}

// Who is hung up stays so if it is a user; a site link comes back by itself.
func TestHangup(t *testing.T) {
	t.Parallel()
	c := company(t)
	ctx := t.Context()
	alice := user(t, c, "alice", "10.1.1.3")
	mustPing(t, c, alice)
	before := siteCall(t, c, lab.SiteA)
	if _, err := c.Router(ctx, lab.SiteA, "logout", "alice"); err != nil {
		t.Fatal(err)
	}
	mustNotPing(t, c, alice)
	if after := siteCall(t, c, lab.SiteA); after.ID != before.ID {
		t.Errorf("the site link was call %d and is %d", before.ID, after.ID)
	}
	if _, err := c.Router(ctx, lab.SiteA, "hangup", fmt.Sprint(before.ID)); err != nil {
		t.Fatal(err)
	}
	pingsAgain(t, c, 15*time.Second)
	if after := siteCall(t, c, lab.SiteA); after.ID == before.ID {
		t.Error("the call that was hung up is still there")
	}
	if _, err := c.Router(ctx, lab.SiteA, "hangup", "4711"); err == nil {
		t.Error("a call that is not there was hung up")
	}
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
}
