package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/internal/home"
	"twinkey/ca/internal/source"
	"twinkey/pkg/cli"
	"twinkey/pkg/config"
)

// sourceTime bounds a test: longer than all servers of a source may take, one after the other.
const sourceTime = 5 * time.Minute

func sourceCommand() *cobra.Command {
	return group("source", "Authentication sources: RADIUS and LDAP servers that know users and their passwords", sourceListCommand(), sourceTestCommand())
}

func sourceListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the sources of ca.yaml", Args: cobra.NoArgs,
		Long: `list reads ca.yaml and the files that it names, and lists the sources in the order
in which they are asked. What they have been doing is in twinkey-ca status.`,
		Example: "  twinkey-ca source list\n  twinkey-ca source list --json | jq '.[] | {name, kind, servers}'"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return withSources(c, *dir, "listing sources", func(sources []source.Source) error {
			states := []source.State{}
			for _, s := range sources {
				if r, ok := s.(source.Reporter); ok {
					states = append(states, r.State())
				}
			}
			return cli.Print(c, states, func(t *cli.Table) {
				for _, st := range states {
					t.Row(st.Name, st.Kind, strings.Join(st.Servers, " "), strings.Join(st.Warnings, "; "))
				}
			}, "NAME", "KIND", "SERVERS", "WARNING")
		})
	}
	return c
}

func sourceTestCommand() *cobra.Command {
	c := &cobra.Command{Use: "test NAME UID", Short: "Ask a source whether a password is right, as a login would", Args: cobra.ExactArgs(2),
		Long: `test asks the source NAME of ca.yaml whether a password of the user UID is right, and
prints what it answers: the tunnel group, and how long a login may last. Nothing is
issued. The CA need not run; ca.yaml is read as it is now.

Exit codes: 0 the password is right, 3 ca.yaml or a file that it names is wrong, 4 no
server gave an answer that can be believed, 5 the source does not accept this user with
this password, 6 there is no source of that name.`,
		Example: `  twinkey-ca source test office alice
  twinkey-ca source test office alice --password-file - --json < alice.password`}
	dir := addDir(c)
	file := c.Flags().String("password-file", "", "file with the password, - for standard input (default: ask)")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		what := fmt.Sprintf("asking source %s about %s", args[0], args[1])
		return withSources(c, *dir, what, func(sources []source.Source) error {
			i := slices.IndexFunc(sources, func(s source.Source) bool { return s.Name() == args[0] })
			if i < 0 {
				return cli.Fail(cli.ExitNotFound, what, errors.New("there is no such source in ca.yaml"), "twinkey-ca source list shows those that there are")
			}
			password, err := readSecret(c, *file, prompt)
			if err != nil {
				return cli.Fail(cli.ExitUsage, what, err, "type it in a terminal, or name a file that holds it: --password-file FILE, - being standard input")
			}
			defer clear(password)
			return sourceTest(c, what, sources[i], args[1], password)
		})
	}
	return c
}

func sourceTest(c *cobra.Command, what string, s source.Source, uid string, password []byte) error {
	ctx, cancel := context.WithTimeout(c.Context(), sourceTime)
	defer cancel()
	a, err := s.Check(ctx, uid, password)
	switch {
	case c.Context().Err() != nil:
		return c.Context().Err()
	case errors.Is(err, source.ErrRejected):
		return cli.Fail(cli.ExitDenied, what, err, "the server's own log says whether it is the user or the password")
	case err != nil:
		return cli.Fail(cli.ExitUnavailable, what, err, "does the server run, does it know this CA's address and secret or certificate, and is it new enough to sign its answers (Message-Authenticator)?")
	}
	answer := struct {
		Source  string `json:"source"`
		UID     string `json:"uid"`
		Group   string `json:"group"`
		Seconds int64  `json:"session_seconds"` // 0: as the policy says
	}{s.Name(), uid, a.Group, int64(a.Session / time.Second)}
	session := "as the policy says"
	if a.Session > 0 {
		session = cli.Duration(a.Session)
	}
	return cli.Print(c, answer, func(t *cli.Table) {
		t.Row("password", "right")
		t.Row("group", cmp.Or(a.Group, "none: the source names no tunnel group for this user"))
		t.Row("session", session)
	})
}

// withSources opens the sources of ca.yaml for f.
func withSources(c *cobra.Command, dir, what string, f func([]source.Source) error) error {
	conf, err := home.LoadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s: %w", dir, home.ErrNone)
	}
	if err != nil {
		return fail(what, err)
	}
	sources, err := home.OpenSources(dir, conf.Sources, cli.Logger(c.Context()))
	if _, ok := errors.AsType[*config.Error](err); ok && errors.Is(err, fs.ErrNotExist) {
		return cli.Fail(cli.ExitConfig, what, err, "paths in ca.yaml are relative to the CA's directory")
	}
	if err != nil {
		return fail(what, err)
	}
	err = f(sources)
	if closed := home.CloseSources(sources); err == nil {
		err = closed
	}
	return err
}

// describeSource is a source in one line.
func describeSource(s source.State) string {
	words := []string{s.Kind + " " + strings.Join(s.Servers, " ")}
	for _, n := range s.Counts {
		words = append(words, fmt.Sprintf("%s %d", n.What, n.N))
	}
	return strings.Join(words, ", ")
}
