//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// Certificates that live for two minutes are renewed at a quarter of that, at both ends,
// and nobody on the LANs notices: no ping is lost while old calls give way to new ones.
func TestRenewalLosesNothing(t *testing.T) {
	c := network(t)
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	check(t, c.CA.Stop())
	shorten(t, filepath.Join(c.Dir, "ca", "ca.yaml"), "router: 2m")
	check(t, c.ServeCA(ctx))
	check(t, c.StartDirectory(ctx))
	check(t, c.StartRouter(ctx, lab.SiteA, "renewal:\n  at: 0.25\n"))
	check(t, c.StartRouter(ctx, lab.SiteB, "renewal:\n  at: 0.25\n"))
	check(t, c.WaitLink(ctx))
	a, b := twinSerial(t, c, lab.SiteA), twinSerial(t, c, lab.SiteB)
	lost, sent := 0, 0
	end := time.Now().Add(100 * time.Second)
	for time.Now().Before(end) {
		pong, err := c.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, Count: 100, Interval: 5 * time.Millisecond})
		check(t, err)
		lost, sent = lost+pong.Sent-pong.Received, sent+pong.Sent
		if twinSerial(t, c, lab.SiteA) != a && twinSerial(t, c, lab.SiteB) != b {
			if time.Until(end) > 8*time.Second {
				end = time.Now().Add(8 * time.Second) // long enough for the old calls to go
			}
		}
	}
	if twinSerial(t, c, lab.SiteA) == a || twinSerial(t, c, lab.SiteB) == b {
		t.Error("not renewed in time")
	}
	if lost > 0 {
		t.Errorf("%d of %d pings were lost", lost, sent)
	}
}

// A box that slept past the expiry of its certificates renews when it wakes, as long as
// the CA's grace lets it, and its link comes back.
func TestSleptPastExpiry(t *testing.T) {
	c := network(t)
	ctx := t.Context()
	check(t, c.StartCA(ctx))
	check(t, c.StartDirectory(ctx))
	check(t, c.CA.Stop())
	shorten(t, filepath.Join(c.Dir, "ca", "ca.yaml"), "router: 1m", "tls: 1m") // of the routers: the others have theirs
	check(t, c.ServeCA(ctx))
	check(t, c.StartRouter(ctx, lab.SiteA, ""))
	check(t, c.StartRouter(ctx, lab.SiteB, ""))
	check(t, c.WaitLink(ctx))
	p := c.Routers[lab.SiteA.Name]
	check(t, p.Pause())
	time.Sleep(65 * time.Second) // it is the wall clock that certificates know
	check(t, p.Continue())
	pingsAgain(t, c, 60*time.Second)
}

// shorten sets keys of the section validity in ca.yaml.
func shorten(t *testing.T, file string, lines ...string) {
	t.Helper()
	b, err := os.ReadFile(file)
	check(t, err)
	for _, l := range lines {
		key, _, _ := strings.Cut(l, ":")
		found := false
		var out []string
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(strings.TrimSpace(line), key+":") {
				line, found = "  "+l+"\n", true
			}
			out = append(out, line)
		}
		if !found {
			t.Fatalf("no key %s in %s:\n%s", key, file, b)
		}
		b = []byte(strings.Join(out, ""))
	}
	check(t, os.WriteFile(file, b, 0o600))
}

// twinSerial is the serial number of a router's present twin certificate.
func twinSerial(t *testing.T, c *lab.Company, s lab.Site) string {
	t.Helper()
	out, err := c.Router(t.Context(), s, "status", "--json")
	check(t, err)
	var st struct {
		Certificates []struct {
			Kind   string `json:"kind"`
			Serial string `json:"serial"`
		} `json:"certificates"`
	}
	check(t, json.Unmarshal([]byte(out), &st))
	for _, x := range st.Certificates {
		if x.Kind == "twin" {
			return x.Serial
		}
	}
	t.Fatalf("no twin certificate in %s", out)
	return ""
}
