package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/api"
	"twinkey/directory/client"
	"twinkey/pkg/cli"
	"twinkey/proto/secret"
)

func (c *company) locks(args ...string) (out api.Locks) {
	c.Helper()
	if err := json.Unmarshal(c.must(append(args, "--json")...), &out); err != nil {
		c.Fatal(err)
	}
	return out
}

// locksAtOnce has the CA lock after one wrong password.
func (c *company) locksAtOnce() {
	c.Helper()
	path := filepath.Join(c.dir, "ca", "ca.yaml")
	b, err := os.ReadFile(path) //nolint:gosec // a test
	if err != nil {
		c.Fatal(err)
	}
	strict := bytes.ReplaceAll(b, []byte("failures: 10"), []byte("failures: 1"))
	if bytes.Equal(b, strict) {
		c.Fatal("ca.yaml has no such line")
	}
	if err := os.WriteFile(path, strict, 0o600); err != nil {
		c.Fatal(err)
	}
	c.stop(&c.ca)
	c.startCA("")
}

// One command releases what both have counted, and the directory remembers who gave it.
func TestUnlock(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	c.locksAtOnce()
	id, d := c.router("berlin", "10.1.0.0/24")
	if err := c.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	if out := string(c.must("user", "unlock", "alice")); out != "nothing was locked at the CA and at the directory: nothing was changed\n" {
		t.Errorf("while nothing is: %q", out)
	}
	lock := func() {
		t.Helper()
		for range 10 {
			_, _ = d.Release(t.Context(), "alice", secret.New([]byte("wrong")))
		}
		if err := c.login(t.Context(), d, "alice"); !errors.Is(err, client.ErrLocked) {
			t.Fatalf("at the directory: %v", err)
		}
		if _, err := caclient.AskLogin(t.Context(), "https://"+c.caAddr, id, "alice", []byte("wrong")); !errors.Is(err, caclient.ErrDenied) {
			t.Fatalf("at the CA: %v", err)
		}
		if _, err := caclient.AskLogin(t.Context(), "https://"+c.caAddr, id, "alice", []byte("wrong")); !errors.Is(err, caclient.ErrLocked) {
			t.Fatalf("at the CA: %v", err)
		}
	}
	lock()
	at := map[string]string{}
	for _, l := range c.locks("locks").Locks {
		at[l.At] = l.String()
	}
	if at[api.AtDirectory] != "user alice" || at[api.AtCA] != "user alice at router berlin" || len(at) != 2 { // berlin has a local user asked about
		t.Errorf("locked: %v", at)
	}
	if out := string(c.must("locks")); !strings.Contains(out, "user alice at router berlin") || !strings.Contains(out, "directory") {
		t.Errorf("locks:\n%s", out)
	}
	if out := string(c.must("router", "unlock", "berlin")); !strings.Contains(out, "nothing was locked") {
		t.Errorf("the router: %q", out)
	}
	if got := c.locks("user", "unlock", "alice"); len(got.Locks) != 2 || got.Directory != "" {
		t.Errorf("released: %+v", got)
	}
	if err := c.login(t.Context(), d, "alice"); err != nil {
		t.Errorf("at the directory: %v", err)
	}
	if _, err := caclient.AskLogin(t.Context(), "https://"+c.caAddr, id, "alice", []byte("wrong")); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("at the CA: %v", err)
	}
	unlocked := func() []byte {
		t.Helper()
		b, err := exec.CommandContext(t.Context(), filepath.Join(c.directoryBin, "twinkey-directory"), "audit", "--dir", filepath.Join(c.dir, "directory"), "--kind", "unlocked", "--subject", "alice").CombinedOutput() //nolint:gosec // a test
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		return b
	}
	if audit := unlocked(); !bytes.Contains(audit, []byte("twinkey://ca for operator:")) || !bytes.Contains(audit, []byte("at the CA: user alice at router berlin")) || !bytes.Contains(audit, []byte(" user alice; it would have")) {
		t.Errorf("%s", audit)
	}

	// What makes no sense is refused.
	if _, err := c.run("user", "unlock", "Alice!"); exitCode(err) != cli.ExitUsage {
		t.Errorf("no UserID: %v", err)
	}

	// While the directory is away, and cannot note it, nothing is released, and the command says so.
	c.stop(&c.directory)
	out, err := c.run("user", "unlock", "alice", "--json")
	var done api.Locks
	if err := json.Unmarshal(out, &done); err != nil || len(done.Locks) != 0 || done.Directory == "" {
		t.Errorf("%+v, %v", done, err)
	}
	if exitCode(err) != cli.ExitUnavailable || !strings.Contains(err.Error(), "locks were not released, since the directory cannot note it") || !strings.Contains(err.Error(), "twinkey-directory unlock alice") {
		t.Errorf("without the directory: %v", err)
	}
	if out, err := c.run("user", "unlock", "alice"); exitCode(err) != cli.ExitUnavailable || len(out) != 0 {
		t.Errorf("without the directory: %v, %q", err, out)
	}
	if _, err := caclient.AskLogin(t.Context(), "https://"+c.caAddr, id, "alice", []byte("wrong")); !errors.Is(err, caclient.ErrLocked) {
		t.Errorf("what nobody noted is released: %v", err)
	}
	if _, err := c.run("locks"); exitCode(err) != cli.ExitUnavailable || !strings.Contains(err.Error(), "hint: on its machine: twinkey-directory locks") {
		t.Errorf("without the directory: %v", err)
	}
	c.startDirectory()
	if got := c.locks("user", "unlock", "alice"); len(got.Locks) != 1 || got.Locks[0].At != api.AtCA || got.Directory != "" {
		t.Errorf("when it is back: %+v", got)
	}
	if n := bytes.Count(unlocked(), []byte("at the CA: user alice at router berlin")); n != 2 {
		t.Errorf("%d records of two releases", n)
	}
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
