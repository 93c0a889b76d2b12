package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"twinkey/directory/client"
	"twinkey/directory/internal/api"
	"twinkey/directory/internal/store"
	"twinkey/pkg/cli"
	"twinkey/pkg/lockout"
	"twinkey/pkg/operator"
	"twinkey/pkg/twincert"
)

func locksCommand(in func() home) *cobra.Command {
	c := &cobra.Command{
		Use: "locks", Short: "List the logins that are locked after too many failures", Args: cobra.NoArgs,
		Long: `Lists whose logins are locked here, and until when. Those of users of a source (RADIUS,
LDAP) are counted and locked at the CA as well: twinkey-ca locks lists both.`,
		Example: "  twinkey-directory locks\n  twinkey-directory locks --json",
		RunE: func(c *cobra.Command, _ []string) error {
			locks, err := in().locks(c.Context())
			if err != nil {
				return fail("listing what is locked", err)
			}
			return printLocks(c, locks, locks)
		},
	}
	cli.AddJSON(c)
	return c
}

func printLocks(c *cobra.Command, locks []lockout.Lock, v any) error {
	now := time.Now()
	return cli.Print(c, v, func(t *cli.Table) {
		for _, l := range locks {
			t.Row(l.Subject, cli.Until(now, l.Until), l.Until.UTC().Format(time.RFC3339))
		}
	}, "LOCKED", "ENDS", "AT")
}

// released is what unlock prints as JSON.
type released struct {
	Released []lockout.Lock `json:"released"`
}

func unlockCommand(in func() home) *cobra.Command {
	var router string
	c := &cobra.Command{
		Use: "unlock [UID] [--router NAME]", Short: "Let a user, or a router's users, try passwords again", Args: cobra.MaximumNArgs(1),
		Long: `Ends locks after too many failed logins before their time: of a user, at every router;
with --router that on all logins at a router; with both, both. The count begins anew, as
after a right password. Who did it for whom is in the audit records (--kind unlocked).

This concerns the directory alone. twinkey-ca user unlock, at the CA, does the same at
both, and is the one to take unless the CA is away: logins of users of a source (RADIUS,
LDAP) are counted there too.`,
		Example: "  twinkey-directory unlock alice\n  twinkey-directory unlock --router berlin\n  twinkey-directory unlock alice --router berlin --json",
		RunE: func(c *cobra.Command, args []string) error {
			u := api.Unlock{Router: router}
			if len(args) > 0 {
				u.UID = args[0]
			}
			what := "unlocking " + words(u)
			if err := checkUnlock(u); err != nil {
				return cli.Fail(cli.ExitUsage, what, err, "such as: twinkey-directory unlock alice; what is locked: twinkey-directory locks")
			}
			locks, err := in().unlock(c.Context(), u)
			if err != nil {
				return fail(what, err)
			}
			if asJSON, _ := c.Flags().GetBool("json"); !asJSON && len(locks) == 0 {
				_, err := fmt.Fprintf(c.OutOrStdout(), "nothing was locked here for %s: nothing was changed\n", words(u))
				return err
			}
			now := time.Now()
			return cli.Print(c, released{locks}, func(t *cli.Table) {
				for _, l := range locks {
					t.Row("unlocked: "+l.Subject.String(), "it would have ended "+cli.Until(now, l.Until))
				}
			})
		},
	}
	c.Flags().StringVar(&router, "router", "", "the lock on all logins at this router")
	cli.AddJSON(c)
	return c
}

// words names what is to be released.
func words(u api.Unlock) string {
	switch {
	case u.UID == "":
		return "router " + u.Router
	case u.Router == "":
		return u.UID
	}
	return u.UID + " and router " + u.Router
}

func checkUnlock(u api.Unlock) error {
	if u.UID == "" && u.Router == "" {
		return errors.New("a UserID is needed, or --router, or both")
	}
	for _, name := range []string{u.UID, u.Router} {
		if err := twincert.CheckName(name); name != "" && err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return nil
}

// locks asks the running server, or looks into the database itself.
func (h home) locks(ctx context.Context) (out []lockout.Lock, err error) {
	res, err := h.get(ctx, api.PathLocks, nil)
	if errors.Is(err, errNotRunning) {
		reg, closeDB, err := h.open(ctx)
		if err != nil {
			return nil, err
		}
		err = reg.Read(ctx, func(r *store.Reader) (err error) {
			out, err = r.Locks(reg.Now())
			return err
		})
		return out, errors.Join(err, closeDB())
	}
	return answered[[]lockout.Lock](res, err)
}

// unlock has the running server do it, or does it in the database itself.
func (h home) unlock(ctx context.Context, u api.Unlock) ([]lockout.Lock, error) {
	b, err := json.Marshal(u)
	if err != nil {
		return nil, err
	}
	res, err := h.ask(ctx, http.MethodPost, api.PathUnlock, b)
	if errors.Is(err, errNotRunning) {
		reg, closeDB, err := h.open(ctx)
		if err != nil {
			return nil, err
		}
		out, err := reg.Unlock(ctx, operator.Self(), client.Unlock{UID: u.UID, Router: u.Router})
		return out, errors.Join(err, closeDB())
	}
	return answered[[]lockout.Lock](res, err)
}
