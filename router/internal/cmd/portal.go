package cmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
)

func portalCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "portal", Short: "show the portal: its address, its certificate, who has logged in there", Args: cobra.NoArgs,
		Long: `Shows where users log in with a browser, the certificate that they see there,
and the browsers that somebody is logged in with. Give users the fingerprint of
the root on paper: it is what tells the portal from something that looks like it.

The portal is switched on by portal.listen in the configuration
(twinkey-router config example). A user's session ends with twinkey-router logout.`,
		Example: "  twinkey-router portal\n  twinkey-router portal --json | jq -r .root_sha256",
	}
	state := stateFlag(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		p, err := admin.NewClient(socket(*state)).Portal(c.Context())
		if err != nil {
			return asked("asking the router for its portal", err)
		}
		if asJSON, _ := c.Flags().GetBool("json"); asJSON {
			return cli.Print(c, p, nil)
		}
		return writePortal(c.OutOrStdout(), p, time.Now())
	}
	return c
}

func writePortal(w io.Writer, p admin.Portal, now time.Time) error {
	var errs []error
	say := func(format string, a ...any) {
		_, err := fmt.Fprintf(w, format, a...)
		errs = append(errs, err)
	}
	say("portal %s, listens on %s%s\n", p.URL, p.Listen, ifSet(", sends browsers on from ", p.HTTP))
	say("certificate for %s\n", strings.Join(p.Names, ", "))
	if c := p.Certificate; c != nil {
		say("  ends %s, is renewed %s\n  SHA-256 %s\n", cli.Until(now, c.NotAfter), cli.Until(now, c.RenewAt), c.SHA256)
	}
	if p.Problem != "" {
		say("  PROBLEM: %s\n", p.Problem)
	}
	say("root of the company\n  SHA-256 %s\n", p.Root)
	if p.Captive != "" {
		say("captive portal API %s\n", p.Captive)
	}
	t := cli.NewTable("USER", "ADDRESS", "LOGGED IN", "LAST SEEN")
	for _, s := range p.Sessions {
		t.Row(s.User, s.Address, cli.Duration(now.Sub(s.Since))+" ago", cli.Duration(now.Sub(s.Seen))+" ago")
	}
	if len(p.Sessions) > 0 {
		say("\nSessions\n")
		_, err := t.WriteTo(w)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
