//go:build linux

package e2e

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// until is a pattern that goes on until a context ends, without filling the line.
type until struct {
	ctx context.Context
	pattern
}

func (u *until) Read(p []byte) (int, error) {
	select {
	case <-u.ctx.Done():
		return 0, io.EOF
	case <-time.After(time.Millisecond):
	}
	return u.pattern.Read(p[:min(len(p), 16<<10)])
}

// A user changes the password at one router while a transfer goes through the user's call: the transfer does not notice, the old
// password opens nothing any more, and the new one works at the other router too.
func TestPasswd(t *testing.T) {
	t.Parallel()
	c := company(t)
	ctx := t.Context()
	const first, second = "the first password", "the second password"
	file := func(name, password string) string {
		path := filepath.Join(c.Dir, name)
		check(t, os.WriteFile(path, []byte(password+"\n"), 0o600))
		return path
	}
	old, chosen, guess := file("old", first), file("chosen", second), file("guess", "a guess at it")
	alice := netip.MustParseAddr("10.1.1.3")
	check(t, c.AddUser(ctx, "alice", first))
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(alice, lab.SiteA.Users.Bits())))
	check(t, c.Login(ctx, lab.SiteA, "alice", alice, lab.SiteB.Name))
	before, _ := status(t, c, lab.SiteA).UserCall("alice")

	lasts, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		netlab.Transferred
		error
	}
	done := make(chan outcome, 1)
	go func() {
		tr, err := netlab.Transfer(ctx, c.HostB, c.HostA, alice, &until{lasts, pattern{seed: 4}})
		done <- outcome{tr, err}
	}()
	passwd := func(was, is string) error {
		_, err := c.Router(ctx, lab.SiteA, "passwd", "alice", "--password-file", was, "--new-password-file", is)
		return err
	}
	if err := passwd(guess, chosen); err == nil || !strings.Contains(err.Error(), "of alice refused") {
		t.Errorf("with a wrong old password: %v", err)
	}
	check(t, passwd(old, chosen))
	if err := passwd(old, guess); err == nil || !strings.Contains(err.Error(), "of alice refused") {
		t.Errorf("with the old password once more: %v", err)
	}
	time.Sleep(time.Second)
	stop()
	if tr := <-done; tr.error != nil || !tr.Intact() || tr.Bytes == 0 {
		t.Errorf("the transfer meanwhile: %d bytes, intact: %v, %v", tr.Bytes, tr.Intact(), tr.error)
	}
	if after, up := status(t, c, lab.SiteA).UserCall("alice"); !up || after.ID != before.ID {
		t.Errorf("her call was %d, and is %d", before.ID, after.ID)
	}

	if _, err := c.Router(ctx, lab.SiteA, "logout", "alice"); err != nil {
		t.Fatal(err)
	}
	login := func(at lab.Site, address, peer, password string) error {
		_, err := c.Router(ctx, at, "login", "alice", "--address", address, "--peer", peer, "--password-file", password)
		return err
	}
	for _, x := range []struct {
		at            lab.Site
		address, peer string
	}{{lab.SiteA, "10.1.1.3", lab.SiteB.Name}, {lab.SiteB, "10.2.1.3", lab.SiteA.Name}} {
		if err := login(x.at, x.address, x.peer, old); err == nil || !strings.Contains(err.Error(), "of alice refused") {
			t.Errorf("the old password at %s: %v", x.at.Name, err)
		}
		if err := login(x.at, x.address, x.peer, chosen); err != nil {
			t.Errorf("the new password at %s: %v", x.at.Name, err)
		}
		_, err := c.Router(ctx, x.at, "logout", "alice")
		check(t, err)
	}

	out, err := c.DirectoryCommand(ctx, "audit", "--kind", "password", "--subject", "alice", "--json")
	check(t, err)
	if !strings.Contains(out, `"actor": "twinkey://router/ra"`) || strings.Count(out, `"kind"`) != 1 || strings.Contains(out, first) || strings.Contains(out, second) {
		t.Errorf("audit: %s", out)
	}
	// The operator's last word does not bring the first password back.
	if _, err := c.CACommand(ctx, "user", "revoke", "alice"); err != nil {
		t.Error(err)
	}
	for _, password := range []string{old, chosen} {
		if err := login(lab.SiteA, "10.1.1.3", lab.SiteB.Name, password); err == nil || !strings.Contains(err.Error(), "of alice refused") {
			t.Errorf("login after the revocation: %v", err)
		}
	}
}
