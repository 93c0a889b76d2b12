//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"twinkey/scripts/lab"
)

// What FreeRADIUS says of users who are logged in counts at once: another group, by a new certificate on which their calls go on without a login, or
// another end; and what cannot be done is refused with the cause.
func TestChangesByRADIUS(t *testing.T) {
	t.Parallel()
	const port = 443 // for staff only
	c := network(t)
	ctx := t.Context()
	needs(t, "radclient", "freeradius-utils")
	detail := startFreeRADIUS(t, c, fmt.Sprintf("alice Cleartext-Password := \"spring of alice\"\n\tFilter-Id = %[1]q\n\nbob Cleartext-Password := \"spring of bob\"\n\tFilter-Id = %[1]q,\n\tSession-Timeout = 3600\n\n", lab.UserGroup))
	rules := fmt.Sprintf("policy:\n  - groups: [%s]\n  - groups: [guests]\n    allow: [icmp, tcp/1024-65535]\n", lab.UserGroup)
	withSourcesAt(t, c, radiusSource(c), "group:"+lab.UserGroup+",group:guests", rules, rules)
	for _, group := range []string{"guests", "board"} { // of which the latter is in no router's scope
		_, err := c.CACommand(ctx, "group", "add", group)
		check(t, err)
	}
	alice, bob := address(t, c, "10.1.1.3"), address(t, c, "10.1.1.4")
	password(t, c, "alice", "spring of alice")
	password(t, c, "bob", "spring of bob")
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	check(t, c.Login(ctx, lab.SiteA, "bob", bob, lab.SiteB.Name))
	mustPing(t, c, alice)
	check(t, connects(t, c, alice, port))
	before, ofBob := userCall(t, c, lab.SiteA, "alice"), userCall(t, c, lab.SiteA, "bob").Cert
	running := map[string]transfer{"alice": startTransfer(t, c, alice), "bob": startTransfer(t, c, bob)}
	time.Sleep(time.Second)

	// Another group: the transfer goes on in another tunnel, and what was open to staff alone is closed.
	begin := time.Now()
	orders(t, c, "coa", "User-Name = alice\nFilter-Id = guests", "CoA-ACK")
	goesOver(t, c, "alice", before.Cert)
	t.Logf("carried over %s after the request was sent", time.Since(begin).Round(time.Millisecond))
	if after := userCall(t, c, lab.SiteA, "alice"); after.Tunnel == before.Tunnel {
		t.Errorf("her call stands in the tunnel of %s: %+v", lab.UserGroup, after)
	}
	if err := connects(t, c, alice, port); err == nil {
		t.Error("a guest reaches what is for staff")
	}
	check(t, connects(t, c, bob, port))
	mustPing(t, c, alice)
	time.Sleep(2 * time.Second) // what was before is gone by now
	for _, x := range running {
		x.end(t)
	}
	if u := userAtCA(t, c, "alice"); u.Group != "guests" || u.State != "active" {
		t.Errorf("at the CA: %+v", u)
	}
	if certs := userCerts(t, c, "alice"); len(certs) != 2 || certs[0].State != "active" || certs[1].State != "revoked" {
		t.Errorf("certificates: %+v", certs)
	}
	if call := userCall(t, c, lab.SiteA, "bob"); call.Cert != ofBob {
		t.Errorf("bob's call was touched: %+v", call)
	}

	// What is not done says why, and changes nothing.
	at := userCall(t, c, lab.SiteA, "alice").Cert
	for _, r := range []struct{ attributes, cause string }{
		{"User-Name = alice", "Missing-Attribute"},
		{"User-Name = alice\nFilter-Id = nowhere", "Invalid-Attribute-Value"},
		{"User-Name = alice\nFilter-Id = staff\nIdle-Timeout = 60", "Unsupported-Attribute"},
		{"User-Name = alice\nFilter-Id = staff\nNAS-Identifier = other", "NAS-Identification-Mismatch"},
		{"User-Name = alice\nService-Type = Authorize-Only", "Unsupported-Service"},
		{"User-Name = nobody\nFilter-Id = staff", "Session-Context-Not-Found"},
		{"User-Name = bob\nSession-Timeout = 7200", "Invalid-Attribute-Value"}, // his router was told of 3600
	} {
		orders(t, c, "coa", r.attributes, "Error-Cause = "+r.cause)
	}
	held := time.Now().Add(-2 * time.Minute) // before what brought her into guests
	ordersAt(t, c, held, "coa", "User-Name = alice\nFilter-Id = "+lab.UserGroup, "Error-Cause = Invalid-Attribute-Value")
	ordersAt(t, c, held, "disconnect", "User-Name = alice", "Error-Cause = Invalid-Attribute-Value")
	mustPing(t, c, alice)
	if call := userCall(t, c, lab.SiteA, "alice"); call.Cert != at {
		t.Errorf("what was refused brought another certificate: %+v", call)
	}

	// The next login is what the server says then: with the same password, where she was.
	login := func() (began time.Time) {
		t.Helper()
		_, err := c.Router(ctx, lab.SiteA, "logout", "alice")
		check(t, err)
		endsEverywhere(t, c, "alice")
		began = time.Now()
		check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
		mustPing(t, c, alice)
		return began
	}
	began := login()
	check(t, connects(t, c, alice, port))
	if u := userAtCA(t, c, "alice"); u.Group != lab.UserGroup {
		t.Errorf("at the CA: %+v", u)
	}

	// A time, counted from that login: the call goes on until then, no longer, and accounting says why it ended.
	const session = 25 * time.Second
	at = userCall(t, c, lab.SiteA, "alice").Cert
	orders(t, c, "coa", fmt.Sprintf("Acct-Session-Id = %q\nSession-Timeout = %d", sessionOf(t, detail, "alice", began), int(session.Seconds())), "CoA-ACK")
	goesOver(t, c, "alice", at)
	mustPing(t, c, alice)
	ends := userCerts(t, c, "alice")[0].NotAfter
	if d := ends.Sub(began); d < session-2*time.Second || d > session+5*time.Second {
		t.Errorf("it ends %s after the login", d)
	}
	if time.Now().Before(ends.Add(-time.Second)) {
		mustPing(t, c, alice)
	}
	endsEverywhere(t, c, "alice")
	if now := time.Now(); now.Before(ends) || now.After(ends.Add(10*time.Second)) {
		t.Errorf("it ended at %s, and not at %s", now.UTC(), ends)
	}
	mustNotPing(t, c, alice)
	tells(t, detail, "Acct-Status-Type = Stop", `User-Name = "alice"`, "Acct-Terminate-Cause = Session-Timeout")
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
	if left := time.Until(userCerts(t, c, "alice")[0].NotAfter); left < time.Hour {
		t.Errorf("the next login's certificate ends in %s", left)
	}

	// A time that is over, and a group that the router may not have, end the call.
	time.Sleep(2 * time.Second)
	orders(t, c, "coa", "User-Name = alice\nSession-Timeout = 1", "CoA-ACK")
	endsEverywhere(t, c, "alice")
	if u := userAtCA(t, c, "alice"); u.State != "revoked" || !strings.Contains(u.Reason, "the session time is over") {
		t.Errorf("at the CA: %+v", u)
	}
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	mustPing(t, c, alice)
	orders(t, c, "coa", "User-Name = alice\nFilter-Id = board", "CoA-ACK")
	endsEverywhere(t, c, "alice")
	if _, wanted := wantedCall(status(t, c, lab.SiteA), "alice"); wanted {
		t.Error("she is still logged in")
	}
	mustNotPing(t, c, alice)
	if call := userCall(t, c, lab.SiteA, "bob"); call.Cert != ofBob {
		t.Errorf("bob's call was touched: %+v", call)
	}
}

// goesOver waits until a user's calls stand on another certificate at both routers, and demands that they are logged in all along.
func goesOver(t *testing.T, c *lab.Company, uid, before string) {
	t.Helper()
	check(t, lab.Until(t.Context(), "the call of "+uid+" on another certificate", 30*time.Second, func(ctx context.Context) error {
		for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			if _, wanted := wantedCall(st, uid); s.Name == lab.SiteA.Name && !wanted {
				t.Fatalf("%s is logged out: %+v", uid, st.Links)
			}
			n := 0
			for _, call := range st.Calls {
				if call.User != uid {
					continue
				}
				if n++; call.Cert == before || call.State != "up" {
					return fmt.Errorf("%s: %+v", s.Name, call)
				}
			}
			if n == 0 {
				return fmt.Errorf("%s: there is none", s.Name)
			}
		}
		return nil
	}))
}

var sessionStart = regexp.MustCompile(`(?s)Acct-Status-Type = Start.*Acct-Session-Id = "([^"]+)".*Event-Timestamp = "([^"]+)"`)

// sessionOf waits until accounting knows of a call of a user that began after that, and is how it names it.
func sessionOf(t *testing.T, detail, uid string, after time.Time) (id string) {
	t.Helper()
	check(t, lab.Until(t.Context(), "the record of a call of "+uid, 30*time.Second, func(context.Context) error {
		b, err := os.ReadFile(detail)
		if err != nil {
			return err
		}
		for _, record := range strings.Split(string(b), "\n\n") {
			m := sessionStart.FindStringSubmatch(record)
			if m == nil || !strings.Contains(record, fmt.Sprintf("User-Name = %q", uid)) {
				continue
			}
			at, err := time.Parse("Jan _2 2006 15:04:05 MST", m[2])
			if err != nil {
				return err
			}
			if !at.Before(after.Truncate(time.Second)) {
				id = m[1]
			}
		}
		if id == "" {
			return fmt.Errorf("there is\n%s", b)
		}
		return nil
	}))
	return id
}
