package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolterrors "go.etcd.io/bbolt/errors"

	"twinkey/directory/internal/store"
)

// Replace puts what the database file from holds in the place of the one at path, which it
// keeps under the name that it returns ("" if there was none). Every record is read and
// written to a new file; then prepare sees it, and the old one unless that is missing or damaged (then old is
// nil), and may refuse. It fails with store.ErrInUse while a process has path open. Whenever
// it is interrupted, path is the old or the new database, whole.
func Replace(path, from, keep string, prepare func(fresh, old store.Store) error) (kept string, err error) {
	l, err := acquire(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.release()) }()

	tmp := path + ".restore"
	defer func() { _ = os.Remove(tmp) }() // gone already if all went well
	if err := rewrite(tmp, from); err != nil {
		return "", err
	}
	if err := prepared(tmp, path, prepare); err != nil {
		return "", err
	}
	// A second name for the old file, then the new one over the first: path is never
	// missing, for a server that found nothing there would begin an empty register.
	switch err := os.Link(path, keep); {
	case errors.Is(err, os.ErrNotExist):
		keep = ""
	case err != nil:
		return "", fmt.Errorf("keeping the old database: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return keep, fmt.Errorf("putting the copy in place: %w", err)
	}
	return keep, syncDir(filepath.Dir(path))
}

func prepared(tmp, path string, prepare func(fresh, old store.Store) error) (err error) {
	fresh, err := open(tmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.Close()) }()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return prepare(fresh, nil)
	}
	if Check(path) != nil {
		return prepare(fresh, nil)
	}
	old, err := open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	return prepare(fresh, old)
}

// rewrite makes a new database at to of the records in from.
func rewrite(to, from string) (err error) {
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("opening the copy: %w", err)
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an unfinished copy: %w", err)
	}
	s, err := open(to)
	if err != nil {
		return err
	}
	s.db.NoSync = true // synced once, below
	defer func() { err = errors.Join(err, s.db.Sync(), s.Close()) }()
	tx, err := s.db.Begin(true)
	if err != nil {
		return fmt.Errorf("writing %s: %w: %w", to, store.ErrWrite, err)
	}
	size := 0
	err = read(from, func(t store.Table, k, v []byte) error {
		if size += len(k) + len(v); size > rewriteBatch {
			size = 0
			if err := tx.Commit(); err != nil {
				return fmt.Errorf("writing %s: %w: %w", to, store.ErrWrite, err)
			}
			if tx, err = s.db.Begin(true); err != nil {
				return fmt.Errorf("writing %s: %w: %w", to, store.ErrWrite, err)
			}
		}
		// The copy's pages go away with the copy.
		return boltTx{tx}.Put(t, bytes.Clone(k), bytes.Clone(v))
	})
	if err != nil {
		return errors.Join(err, ignoreClosed(tx.Rollback()))
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("writing %s: %w: %w", to, store.ErrWrite, err)
	}
	return nil
}

// rewriteBatch is how many bytes of records a transaction takes, so that memory stays
// small whatever the size of the copy.
const rewriteBatch = 16 << 20

func ignoreClosed(err error) error {
	if errors.Is(err, bolterrors.ErrTxClosed) {
		return nil
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
