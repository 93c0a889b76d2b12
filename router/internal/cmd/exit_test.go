package cmd

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"twinkey/pkg/cli"
)

// Exit codes are an interface: scripts and service managers act on them.
func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("lisen: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"open/identity": 0o755, "empty/identity": 0o700} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "../router.yaml"), []byte("state: "+filepath.Dir(path)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"--help"}, cli.ExitOK},
		{[]string{"version"}, cli.ExitOK},
		{[]string{"config", "example"}, cli.ExitOK},
		{[]string{"config", "check", bad}, cli.ExitConfig},
		{[]string{"up", "--config", bad}, cli.ExitConfig},
		{[]string{"up", "--config", filepath.Join(dir, "open/router.yaml")}, cli.ExitDenied},
		{[]string{"up", "--config", filepath.Join(dir, "empty/router.yaml")}, cli.ExitNotFound},
		{[]string{"enroll", "--dir", filepath.Join(dir, "open"), "--ca", "https://127.0.0.1:1", "--fingerprint", "00", "--token", "twinkey-router.a.b"}, cli.ExitDenied},
		{[]string{"bogus"}, cli.ExitUsage},
		{[]string{"status", "--bogus"}, cli.ExitUsage},
		{[]string{"status", "extra"}, cli.ExitUsage},
		{[]string{"hangup"}, cli.ExitUsage},
		{[]string{"hangup", "x", "--state", dir}, cli.ExitUsage},
		{[]string{"login", "alice", "--state", dir}, cli.ExitUsage},
		{[]string{"enroll", "--dir", dir}, cli.ExitUsage},
		{[]string{"passwd"}, cli.ExitUsage},
		{[]string{"passwd", "alice", "--state", dir, "--password-file", bad, "--new-password-file", filepath.Join(dir, "none")}, cli.ExitUsage},
		{[]string{"passwd", "alice", "--state", dir, "--password-file", bad, "--new-password-file", bad}, cli.ExitUnavailable},
		{[]string{"client", "--help"}, cli.ExitOK},
		{[]string{"client", "enroll", "alice", "--home", dir}, cli.ExitUsage},
		{[]string{"client", "enroll", "open/x", "--home", dir, "--ca", "https://127.0.0.1:1", "--fingerprint", "00", "--token", "twinkey-user.a.b"}, cli.ExitUsage},
		{[]string{"client", "renew", "alice", "--home", dir, "--password-file", bad}, cli.ExitNotFound},
		{[]string{"status", "--state", dir}, cli.ExitUnavailable},
		{[]string{"calls", "--json", "--state", dir}, cli.ExitUnavailable},
		{[]string{"reload", "--state", dir}, cli.ExitUnavailable},
		{[]string{"hangup", "1", "--state", dir}, cli.ExitUnavailable},
		{[]string{"client", "status", "--home", dir}, cli.ExitUnavailable},
		{[]string{"client", "logout", "--home", dir}, cli.ExitUnavailable},
		{[]string{"client", "login", "alice", "--home", dir}, cli.ExitUsage},
		{[]string{"client", "login", "alice", "--home", dir, "--router", "127.0.0.1:1", "--fingerprint", strings.Repeat("00", 32)}, cli.ExitUnavailable},
	} {
		root := Root()
		root.SetArgs(tt.args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if code := cli.Run(t.Context(), root); code != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.args, code, tt.code)
		}
	}
}
