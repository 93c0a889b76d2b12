package cmd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/keyfile"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/tun"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/station"
	"twinkey/router/internal/voluntary"
)

// clientCommand has the commands of a user's own machine.
func clientCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "client", Short: "on a user's own machine: log in and encrypt here, not at the router",
		Long: `client makes this machine the end of its user's calls. It logs in at the router
in front, fetches the user's sealed keys through it, opens them here, and places
the calls to the other sites itself; the router in front vouches for it, forwards
its datagrams, and can read none of them. It works from behind NAT.`,
		Example: `  # once, with the fingerprint that the company's operator gave you
  sudo twinkey-router client login alice --router 10.1.1.1 --fingerprint 5f3a...

  # afterwards
  sudo twinkey-router client login alice
  sudo twinkey-router client status
  sudo twinkey-router client logout

  # keys that are made here and never leave this machine
  twinkey-router client enroll alice --ca https://hq.example:8700 --fingerprint 5f3a... --token-file token`,
	}
	c.AddCommand(clientLogin(), clientStatus(), clientLogout(), clientEnroll(), clientRenew())
	return c
}

// homeFlag adds --home.
func homeFlag(c *cobra.Command) *string {
	dir := "."
	if d, err := os.UserConfigDir(); err == nil {
		dir = filepath.Join(d, "twinkey")
	}
	return c.Flags().String("home", dir, "directory that keeps whom to trust, the client's control socket, and keys of the user's own")
}

func clientLogin() *cobra.Command {
	var router, fingerprint, address, file string
	var released bool
	o := station.Options{}
	c := &cobra.Command{
		Use: "login UID", Short: "log in and stay until logout", Args: cobra.ExactArgs(1),
		Long: `login proves the user's password to the directory, by way of the router in front,
and stays in the foreground until logout, SIGINT, SIGTERM or SIGHUP; then calls,
routes and interface go. The router sees neither the password nor the keys that it
opens. Where the company may have to ask a source about it (RADIUS, LDAP), the password
goes along, sealed to the company's CA, which alone can open it; whom a source has let in
logs in again by hand when the router in front was restarted. Where client enroll has made
keys of the user's own, the password opens these and is proved to nobody: login proves the
keys themselves to the router in front.

The first time the router's address and the fingerprint of the company's root
certificate are needed; both are kept. Calls have the address that the router
sees this machine under, which must be one that users may come from. They are
placed when a packet asks for them, or at once to the routers that --peer names.
As long as the client runs, what a site is certified for goes through a call or
nowhere: client status lists what is sent nowhere, and why under Refused.

The router says how the password is to be stretched before it is proved. Less than
any keys are sealed at is refused, and so is another way than at the last login from
here, unless --password-changed says that the password was changed since, or that the
operator has renewed the keys or made the user anew.`,
		Example: `  sudo twinkey-router client login alice --router 10.1.1.1 --fingerprint 5f3a...
  sudo twinkey-router client login alice --peer rb --address 10.1.1.3

  # with the keys of client enroll, which has been told the fingerprint
  sudo twinkey-router client login alice --router 10.1.1.1 --home ~alice/.config/twinkey`,
	}
	home := homeFlag(c)
	f := c.Flags()
	f.StringVar(&router, "router", "", "router in front, HOST or HOST:PORT (port "+station.DefaultPort+"); kept")
	f.StringVar(&fingerprint, "fingerprint", "", "SHA-256 of the company's root certificate, in hex; kept")
	f.StringVar(&address, "address", "", "this machine's address to speak to the router from, where it has several")
	f.StringSliceVar(&o.Peers, "peer", nil, "router of a site to call, at once; may be given several times. What is for other sites goes nowhere")
	f.StringVar(&o.Device, "interface", "twinkey0", "name of the interface to make")
	f.BoolVar(&o.Changed, "password-changed", false, "the password was changed since the last login from here, or the keys renewed: believe the router that it is stretched in another way")
	f.StringVar(&file, "password-file", "", "file that holds the password in its first line; - is standard input")
	f.BoolVar(&released, "released-keys", false, "log in by password, with the keys that the directory releases, though there are keys of the user's own under --home")
	c.RunE = func(c *cobra.Command, args []string) error {
		what := "logging in " + args[0]
		if address != "" {
			a, err := netip.ParseAddr(address)
			if err != nil {
				return cli.Fail(cli.ExitUsage, what, fmt.Errorf("--address: %q is no IP address", address), "an address looks like 10.1.1.3")
			}
			o.Local = a.Unmap()
		}
		h, err := station.OpenHome(*home)
		if err != nil {
			return cli.Fail(cli.ExitConfig, what, err, "move it away, and name --router and --fingerprint again")
		}
		if !released {
			if o.Keys, err = ownKeys(*home, args[0]); err != nil {
				return keysFailed(what, err)
			}
		}
		if o.Keys != nil && h.Root == nil && fingerprint == "" && len(o.Keys.Roots) == 1 {
			h.Root = o.Keys.Roots[0] // by its fingerprint, at the enrolment
		}
		if err = h.At(router); err == nil {
			err = h.Trust(c.Context(), o.Local, fingerprint)
		}
		if err != nil {
			return clientFailed(what, err)
		}
		h.User = args[0]
		if err := h.Save(); err != nil {
			return clientFailed(what, err)
		}
		say, flush := sayer(c)
		defer flush()
		o.User, o.Version, o.Say = args[0], cli.ReadVersion("twinkey-router").Version, say
		o.Password = func() ([]byte, error) {
			p, err := readPassword(c, file)
			if err != nil {
				return nil, cli.Fail(cli.ExitUsage, "reading the password", err, howToType)
			}
			return p, nil // which is wiped once it is stretched
		}
		ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGHUP) // a terminal that is closed is a logout
		defer stop()
		s, err := station.New(h, o, cli.Logger(ctx))
		if err == nil {
			err = s.Run(ctx)
		}
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return nil // told to stop before it was logged in
		}
		if o.Keys != nil {
			return ownFailed(what, err)
		}
		return clientFailed(what, err)
	}
	return c
}

// ownKeys are the user's own; nil: there are none.
func ownKeys(home, uid string) (*keyfile.File, error) {
	if twincert.CheckName(uid) != nil { // what the router says of it is better
		return nil, nil //nolint:nilnil // no keys, no error
	}
	f, err := keyfile.Load(keyfile.Path(home, uid))
	switch {
	case errors.Is(err, keyfile.ErrNone):
		return nil, nil //nolint:nilnil // no keys, no error
	case err == nil && f.UID != uid:
		return nil, fmt.Errorf("%s: %w: it is that of %s", keyfile.Path(home, uid), keyfile.ErrFile, f.UID)
	}
	return f, err
}

// ownFailed says what helps where it is something else than for who logs in by password.
func ownFailed(what string, err error) error {
	if errors.Is(err, keybundle.ErrOpen) {
		return keysFailed(what, err)
	}
	if e, ok := errors.AsType[*voluntary.Error](err); ok && e.Code == voluntary.CodeDenied {
		return cli.Fail(cli.ExitDenied, what, err, "the certificate may be expired (twinkey-router client renew), revoked, or of a user of another router; the operator sees which in `twinkey-directory audit` or the router's log")
	}
	return clientFailed(what, err)
}

// sayer prints lines for the person in front of the machine without ever waiting for the terminal.
func sayer(c *cobra.Command) (say func(string), flush func()) {
	lines, done := make(chan string, 256), make(chan struct{})
	go func() {
		defer close(done)
		for l := range lines {
			_, _ = fmt.Fprintln(c.OutOrStdout(), l)
		}
	}()
	say = func(l string) {
		select {
		case lines <- l:
		default:
		}
	}
	return say, func() { close(lines); <-done }
}

var clientCodes = map[voluntary.Code]struct {
	exit int
	hint string
}{
	voluntary.CodeInvalid:     {cli.ExitUsage, "check UserID, router and fingerprint"},
	voluntary.CodeDenied:      {cli.ExitDenied, "check UserID and password; the operator sees the reason in `twinkey-directory audit`"},
	voluntary.CodeLocked:      {cli.ExitDenied, "wait, or ask the operator to end it: twinkey-ca user unlock UID"},
	voluntary.CodeBusy:        {cli.ExitUnavailable, "wait, and try again"},
	voluntary.CodeLoginKey:    {cli.ExitUnavailable, "try again; if it stays so, the router and the CA are not of one mind: tell the operator"},
	voluntary.CodeSource:      {cli.ExitUnavailable, "nothing is wrong with the password, but nobody can check it now: try again in a minute, and tell the operator if it stays so (`twinkey-ca status` says what is wrong)"},
	voluntary.CodeCA:          {cli.ExitUnavailable, "users whom the CA has to ask about cannot log in without it, local users can: is the CA running, and may the router reach its port?"},
	voluntary.CodeUnavailable: {cli.ExitUnavailable, "is the router running, with clients.listen in its configuration, and does this machine reach it?"},
	voluntary.CodeToken:       {cli.ExitDenied, "log in again"},
	voluntary.CodeAddress:     {cli.ExitDenied, "the machine needs an address (or a NAT with one) of a prefix that the router is certified for and does not bridge; --address chooses among several"},
	voluntary.CodeTaken:       {cli.ExitConflict, "one client for each address: log out there first (twinkey-router client logout), or the operator does (twinkey-router logout UID)"},
	voluntary.CodePolicy:      {cli.ExitDenied, "ask the operator; the rules are under policy: in the router's configuration"},
	voluntary.CodeChallenge:   {cli.ExitUnavailable, "try again"},
	voluntary.CodeRouter:      {cli.ExitDenied, "compare the fingerprint with what `twinkey-ca status` prints; if it is right, something stands between this machine and the router"},
}

// clientFailed says what the person in front of the machine can do about it.
func clientFailed(what string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*voluntary.Error](err); ok {
		c, ok := clientCodes[e.Code]
		if !ok {
			c.exit, c.hint = cli.ExitFailure, "the router is newer than this program: install the same version here"
		}
		return cli.Fail(c.exit, what, err, c.hint)
	}
	code, hint := cli.ExitFailure, "try again with --log-level debug, which says more; if it stays so, tell the operator"
	if _, ok := errors.AsType[*cli.Error](err); ok { // it has a hint
		hint = ""
	}
	switch {
	case errors.Is(err, station.ErrNoRoot):
		code, hint = cli.ExitUsage, "name its fingerprint once: --fingerprint F; the operator gets it by `twinkey-ca status`"
	case errors.Is(err, station.ErrNoRouter):
		code, hint = cli.ExitUsage, "name it once: --router HOST"
	case errors.Is(err, station.ErrAnother):
		code, hint = cli.ExitDenied, "was the password changed, or did the operator renew the keys? Then log in with --password-changed. If not, somebody at the router may be after the password: do not, and tell the operator"
	case errors.Is(err, station.ErrCheap):
		code, hint = cli.ExitDenied, "the password has not been used. Somebody at the router may be after it: tell the operator, who helps with `twinkey-ca user renew` if the keys are sealed like that"
	case errors.Is(err, sealedlogin.ErrExpired):
		code, hint = cli.ExitDenied, "the password has not been used. Set this machine's clock; if it is right, somebody at the router may be after the password: tell the operator"
	case errors.Is(err, sealedlogin.ErrAnswer):
		code, hint = cli.ExitDenied, "somebody at the router may be after the password, which they have not: tell the operator"
	case errors.Is(err, sealedlogin.ErrStatement):
		code, hint = cli.ExitDenied, "the password has not been used. Somebody at the router may be after it: tell the operator"
	case errors.Is(err, station.ErrAgain):
		code, hint = cli.ExitDenied, "log in again"
	case errors.Is(err, station.ErrNoMap):
		code, hint = cli.ExitUnavailable, "log in again; if it stays so, tell the operator: the router in front does not hear the directory, has no current CRL, or somebody there has altered it"
	case errors.Is(err, station.ErrEnded):
		code, hint = cli.ExitDenied, "log in again, or ask the operator"
	case errors.Is(err, twincert.ErrExpired), errors.Is(err, twincert.ErrNotYetValid):
		code, hint = cli.ExitDenied, "is this machine's clock right? If it is, the operator gives the user another certificate (twinkey-ca user renew)"
	case errors.Is(err, twincert.ErrRevoked):
		code, hint = cli.ExitDenied, "ask the operator, who can see why (twinkey-ca user show)"
	case errors.Is(err, keybundle.ErrOpen), errors.Is(err, keybundle.ErrSuccessor):
		code, hint = cli.ExitDenied, "the password is right, but the keys do not open with it: log in again; if it stays so, the operator makes them anew (twinkey-ca user renew)"
	case errors.Is(err, keybundle.ErrParams):
		code, hint = cli.ExitDenied, "the password has not been used: tell the operator, who helps with `twinkey-ca user renew`"
	case errors.Is(err, admin.ErrInUse):
		code, hint = cli.ExitInUse, "a client is running already: twinkey-router client status"
	case errors.Is(err, tun.ErrInUse):
		code, hint = cli.ExitInUse, "a router or another client has the interface: name another one with --interface"
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EPERM):
		code, hint = cli.ExitDenied, "the client needs CAP_NET_ADMIN and its home directory: run it as root"
	}
	return cli.Fail(code, what, err, hint)
}

// askedClient is asked, in the words of a client.
func askedClient(what string, err error) error {
	switch {
	case errors.Is(err, admin.ErrNotRunning):
		return cli.Fail(cli.ExitUnavailable, what, errors.New("no client is running here"), "twinkey-router client login UID starts one; one with another home directory is named with --home")
	case errors.Is(err, admin.ErrDenied):
		return cli.Fail(cli.ExitDenied, what, err, "run as the user that the client runs as")
	}
	return asked(what, err)
}

func clientSocket(home string) string { h := station.Home{Dir: home}; return h.Socket() }

func clientStatus() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "show the session, its calls and what was dropped", Args: cobra.NoArgs,
		Example: "  twinkey-router client status\n  twinkey-router client status --json | jq .client.until",
	}
	home := homeFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		st, err := admin.NewClient(clientSocket(*home)).Status(c.Context())
		if err != nil {
			return askedClient("asking the client for its status", err)
		}
		return showStatus(c, st)
	}
	return c
}

func clientLogout() *cobra.Command {
	c := &cobra.Command{Use: "logout", Short: "log out: calls, routes and interface go", Args: cobra.NoArgs,
		Long: `logout ends the session of the client that runs on this machine, and tells the router
in front. The client ends, and so do its calls.`,
		Example: "  sudo twinkey-router client logout\n  sudo twinkey-router client logout --home ~alice/.config/twinkey"}
	home := homeFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ended, err := admin.NewClient(clientSocket(*home)).Hangup(c.Context(), admin.Hangup{})
		if err != nil {
			return askedClient("logging out", err)
		}
		return tellEnded(c, ended, "logged out\n")
	}
	return c
}
