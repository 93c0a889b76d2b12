package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	caclient "twinkey/ca/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/cli"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
)

const defaultDir = "/var/lib/twinkey-directory"

// home is the directory that everything lies in.
type home string

func (h home) path(name string) string { return filepath.Join(string(h), name) }
func (h home) database() string        { return h.path("directory.db") }
func (h home) identity() string        { return h.path("identity") }
func (h home) socket() string          { return h.path("admin.sock") }
func (h home) settings() string        { return h.path("directory.yaml") }

// Main runs the command line of this process and returns its exit code.
func Main() int { return cli.Main(Root()) }

// Root is the command twinkey-directory.
func Root() *cobra.Command {
	root := cli.New(cli.Program{
		Name:  "twinkey-directory",
		Short: "Keeps certificates, sealed keys and the site map, and says who may ask for what",
		Example: `  twinkey-directory enroll --ca https://ca.example:8700 --fingerprint F --token T --dir /var/lib/twinkey-directory
  twinkey-directory serve
  twinkey-directory backup /backup/directory-$(date +%F).db`,
	})
	dir := root.PersistentFlags().String("dir", defaultDir, "directory of database, identity and settings")
	in := func() home { return home(*dir) }
	root.AddCommand(enrollCommand(in), serveCommand(in), auditCommand(in), backupCommand(in), restoreCommand(in), statusCommand(in), locksCommand(in), unlockCommand(in))
	return root
}

// fail gives an error its exit code and hint.
func fail(what string, err error) error {
	if _, ok := errors.AsType[*cli.Error](err); ok {
		return cli.Within(what, err)
	}
	if e, ok := errors.AsType[*identity.PermissionsError](err); ok {
		return cli.Fail(cli.ExitDenied, what, err, e.Hint())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrInUse):
		return cli.Fail(cli.ExitInUse, what, err, "stop that process first; audit, backup, locks, status and unlock work while it runs")
	case errors.Is(err, store.ErrDamaged):
		return cli.Fail(cli.ExitFailure, what, err, "restore a copy: twinkey-directory restore FILE")
	case errors.Is(err, store.ErrWrite):
		return cli.Fail(cli.ExitFailure, what, err, "is the disk full? nothing was changed")
	case errors.Is(err, identity.ErrNone):
		return cli.Fail(cli.ExitNotFound, what, err, "enrol first: twinkey-directory enroll --ca URL --fingerprint F --token T")
	case errors.Is(err, identity.ErrExists):
		return cli.Fail(cli.ExitConflict, what, err, "it renews itself; to enrol anew move its identity directory away")
	case errors.Is(err, caclient.ErrUnavailable):
		return cli.Fail(cli.ExitUnavailable, what, err, "is the CA running, and is its URL right?")
	case errors.Is(err, caclient.ErrInvalid):
		return cli.Fail(cli.ExitUsage, what, err, "copy URL, fingerprint and token as they are from: twinkey-ca directory token")
	case errors.Is(err, caclient.ErrDenied):
		return cli.Fail(cli.ExitDenied, what, err, "a token works once and not for long; a new one: twinkey-ca directory token")
	case errors.Is(err, caclient.ErrFingerprint):
		return cli.Fail(cli.ExitDenied, what, err, "compare it with what twinkey-ca init printed; somebody may stand in between")
	case errors.Is(err, syscall.EADDRINUSE):
		return cli.Fail(cli.ExitInUse, what, err, "another process listens there; choose another address with --listen")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return cli.Fail(cli.ExitConfig, what, err, "no interface of this machine has this address: correct --listen or listen in directory.yaml")
	case errors.Is(err, os.ErrNotExist):
		return cli.Fail(cli.ExitNotFound, what, err, "is --dir right? a database is made by the first: twinkey-directory serve")
	case errors.Is(err, os.ErrPermission):
		return cli.Fail(cli.ExitDenied, what, err, "run as the owner of --dir")
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return cli.Fail(cli.ExitConfig, what, err, "correct the file, then start again")
	}
	return cli.Fail(cli.ExitFailure, what, err, "the log of twinkey-directory serve, and twinkey-directory status, say more")
}
