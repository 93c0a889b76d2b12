package cmd

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"twinkey/pkg/cli"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
	"twinkey/pkg/tun"
	"twinkey/router/internal/admin"
	"twinkey/router/internal/appliance"
	"twinkey/router/internal/settings"
)

func up() *cobra.Command {
	var file, keylog string
	c := &cobra.Command{
		Use:   "up --config FILE",
		Short: "run the router until it is told to stop",
		Long: `up makes the TUN interface, sets its routes, keeps the links to the other sites
and answers theirs. SIGTERM and SIGINT stop it: peers are told, routes and
interface go. SIGHUP reads the configuration again.`,
		Example: `  twinkey-router up --config /etc/twinkey/router.yaml

  # let tshark read a capture (whoever has the file reads the traffic)
  twinkey-router up --config router.yaml --keylog esp_sa`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			hup := make(chan os.Signal, 1) // from the first moment on: unheard it would end the process
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			load := func() (*settings.Settings, error) { return settings.Load(file) }
			s, err := load()
			if err != nil {
				return cli.Fail(cli.ExitConfig, "reading the configuration", err, "twinkey-router config example prints every key")
			}
			log := cli.Logger(c.Context())
			a, err := appliance.New(s, appliance.Options{Version: cli.ReadVersion("twinkey-router").Version, KeyLog: keylog, Load: load}, log)
			if err != nil {
				return startFailed("starting the router", err)
			}
			ctx, stop := context.WithCancel(c.Context())
			defer stop()
			go reloadOnHangup(ctx, hup, a)
			err = a.Run(ctx)
			if errors.Is(err, context.Canceled) && c.Context().Err() != nil {
				return nil // told to stop before it was up
			}
			if err != nil {
				return startFailed("running the router", err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "/etc/twinkey/router.yaml", "configuration file")
	f.StringVar(&keylog, "keylog", "", "append the keys of all associations to this file, in the form of tshark's table esp_sa")
	return c
}

// startFailed says what the administrator of this box can do about it.
func startFailed(what string, err error) error {
	code, hint := cli.ExitFailure, "the log above says how far it came; --log-level debug says more"
	if e, ok := errors.AsType[*identity.PermissionsError](err); ok {
		return cli.Fail(cli.ExitDenied, what, err, e.Hint())
	}
	switch {
	case errors.Is(err, identity.ErrNone):
		code, hint = cli.ExitNotFound, "enrol first: twinkey-router enroll --ca URL --fingerprint F --token T"
	case errors.Is(err, appliance.ErrUncovered):
		code, hint = cli.ExitConfig, "correct site.prefixes, or have this router revoked and enrol it anew with a token for more"
	case errors.Is(err, admin.ErrInUse), errors.Is(err, tun.ErrInUse):
		code, hint = cli.ExitInUse, "a router is running already: twinkey-router status"
	case errors.Is(err, syscall.EADDRINUSE):
		code, hint = cli.ExitInUse, "another process has this address: is a router running already?"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		code, hint = cli.ExitConfig, "no interface of this box has this address: correct listen"
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EPERM):
		code, hint = cli.ExitDenied, "the router needs CAP_NET_ADMIN and its own files: run it as root or by its systemd unit"
	}
	return cli.Fail(code, what, err, hint)
}

// reloadOnHangup reads the configuration again on each SIGHUP, until ctx ends.
func reloadOnHangup(ctx context.Context, hup <-chan os.Signal, a *appliance.Appliance) {
	for {
		select {
		case <-hup:
			_ = a.Reload(ctx) // it has logged what it did
		case <-ctx.Done():
			return
		}
	}
}

func configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "example and check of the configuration file"}
	c.AddCommand(&cobra.Command{
		Use: "example", Short: "print a file with every key, its meaning and its default", Args: cobra.NoArgs,
		Example: "  twinkey-router config example > /etc/twinkey/router.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write([]byte(config.Document[settings.File]()))
			return err
		},
	}, &cobra.Command{
		Use: "check FILE", Short: "say whether a file would be taken", Args: cobra.ExactArgs(1),
		Long: `check reads a configuration as up and reload do, and says by its exit code whether they
would take it: 0, or 3 and what is wrong in which line. It is silent if nothing is.`,
		Example: "  twinkey-router config check /etc/twinkey/router.yaml",
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := settings.Load(args[0]); err != nil {
				return cli.Fail(cli.ExitConfig, "checking the configuration", err, "twinkey-router config example prints every key")
			}
			return nil
		},
	})
	return c
}
