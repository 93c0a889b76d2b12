package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"twinkey/ca/internal/api"
	"twinkey/ca/internal/home"
	"twinkey/pkg/cli"
	"twinkey/pkg/config"
	"twinkey/pkg/twincert"
)

const defaultPort = "8700"

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "Make root, intermediate, databases and configuration of a new CA",
		Long: `init makes a new CA in a directory of its own and prints the fingerprint of its
root, by which every box recognises it. Nothing is overwritten.

The key of the root signs nothing but intermediates. Copy root.key to a safe
place and delete it here; the CA does not need it to run.`,
		Example: `  twinkey-ca init --dir /var/lib/twinkey-ca --name "Example Corp" --dns ca.example,192.0.2.10 --directory https://directory.example:8702`,
		Args:    cobra.NoArgs,
	}
	dir := addDir(c)
	f := c.Flags()
	name := f.String("name", "Example Corp", "company; it stands in the CA's certificates")
	dns := f.StringSlice("dns", nil, "names and addresses of the CA, the first one as boxes reach it (default: this host's name and 127.0.0.1)")
	port := f.String("port", defaultPort, "port of the CA as boxes reach it")
	directory := f.String("directory", "", "URL of the directory")
	profile := f.String("profile", twincert.Paper.String(), "form of twin certificates: paper or compat")
	passFile := f.String("password-file", "", "encrypt the CA's keys with the passphrase in this file")
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		const what = "making a CA"
		pass, err := passphrase(*passFile)
		if err != nil {
			return fail(what, err)
		}
		defer clear(pass)
		hosts := *dns
		if len(hosts) == 0 {
			hosts = ownHosts()
		}
		fingerprint, err := home.Init(c.Context(), *dir, home.InitOptions{Name: *name, Hosts: hosts, Port: *port, Directory: *directory, Profile: *profile, Passphrase: pass})
		if err != nil {
			return fail(what, err)
		}
		return printMade(c, *dir, fingerprint, *directory)
	}
	return c
}

func ownHosts() []string {
	hosts := []string{"127.0.0.1"}
	if h, err := os.Hostname(); err == nil && h != "" {
		hosts = append([]string{strings.ToLower(h)}, hosts...)
	}
	return hosts
}

func printMade(c *cobra.Command, dir, fingerprint, directory string) error {
	made := struct {
		Dir         string `json:"dir"`
		Fingerprint string `json:"fingerprint"`
		Directory   string `json:"directory,omitempty"`
	}{dir, fingerprint, directory}
	if json, err := c.Flags().GetBool("json"); err == nil && json {
		return cli.Print(c, made, nil)
	}
	next := "name the directory in ca.yaml (directory: https://HOST:8702), then"
	if directory != "" {
		next = "next:"
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), `CA made in %s
root fingerprint (SHA-256): %s

Copy %s/root.key to a safe place and delete it here: it is needed only
to make another intermediate.

%s
  twinkey-ca serve --dir %s
  twinkey-ca directory token --dir %s
`, dir, fingerprint, dir, next, dir, dir)
	return err
}

func serveCommand(at func(what, step string)) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the CA",
		Long: `serve runs the CA until it is told to stop. Operations that an earlier run left
half done are carried on with first: see "pending" in twinkey-ca status.`,
		Example: `  twinkey-ca serve --dir /var/lib/twinkey-ca --listen :8700`,
		Args:    cobra.NoArgs,
	}
	dir := addDir(c)
	var listen config.TCPAddress
	c.Flags().TextVar(&listen, "listen", listen, "TCP address (default: listen of ca.yaml)")
	passFile := c.Flags().String("password-file", "", "file with the passphrase of the CA's keys")
	accept := c.Flags().Bool("accept-clock", false, "the clock was ahead and is right now: forget the later time")
	c.RunE = func(c *cobra.Command, _ []string) error {
		pass, err := passphrase(*passFile)
		if err != nil {
			return fail("starting the CA", err)
		}
		defer clear(pass)
		ca, err := home.Open(*dir, home.Options{Passphrase: pass, Log: cli.Logger(c.Context()), At: at})
		if err != nil {
			return fail("starting the CA", err)
		}
		if *accept {
			err = ca.Desk.ResetClock()
		}
		if err == nil {
			err = serve(c.Context(), ca, listen)
		}
		if err = errors.Join(err, ca.Close()); err != nil {
			return fail("running the CA", err)
		}
		return nil
	}
	return c
}

func serve(ctx context.Context, ca *home.CA, addr config.TCPAddress) error {
	log := cli.Logger(ctx)
	signal.Ignore(syscall.SIGHUP) // there is nothing to read again, and nobody means to end the CA by it
	if addr == "" {
		addr = ca.Config.Listen
	}
	public, err := net.Listen("tcp", string(addr))
	if err != nil {
		return err
	}
	admin, err := api.ListenAdmin(ca.Dir)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	local, err := netip.ParseAddrPort(public.Addr().String())
	if err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	srv, err := api.New(api.Config{CA: ca, Port: local.Port(), Log: log})
	if err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	log.Info("CA is up", "listen", local, "url", ca.Config.URL, "fingerprint", home.Fingerprint(ca.Authority.Root()))
	err = srv.Serve(ctx, public, admin)
	log.Info("CA is down")
	return err
}

func statusCommand() *cobra.Command {
	c := &cobra.Command{Use: "status", Short: "How the CA does, and what needs attention", Args: cobra.NoArgs,
		Example: "  twinkey-ca status\n  twinkey-ca status --json | jq -r .fingerprint"}
	dir := addDir(c)
	cli.AddJSON(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return asking(c, *dir, "asking the CA how it does", func(a *api.Admin) error {
			var s api.Status
			if err := a.Get(c.Context(), &s, "status"); err != nil {
				return err
			}
			return cli.Print(c, s, func(t *cli.Table) { statusRows(t, s, time.Now()) })
		})
	}
	return c
}

func statusRows(t *cli.Table, s api.Status, now time.Time) {
	t.Row("company", s.Name)
	t.Row("url", s.URL)
	t.Row("root fingerprint", s.Fingerprint)
	for _, o := range s.Certificates {
		t.Row(o.What+" certificate", "ends "+cli.Until(now, o.NotAfter))
	}
	t.Row("CRL", fmt.Sprintf("number %d, due %s", s.CRL.Number, cli.Until(now, s.CRL.Next)))
	directory := s.Directory.URL
	switch {
	case directory == "":
		directory = "none configured"
	case s.Directory.Error != "":
		directory += "  " + s.Directory.Error
	default:
		directory += "  answers"
	}
	t.Row("directory", directory)
	for _, src := range s.Sources {
		t.Row("source "+src.Name, describeSource(src))
	}
	t.Row("active users", s.Users)
	t.Row("active routers", s.Routers)
	for _, p := range s.Pending {
		t.Row("pending", fmt.Sprintf("%s, since %s %s", p.What, cli.Until(now, p.Since), p.LastFailed))
	}
	for _, g := range s.Rotating {
		t.Row("rotated group", fmt.Sprintf("%s: %d certificates over an older control key, revoked %s", g.Name, g.Old, revokedWords(g, now)))
	}
	for _, e := range s.Expiring {
		t.Row("expires soon", fmt.Sprintf("%s certificate of %s %s, %s", e.Kind, e.Role, e.Name, cli.Until(now, e.NotAfter)))
	}
	for _, w := range s.Warnings {
		t.Row("warning", w)
	}
}
