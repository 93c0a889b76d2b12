//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"twinkey/scripts/lab"
)

// logged is how often a router's log has said something.
func logged(t *testing.T, c *lab.Company, router, what string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir, router+".log"))
	check(t, err)
	return strings.Count(string(b), what)
}

// says waits until both routers' logs have said something once; that they say it twice is a failure at any time.
func says(t *testing.T, c *lab.Company, within time.Duration, what string) {
	t.Helper()
	check(t, lab.Until(t.Context(), what, within, func(context.Context) error {
		for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
			if n := logged(t, c, s.Name, what); n != 1 {
				return fmt.Errorf("%s has said it %d times", s.Name, n)
			}
		}
		return nil
	}))
}

// While the directory is away a revocation is heard from the CA's CRL; once no CRL is current any more new calls are refused, and
// those that are up go on. Both bounds, and the ways back, stand in the log once and in the status.
func TestDirectoryIsSilent(t *testing.T) {
	t.Parallel()
	c := network(t)
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	path := filepath.Join(c.Dir, "ca", "ca.yaml")
	b, err := os.ReadFile(path)
	check(t, err)
	short := regexp.MustCompile(`(?m)^( *crl:) .*$`).ReplaceAll(b, []byte("$1 1m"))
	check(t, os.WriteFile(path, short, 0o600))
	check(t, c.CA.Stop())
	check(t, c.ServeCA(ctx))
	check(t, c.StartDirectory(ctx))
	const bound = "security:\n  staleness: 10s\n"
	check(t, c.StartRouter(ctx, lab.SiteA, bound))
	check(t, c.StartRouter(ctx, lab.SiteB, bound))
	check(t, c.WaitLink(ctx))
	alice, bob := user(t, c, "alice", "10.1.1.3"), user(t, c, "bob", "10.1.1.4")
	mustPing(t, c, alice)
	mustPing(t, c, bob)
	knownBy := func(want string) {
		t.Helper()
		out, err := c.Router(ctx, lab.SiteA, "status", "--json")
		check(t, err)
		var st struct {
			Directory struct {
				By    string    `json:"revocations_by"`
				Until time.Time `json:"new_calls_until"`
			}
		}
		check(t, json.Unmarshal([]byte(out), &st))
		if st.Directory.By != want || st.Directory.Until.IsZero() {
			t.Errorf("status: %+v, want %s", st.Directory, want)
		}
	}
	knownBy("directory")
	for _, what := range []string{"the directory is silent for too long", "new calls are refused"} {
		if n := logged(t, c, "ra", what); n != 0 {
			t.Errorf("%q, while nothing is the matter", what)
		}
	}

	check(t, c.Directory.Stop())
	says(t, c, 40*time.Second, "the directory is silent for too long: revocations are known by the CRL alone")
	says(t, c, 40*time.Second, "the CA is asked for its CRL while the directory is away")
	knownBy("crl")
	if _, err := c.CACommand(ctx, "user", "revoke", "alice"); err == nil || !strings.Contains(err.Error(), "recorded at the CA and in its CRL") {
		t.Errorf("revoking while the directory is away: %v", err)
	}
	revoked := time.Now()
	check(t, lab.Until(ctx, "the end of alice's call at both routers", 90*time.Second, func(ctx context.Context) error {
		for _, s := range []lab.Site{lab.SiteA, lab.SiteB} {
			st, err := c.Status(ctx, s)
			if err != nil {
				return err
			}
			if _, up := st.UserCall("alice"); up {
				return errors.New("it is up at " + s.Name)
			}
		}
		return nil
	}))
	t.Logf("it took %s", time.Since(revoked).Round(time.Second))
	mustNotPing(t, c, alice)
	mustPing(t, c, bob)

	check(t, c.CA.Stop())
	says(t, c, 90*time.Second, "new calls are refused: no word of revocations for too long")
	knownBy("none")
	out, err := c.Router(ctx, lab.SiteA, "status")
	check(t, err)
	if !strings.Contains(out, "NEW CALLS ARE REFUSED until it is heard; calls that are up go on until their certificates end") {
		t.Errorf("status:\n%s", out)
	}
	mustPing(t, c, bob)
	mustPing(t, c, lab.SiteA.Host)
	_, err = c.Router(ctx, lab.SiteA, "hangup", fmt.Sprint(siteCall(t, c, lab.SiteA).ID))
	check(t, err)
	check(t, lab.Until(ctx, "the refusal of a new call", 30*time.Second, func(ctx context.Context) error {
		out, err := c.Router(ctx, lab.SiteA, "status")
		if err == nil && !strings.Contains(out, "no word of revocations for too long: the directory was last heard") {
			err = errors.New(out)
		}
		return err
	}))
	mustNotPing(t, c, lab.SiteA.Host)
	mustPing(t, c, bob)

	check(t, c.ServeCA(ctx))
	says(t, c, 60*time.Second, "new calls are admitted again")
	pingsAgain(t, c, 60*time.Second)
	check(t, c.ServeDirectory(ctx))
	says(t, c, 60*time.Second, "the directory is heard again")
	knownBy("directory")
	mustPing(t, c, bob)
	mustNotPing(t, c, alice)
	says(t, c, time.Second, "the directory is silent for too long: revocations are known by the CRL alone")
	says(t, c, time.Second, "new calls are refused: no word of revocations for too long")
}
