package cmd

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/internal/api"
	"twinkey/ca/internal/issue"
	"twinkey/pkg/cli"
	"twinkey/pkg/keybundle"
)

func userCommand() *cobra.Command {
	return group("user", "Users: people who log in at a router",
		userKeysCommand("add UID", "Give a user keys and a certificate", false),
		userKeysCommand("renew UID", "Give a user new keys, a new certificate and, if you like, a new password", true),
		userTokenCommand(), userListCommand(), userShowCommand(), revokeCommand("user", "UID"), userAllowCommand(), userUnlockCommand())
}

func userAllowCommand() *cobra.Command {
	c := &cobra.Command{Use: "allow UID", Short: "Let a user of a source in again who was revoked", Args: cobra.ExactArgs(1),
		Long: `allow ends what revoke did to a user whom a source authenticates (RADIUS, LDAP): from
now on the source decides again. The user gets new keys and a new certificate with
the next login that it accepts. A local user is let in again with user add.`,
		Example: "  twinkey-ca user allow alice"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return asking(c, *dir, "allowing user "+args[0], func(a *api.Admin) error {
			var u api.User
			if err := a.Post(c.Context(), struct{}{}, &u, "users", args[0], "allow"); err != nil {
				return err
			}
			return printUsers(c, []api.User{u}, u)
		})
	}
	return c
}

func userKeysCommand(use, short string, renew bool) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1),
		Long: short + `.

This is for local users, whose password you set. Users of a source (RADIUS, LDAP) are
added and renewed by logging in.

The private keys are sealed under the password before they leave the CA; neither
the CA nor the directory keeps the password. Certificate, user and sealed keys
appear in the directory together, or none of them does.`,
		Example: "  twinkey-ca user " + strings.Fields(use)[0] + " alice --group staff --password-file alice.password",
	}
	dir := addDir(c)
	grp := c.Flags().String("group", "", "tunnel group: its users share a tunnel to each destination")
	file := c.Flags().String("password-file", "", "file with the password, - for standard input (default: ask)")
	cli.AddJSON(c)
	sameKeys := new(bool)
	if renew {
		c.Long += `

With --same-keys the user keeps both keys and the password: the CA certifies them
for another term, nobody has to type anything, and a call that is up goes on. The
control key is the one that the group has now. With a password the keys are new,
and who is logged in has to log in again before the old certificate ends.`
		c.Example += "\n  twinkey-ca user renew alice --same-keys"
		sameKeys = c.Flags().Bool("same-keys", false, "keep keys and password")
		c.MarkFlagsMutuallyExclusive("same-keys", "password-file")
		c.MarkFlagsMutuallyExclusive("same-keys", "group")
	} else {
		_ = c.MarkFlagRequired("group") // it is there
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		what := strings.Fields(use)[0] + " user " + args[0]
		if *sameKeys {
			return asking(c, *dir, what, func(a *api.Admin) error {
				var u api.User
				if err := a.Post(c.Context(), struct{}{}, &u, "users", args[0], "renew"); err != nil {
					return err
				}
				return printUsers(c, []api.User{u}, u)
			})
		}
		password, err := readPassword(c, args[0], *file)
		if err != nil {
			return cli.Fail(cli.ExitUsage, what, err, "type it in a terminal, or name a file that holds it: --password-file FILE, - being standard input")
		}
		defer clear(password)
		return asking(c, *dir, what, func(a *api.Admin) error {
			in := api.AddUser{UID: args[0], Group: *grp, Renew: renew}
			if renew && in.Group == "" {
				var old api.User
				if err := a.Get(c.Context(), &old, "users", args[0]); err != nil {
					return err
				}
				in.Group = old.Group
			}
			u, err := certifyUser(c, a, in, password)
			if err != nil {
				return err
			}
			return printUsers(c, []api.User{u}, u)
		})
	}
	return c
}

// certifyUser derives from the password what the CA needs, which is not the password.
func certifyUser(c *cobra.Command, a *api.Admin, in api.AddUser, password []byte) (u api.User, err error) {
	if in.Params, err = keybundle.DefaultParams(rand.Reader); err != nil {
		return u, err
	}
	proof, err := keybundle.Derive(password, in.Params)
	if err != nil {
		return u, err
	}
	defer proof.Wipe()
	in.Verifier, in.Seal = keybundle.Verifier(proof.Auth.Bytes()), proof.Seal.Bytes()
	return u, a.Post(c.Context(), in, &u, "users")
}

// local is the source of users whose password the operator gave.
const local = "local"

func printUsers(c *cobra.Command, rows []api.User, v any) error {
	now := time.Now()
	return cli.Print(c, v, func(t *cli.Table) {
		for _, u := range rows {
			state := u.State
			if u.Barred {
				state += ", barred"
			}
			t.Row(u.UID, u.Group, cmp.Or(u.Source, local), state, cli.Until(now, u.NotAfter), u.Keys, u.Serial, u.Reason)
		}
	}, "UID", "GROUP", "SOURCE", "STATE", "EXPIRES", "KEYS", "SERIAL", "REASON")
}

func userTokenCommand() *cobra.Command {
	c := &cobra.Command{Use: "token UID --group G", Short: "Make a one-time token with which a user gets keys of their own certified", Args: cobra.ExactArgs(1),
		Long: `token lets a user enrol from a machine of their own, once. The two private keys are
made there, sealed there under a password that the user chooses, and never leave
it: neither the CA nor the directory has them. Such a user cannot log in at a
router, which would need the keys; their own machine encrypts.`,
		Example: `  twinkey-ca user token alice --group staff --ttl 1h`}
	dir := addDir(c)
	grp := c.Flags().String("group", "", "tunnel group, which decides what the user may do; their tunnel is their own")
	ttl := c.Flags().Duration("ttl", time.Hour, "how long the token is good")
	cli.AddJSON(c)
	_ = c.MarkFlagRequired("group") // it is there
	c.RunE = func(c *cobra.Command, args []string) error {
		return askToken(c, *dir, "making a token for user "+args[0], api.NewToken{Role: issue.RoleUser, Name: args[0], Group: *grp, TTL: ttl.String()}, "twinkey-router client enroll "+args[0])
	}
	return c
}

func userListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List all users", Args: cobra.NoArgs,
		Example: "  twinkey-ca user list\n  twinkey-ca user list --json | jq -r '.[] | select(.state == \"expired\").uid'"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "listing users", func(a *api.Admin) error {
			var users []api.User
			if err := a.Get(c.Context(), &users, "users"); err != nil {
				return err
			}
			return printUsers(c, users, users)
		})
	}
	return c
}

func userShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show UID", Short: "Show one user and the certificates issued to them", Args: cobra.ExactArgs(1),
		Example: "  twinkey-ca user show alice\n  twinkey-ca user show alice --json | jq '.certificates[] | {serial, state, reason}'"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return asking(c, *dir, "showing user "+args[0], func(a *api.Admin) error {
			var u api.UserDetail
			if err := a.Get(c.Context(), &u, "users", args[0]); err != nil {
				return err
			}
			if err := printUsers(c, []api.User{u.User}, u); err != nil || wantsJSON(c) {
				return err
			}
			if _, err := fmt.Fprintln(c.OutOrStdout()); err != nil {
				return err
			}
			return printCerts(c, u.Certificates)
		})
	}
	return c
}

func wantsJSON(c *cobra.Command) bool {
	json, err := c.Flags().GetBool("json")
	return err == nil && json
}

// revokeCommand withdraws all certificates of a user or a router.
func revokeCommand(role, arg string) *cobra.Command {
	sourced := ""
	if role == "user" {
		sourced = `

A user of a source (RADIUS, LDAP) is barred as well: whatever the source says, no login
brings a new certificate until twinkey-ca user allow. Somebody who has never logged
in is not known here, and has to be disabled at the source.`
	}
	c := &cobra.Command{Use: "revoke " + arg, Short: "Withdraw all certificates of a " + role + ", for good", Args: cobra.ExactArgs(1),
		Long: "revoke withdraws all certificates of a " + role + `. The CRL says so at once; the
directory is told in the same operation and tells every router, which ends the
calls. If the directory cannot be reached the CA goes on trying, and the exit code
is 9: until then routers go on with the calls that are up, but for those that have
lost the directory too, which read the CRL here within a minute.` + sourced,
		Example: "  twinkey-ca " + role + " revoke NAME --reason \"left the company\""}
	dir := addDir(c)
	reason := c.Flags().String("reason", "", "for the audit record")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		what := "revoking " + role + " " + args[0]
		var done api.Revoked
		err := asking(c, *dir, what, func(a *api.Admin) error {
			if err := a.Post(c.Context(), api.Reason{Reason: *reason}, &done, role+"s", args[0], "revoke"); err != nil {
				return err
			}
			return cli.Print(c, done, func(t *cli.Table) {
				told := "the directory has it and tells the routers"
				if !done.Told {
					told = "the directory does NOT have it yet"
				}
				t.Row(fmt.Sprintf("%s %s revoked:", role, args[0]), fmt.Sprintf("%d certificates;", done.Certificates), told)
			})
		})
		if err != nil || done.Told {
			return err
		}
		return untold(what, done.Pending)
	}
	return c
}

// untold is a revocation that routers have not heard of: a script that goes on as if the calls had
// ended would be wrong, and so would one that revokes again.
func untold(what, pending string) error {
	if pending == "" {
		return cli.Fail(cli.ExitPending, what, fmt.Errorf("it is recorded at the CA and in its CRL; %w that could tell the routers", issue.ErrNoDirectory),
			"put its URL into ca.yaml as directory: and start the CA anew, then: twinkey-ca crl --new")
	}
	return cli.Fail(cli.ExitPending, what, fmt.Errorf("it is recorded at the CA and in its CRL; the directory could not be told, nor the routers that hear it: %s", pending),
		"bring the directory back; the CA tells it then by itself, nothing needs to be repeated; twinkey-ca status shows it as pending until then")
}

func routerCommand() *cobra.Command {
	return group("router", "Routers", routerTokenCommand(), tokensCommand(), routerListCommand(), routerShowCommand(), revokeCommand("router", "NAME"), routerUnlockCommand())
}

func routerTokenCommand() *cobra.Command {
	c := &cobra.Command{Use: "token NAME --prefix P --scope S", Short: "Make a one-time token with which a router enrols", Args: cobra.ExactArgs(1),
		Long: `token lets one box enrol as the router NAME, once. What the router may do is
fixed here and will stand in its certificate: the private prefixes that it may
announce, and the users whose keys it may ask for (group:NAME, user:UID, or *).`,
		Example: `  twinkey-ca router token berlin --prefix 10.1.0.0/24 --prefix fd00:1::/64 --scope group:staff --ttl 1h`}
	dir := addDir(c)
	f := c.Flags()
	prefixes := f.StringSlice("prefix", nil, "private prefix that it may announce; may be repeated")
	scope := f.StringSlice("scope", nil, "whose keys it may ask for: group:NAME, user:UID or *; may be repeated")
	hosts := f.StringSlice("dns", nil, "names and addresses in its TLS certificate")
	ttl := f.Duration("ttl", time.Hour, "how long the token is good")
	overlap := f.Bool("overlap", false, "let a prefix overlap with another router's")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		what := "making a token for router " + args[0]
		in := api.NewToken{Role: issue.RoleRouter, Name: args[0], Scope: *scope, Hosts: *hosts, TTL: ttl.String(), Overlap: *overlap}
		for _, s := range *prefixes {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return cli.Fail(cli.ExitUsage, what, err, "a prefix looks like 10.1.0.0/24")
			}
			in.Prefixes = append(in.Prefixes, p)
		}
		if len(in.Prefixes) == 0 { // a router without any bridges nothing and serves nobody; mending that takes another enrolment
			return cli.Fail(cli.ExitUsage, what, errors.New("--prefix is needed: what the router may announce is fixed by the token"), "such as: twinkey-ca router token "+args[0]+" --prefix 10.1.0.0/24 --scope group:staff")
		}
		return askToken(c, *dir, what, in, "twinkey-router enroll")
	}
	return c
}

func askToken(c *cobra.Command, dir, what string, in api.NewToken, enroll string) error {
	return asking(c, dir, what, func(a *api.Admin) error {
		var t api.Token
		if err := a.Post(c.Context(), in, &t, "tokens"); err != nil {
			return err
		}
		if json, err := c.Flags().GetBool("json"); err == nil && json {
			return cli.Print(c, t, nil)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), `%s

It works once, until %s. On the machine that is to have the keys:
  %s --ca %s --fingerprint %s --token %s
`, t.Secret, t.Expires.Local().Format(time.DateTime), enroll, t.CA, t.Fingerprint, t.Secret)
		return err
	})
}

func tokensCommand() *cobra.Command {
	c := &cobra.Command{Use: "tokens", Short: "List tokens and what became of them", Args: cobra.NoArgs,
		Long: `tokens lists the one-time tokens, of users and of the directory too, and whether they were
used, have expired or are still good. The tokens themselves are kept nowhere.`,
		Example: "  twinkey-ca router tokens\n  twinkey-ca router tokens --json | jq '.[] | {name, role, state}'"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "listing tokens", func(a *api.Admin) error {
			var tokens []api.Token
			if err := a.Get(c.Context(), &tokens, "tokens"); err != nil {
				return err
			}
			now := time.Now()
			return cli.Print(c, tokens, func(t *cli.Table) {
				for _, k := range tokens {
					t.Row(k.ID, k.Role, k.Name, k.State, cli.Until(now, k.Expires))
				}
			}, "ID", "ROLE", "NAME", "STATE", "EXPIRES")
		})
	}
	return c
}

func routerListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List all routers", Args: cobra.NoArgs,
		Example: "  twinkey-ca router list\n  twinkey-ca router list --json | jq '.[] | {name, prefixes, scope}'"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "listing routers", func(a *api.Admin) error {
			var routers []api.Router
			if err := a.Get(c.Context(), &routers, "routers"); err != nil {
				return err
			}
			return printRouters(c, routers, routers)
		})
	}
	return c
}

func routerShowCommand() *cobra.Command {
	c := &cobra.Command{Use: "show NAME", Short: "Show one router", Args: cobra.ExactArgs(1),
		Example: "  twinkey-ca router show berlin\n  twinkey-ca router show berlin --json | jq .not_after"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return asking(c, *dir, "showing router "+args[0], func(a *api.Admin) error {
			var r api.Router
			if err := a.Get(c.Context(), &r, "routers", args[0]); err != nil {
				return err
			}
			return printRouters(c, []api.Router{r}, r)
		})
	}
	return c
}

func printRouters(c *cobra.Command, rows []api.Router, v any) error {
	now := time.Now()
	return cli.Print(c, v, func(t *cli.Table) {
		for _, r := range rows {
			prefixes := make([]string, len(r.Prefixes))
			for i, p := range r.Prefixes {
				prefixes[i] = p.String()
			}
			t.Row(r.Name, r.State, cli.Until(now, r.NotAfter), strings.Join(prefixes, ","), strings.Join(r.Scope, ","), r.Twin)
		}
	}, "NAME", "STATE", "EXPIRES", "PREFIXES", "SCOPE", "SERIAL")
}

func directoryCommand() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Make a one-time token with which the directory enrols", Args: cobra.NoArgs,
		Example: `  twinkey-ca directory token --ttl 1h`}
	dir := addDir(c)
	hosts := c.Flags().StringSlice("dns", nil, "names and addresses in its TLS certificate")
	ttl := c.Flags().Duration("ttl", time.Hour, "how long the token is good")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return askToken(c, *dir, "making a token for the directory", api.NewToken{Role: issue.RoleDirectory, Hosts: *hosts, TTL: ttl.String()}, "twinkey-directory enroll")
	}
	return group("directory", "The directory", c, acceptRestoreCommand())
}

func acceptRestoreCommand() *cobra.Command {
	c := &cobra.Command{Use: "accept-restore", Short: "Say that what a restored directory lacked is mended", Args: cobra.NoArgs,
		Long: `accept-restore ends the warning of twinkey-ca status that the directory was
restored from an older copy. Renew first the users, and enrol anew the routers,
whose certificates were issued since the copy was taken.`,
		Example: "  twinkey-ca status\n  twinkey-ca user renew alice --password-file alice.password\n  twinkey-ca directory accept-restore"}
	dir := addDir(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "accepting the restored directory", func(a *api.Admin) error {
			return a.Post(c.Context(), struct{}{}, &struct{}{}, "directory", "accept")
		})
	}
	return c
}
