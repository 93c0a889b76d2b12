package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/internal/api"
	"twinkey/pkg/cli"
)

func groupCommand() *cobra.Command {
	return group("group", "Tunnel groups: users who share a control key, and so a tunnel to each destination",
		groupAddCommand(), groupListCommand(), groupRotateCommand())
}

func groupAddCommand() *cobra.Command {
	c := &cobra.Command{Use: "add NAME", Short: "Make a tunnel group", Args: cobra.ExactArgs(1),
		Long: `add makes a tunnel group and its control key. The first user of a group makes it
too: this is for groups that are to be there before their users are.`,
		Example: "  twinkey-ca group add staff"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return asking(c, *dir, "adding group "+args[0], func(a *api.Admin) error {
			var g api.Group
			if err := a.Post(c.Context(), api.NewGroup{Name: args[0]}, &g, "groups"); err != nil {
				return err
			}
			return printGroups(c, []api.Group{g}, g)
		})
	}
	return c
}

func groupListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List all tunnel groups, their control keys and what is still over older ones", Args: cobra.NoArgs,
		Example: "  twinkey-ca group list\n  twinkey-ca group list --json | jq '.[] | select(.old > 0)'"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "listing groups", func(a *api.Admin) error {
			var groups []api.Group
			if err := a.Get(c.Context(), &groups, "groups"); err != nil {
				return err
			}
			return printGroups(c, groups, groups)
		})
	}
	return c
}

// shortPrint is how much of a fingerprint a table shows: enough to tell one key from another.
const shortPrint = 16

func printGroups(c *cobra.Command, rows []api.Group, v any) error {
	now := time.Now()
	return cli.Print(c, v, func(t *cli.Table) {
		for _, g := range rows {
			t.Row(g.Name, g.Members, g.Fingerprint[:min(shortPrint, len(g.Fingerprint))], cli.Duration(now.Sub(g.Since)), g.Old, revokedWords(g, now))
		}
	}, "GROUP", "MEMBERS", "CONTROL KEY", "AGE", "OLD CERTIFICATES", "REVOKED")
}

// revokedWords is when the old certificates of a group are revoked; empty: there are none.
func revokedWords(g api.Group, now time.Time) string {
	switch {
	case g.Rotating:
		return fmt.Sprintf("once %d users have new ones", g.Left)
	case !g.RevokeAt.IsZero():
		return cli.Until(now, g.RevokeAt)
	}
	return ""
}

const (
	pollGroup    = 250 * time.Millisecond // between two questions how far a rotation is
	slowRotation = 10 * time.Second       // without any progress
)

func groupRotateCommand() *cobra.Command {
	c := &cobra.Command{Use: "rotate NAME", Short: "Give a tunnel group another control key, without cutting calls", Args: cobra.ExactArgs(1),
		Long: `rotate makes another control key for a group. Every user of it gets a certificate
over that key and the data key that they have, with the same end; nobody has to
type a password. Routers hear of it at once, place the calls that are up anew and
let go of the old ones two seconds later.

Certificates over the old key are revoked by the CA after the grace, also if it was
restarted meanwhile. With --now that is ten seconds after the last user has a new
certificate, which is what the routers need: for a control key that has leaked. A
control key reads no call; but who has it can pretend to be in the group when a
tunnel is set up.

The command shows the progress until every user has a certificate. Interrupted, or
with --detach, it leaves the rest to the CA.`,
		Example: "  twinkey-ca group rotate staff\n  twinkey-ca group rotate staff --grace 24h\n  twinkey-ca group rotate staff --now"}
	dir := addDir(c)
	f := c.Flags()
	grace := f.Duration("grace", time.Hour, "how long certificates over the old key go on")
	now := f.Bool("now", false, "revoke them as soon as everybody has another")
	detach := f.Bool("detach", false, "do not wait until everybody has")
	c.MarkFlagsMutuallyExclusive("grace", "now")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if *now {
			*grace = 0
		}
		return asking(c, *dir, "rotating group "+args[0], func(a *api.Admin) error {
			var g api.Group
			if err := a.Post(c.Context(), api.Rotate{Grace: grace.String()}, &g, "groups", args[0], "rotate"); err != nil {
				return err
			}
			if !*detach {
				var err error
				if g, err = awaitRotation(c, a, g); err != nil {
					return err
				}
			}
			return printGroups(c, []api.Group{g}, g)
		})
	}
	return c
}

// awaitRotation says how far a rotation has come, each time that there is something new to say, until it has handed out what it can.
func awaitRotation(c *cobra.Command, a *api.Admin, g api.Group) (api.Group, error) {
	said, since, slow := -1, time.Now(), false
	for g.Rotating {
		if !slow && g.Left == said && time.Since(since) > slowRotation {
			slow = true
			if _, err := fmt.Fprintln(c.ErrOrStderr(), "nothing has moved for a while; the CA goes on trying, and twinkey-ca status may say why"); err != nil {
				return g, err
			}
		}
		if g.Left != said {
			said, since = g.Left, time.Now()
			if _, err := fmt.Fprintf(c.ErrOrStderr(), "%d of %d users still have certificates over the old key\n", g.Left, g.Members); err != nil {
				return g, err
			}
		}
		select {
		case <-time.After(pollGroup):
		case <-c.Context().Done():
			return g, context.Cause(c.Context())
		}
		if err := a.Get(c.Context(), &g, "groups", g.Name); err != nil {
			return g, err
		}
	}
	return g, nil
}
