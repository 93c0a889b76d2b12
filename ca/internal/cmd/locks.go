package cmd

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/internal/api"
	"twinkey/pkg/cli"
)

func locksCommand() *cobra.Command {
	c := &cobra.Command{Use: "locks", Short: "List the logins that are locked after too many failures", Args: cobra.NoArgs,
		Long: `locks lists whose logins are locked, until when, and where the failures were counted:
at the directory, where every login is checked, or at the CA, which asks the source of
users of RADIUS and LDAP.`,
		Example: "  twinkey-ca locks\n  twinkey-ca locks --json"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		const what = "listing what is locked"
		var all api.Locks
		err := asking(c, *dir, what, func(a *api.Admin) error {
			if err := a.Get(c.Context(), &all, "locks"); err != nil {
				return err
			}
			now := time.Now()
			return cli.Print(c, all, func(t *cli.Table) {
				for _, l := range all.Locks {
					t.Row(l.Subject, l.At, cli.Until(now, l.Until), l.Until.UTC().Format(time.RFC3339))
				}
			}, "LOCKED", "WHERE", "ENDS", "AT")
		})
		if err != nil || all.Directory == "" {
			return err
		}
		return cli.Fail(cli.ExitUnavailable, what, errors.New("the directory's are not among them: "+all.Directory), "on its machine: twinkey-directory locks")
	}
	return c
}

func userUnlockCommand() *cobra.Command {
	c := &cobra.Command{Use: "unlock UID [--router NAME]", Short: "Let a user log in again who is locked after too many failures", Args: cobra.ExactArgs(1),
		Long: `unlock ends every lock under the user's name before its time, at the directory and at the
CA, whichever router it was for. The count begins anew, as after a right password. With
--router it also ends the lock on all logins at that router, which comes when many
passwords were wrong there. Who is locked: twinkey-ca locks. Who unlocked whom is in the
directory's audit records: twinkey-directory audit --kind unlocked. While the directory is
away, and cannot note it, nothing is released.

Find out first who has failed: twinkey-directory audit --kind denied --subject UID. A
lock keeps out a guesser as well as the user.`,
		Example: "  twinkey-ca user unlock alice\n  twinkey-ca user unlock alice --router berlin --json"}
	router := c.Flags().String("router", "", "end the lock on all logins at this router, too")
	runUnlock(c, func(args []string) api.Unlock { return api.Unlock{UID: args[0], Router: *router} })
	return c
}

func routerUnlockCommand() *cobra.Command {
	c := &cobra.Command{Use: "unlock NAME", Short: "Let users log in again at a router that is locked after too many failures", Args: cobra.ExactArgs(1),
		Long: `unlock ends the lock on all logins at a router before its time, at the directory and at the
CA. It comes when many passwords were wrong there, of whichever users; those that are
locked by themselves stay so (twinkey-ca user unlock). What is locked: twinkey-ca locks.
While the directory is away, and cannot note it, nothing is released.

Find out first who tries: twinkey-directory audit --kind denied --actor twinkey://router/NAME,
and the router's log, which names addresses.`,
		Example: "  twinkey-ca router unlock berlin"}
	runUnlock(c, func(args []string) api.Unlock { return api.Unlock{Router: args[0]} })
	return c
}

func runUnlock(c *cobra.Command, named func(args []string) api.Unlock) {
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		in := named(args)
		what, repeat := "unlocking user "+in.UID, "twinkey-directory unlock "+in.UID
		switch {
		case in.UID == "":
			what, repeat = "unlocking router "+in.Router, "twinkey-directory unlock --router "+in.Router
		case in.Router != "":
			what, repeat = what+" and router "+in.Router, repeat+" --router "+in.Router
		}
		var done api.Locks
		err := asking(c, *dir, what, func(a *api.Admin) error {
			if err := a.Post(c.Context(), in, &done, "unlock"); err != nil {
				return err
			}
			return printUnlocked(c, done)
		})
		if err != nil || done.Directory == "" {
			return err
		}
		return cli.Fail(cli.ExitUnavailable, what, errors.New("locks were not released, since the directory cannot note it: "+done.Directory),
			"repeat it when the directory answers; its own, on its machine, also while it is stopped: "+repeat)
	}
}

func printUnlocked(c *cobra.Command, done api.Locks) error {
	if len(done.Locks) == 0 && !wantsJSON(c) {
		if done.Directory != "" {
			return nil
		}
		_, err := fmt.Fprintln(c.OutOrStdout(), "nothing was locked at the CA and at the directory: nothing was changed")
		return err
	}
	now := time.Now()
	return cli.Print(c, done, func(t *cli.Table) {
		for _, l := range done.Locks {
			t.Row("unlocked: "+l.Subject.String(), "at the "+place[l.At], "it would have ended "+cli.Until(now, l.Until))
		}
	})
}

var place = map[string]string{api.AtCA: "CA", api.AtDirectory: "directory"}
