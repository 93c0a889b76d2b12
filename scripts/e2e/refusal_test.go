//go:build linux

package e2e

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/scripts/lab"
)

// What is refused, and in which words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	c := company(t)
	ctx := t.Context()
	config := filepath.Join(c.Dir, lab.SiteA.Name+".yaml")
	good, err := os.ReadFile(config)
	check(t, err)
	expect := func(t *testing.T, out string, err error, words ...string) {
		t.Helper()
		if err == nil {
			t.Fatalf("it was taken:\n%s", out)
		}
		for _, w := range words {
			if !strings.Contains(err.Error()+out, w) {
				t.Errorf("no %q in: %v", w, err)
			}
		}
	}
	up := func() (string, error) {
		return lab.Run(ctx, c.RA, os.Getenv(lab.BinEnv)+"/twinkey-router", "up", "--config", config)
	}
	t.Run("a second router on the same state", func(t *testing.T) {
		out, err := up()
		expect(t, out, err, "in use by another process")
	})
	t.Run("a prefix that no certificate covers, on reload", func(t *testing.T) {
		bad := strings.Replace(string(good), lab.SiteA.LAN.String(), "10.66.0.0/24", 1)
		check(t, os.WriteFile(config, []byte(bad), 0o600))
		out, err := c.Router(ctx, lab.SiteA, "reload")
		expect(t, out, err, "no certificate covers", "10.66.0.0/24")
		check(t, os.WriteFile(config, good, 0o600))
	})
	t.Run("a key that nobody knows, on SIGHUP", func(t *testing.T) {
		check(t, os.WriteFile(config, append([]byte("sitee: {}\n"), good...), 0o600))
		before := siteCall(t, c, lab.SiteA)
		check(t, c.Routers[lab.SiteA.Name].Signal(unix.SIGHUP))
		time.Sleep(300 * time.Millisecond)
		if after := siteCall(t, c, lab.SiteA); after.ID != before.ID {
			t.Error("the link was lost by a bad configuration")
		}
		if tail := c.Routers[lab.SiteA.Name].Tail(); !strings.Contains(tail, "did you mean site") {
			t.Errorf("the log says nothing of it:\n%s", tail)
		}
		check(t, os.WriteFile(config, good, 0o600))
	})
	t.Run("a wrong password", func(t *testing.T) {
		user(t, c, "dave", "10.1.1.6")
		check(t, os.WriteFile(filepath.Join(c.Dir, "dave.password"), []byte("guess"), 0o600))
		if _, err := c.Router(ctx, lab.SiteA, "logout", "dave"); err != nil {
			t.Error(err)
		}
		out, err := c.Router(ctx, lab.SiteA, "login", "dave", "--address", "10.1.1.6", "--peer", lab.SiteB.Name, "--password-file", filepath.Join(c.Dir, "dave.password"))
		expect(t, out, err, "login of dave refused")
		out, err2 := c.Router(ctx, lab.SiteA, "login", "nobody", "--address", "10.1.1.7", "--peer", lab.SiteB.Name, "--password-file", filepath.Join(c.Dir, "dave.password"))
		expect(t, out, err2, "login of nobody refused")
		if a, b := err.Error(), err2.Error(); strings.ReplaceAll(strings.ReplaceAll(a, "dave", "X"), "10.1.1.6", "A") != strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(b, "nobody", "X"), "10.1.1.7", "A"), "dave", "X") {
			t.Errorf("the answer tells known from unknown users:\n%s\n%s", a, b)
		}
	})
	t.Run("too many wrong passwords, until the operator ends the lock", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 10 { // at once: each refusal takes its time
			wg.Go(func() {
				_, _ = c.Router(ctx, lab.SiteA, "login", "dave", "--address", "10.1.1.6", "--peer", lab.SiteB.Name, "--password-file", filepath.Join(c.Dir, "dave.password"))
			})
		}
		wg.Wait()
		const right = "the right password of dave"
		check(t, os.WriteFile(filepath.Join(c.Dir, "dave.right"), []byte(right), 0o600))
		login := func() (string, error) {
			return c.Router(ctx, lab.SiteA, "login", "dave", "--address", "10.1.1.6", "--peer", lab.SiteB.Name, "--password-file", filepath.Join(c.Dir, "dave.right"))
		}
		_, err := c.CACommand(ctx, "user", "renew", "dave", "--password-file", filepath.Join(c.Dir, "dave.right"))
		check(t, err)
		out, err := login()
		expect(t, out, err, "locked after too many tries", "twinkey-ca user unlock dave")
		out, err = c.CACommand(ctx, "locks")
		check(t, err)
		if !strings.Contains(out, "user dave") {
			t.Errorf("locks:\n%s", out)
		}
		out, err = c.CACommand(ctx, "user", "unlock", "dave")
		check(t, err)
		if !strings.Contains(out, "unlocked: user dave") {
			t.Errorf("unlock:\n%s", out)
		}
		out, err = login()
		check(t, err)
		if !strings.Contains(out, "dave") {
			t.Errorf("login:\n%s", out)
		}
		out, err = c.DirectoryCommand(ctx, "audit", "--kind", "unlocked")
		check(t, err)
		if !strings.Contains(out, "twinkey://ca for operator:root") || !strings.Contains(out, "user dave; it would have lasted until") {
			t.Errorf("audit:\n%s", out)
		}
	})
	t.Run("an address that is not ours", func(t *testing.T) {
		check(t, c.AddUser(ctx, "carol", rand.Text()))
		out, err := c.Router(ctx, lab.SiteA, "login", "carol", "--address", "10.9.9.9", "--peer", lab.SiteB.Name, "--password-file", filepath.Join(c.Dir, "carol.password"))
		expect(t, out, err, "the address is not one that this router is certified for", "name the address that the user's machine has")
	})
	t.Run("a revoked router", func(t *testing.T) {
		if _, err := c.CACommand(ctx, "router", "revoke", lab.SiteB.Name); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(10 * time.Second)
		for {
			if _, up := status(t, c, lab.SiteA).SiteCall(); !up {
				break
			}
			if time.Now().After(end) {
				t.Fatal("its site link is still up")
			}
			time.Sleep(50 * time.Millisecond)
		}
		mustNotPing(t, c, lab.SiteA.Host)
	})
}
