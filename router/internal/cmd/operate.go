package cmd

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/settings"
	"twinkey/router/internal/top"
)

func status() *cobra.Command {
	c := &cobra.Command{
		Use: "status", Short: "show links, tunnels, calls, certificates and what was dropped", Args: cobra.NoArgs,
		Example: "  twinkey-router status\n  twinkey-router status --json | jq '.calls[] | {user, peer, rx_bytes}'",
	}
	state := stateFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		st, err := admin.NewClient(socket(*state)).Status(c.Context())
		if err != nil {
			return asked("asking the router for its status", err)
		}
		return showStatus(c, st)
	}
	return c
}

// showStatus writes a status for whom it is asked.
func showStatus(c *cobra.Command, st admin.Status) error {
	if asJSON, _ := c.Flags().GetBool("json"); asJSON {
		return cli.Print(c, st, nil)
	}
	return writeStatus(c.OutOrStdout(), st, time.Now())
}

func socket(state string) string {
	s := settings.Settings{}
	s.State = state
	return s.Socket()
}

func writeStatus(w io.Writer, st admin.Status, now time.Time) error {
	var errs []error
	say := func(format string, a ...any) {
		_, err := fmt.Fprintf(w, format, a...)
		errs = append(errs, err)
	}
	table := func(title string, t *cli.Table, n int) {
		if n == 0 {
			return
		}
		say("\n%s\n", title)
		_, err := t.WriteTo(w)
		errs = append(errs, err)
	}
	if c := st.Self; c != nil {
		say("client of %s at router %s (%s), up for %s, version %s\n", c.User, c.Router, c.At, cli.Duration(now.Sub(st.Since)), st.Version)
		say("address %s, session ends %s, interface %s (%s, MTU %d)\n", c.Address, cli.Until(now, c.Until), st.Device.Name, st.Device.Kind, st.Device.MTU)
	} else {
		say("router %s, up for %s, version %s\n", st.Name, cli.Duration(now.Sub(st.Since)), st.Version)
		say("listens on %s%s, interface %s (%s, MTU %d)\n", st.Listen, ifSet(", public ", st.Public), st.Device.Name, st.Device.Kind, st.Device.MTU)
	}
	say("directory %s: %s\n", st.Directory.URL, directoryWords(st.Directory, now))
	if st.KeyLog != "" {
		say("WARNING: keys are logged to %s\n", st.KeyLog)
	}
	if c := st.Closing; c != nil {
		say("%s\n", closingWords(*c, now))
	}
	certs := cli.NewTable("CERTIFICATE", "SUBJECT", "LIVES", "RENEWAL", "")
	for _, c := range st.Certificates {
		renewal := ""
		if !c.RenewAt.IsZero() {
			renewal = cli.Until(now, c.RenewAt)
		}
		certs.Row(c.Kind, c.Subject, cli.Until(now, c.NotAfter), renewal, c.Problem)
	}
	table("Certificates", certs, len(st.Certificates))
	lt := cli.NewTable("PEER", "USER", "STATE", "SINCE", "NEXT TRY", "REASON")
	for _, l := range st.Links {
		next := ""
		if !l.Next.IsZero() {
			next = cli.Until(now, l.Next)
		}
		lt.Row(l.Peer, l.User, l.State, cli.Duration(now.Sub(l.Since)), next, l.Reason)
	}
	table("Wanted calls", lt, len(st.Links))
	tt := cli.NewTable("TUNNEL", "PEER", "AS", "GROUP", "ROLE", "ADDRESS", "STATE", "SUITE", "PQ", "PATH MTU", "CALLS", "UP FOR", "REKEYS")
	for _, t := range st.Tunnels {
		tt.Row(t.ID, t.Peer, t.Name, t.Group, role(t.Initiator), t.Endpoint, t.State, t.Suite, yes(t.Hybrid), pathWords(t), t.Calls, cli.Duration(now.Sub(t.Since)), t.Rekeys)
	}
	table("Tunnels", tt, len(st.Tunnels))
	table("Calls", callTable(st.Calls, now), len(st.Calls))
	et := cli.NewTable("USER", "PEER", "CERTIFICATE LIVES", "WHY IT IS NOT RENEWED")
	ending := 0
	for _, c := range st.Calls {
		if c.Ending != "" {
			et.Row(c.User, c.Peer, cli.Until(now, c.NotAfter), c.Ending)
			ending++
		}
	}
	for _, g := range st.Clients {
		if g.Ending != "" {
			et.Row(g.User, "(own machine)", cli.Until(now, g.NotAfter), g.Ending)
			ending++
		}
	}
	table("WARNING: calls that end with their certificate", et, ending)
	ct := cli.NewTable("USER", "GROUP", "ADDRESS", "SINCE", "CERTIFICATE LIVES", "REVOKED AT THE END")
	for _, g := range st.Clients {
		ct.Row(g.User, g.Group, g.Address, cli.Duration(now.Sub(g.Since)), cli.Until(now, g.NotAfter), yes(g.Closing))
	}
	table("Clients", ct, len(st.Clients))
	rt := cli.NewTable("PEER", "WHAT", "REASON")
	for _, r := range st.Refused {
		rt.Row(r.Peer, r.What, r.Reason)
	}
	table("Refused from the site map", rt, len(st.Refused))
	wt := cli.NewTable("PREFIX")
	for _, p := range st.Withheld {
		wt.Row(p)
	}
	table("Sent nowhere, rather than in the clear", wt, len(st.Withheld))
	counted := func(title, what, of string, counts map[string]uint64) {
		t, n := cli.NewTable(what, of), 0
		for _, k := range sortedKeys(counts) {
			if counts[k] > 0 {
				t.Row(k, counts[k])
				n++
			}
		}
		table(title, t, n)
	}
	counted("Refused beyond the limits", "LISTENER", "CONNECTIONS", st.Connections)
	counted("Dropped", "CAUSE", "PACKETS", st.Drops)
	return errors.Join(errs...)
}

// pathWords are the path's MTU, and how sure it is.
func pathWords(t admin.Tunnel) string {
	switch t.Path {
	case "complete":
		return strconv.Itoa(t.PathMTU)
	case "base":
		return strconv.Itoa(t.PathMTU) + " (assumed)"
	default:
		return fmt.Sprintf("%d (%s)", t.PathMTU, t.Path)
	}
}

func callTable(calls []admin.Call, now time.Time) *cli.Table {
	t := cli.NewTable("CALL", "KIND", "USER", "PEER", "TUNNEL", "ROLE", "SUITE", "LOCAL", "REMOTE", "UP FOR", "IN", "OUT", "CERTIFICATE LIVES", "REKEYS")
	for _, c := range calls {
		t.Row(c.ID, c.Kind, c.User, c.Peer, c.Tunnel, role(c.Initiator), c.Suite, prefixes(c.Local), prefixes(c.Remote),
			cli.Duration(now.Sub(c.Since)), cli.Bytes(c.RxBytes), cli.Bytes(c.TxBytes), cli.Until(now, c.NotAfter), c.Rekeys)
	}
	return t
}

func callsCommand() *cobra.Command {
	c := &cobra.Command{Use: "calls", Short: "list the calls that are up", Args: cobra.NoArgs,
		Example: "  twinkey-router calls\n  twinkey-router calls --json | jq '.[] | select(.user == \"alice\").id'"}
	state := stateFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		st, err := admin.NewClient(socket(*state)).Status(c.Context())
		if err != nil {
			return asked("asking the router for its calls", err)
		}
		if asJSON, _ := c.Flags().GetBool("json"); asJSON {
			return cli.Print(c, st.Calls, nil)
		}
		_, err = callTable(st.Calls, time.Now()).WriteTo(c.OutOrStdout())
		return err
	}
	return c
}

func topCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "top", Short: "watch the calls and what goes through them, live", Args: cobra.NoArgs,
		Long: `Shows the calls that are up with their rates, those with most traffic first, until q is pressed.
Keys: q quit, o another order (traffic, user, newest), space pause, arrows and PgUp PgDn scroll.
For programs there is twinkey-router status --json.`,
		Example: "  twinkey-router top\n  twinkey-router top --interval 250ms",
	}
	state := stateFlag(c)
	interval := c.Flags().Duration("interval", time.Second, "between two looks, 100ms at least")
	c.RunE = func(c *cobra.Command, _ []string) error {
		const what, least = "watching the calls", 100 * time.Millisecond
		if *interval < least {
			return cli.Fail(cli.ExitUsage, what, fmt.Errorf("--interval: %s is less than %s", *interval, least), "such as: twinkey-router top --interval 250ms")
		}
		router := admin.NewClient(socket(*state))
		if _, err := router.Status(c.Context()); err != nil { // better said outside of a full screen
			return asked(what, err)
		}
		if out, ok := c.OutOrStdout().(*os.File); !ok || !term.IsTerminal(int(out.Fd())) {
			return cli.Fail(cli.ExitUsage, what, errors.New("the output is not a terminal"), "for programs: twinkey-router status --json")
		}
		return asked(what, top.Run(c.Context(), router.Status, *interval))
	}
	return c
}

func hangup() *cobra.Command {
	c := &cobra.Command{
		Use: "hangup CALL", Short: "end one call", Args: cobra.ExactArgs(1),
		Long: `hangup ends the call with this number (see calls). A user's call is not placed
again; a site link is, since it stands for as long as both routers want it.`,
		Example: "  twinkey-router calls\n  twinkey-router hangup 7",
	}
	state := stateFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the number of the call", err, "twinkey-router calls lists them")
		}
		return end(c, *state, admin.Hangup{ID: id})
	}
	return c
}

func logout() *cobra.Command {
	c := &cobra.Command{Use: "logout UID", Short: "end all calls of a user, and the sessions of their own machines", Args: cobra.ExactArgs(1),
		Long: `logout ends what a user has at this router, wherever they have logged in: at the portal,
by twinkey-router login, on machines of their own. They can log in again at once; who is not
to be let in any more is revoked at the CA (twinkey-ca user revoke).`,
		Example: "  twinkey-router logout alice\n  twinkey-router logout alice --json | jq .calls"}
	state := stateFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error { return end(c, *state, admin.Hangup{User: args[0]}) }
	return c
}

func end(c *cobra.Command, state string, h admin.Hangup) error {
	ended, err := admin.NewClient(socket(state)).Hangup(c.Context(), h)
	if err != nil {
		return asked("ending a call", err)
	}
	clients := ""
	if ended.Clients > 0 {
		clients = fmt.Sprintf(", logged out %d client(s)", ended.Clients)
	}
	return tellEnded(c, ended, "ended %d call(s): %v%s\n", len(ended.Calls), ended.Calls, clients)
}

// tellEnded says what has ended; JSON has no null in it.
func tellEnded(c *cobra.Command, ended admin.Ended, format string, words ...any) error {
	if ended.Calls == nil {
		ended.Calls = []uint64{}
	}
	return cli.Tell(c, ended, format, words...)
}

func login() *cobra.Command {
	var address, peer, file string
	c := &cobra.Command{
		Use:   "login UID --address A --peer ROUTER",
		Short: "place a user's own call to another site",
		Long: `login proves a user's password to the directory, opens the user's sealed keys and
places a call that carries what comes from one address of this LAN, secured by
the user's own keys. The password is asked for, or read from a file. If the company
has sources of users (RADIUS, LDAP), the CA asks them first: the first login of
somebody whom they know brings the certificate.`,
		Example: `  twinkey-router login alice --address 10.1.1.3 --peer rb`,
		Args:    cobra.ExactArgs(1),
	}
	state := stateFlag(c)
	cli.AddJSON(c)
	f := c.Flags()
	f.StringVar(&address, "address", "", "the user's address on this router's LAN")
	f.StringVar(&peer, "peer", "", "the router at the other end")
	f.StringVar(&file, "password-file", "", "file that holds the password in its first line; - is standard input")
	c.RunE = func(c *cobra.Command, args []string) error {
		a, err := netip.ParseAddr(address)
		if err != nil || peer == "" {
			if address != "" && peer != "" {
				return cli.Fail(cli.ExitUsage, "logging in "+args[0], fmt.Errorf("--address: %q is no IP address", address), "an address looks like 10.1.1.3")
			}
			return cli.Fail(cli.ExitUsage, "logging in "+args[0], errors.New("--address and --peer are needed"), "such as: twinkey-router login alice --address 10.1.1.3 --peer rb")
		}
		password, err := readPassword(c, file)
		if err != nil {
			return cli.Fail(cli.ExitUsage, "reading the password", err, howToType)
		}
		defer clear(password)
		call, err := admin.NewClient(socket(*state)).Login(c.Context(), admin.Login{User: args[0], Password: password, Address: a, Peer: peer})
		if err != nil {
			return asked("logging in "+args[0], err)
		}
		return cli.Print(c, call, func(t *cli.Table) {
			t.Row(call.ID, call.User, call.Peer, call.Tunnel, call.Suite, address)
		}, "CALL", "USER", "PEER", "TUNNEL", "SUITE", "ADDRESS")
	}
	return c
}

func reload() *cobra.Command {
	c := &cobra.Command{Use: "reload", Short: "have the running router read its configuration again", Args: cobra.NoArgs,
		Long: `reload takes over what can change while calls are up, all of it or nothing, as SIGHUP
does. What cannot is refused, and named: it needs a restart.`,
		Example: "  twinkey-router config check /etc/twinkey/router.yaml && twinkey-router reload"}
	state := stateFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asked("reloading the configuration", admin.NewClient(socket(*state)).Reload(c.Context()))
	}
	return c
}
