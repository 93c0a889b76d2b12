package cmd

import (
	"cmp"
	"errors"

	"github.com/spf13/cobra"

	"twinkey/pkg/cli"
	"twinkey/router/internal/admin"
)

// defaultState is where a router keeps its keys unless it is told otherwise.
const defaultState = "/var/lib/twinkey-router"

// Main runs the command line of this process and returns its exit code.
func Main() int { return cli.Main(Root()) }

// Root returns the command line.
func Root() *cobra.Command {
	root := cli.New(cli.Program{
		Name:  "twinkey-router",
		Short: "bridge private LANs through L2TP tunnels that are secured per call",
		Long: `twinkey-router is the box at each site. It opens a site link to every other
router that the company's directory names, and places calls for users who log
in at it. Enrol it once, write a short configuration, start it.`,
		Example: `  # once, with the token that the CA's operator gave you
  twinkey-router enroll --ca https://hq.example:8700 --fingerprint 5f3a... --token T

  # for good
  twinkey-router up --config /etc/twinkey/router.yaml

  # what is going on
  twinkey-router status

  # on a user's own machine, which then encrypts by itself
  twinkey-router client login alice --router 10.1.1.1 --fingerprint 5f3a...`,
	})
	root.AddCommand(enroll(), up(), status(), callsCommand(), topCommand(), hangup(), login(), logout(), passwd(), portalCommand(), reload(), configCommand(), clientCommand())
	return root
}

// stateFlag adds --state, with which every operator's command finds the router.
func stateFlag(c *cobra.Command) *string {
	return c.Flags().String("state", defaultState, "state directory of the running router")
}

var kinds = map[admin.Kind]int{
	"": cli.ExitFailure, admin.KindConfig: cli.ExitConfig, admin.KindUnavailable: cli.ExitUnavailable,
	admin.KindDenied: cli.ExitDenied, admin.KindNotFound: cli.ExitNotFound, admin.KindConflict: cli.ExitConflict,
}

// asked turns a failure of the control socket into one of three parts.
func asked(what string, err error) error {
	if err == nil {
		return nil
	}
	code := cli.ExitFailure
	hint := "see this router's log; does its process still run?"
	if e, ok := errors.AsType[*admin.Error](err); ok {
		hint = cmp.Or(e.Hint, hint)
		code = kinds[e.Kind]
	}
	switch {
	case errors.Is(err, admin.ErrNotRunning):
		code = cli.ExitUnavailable
	case errors.Is(err, admin.ErrDenied):
		code = cli.ExitDenied
	}
	return cli.Fail(code, what, err, hint)
}
