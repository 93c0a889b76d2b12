package cmd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"twinkey/directory/internal/access"
	"twinkey/directory/internal/api"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/directory/internal/watch"
	"twinkey/pkg/cli"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
)

const roleDirectory = "directory"

func serveCommand(in func() home) *cobra.Command {
	var listen config.TCPAddress
	var ca string
	c := &cobra.Command{
		Use:     "serve",
		Short:   "Answer the CA and the routers",
		Long:    "Answers until SIGTERM; SIGHUP reads the identity anew. Settings are read from directory.yaml in --dir:\n\n" + config.Document[Settings](),
		Example: "  twinkey-directory serve --dir /var/lib/twinkey-directory --listen 192.0.2.1:8702",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			h := in()
			s, err := loadSettings(h.settings())
			if err != nil {
				return fail("reading the settings", err)
			}
			if listen != "" {
				s.Listen = listen
			}
			if ca != "" {
				s.CA = ca
			}
			return fail("serving", serve(c.Context(), h, s, cli.Logger(c.Context())))
		},
	}
	c.Flags().TextVar(&listen, "listen", listen, "TCP address, in place of the one in the settings")
	c.Flags().StringVar(&ca, "ca", "", "URL of the CA, in place of the one in the settings")
	return c
}

// serve runs until ctx ends. It owns everything that it opens.
func serve(ctx context.Context, h home, s Settings, log *slog.Logger) (err error) {
	id, err := identity.Load(h.identity())
	switch {
	case errors.Is(err, identity.ErrNone), errors.Is(err, identity.ErrPermissions), errors.Is(err, os.ErrPermission):
		return err
	case err != nil:
		return cli.Fail(cli.ExitFailure, "its identity is damaged", err, "put back a copy of the identity directory, or move it away and enrol anew")
	}
	if id.Role() != roleDirectory {
		return fmt.Errorf("the identity in %s is that of a %s", h.identity(), id.Role())
	}
	db, err := boltstore.Open(h.database())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	reg, err := store.Open(ctx, db, time.Now)
	if err != nil {
		return err
	}
	guard := access.New(reg, func() (roots, intermediates []*x509.Certificate) {
		b := id.Bundle()
		return b.Roots, b.Intermediates
	}, access.Policy{Lockout: s.Lockout.policy(), Least: s.Password.least()})
	srv := api.New(reg, guard, watch.New(reg, s.Heartbeat, s.Watchers), log)

	l, err := net.Listen("tcp", string(s.Listen))
	if err != nil {
		return err
	}
	admin, err := api.Listen(h.socket())
	if err != nil {
		return errors.Join(err, l.Close())
	}
	log.Info("serving", "listen", l.Addr().String(), "database", h.database(), "certificate-until", id.Bundle().TLS.Leaf.NotAfter)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(f func() error) { // the first that fails ends the others
		wg.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	run(func() error { return srv.Serve(ctx, l, id.ServerTLS()) })
	run(func() error { return srv.ServeAdmin(ctx, admin, describe(id, h)) })
	run(func() error { reloadOnHangup(ctx, id, log); return nil })
	run(func() error { newRenewal(id, s, log).run(ctx); return nil })
	<-ctx.Done()
	wg.Wait()
	log.Info("stopped")
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func describe(id *identity.Identity, h home) func(*api.Status) {
	return func(st *api.Status) {
		b := id.Bundle()
		certs := append([]*x509.Certificate{b.TLS.Leaf}, b.Intermediates...)
		for _, c := range append(certs, b.Roots...) {
			st.Certificates = append(st.Certificates, api.Certificate{Subject: c.Subject.String(), NotAfter: c.NotAfter})
		}
		if fi, err := os.Stat(h.database()); err == nil {
			st.Database = fi.Size()
		}
	}
}

func reloadOnHangup(ctx context.Context, id *identity.Identity, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		if err := id.Reload(); err != nil {
			log.Error("identity-reload-failed", "error", err)
			continue
		}
		log.Info("identity-reloaded", "certificate-until", id.Bundle().TLS.Leaf.NotAfter)
	}
}
