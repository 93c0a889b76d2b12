//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// A group gets another control key while two of its users transfer something: both are in one new tunnel, over the new key, the old
// tunnel goes, the transfers do not notice, and the old certificates are revoked after the grace.
func TestGroupRotation(t *testing.T) {
	t.Parallel()
	c := company(t)
	ctx := t.Context()
	addresses := map[string]netip.Addr{"alice": user(t, c, "alice", "10.1.1.3"), "bob": user(t, c, "bob", "10.1.1.4")}
	before := groupTunnels(status(t, c, lab.SiteA))
	if len(before) != 1 || before[0].Calls != 2 {
		t.Fatalf("tunnels of the group: %+v", before)
	}
	old := map[string]string{}
	running := map[string]transfer{}
	for uid, a := range addresses {
		old[uid] = userCall(t, c, lab.SiteA, uid).Cert
		running[uid] = startTransfer(t, c, a)
	}
	time.Sleep(time.Second)
	const grace = 15 * time.Second
	begin := time.Now()
	_, err := c.CACommand(ctx, "group", "rotate", lab.UserGroup, "--grace", grace.String())
	check(t, err)
	check(t, lab.Until(ctx, "one new tunnel with both calls, and none besides", 30*time.Second, func(ctx context.Context) error {
		for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			of := groupTunnels(st)
			if len(of) != 1 || of[0].State != "up" || of[0].Calls != 2 || s.Name == lab.SiteA.Name && of[0].ID == before[0].ID {
				return fmt.Errorf("%s: %+v, before the rotation %+v", s.Name, of, before)
			}
			for uid := range addresses {
				if call, up := st.UserCall(uid); !up || call.Cert == old[uid] || s.Name == lab.SiteA.Name && call.Tunnel != of[0].ID {
					return fmt.Errorf("%s: call of %s: %+v", s.Name, uid, call)
				}
			}
		}
		return nil
	}))
	t.Logf("carried over %s after the command was given", time.Since(begin).Round(time.Millisecond))
	for uid := range addresses {
		certs := userCerts(t, c, uid)
		if len(certs) != 2 || !certs[0].Current || certs[1].State != "active" || !strings.HasPrefix(userCall(t, c, lab.SiteA, uid).Cert, certs[0].Serial+"@") {
			t.Errorf("certificates of %s in the grace: %+v", uid, certs)
		}
	}
	check(t, lab.Until(ctx, "the revocation of the old certificates", 40*time.Second, func(context.Context) error {
		for uid := range addresses {
			if certs := userCerts(t, c, uid); certs[0].State != "active" || certs[1].State != "revoked" {
				return fmt.Errorf("%s: %+v", uid, certs)
			}
		}
		return nil
	}))
	if since := time.Since(begin); since < grace {
		t.Errorf("revoked after %s, the grace is %s", since, grace)
	}
	time.Sleep(2 * time.Second) // the routers have heard
	for uid, x := range running {
		x.end(t)
		if call := userCall(t, c, lab.SiteA, uid); call.Cert == old[uid] {
			t.Errorf("%s: %+v", uid, call)
		}
	}
	// Who logs in anew has the password that opens the old bundle, and lands in the tunnel of the others.
	_, err = c.Router(ctx, lab.SiteA, "logout", "alice")
	check(t, err)
	check(t, c.Login(ctx, lab.SiteA, "alice", addresses["alice"], lab.SiteB.Name))
	mustPing(t, c, addresses["alice"])
	if of := groupTunnels(status(t, c, lab.SiteA)); len(of) != 1 || of[0].Calls != 2 {
		t.Errorf("after another login: %+v", of)
	}
	t.Run("behind the back of a router", func(t *testing.T) { rotationUnheard(t, c) })
}

// rotationUnheard: the router cannot hear the directory while the group is rotated and the old certificates are revoked. When it hears it again
// nobody is logged out.
func rotationUnheard(t *testing.T, c *lab.Company) {
	needs(t, "ip", "iproute2")
	ctx := t.Context()
	old := map[string]string{}
	for _, uid := range []string{"alice", "bob"} {
		old[uid] = userCall(t, c, lab.SiteA, uid).Cert
	}
	path := func(verb string) {
		out, err := c.HQ.Command(ctx, "ip", "route", verb, "blackhole", lab.SiteA.WAN.String()+"/32").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	path("add")
	_, err := c.CACommand(ctx, "group", "rotate", lab.UserGroup, "--now")
	check(t, err)
	check(t, lab.Until(ctx, "the revocation of the old certificates", 40*time.Second, func(context.Context) error {
		for uid := range old {
			if certs := userCerts(t, c, uid); certs[1].State != "revoked" {
				return fmt.Errorf("%s: %+v", uid, certs)
			}
		}
		return nil
	}))
	st := status(t, c, lab.SiteA)
	for uid := range old {
		if _, wanted := wantedCall(st, uid); !wanted {
			t.Fatalf("%s is logged out already: %+v", uid, st.Links)
		}
	}
	path("del")
	check(t, lab.Until(ctx, "both calls on their new certificates, in one tunnel", 60*time.Second, func(ctx context.Context) error {
		st, err := c.Status(ctx, lab.SiteA)
		if err != nil {
			return err
		}
		for uid := range old {
			if link, wanted := wantedCall(st, uid); !wanted {
				t.Fatalf("%s is logged out: %+v", uid, st.Links)
			} else if call, up := st.UserCall(uid); !up || call.Cert == old[uid] {
				return fmt.Errorf("%s: %+v %+v", uid, link, call)
			}
		}
		if of := groupTunnels(st); len(of) != 1 || of[0].Calls != 2 {
			return fmt.Errorf("%+v", of)
		}
		return nil
	}))
}

// wantedCall is what a router wants of a user who is logged in.
func wantedCall(st lab.Status, uid string) (lab.Link, bool) {
	i := slices.IndexFunc(st.Links, func(l lab.Link) bool { return l.User == uid })
	if i < 0 {
		return lab.Link{}, false
	}
	return st.Links[i], true
}

// The CA renews users by itself: bob's call goes on beyond the end of the certificate that it began with, and his transfer with it. Alice has been
// given new keys meanwhile, which only a login brings: she is warned of, and at the end her call ends and it is
// written down why.
func TestCertificateEndsInACall(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	check(t, c.CA.Stop())
	file := filepath.Join(c.Dir, "ca", "ca.yaml")
	shorten(t, file, "user: 1m")
	text, err := os.ReadFile(file)
	check(t, err)
	check(t, os.WriteFile(file, []byte(strings.Replace(string(text), "renew-users: false", "renew-users: true", 1)), 0o600))
	check(t, c.ServeCA(ctx))
	check(t, c.StartDirectory(ctx))
	check(t, c.StartRouter(ctx, lab.SiteA, "renewal:\n  warn-users: 8s\n"))
	check(t, c.StartRouter(ctx, lab.SiteB, ""))
	check(t, c.WaitLink(ctx))
	bob := user(t, c, "bob", "10.1.1.4")
	transfer := startTransfer(t, c, bob)
	alice := user(t, c, "alice", "10.1.1.3")
	first := userCall(t, c, lab.SiteA, "bob").Cert
	ends := userCerts(t, c, "alice")[0].NotAfter
	_, err = c.CACommand(ctx, "user", "renew", "alice", "--password-file", filepath.Join(c.Dir, "alice.password"))
	check(t, err)
	mustPing(t, c, alice)
	if call := userCall(t, c, lab.SiteA, "alice"); call.Ending != "" {
		t.Errorf("warned of too early: %q", call.Ending)
	}

	check(t, lab.Until(ctx, "the warning of alice's certificate", time.Until(ends), func(ctx context.Context) error {
		st, err := c.Status(ctx, lab.SiteA)
		if call, _ := st.UserCall("alice"); err == nil && !strings.Contains(call.Ending, "only a new login") {
			err = fmt.Errorf("%+v", call)
		}
		return err
	}))
	out, err := c.Router(ctx, lab.SiteA, "status")
	check(t, err)
	if !strings.Contains(out, "WARNING: calls that end with their certificate") {
		t.Errorf("not in the status: %s", out)
	}
	check(t, lab.Until(ctx, "the end of alice's call", time.Until(ends)+20*time.Second, func(ctx context.Context) error {
		for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			if call, up := st.UserCall("alice"); up {
				return fmt.Errorf("%s: %+v", s.Name, call)
			}
		}
		return nil
	}))
	if time.Now().Before(ends) {
		t.Errorf("alice's call has ended %s before her certificate", time.Until(ends))
	}
	mustNotPing(t, c, alice)
	want := "certificate of user alice expired at " + ends.UTC().Format(time.RFC3339)
	check(t, lab.Until(ctx, "both routers' records of it", 20*time.Second, func(ctx context.Context) error {
		out, err := c.DirectoryCommand(ctx, "audit", "--kind", "call", "--subject", "alice")
		if n := strings.Count(out, want); err == nil && n != 2 {
			err = fmt.Errorf("%d records with %q: %s", n, want, out)
		}
		return err
	}))
	log, err := os.ReadFile(c.Routers[lab.SiteA.Name].Log)
	check(t, err)
	warned := map[string]int{}
	for line := range strings.Lines(string(log)) {
		for _, uid := range []string{"alice", "bob"} {
			if strings.Contains(line, "certificate ends soon") && strings.Contains(line, uid) {
				warned[uid]++
			}
		}
	}
	if warned["alice"] < 1 || warned["alice"] > 2 || warned["bob"] != 0 {
		t.Errorf("warned in the log: %v", warned)
	}

	transfer.end(t)
	if call := userCall(t, c, lab.SiteA, "bob"); call.Cert == first {
		t.Errorf("bob's call stands on its first certificate: %+v", call)
	}
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name)) // that is what brings the new keys
	mustPing(t, c, alice)
}

// A user's own machine goes over to the new control key as a router does: its transfer goes on, and nobody logs in again.
func TestGroupRotationVoluntary(t *testing.T) {
	t.Parallel()
	c, alice := front(t, "")
	ctx := t.Context()
	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice")
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	old := userCall(t, c, lab.SiteB, "alice").Cert
	transfer := startTransfer(t, c, alice)
	_, err = c.CACommand(ctx, "group", "rotate", lab.UserGroup, "--now")
	check(t, err)
	check(t, lab.Until(ctx, "alice's call on the new certificate", 30*time.Second, func(ctx context.Context) error {
		st, err := c.Status(ctx, lab.SiteB)
		if err != nil {
			return err
		}
		if of := groupTunnels(st); len(of) != 1 || of[0].Calls != 1 {
			return fmt.Errorf("%+v", of)
		}
		if call, up := st.UserCall("alice"); !up || call.Cert == old {
			return fmt.Errorf("%+v", call)
		}
		return nil
	}, p))
	check(t, lab.Until(ctx, "the revocation of the old certificate", 30*time.Second, func(context.Context) error {
		if certs := userCerts(t, c, "alice"); certs[1].State != "revoked" {
			return fmt.Errorf("%+v", certs)
		}
		return nil
	}, p))
	time.Sleep(2 * time.Second) // everybody has heard
	transfer.end(t)
	mustPing(t, c, alice)
}

// tunnelOf is what groupTunnels tells.
type tunnelOf struct {
	ID    uint16
	State string
	Calls int
}

// groupTunnels are the tunnels of lab.UserGroup.
func groupTunnels(st lab.Status) (of []tunnelOf) {
	for _, x := range st.Tunnels {
		if x.Group == lab.UserGroup {
			of = append(of, tunnelOf{x.ID, x.State, x.Calls})
		}
	}
	return of
}

func userCall(t *testing.T, c *lab.Company, s lab.Site, uid string) lab.Call {
	t.Helper()
	st := status(t, c, s)
	// The newest, while an older one still receives.
	slices.SortFunc(st.Calls, func(a, b lab.Call) int { return int(b.ID) - int(a.ID) }) //nolint:gosec // small
	call, ok := st.UserCall(uid)
	if !ok {
		t.Fatalf("%s has no call at %s: %+v", uid, s.Name, st.Calls)
	}
	return call
}

// certState is what we read of `twinkey-ca cert list --json`.
type certState struct {
	Serial   string    `json:"serial"`
	State    string    `json:"state"`
	Current  bool      `json:"current"`
	NotAfter time.Time `json:"not_after"`
}

// userCerts are a user's certificates, the newest first.
func userCerts(t *testing.T, c *lab.Company, uid string) (certs []certState) {
	t.Helper()
	out, err := c.CACommand(t.Context(), "cert", "list", "--user", uid, "--json")
	check(t, err)
	check(t, json.Unmarshal([]byte(out), &certs))
	return certs
}

// transfer is a stream of some 2 MB a second from an address of hosta to hostb.
type transfer struct{ *netlab.Stream }

func startTransfer(t *testing.T, c *lab.Company, from netip.Addr) transfer {
	t.Helper()
	s, err := netlab.StartStream(t.Context(), c.HostA, from, c.HostB, lab.SiteB.Host, 2_000_000)
	check(t, err)
	t.Cleanup(s.Break) // of a test that has failed
	return transfer{s}
}

// end ends the transfer, which must have gone well on the one connection that it began with.
func (x transfer) end(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := x.End(ctx)
	if err != nil || !got.Intact() {
		t.Errorf("transfer: %d bytes, intact: %v, %v", got.Bytes, got.Intact(), err)
	}
}
