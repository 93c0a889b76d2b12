//go:build linux

package e2e

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/scripts/lab"
)

// Who was logged in where, when, on which certificate, how much went through and why it ended: from both routers, also when the
// directory was away meanwhile, and in a chain that verifies.
func TestAccounting(t *testing.T) {
	t.Parallel()
	c := company(t)
	ctx := t.Context()
	alice := user(t, c, "alice", "10.1.1.3")
	mustPing(t, c, alice)
	check(t, c.Directory.Stop())
	if _, err := c.Router(ctx, lab.SiteA, "logout", "alice"); err != nil {
		t.Fatal(err)
	}
	check(t, c.ServeDirectory(ctx))
	want := map[string]string{ // by actor: what is said of alice
		"twinkey://router/ra": `^call \d+ to rb up at \S+, address 10\.1\.1\.3, aes256-gcm, certificate \S+\ncall \d+ to rb down at \S+, address 10\.1\.1\.3 after \d+s, in [1-9]\d* bytes [1-9]\d* packets, out [1-9]\d* bytes [1-9]\d* packets: hung up by the operator$`,
		"twinkey://router/rb": `^call \d+ from ra up at \S+, address 10\.1\.1\.3, aes256-gcm, certificate \S+\ncall \d+ from ra down at \S+, address 10\.1\.1\.3 after \d+s, in [1-9]\d* bytes [1-9]\d* packets, out [1-9]\d* bytes [1-9]\d* packets: .*$`,
	}
	var out string
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		var err error
		out, err = c.DirectoryCommand(ctx, "audit", "--kind", "call", "--subject", "alice", "--json")
		check(t, err)
		var records []struct{ Actor, Detail string }
		check(t, json.Unmarshal([]byte(out), &records))
		got := map[string][]string{}
		for _, r := range records {
			got[r.Actor] = append(got[r.Actor], r.Detail)
		}
		if !slices.ContainsFunc([]string{"twinkey://router/ra", "twinkey://router/rb"}, func(a string) bool {
			return !regexp.MustCompile(want[a]).MatchString(strings.Join(got[a], "\n"))
		}) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("noted: %s", out)
		}
	}
	if out, err := c.DirectoryCommand(ctx, "audit", "verify"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
