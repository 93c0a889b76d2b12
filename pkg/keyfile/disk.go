package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"twinkey/pkg/identity"
)

// Load reads the file at path. It fails with ErrNone if there is none, with an *identity.PermissionsError if others may
// read it or write its directory.
func Load(path string) (*File, error) {
	f, err := os.Open(path) //nolint:gosec // the user's own
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNone)
	}
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: no regular file", path, ErrFile)
	}
	if err := identity.OwnerOnly(path, st.Mode()); err != nil {
		return nil, err
	}
	if err := private(filepath.Dir(path)); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	k, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// private refuses a directory in which others could put another file in the place of this one.
func private(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the directory of the keys: %w", err)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return &identity.PermissionsError{Path: dir, Mode: st.Mode()}
	}
	return nil
}

// Prepare sees to it that Create will find a directory of its own and no keys at path: before a token is spent on keys
// that cannot be stored.
func Prepare(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of the keys: %w", err)
	}
	if err := private(dir); err != nil {
		return err
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%s: %w", path, ErrExists)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("looking for keys: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".keys-*")
	if err != nil {
		return fmt.Errorf("writing keys: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// Create writes a file where there is none; else it fails with ErrExists and leaves what is there alone.
func Create(path string, f *File) error {
	return f.write(path, func(temp string) error {
		err := os.Link(temp, path) // unlike a rename it replaces nothing
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %w", path, ErrExists)
		}
		return errors.Join(err, os.Remove(temp))
	})
}

// Replace writes a file in the place of another: the old or the new one is there, whole, whenever the process dies.
func Replace(path string, f *File) error {
	return f.write(path, func(temp string) error { return os.Rename(temp, path) })
}

// write makes a file beside path, which put puts into its place.
func (f *File) write(path string, put func(temp string) error) error {
	b, err := f.Encode()
	if err != nil {
		return err
	}
	if _, err := Parse(b); err != nil { // what could not be read again must not replace what can
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // 0600
	if err != nil {
		return fmt.Errorf("writing keys: %w", err)
	}
	_, err = t.Write(b)
	if err = errors.Join(err, t.Sync(), t.Close()); err == nil {
		if err = put(t.Name()); err == nil {
			return syncDir(filepath.Dir(path))
		}
	}
	if gone := os.Remove(t.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return fmt.Errorf("writing keys: %w", err)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the user's own
	if err != nil {
		return fmt.Errorf("writing keys: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
