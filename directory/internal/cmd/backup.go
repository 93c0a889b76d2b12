package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"twinkey/directory/internal/api"
	"twinkey/directory/internal/store"
	"twinkey/directory/internal/store/boltstore"
	"twinkey/pkg/cli"
)

func backupCommand(in func() home) *cobra.Command {
	c := &cobra.Command{
		Use: "backup FILE", Short: "Copy the database, also while the directory runs", Args: cobra.ExactArgs(1),
		Long: `Writes a copy of one consistent state, reads it back and checks it before it gets its name.
The copy holds what the directory holds: sealed keys and password verifiers. Keep it as safe.`,
		Example: "  twinkey-directory backup /backup/directory-$(date +%F).db\n  twinkey-directory backup /backup/directory.db --json | jq .bytes",
		RunE: func(c *cobra.Command, args []string) error {
			const what = "backing up the directory"
			to := args[0]
			if _, err := os.Lstat(to); err == nil {
				return cli.Fail(cli.ExitConflict, what, fmt.Errorf("%s exists", to), "name a file that does not, or remove that one")
			}
			if _, err := os.Stat(filepath.Dir(to)); err != nil {
				return cli.Fail(cli.ExitNotFound, what, err, "name a file in a directory that exists")
			}
			n, err := in().backup(c.Context(), to)
			if err != nil {
				return fail(what, err)
			}
			return cli.Tell(c, struct {
				File  string `json:"file"`
				Bytes int64  `json:"bytes"`
			}{to, n}, "backed up: %s, %s, checked\n", to, cli.Bytes(uint64(n))) //nolint:gosec // a length
		},
	}
	cli.AddJSON(c)
	return c
}

// backup writes a checked copy to the file to, which must not be there.
func (h home) backup(ctx context.Context, to string) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*") // 0600
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ignoreGone(os.Remove(f.Name()))) }()
	n, err = h.copyTo(ctx, f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := boltstore.Check(f.Name()); err != nil {
		return 0, fmt.Errorf("checking the copy: %w", err)
	}
	if err := os.Link(f.Name(), to); err != nil { // unlike a rename it overwrites nothing
		return 0, err
	}
	return n, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (h home) copyTo(ctx context.Context, w io.Writer) (n int64, err error) {
	res, err := h.get(ctx, api.PathBackup, nil)
	if errors.Is(err, errNotRunning) {
		reg, closeDB, err := h.open(ctx)
		if err != nil {
			return 0, err
		}
		err = reg.Backup(ctx, w, func(size int64) { n = size })
		return n, errors.Join(err, closeDB())
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	if n, err = io.Copy(w, res.Body); err != nil {
		return n, fmt.Errorf("copying from the running directory: %w", err)
	}
	return n, nil
}

func restoreCommand(in func() home) *cobra.Command {
	c := &cobra.Command{
		Use: "restore FILE", Short: "Put a copy in the place of the database", Args: cobra.ExactArgs(1),
		Long: `Checks the copy, then puts it in the place of the database, which is kept beside it. The
directory must be stopped. What the database that is replaced knew to be revoked stays
revoked, if it can still be read; the CA's next CRL brings back the rest. Changes since the
copy was taken are lost: users and routers that were added since must be added again.`,
		Example: "  systemctl stop twinkey-directory\n  twinkey-directory restore /backup/directory-2026-01-31.db\n  systemctl start twinkey-directory",
		RunE: func(c *cobra.Command, args []string) error {
			h := in()
			if _, err := os.Stat(args[0]); err != nil {
				return cli.Fail(cli.ExitNotFound, "restoring the directory", err, "name a file that twinkey-directory backup wrote")
			}
			if err := os.MkdirAll(string(h), 0o700); err != nil {
				return fail("restoring the directory", err)
			}
			carried := 0
			keep := h.database() + ".before-" + time.Now().UTC().Format("20060102T150405.000Z")
			kept, err := boltstore.Replace(h.database(), args[0], keep, func(fresh, old store.Store) (err error) {
				carried, err = supersede(c.Context(), fresh, old)
				return err
			})
			if errors.Is(err, store.ErrDamaged) {
				return cli.Fail(cli.ExitFailure, "restoring the directory", err, "nothing was changed; is this file a copy made by twinkey-directory backup?")
			}
			if err != nil {
				return fail("restoring the directory", err)
			}
			was := ""
			if kept != "" {
				was = "kept: " + kept + "\n"
			}
			return cli.Tell(c, struct {
				File        string `json:"file"`
				Revocations int    `json:"revocations_carried_over"`
				Kept        string `json:"kept,omitempty"` // the database that was there before
			}{args[0], carried, kept}, "restored: %s, %d revocations carried over\n%s", args[0], carried, was)
		},
	}
	cli.AddJSON(c)
	return c
}

func supersede(ctx context.Context, fresh, old store.Store) (carried int, err error) {
	if err := store.Known(ctx, fresh); err != nil {
		return 0, err
	}
	reg, err := store.Open(ctx, fresh, time.Now)
	if err != nil {
		return 0, err
	}
	var before *store.Register
	if old != nil && store.Known(ctx, old) == nil {
		if before, err = store.Open(ctx, old, time.Now); err != nil {
			return 0, err
		}
	}
	return reg.Supersede(ctx, "operator", before)
}
