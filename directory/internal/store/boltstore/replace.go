package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"twinkey/directory/internal/store"
)

// Replace puts a copy of the database file from in the place of the one at path, which it
// keeps under the name that it returns ("" if there was none). The copy is checked first;
// then prepare sees it, and the old one unless that is missing or damaged (then old is
// nil), and may refuse. It fails with store.ErrInUse while a process has path open. Whenever
// it is interrupted, path is the old or the new database, whole.
func Replace(path, from, keep string, prepare func(fresh, old store.Store) error) (kept string, err error) {
	l, err := acquire(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.release()) }()

	tmp := path + ".restore"
	if err := copyFile(tmp, from); err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(tmp) }() // gone already if all went well
	if err := Check(tmp); err != nil {
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

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("opening the copy: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("copying %s: %w", from, err)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Sync(), out.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("copying %s: %w: %w", from, store.ErrWrite, err), os.Remove(to))
	}
	return nil
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
