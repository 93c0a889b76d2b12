package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"twinkey/directory/client"
	"twinkey/directory/internal/cmd"
	"twinkey/directory/internal/store/storetest"
	"twinkey/pkg/cli"
	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"twinkey-directory": func() { os.Exit(cli.Main(cmd.Root())) }})
}

// The scripts have besides the binary:
//
//	identity DIR URI        writes an identity of the company
//	ready                   waits until the server at $ADDR answers
//	router NAME             the CA adds a router
//	user UID                the CA adds a user of group staff
//	revoke UID              the CA revokes the user's certificate
//	bundle UID there|gone   a router that may ask for UID gets its keys, or is denied
//	wrong UID N             that router asks N times with a wrong password; % in UID is how often it has
//	locked UID              and hears that logins of UID are locked there
//	signal TERM|HUP         to the server
//	flip FILE               changes every byte of a database but its meta pages
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Setenv("ADDR", l.Addr().String())
			e.Setenv("GORACE", "atexit_sleep_ms=0") // or each run of a binary with the race detector takes a second
			e.Values["company"] = &company{Company: storetest.NewCompany(t, time.Now()), url: "https://" + l.Addr().String(), users: make(map[string]storetest.User)}
			return l.Close()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"identity": command(2, func(ts *testscript.TestScript, c *company, args []string) error {
				_, err := c.identity(ts.MkAbs(args[0]), args[1], nil)
				return err
			}),
			"ready":  command(0, func(_ *testscript.TestScript, c *company, _ []string) error { return c.ready() }),
			"router": command(1, func(_ *testscript.TestScript, c *company, args []string) error { return c.addRouter(args[0]) }),
			"user": command(1, func(_ *testscript.TestScript, c *company, args []string) error {
				c.users[args[0]] = c.NewUser(args[0], "staff", "x")
				return c.apply(c.users[args[0]].Change())
			}),
			"revoke": command(1, func(_ *testscript.TestScript, c *company, args []string) error {
				return c.apply(c.Revoke(args[0], twincert.User, c.users[args[0]].Twin.ID()))
			}),
			"bundle": command(2, func(_ *testscript.TestScript, c *company, args []string) error { return c.bundle(args[0], args[1]) }),
			"wrong":  command(2, func(_ *testscript.TestScript, c *company, args []string) error { return c.wrong(args[0], args[1]) }),
			"locked": command(1, func(_ *testscript.TestScript, c *company, args []string) error {
				if _, err := c.asker.Release(context.Background(), args[0], c.users[args[0]].Auth); !errors.Is(err, client.ErrLocked) {
					return fmt.Errorf("%s is not locked: %w", args[0], err)
				}
				return nil
			}),
			"signal": command(1, func(ts *testscript.TestScript, _ *company, args []string) error {
				return hit(ts.BackgroundCmds(), map[string]os.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]])
			}),
			"flip": command(1, func(ts *testscript.TestScript, _ *company, args []string) error { return flip(ts.MkAbs(args[0])) }),
		},
	})
}

func command(n int, f func(*testscript.TestScript, *company, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != n {
			ts.Fatalf("wants %d arguments", n)
		}
		ts.Check(f(ts, ts.Value("company").(*company), args))
	}
}

type company struct {
	*storetest.Company
	url   string
	users map[string]storetest.User
	asker *client.Client // a router with scope *
}

func (c *company) identity(dir, uri string, r *storetest.Router) (*identity.Identity, error) {
	roots, inter := c.Anchors()
	b := identity.Bundle{Roots: roots, Intermediates: inter, TLS: c.TLS(uri), Control: secret.Key{}, Data: secret.Key{}}
	if r != nil {
		b.Twin, b.Control, b.Data = r.Twin, r.Control, r.Data
	}
	return identity.Create(dir, b)
}

func (c *company) client(uri string, r *storetest.Router) (*client.Client, error) {
	dir, err := os.MkdirTemp("", "twinkey-test")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	id, err := c.identity(filepath.Join(dir, "identity"), uri, r)
	if err != nil {
		return nil, err
	}
	return client.New(c.url, id.ClientTLS("twinkey://directory")), nil
}

func (c *company) ready() error {
	ca, err := c.client("twinkey://ca", nil)
	if err != nil {
		return err
	}
	for range 500 {
		if err = ca.Health(context.Background()); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func (c *company) apply(ch client.Change) error {
	ca, err := c.client("twinkey://ca", nil)
	if err != nil {
		return err
	}
	defer ca.CloseIdle()
	return ca.Apply(context.Background(), ch)
}

func (c *company) addRouter(name string) error {
	r := c.NewRouter(name, []string{"*"}, "10.1.0.0/16")
	if err := c.apply(r.Change()); err != nil {
		return err
	}
	var err error
	c.asker, err = c.client("twinkey://router/"+name, &r)
	return err
}

func (c *company) bundle(uid, want string) error {
	_, err := c.asker.Release(context.Background(), uid, c.users[uid].Auth)
	if there := err == nil; there != (want == "there") {
		return fmt.Errorf("wanted the keys of %s to be %s: %w", uid, want, err)
	}
	return nil
}

func (c *company) wrong(uid, times string) error {
	n, err := strconv.Atoi(times)
	for i := range n {
		if _, err := c.asker.Release(context.Background(), strings.ReplaceAll(uid, "%", strconv.Itoa(i)), secret.New([]byte("wrong"))); !errors.Is(err, client.ErrDenied) && !errors.Is(err, client.ErrLocked) {
			return err
		}
	}
	return err
}

// hit sends a signal to the one process that still runs.
func hit(cmds []*exec.Cmd, sig os.Signal) error {
	for _, c := range cmds {
		if c.ProcessState == nil {
			return c.Process.Signal(sig)
		}
	}
	return errors.New("nothing runs")
}

func flip(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i := 2 * os.Getpagesize(); i < len(b); i++ { // behind the meta pages: the file looks sound from afar
		b[i] ^= 0x55
	}
	return os.WriteFile(name, b, 0o600)
}

func TestHelpNamesEverySetting(t *testing.T) {
	var out strings.Builder
	root := cmd.Root()
	root.SetOut(&out)
	root.SetArgs([]string{"serve", "--help"})
	if code := cli.Run(t.Context(), root); code != cli.ExitOK {
		t.Fatalf("exit code %d", code)
	}
	for _, key := range []string{"listen:", "ca:", "renew-at:", "heartbeat:", "watchers:", "user-failures:", "max-lock:"} {
		if !strings.Contains(out.String(), key) {
			t.Errorf("no %s in\n%s", key, out.String())
		}
	}
}
