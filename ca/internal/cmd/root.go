package cmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/api"
	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/home"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/pkg/cli"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
)

const defaultDir = "/var/lib/twinkey-ca"

// Main runs the command line of this process and returns its exit code.
func Main() int { return cli.Main(Root()) }

// Root returns the command line.
func Root() *cobra.Command { return root(nil) }

// root returns the command line; at is issue.Config.At.
func root(at func(what, step string)) *cobra.Command {
	c := cli.New(cli.Program{
		Name:  "twinkey-ca",
		Short: "The company's certificate authority",
		Long: `twinkey-ca issues the certificates that routers and users are known by: TLS
certificates, and twin certificates with one key for control and one for data.
Whatever it issues or revokes it puts into the directory in the same operation,
all of it or nothing.`,
		Example: `  twinkey-ca init --dir /var/lib/twinkey-ca --name "Example Corp" --dns ca.example --directory https://directory.example:8702
  twinkey-ca serve --dir /var/lib/twinkey-ca
  twinkey-ca directory token
  twinkey-ca router token berlin --prefix 10.1.0.0/24 --scope group:staff
  twinkey-ca user add alice --group staff`,
	})
	c.AddCommand(initCommand(), serveCommand(at), userCommand(), groupCommand(), routerCommand(), directoryCommand(), sourceCommand(), tlsCommand(), certCommand(), crlCommand(), statusCommand(), locksCommand())
	return c
}

func addDir(c *cobra.Command) *string {
	return c.Flags().String("dir", defaultDir, "directory of the CA")
}

// group is a command that only has subcommands.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(subs...)
	return c
}

// fail puts an error into three parts.
func fail(what string, err error) error {
	code, hint := cli.ExitFailure, "the log of twinkey-ca serve, and twinkey-ca status, say more"
	if _, ok := errors.AsType[*cli.Error](err); ok {
		return cli.Within(what, err)
	}
	if e, ok := errors.AsType[*identity.PermissionsError](err); ok {
		return cli.Fail(cli.ExitDenied, what, err, e.Hint())
	}
	for _, k := range []struct {
		err  error
		code int
		hint string
	}{
		{api.ErrNotRunning, cli.ExitUnavailable, "start it with: twinkey-ca serve --dir DIR"},
		{ledger.ErrInUse, cli.ExitInUse, "another twinkey-ca runs on this directory; stop it first, and use --dir for another CA"},
		{authority.ErrInUse, cli.ExitInUse, "another twinkey-ca runs on this directory; stop it first, and use --dir for another CA"},
		{ledger.ErrStorage, cli.ExitFailure, "is the disk full or read-only? nothing was half done; make room and try again"},
		{authority.ErrStorage, cli.ExitFailure, "is the disk full or read-only? nothing was half done; make room and try again"},
		{ledger.ErrDamaged, cli.ExitFailure, "put a backup of the CA's directory in its place"},
		{home.ErrExists, cli.ExitConflict, "name another directory; a CA is never overwritten"},
		{home.ErrNone, cli.ExitNotFound, "make one with: twinkey-ca init --dir DIR"},
		{authority.ErrPassphrase, cli.ExitDenied, "give the passphrase of init with --password-file"},
		{syscall.EADDRINUSE, cli.ExitInUse, "another process listens there; choose another address with --listen"},
		{syscall.EADDRNOTAVAIL, cli.ExitConfig, "no interface of this machine has this address: correct --listen or listen in ca.yaml"},
		{home.ErrInvalid, cli.ExitUsage, "see: twinkey-ca init --help"},
		{home.ErrDamaged, cli.ExitFailure, "put a backup of the CA's directory in its place"},
		{issue.ErrClock, cli.ExitFailure, "set the clock; if it was ahead before and is right now: twinkey-ca serve --accept-clock"},
		{fs.ErrPermission, cli.ExitDenied, "run it as the user that the CA's directory belongs to"},
	} {
		if errors.Is(err, k.err) {
			return cli.Fail(k.code, what, err, k.hint)
		}
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return cli.Fail(cli.ExitConfig, what, err, "every key is explained in the ca.yaml that init writes")
	}
	if r, ok := errors.AsType[*api.Refusal](err); ok {
		code, hint = refusal(r)
	}
	return cli.Fail(code, what, err, hint)
}

func refusal(r *api.Refusal) (code int, hint string) {
	switch r.Code {
	case caclient.CodeDenied:
		return cli.ExitDenied, "the command's --help says what it is for, and for whom"
	case caclient.CodeNotFound:
		return cli.ExitNotFound, "the list command shows what there is"
	case caclient.CodeConflict:
		return cli.ExitConflict, "revoke what is there first, or choose another name"
	case caclient.CodeStorage:
		return cli.ExitFailure, "is a disk full or read-only? make room; twinkey-ca status shows what is still pending"
	case caclient.CodeUnavailable:
		hint := "twinkey-ca status shows what is wrong; try again when the directory answers"
		if strings.Contains(r.Message, issue.ErrNoDirectory.Error()) {
			hint = "put its URL into ca.yaml as directory: and start the CA anew"
		}
		if strings.Contains(r.Message, issue.ErrClock.Error()) {
			hint = "set the clock; if it was ahead before and is right now: twinkey-ca serve --accept-clock"
		}
		return cli.ExitUnavailable, hint
	}
	return cli.ExitUsage, "the command's --help has examples"
}

// asking runs f with a client of the running CA.
func asking(c *cobra.Command, dir, what string, f func(a *api.Admin) error) error {
	a := api.NewAdmin(dir)
	defer a.Close()
	if err := f(a); err != nil {
		if c.Context().Err() != nil {
			return c.Context().Err()
		}
		return fail(what, err)
	}
	return nil
}

// readPassword reads the password of uid from a file, of which a last line end does not
// count, or asks for it twice.
func readPassword(c *cobra.Command, uid, file string) ([]byte, error) {
	b, err := readSecret(c, file, promptTwice)
	if err != nil {
		return nil, err
	}
	if err := keybundle.CheckPassword(uid, b); err != nil {
		clear(b)
		return nil, err
	}
	return b, nil
}

// readSecret reads a file, - being standard input, without its last line end, or asks.
func readSecret(c *cobra.Command, file string, ask func(*cobra.Command) ([]byte, error)) ([]byte, error) {
	var b []byte
	var err error
	switch {
	case file == "-":
		b, err = io.ReadAll(io.LimitReader(c.InOrStdin(), 4096))
	case file != "":
		b, err = os.ReadFile(file) //nolint:gosec // the operator names it
	default:
		b, err = ask(c)
	}
	if err != nil {
		return nil, err
	}
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b, nil
}

// prompt asks for a password.
func prompt(c *cobra.Command) ([]byte, error) { return promptFor(c, "password: ") }

// promptTwice asks for a new one, which nobody could look up if it were mistyped.
func promptTwice(c *cobra.Command) ([]byte, error) {
	first, err := promptFor(c, "password: ")
	if err != nil {
		return nil, err
	}
	second, err := promptFor(c, "again: ")
	defer clear(second)
	if err != nil {
		return nil, err
	}
	if string(first) != string(second) {
		clear(first)
		return nil, errors.New("the two are not the same")
	}
	return first, nil
}

func promptFor(c *cobra.Command, text string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errors.New("there is no terminal to ask for a password: use --password-file")
	}
	if _, err := fmt.Fprint(c.ErrOrStderr(), text); err != nil {
		return nil, err
	}
	b, err := term.ReadPassword(fd)
	_, _ = fmt.Fprintln(c.ErrOrStderr())
	return b, err
}

// passphrase reads the passphrase of the CA's keys; none without a file.
func passphrase(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	if b = []byte(strings.TrimRight(string(b), "\r\n")); len(b) == 0 {
		return nil, fmt.Errorf("%s: there is no passphrase in it", file)
	}
	return b, nil
}
