//go:build linux

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/scripts/lab"
)

// revocations are what the directory's audit records say of certificates that were revoked, by whom and why.
func revocations(t *testing.T, c *lab.Company, uid string) (all []string) {
	t.Helper()
	out, err := c.DirectoryCommand(t.Context(), "audit", "--kind", "revoked", "--subject", uid, "--json")
	check(t, err)
	var records []struct{ For, Detail string }
	check(t, json.Unmarshal([]byte(out), &records))
	for _, r := range records {
		all = append(all, r.For+": "+r.Detail)
	}
	return all
}

// Where the policy says revoke-on-close the end of a user's last call takes the certificate: it is in the CRL, the audit says why, the next
// login is refused until there is another certificate. While the CA is away the end of a session waits, also over a restart of the router.
func TestRevokeOnClose(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, fmt.Sprintf("policy:\n  - groups: [%s]\n    revoke-on-close: true\n", lab.UserGroup), "")) // the far end has no say in it
	serial := func(uid string) string {
		out, err := c.Router(ctx, lab.SiteA, "calls", "--json")
		check(t, err)
		var calls []struct {
			User        string
			Certificate twincert.ID
		}
		check(t, json.Unmarshal([]byte(out), &calls))
		for _, call := range calls {
			if call.User == uid {
				return call.Certificate.Serial
			}
		}
		t.Fatalf("no call of %s: %s", uid, out)
		return ""
	}
	inCRL := func(serial string) bool {
		out, err := c.CACommand(ctx, "crl", "--json")
		check(t, err)
		var l struct{ DER []byte }
		check(t, json.Unmarshal([]byte(out), &l))
		list, err := x509.ParseRevocationList(l.DER)
		check(t, err)
		return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.String() == serial })
	}
	soon := func(what string, ok func() error) {
		t.Helper()
		check(t, lab.Until(ctx, what, 30*time.Second, func(context.Context) error { return ok() }))
	}
	revokedBecause := func(uid string, n int) {
		t.Helper()
		soon("the revocation of "+uid, func() error {
			if got := revocations(t, c, uid); len(got) != n || !strings.Contains(got[n-1], "twinkey://router/ra: ") || !strings.Contains(got[n-1], "the session at router ra has ended (revoke-on-close)") {
				return fmt.Errorf("noted: %q", got)
			}
			return nil
		})
	}

	alice := user(t, c, "alice", "10.1.1.3")
	bob := user(t, c, "bob", "10.1.1.4")
	first := serial("alice")
	mustPing(t, c, alice)
	if inCRL(first) {
		t.Fatal("revoked before the end")
	}
	_, err := c.Router(ctx, lab.SiteA, "logout", "alice")
	check(t, err)
	revokedBecause("alice", 1)
	if !inCRL(first) {
		t.Error("her certificate is not in the CRL")
	}
	mustPing(t, c, bob)
	if err := c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name); err == nil || !strings.Contains(err.Error(), "login of alice refused") {
		t.Errorf("login with the revoked certificate: %v", err)
	}
	if out, err := c.CACommand(ctx, "user", "show", "alice"); err != nil || !strings.Contains(out, "closed") {
		t.Errorf("the operator sees %s, %v", out, err)
	}

	// With another certificate she is in again; the CA is away when she leaves, and the router is stopped and started.
	_, err = c.CACommand(ctx, "user", "renew", "alice", "--password-file", filepath.Join(c.Dir, "alice.password"))
	check(t, err)
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	second := serial("alice")
	check(t, c.CA.Stop())
	_, err = c.Router(ctx, lab.SiteA, "logout", "alice")
	check(t, err)
	soon("what waits in the status", func() error {
		out, err := c.Router(ctx, lab.SiteA, "status")
		check(t, err)
		if !strings.Contains(out, "ended sessions: 1 certificates NOT REVOKED YET") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	check(t, c.Routers[lab.SiteA.Name].Stop()) // with bob logged in: his session ends too
	b, err := os.ReadFile(filepath.Join(c.Dir, lab.SiteA.Name, "closing.json"))
	check(t, err)
	if !strings.Contains(string(b), second) || !strings.Contains(string(b), `"bob"`) {
		t.Errorf("what waits is not in the file: %s", b)
	}
	check(t, c.ServeCA(ctx))
	if inCRL(second) {
		t.Error("revoked though nobody told the CA")
	}
	check(t, c.RouterUp(ctx, lab.SiteA))
	revokedBecause("alice", 2)
	revokedBecause("bob", 1)
	if !inCRL(second) {
		t.Error("her second certificate is not in the CRL")
	}
	out, err := c.Router(ctx, lab.SiteA, "status", "--json")
	check(t, err)
	if strings.Contains(out, `"closing"`) {
		t.Errorf("something still waits: %s", out)
	}
}
