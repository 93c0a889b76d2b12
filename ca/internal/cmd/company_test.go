package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/api"
	"twinkey/directory/client"
	"twinkey/pkg/cli"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
)

// killEnv names the step at which the twinkey-ca of the tests is killed, as a power cut
// would, such as "adding user alice: applied".
const killEnv = "TWINKEY_CA_KILL_AT"

func TestMain(m *testing.M) {
	// A binary under the race detector would sleep for a second at each exit.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"twinkey-ca": func() {
		at := func(what, step string) {
			if os.Getenv(killEnv) == what+": "+step {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				time.Sleep(time.Hour) // the signal is on its way
			}
		}
		os.Exit(cli.Main(root(at)))
	}})
}

// directoryBinary builds the real directory.
func directoryBinary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "twinkey-directory"), "twinkey/directory").CombinedOutput(); err != nil { //nolint:gosec // constants
		t.Fatalf("building the directory: %v\n%s", err, out)
	}
	return dir
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// company is a CA and a directory as processes, and routers as clients of them.
type company struct {
	*testing.T
	dir                string
	caAddr, dirAddr    string
	fingerprint        string
	ca, directory      *exec.Cmd
	directoryBin       string
	caLog, directoryLg *bytes.Buffer
}

func newCompany(t *testing.T, directoryBin string) *company {
	t.Helper()
	c := &company{T: t, dir: t.TempDir(), caAddr: freeAddr(t), dirAddr: freeAddr(t), directoryBin: directoryBin}
	_, port, err := net.SplitHostPort(c.caAddr)
	if err != nil {
		t.Fatal(err)
	}
	out := c.must("init", "--dns", "127.0.0.1", "--port", port, "--directory", "https://"+c.dirAddr, "--json")
	var made struct{ Fingerprint string }
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	c.fingerprint = made.Fingerprint
	c.impatient()
	t.Cleanup(func() {
		c.stop(&c.ca)
		c.stop(&c.directory)
		if t.Failed() {
			t.Logf("CA:\n%s\ndirectory:\n%s", c.caLog, c.directoryLg)
		}
	})
	c.startCA("")
	tok := c.token("directory", "token")
	enrol := exec.Command(filepath.Join(directoryBin, "twinkey-directory"), "enroll", "--ca", "https://"+c.caAddr, "--fingerprint", c.fingerprint, //nolint:gosec // a test
		"--token", tok, "--dir", filepath.Join(c.dir, "directory"))
	if out, err := enrol.CombinedOutput(); err != nil {
		t.Fatalf("enrolling the directory: %v\n%s", err, out)
	}
	c.startDirectory()
	return c
}

// impatient lets commands give up on the directory soon.
func (c *company) impatient() {
	c.Helper()
	path := filepath.Join(c.dir, "ca", "ca.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("patience: 10s"), []byte("patience: 2s")), 0o600); err != nil {
		c.Fatal(err)
	}
}

func (c *company) startCA(killAt string) {
	c.Helper()
	cmd := exec.Command("twinkey-ca", "serve", "--dir", filepath.Join(c.dir, "ca"), "--listen", c.caAddr) //nolint:gosec // a test
	cmd.Env = append(os.Environ(), killEnv+"="+killAt)
	c.caLog = &bytes.Buffer{}
	c.ca = c.start(cmd, c.caLog)
	c.until("the CA", func() error {
		_, err := c.run("status")
		return err
	})
}

func (c *company) startDirectory() {
	c.Helper()
	cmd := exec.Command(filepath.Join(c.directoryBin, "twinkey-directory"), "serve", "--dir", filepath.Join(c.dir, "directory"), "--listen", c.dirAddr) //nolint:gosec // a test
	c.directoryLg = &bytes.Buffer{}
	c.directory = c.start(cmd, c.directoryLg)
	c.until("the directory", func() error {
		conn, err := net.Dial("tcp", c.dirAddr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (c *company) start(cmd *exec.Cmd, log *bytes.Buffer) *exec.Cmd {
	c.Helper()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	return cmd
}

func (c *company) stop(p **exec.Cmd) {
	if *p == nil {
		return
	}
	_ = (*p).Process.Signal(syscall.SIGTERM) // it may be gone
	_ = (*p).Wait()
	*p = nil
}

// killed waits for the CA to have been killed.
func (c *company) killed() {
	c.Helper()
	err := c.ca.Wait()
	c.ca = nil
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:errcheck // on Linux it is one
		c.Fatalf("the CA was not killed: %v", err)
	}
}

func (c *company) until(what string, f func() error) {
	c.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	c.Fatalf("%s: %v", what, err)
}

// run runs a subcommand of twinkey-ca.
func (c *company) run(args ...string) ([]byte, error) {
	cmd := exec.Command("twinkey-ca", append(args, "--dir", filepath.Join(c.dir, "ca"))...) //nolint:gosec // a test
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out, err
}

func (c *company) must(args ...string) []byte {
	c.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

func (c *company) token(args ...string) string {
	c.Helper()
	var t api.Token
	if err := json.Unmarshal(c.must(append(args, "--json")...), &t); err != nil || t.Secret == "" {
		c.Fatalf("no token: %v", err)
	}
	return t.Secret
}

func (c *company) addUser(uid string) error {
	c.Helper()
	file := filepath.Join(c.dir, uid+".password")
	if err := os.WriteFile(file, []byte("password of "+uid+"\n"), 0o600); err != nil {
		c.Fatal(err)
	}
	_, err := c.run("user", "add", uid, "--group", "staff", "--password-file", file)
	return err
}

func (c *company) user(uid string) (u api.User, ok bool) {
	c.Helper()
	var users []api.User
	if err := json.Unmarshal(c.must("user", "list", "--json"), &users); err != nil {
		c.Fatal(err)
	}
	for _, u := range users {
		if u.UID == uid {
			return u, true
		}
	}
	return u, false
}

// router enrols one and returns its identity and its view of the directory.
func (c *company) router(name, prefix string) (*identity.Identity, *client.Client) {
	c.Helper()
	tok := c.token("router", "token", name, "--prefix", prefix, "--scope", "group:staff")
	b, ends, err := caclient.Enroll(c.Context(), "https://"+c.caAddr, c.fingerprint, tok, caclient.Options{})
	if err != nil {
		c.Fatal(err)
	}
	id, err := identity.Create(filepath.Join(c.dir, name), b)
	if err != nil {
		c.Fatal(err)
	}
	d := client.New(ends.DirectoryURL, id.ClientTLS("twinkey://directory"))
	c.Cleanup(d.CloseIdle)
	return id, d
}

// login fetches a user's keys from the directory as a router does and opens them.
func (c *company) login(ctx context.Context, d *client.Client, uid string) error {
	params, err := d.LoginParams(ctx, uid)
	if err != nil {
		return err
	}
	proof, err := keybundle.Derive([]byte("password of "+uid), params.Params)
	if err != nil {
		return err
	}
	defer proof.Wipe()
	r, err := d.Release(ctx, uid, proof.Auth)
	if err != nil {
		return err
	}
	k, err := keybundle.Open(r.Sealed, proof.Seal, r.Certificate)
	if err == nil && r.Successor != nil {
		_, err = keybundle.OpenControl(r.Successor.Sealed, k.Data, r.Successor.Certificate)
	}
	return err
}

// group is what the CA says of the group staff.
func (c *company) group() (g api.Group) {
	c.Helper()
	var all []api.Group
	if err := json.Unmarshal(c.must("group", "list", "--json"), &all); err != nil {
		c.Fatal(err)
	}
	for _, g = range all {
		if g.Name == "staff" {
			return g
		}
	}
	c.Fatalf("no such group: %+v", all)
	return g
}

// A rotation against the real directory, the CA killed in the middle of it: it goes on by itself, the old certificates are revoked by themselves,
// and everybody can log in all the while.
func TestRotationOfAGroup(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	_, d := c.router("berlin", "10.1.0.0/24")
	users := []string{"alice", "bob"}
	for _, uid := range users {
		if err := c.addUser(uid); err != nil {
			t.Fatal(err)
		}
	}
	old := c.group().Fingerprint
	everybody := func() {
		t.Helper()
		for _, uid := range users {
			if err := c.login(t.Context(), d, uid); err != nil {
				t.Errorf("%s: %v", uid, err)
			}
		}
	}
	for i, step := range []string{"certifying users of group staff over its new key: applied", "revoking old certificates of group staff: prepared"} {
		c.stop(&c.ca)
		c.startCA(step)
		_, _ = c.run("group", "rotate", "staff", "--now") // the CA dies under it, sooner or later
		c.killed()
		everybody()
		c.startCA("")
		c.until("the end of the rotation after "+step, func() error {
			if g := c.group(); g.Fingerprint == old || g.Old > 0 || g.Left > 0 || g.Rotating || !g.RevokeAt.IsZero() {
				return fmt.Errorf("%+v", g)
			}
			return nil
		})
		everybody()
		var certs []api.CertState
		if err := json.Unmarshal(c.must("cert", "list", "--user", "alice", "--json"), &certs); err != nil {
			t.Fatal(err)
		}
		current := 0
		for _, x := range certs {
			if x.Current != (x.State == api.StateActive) {
				t.Errorf("%+v", x)
			}
			if x.Current {
				current++
			}
		}
		if current != 1 || len(certs) != i+2 {
			t.Errorf("%d certificates, %d of them current", len(certs), current)
		}
		old = c.group().Fingerprint
	}
}

func TestCompany(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	id, d := c.router("berlin", "10.1.0.0/24")
	ctx := t.Context()

	if err := d.Announce(ctx, "192.0.2.1:1701", []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}); err != nil {
		t.Errorf("announcing: %v", err)
	}
	if err := d.Announce(ctx, "192.0.2.1:1701", []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}); !errors.Is(err, client.ErrDenied) {
		t.Errorf("announcing what the certificate does not cover: %v", err)
	}
	if err := c.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	if err := c.login(ctx, d, "alice"); err != nil {
		t.Errorf("login: %v", err)
	}

	old := id.Bundle()
	renewed, err := caclient.Renew(ctx, "https://"+c.caAddr, id, caclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Replace(renewed); err != nil {
		t.Fatal(err)
	}
	if renewed.Twin.Keys == old.Twin.Keys || renewed.Twin.ID() == old.Twin.ID() || renewed.TLS.Leaf.Equal(old.TLS.Leaf) {
		t.Error("a renewal means new keys and new certificates")
	}
	d.CloseIdle()
	sites, _, err := d.Sites(ctx)
	if err != nil || len(sites) != 1 || sites[0].ID != renewed.Twin.ID() || len(sites[0].Prefixes) != 1 {
		t.Errorf("sites after the renewal: %+v, %v", sites, err)
	}
	if err := c.login(ctx, d, "alice"); err != nil {
		t.Errorf("login after the renewal: %v", err)
	}

	c.must("user", "revoke", "alice", "--reason", "left")
	if err := c.login(ctx, d, "alice"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("login of a revoked user: %v", err)
	}
	c.must("router", "revoke", "berlin", "--reason", "stolen")
	if _, _, err := d.Sites(ctx); !errors.Is(err, client.ErrDenied) {
		t.Errorf("a revoked router asks: %v", err)
	}
	if _, err := caclient.Renew(ctx, "https://"+c.caAddr, id, caclient.Options{}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("a revoked router renews: %v", err)
	}
	// The name is free again: another box takes its place.
	if err := os.RemoveAll(filepath.Join(c.dir, "berlin")); err != nil {
		t.Fatal(err)
	}
	_, again := c.router("berlin", "10.1.0.0/24")
	if sites, _, err := again.Sites(ctx); err != nil || len(sites) != 1 {
		t.Errorf("the new router asks: %+v, %v", sites, err)
	}
}

// Real processes, really killed, against the real directory: the user's certificate, keys
// and record are there together or not at all.
func TestKilledAtEveryStep(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	_, d := c.router("berlin", "10.1.0.0/24")
	for i, step := range []string{"journalled", "applied", "recorded", "done"} {
		uid := fmt.Sprintf("user%d", i)
		c.stop(&c.ca)
		c.startCA("adding user " + uid + ": " + step)
		if err := c.addUser(uid); err == nil {
			t.Fatalf("%s: the command succeeded though the CA was killed", step)
		}
		c.killed()
		// Whatever there is now is whole.
		err := c.login(t.Context(), d, uid)
		if there := err == nil; there != (step != "journalled") || !there && !errors.Is(err, client.ErrDenied) {
			t.Errorf("killed when %s, login: %v", step, err)
		}
		c.startCA("")
		c.until("carrying on after "+step, func() error { return c.login(t.Context(), d, uid) })
		c.until("the CA's own list after "+step, func() error {
			if u, ok := c.user(uid); !ok || u.State != api.StateActive {
				return fmt.Errorf("%+v", u)
			}
			return nil
		})
	}
	c.stop(&c.ca)
	c.startCA("revoking user user0: journalled")
	if _, err := c.run("user", "revoke", "user0"); err == nil {
		t.Fatal("the command succeeded though the CA was killed")
	}
	c.killed()
	c.startCA("")
	c.until("the revocation", func() error {
		if err := c.login(t.Context(), d, "user0"); !errors.Is(err, client.ErrDenied) {
			return fmt.Errorf("login: %w", err)
		}
		return nil
	})
}

func TestDirectoryDown(t *testing.T) {
	c := newCompany(t, directoryBinary(t))
	_, d := c.router("berlin", "10.1.0.0/24")
	if err := c.addUser("alice"); err != nil {
		t.Fatal(err)
	}
	c.stop(&c.directory)
	err := c.addUser("bob")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != cli.ExitUnavailable || !strings.Contains(err.Error(), "nothing was issued") {
		t.Errorf("adding a user: %v", err)
	}
	var done api.Revoked
	out, err := c.run("user", "revoke", "alice", "--json")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != cli.ExitPending || !strings.Contains(err.Error(), "recorded at the CA") || !strings.Contains(err.Error(), "hint: bring the directory back") {
		t.Errorf("revoking: %v", err)
	}
	if err := json.Unmarshal(out, &done); err != nil || done.Told || done.Certificates != 1 {
		t.Errorf("revoking: %+v, %v", done, err)
	}
	if u, _ := c.user("alice"); u.State != api.StateRevoked {
		t.Errorf("alice is %s", u.State)
	}
	c.startDirectory()
	c.until("the revocation", func() error {
		if err := c.login(t.Context(), d, "alice"); !errors.Is(err, client.ErrDenied) {
			return fmt.Errorf("login: %w", err)
		}
		return nil
	})
	if _, ok := c.user("bob"); ok {
		t.Error("bob appeared after all")
	}
	if err := c.addUser("bob"); err != nil {
		t.Errorf("now that it is back: %v", err)
	}
	// A directory that hangs: it takes connections and answers nothing.
	if err := c.directory.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := c.addUser("carol"); err == nil {
		t.Error("carol was added to a directory that hangs")
	}
	if err := c.directory.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.until("carol is everywhere or nowhere", func() error {
		var s api.Status
		if err := json.Unmarshal(c.must("status", "--json"), &s); err != nil {
			return err
		}
		if len(s.Pending) > 0 {
			return fmt.Errorf("pending: %+v", s.Pending)
		}
		return nil
	})
	_, listed := c.user("carol")
	if err := c.login(t.Context(), d, "carol"); (err == nil) != listed {
		t.Errorf("the CA lists her: %v, login: %v", listed, err)
	}
}
