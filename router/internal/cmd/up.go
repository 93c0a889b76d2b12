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
			load := func() (*settings.Settings, error) { return settings.Load(file) }
			s, err := load()
			if err != nil {
				return cli.Fail(cli.ExitConfig, "reading the configuration", err, "twinkey-router config example prints every key")
			}
			log := cli.Logger(c.Context())
			a, err := appliance.New(s, appliance.Options{Version: cli.ReadVersion("twinkey-router").Version, KeyLog: keylog, Load: load}, log)
			if err != nil {
				return cli.Fail(cli.ExitFailure, "starting the router", err, startHint(err))
			}
			reloadOnHangup(c.Context(), a)
			if err := a.Run(c.Context()); err != nil {
				return cli.Fail(cli.ExitFailure, "running the router", err, "")
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "/etc/twinkey/router.yaml", "configuration file")
	f.StringVar(&keylog, "keylog", "", "append the keys of all associations to this file, in the form of tshark's table esp_sa")
	return c
}

func startHint(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EPERM):
		return "the router needs CAP_NET_ADMIN: run it as root or by its systemd unit"
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process has this address: is a router running already?"
	}
	return ""
}

// reloadOnHangup reads the configuration again on SIGHUP, until ctx ends.
func reloadOnHangup(ctx context.Context, a *appliance.Appliance) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-hup:
				_ = a.Reload(ctx) // it has logged what it did
			case <-ctx.Done():
				return
			}
		}
	}()
}

func configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "example and check of the configuration file"}
	c.AddCommand(&cobra.Command{
		Use: "example", Short: "print a file with every key, its meaning and its default", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write([]byte(config.Document[settings.File]()))
			return err
		},
	}, &cobra.Command{
		Use: "check FILE", Short: "say whether a file would be taken", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if _, err := settings.Load(args[0]); err != nil {
				return cli.Fail(cli.ExitConfig, "checking the configuration", err, "twinkey-router config example prints every key")
			}
			return nil
		},
	})
	return c
}
