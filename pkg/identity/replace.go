package identity

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Create writes the first identity into dir, which is made with mode 0700.
func Create(dir string, b Bundle) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating an identity: %w", err)
	}
	i := &Identity{dir: dir}
	if err := i.replace(b, true); err != nil {
		return nil, fmt.Errorf("creating the identity in %s: %w", dir, err)
	}
	return i, nil
}

// Replace makes b the identity, on disk and in memory: all of it or nothing, also if the
// process dies in between. A new generation is written into a directory of its own and
// synced; then one rename of a symbolic link makes it the one that counts. Where it fails
// after that, b is the identity all the same, but might not survive a loss of power.
func (i *Identity) Replace(b Bundle) error {
	if err := i.replace(b, false); err != nil {
		return fmt.Errorf("replacing the identity in %s: %w", i.dir, err)
	}
	return nil
}

func (i *Identity) replace(b Bundle, first bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, err := b.check()
	if err != nil {
		return err
	}
	unlock, err := lock(i.dir)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(i.dir, current)); first && err == nil {
		return ErrExists
	}
	r, err := newReplacement(i.dir, &s.Bundle)
	if err != nil {
		return err
	}
	defer r.wipe()
	err = r.run()
	if r.counts {
		i.now.Store(s)
	}
	return err
}

// lock keeps other processes from replacing, and sweeping, at the same time. The kernel
// lets go of it when the process dies.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir) //nolint:gosec // the box's own directory
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking: %w", err), d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// file is one file of a generation.
type file struct {
	name string
	data []byte
}

// replacement writes a new generation, step by step. A process may die between any two of
// them, or in one.
type replacement struct {
	dir, gen string // gen: the generation's name below dir
	files    []file
	counts   bool // the link names gen
}

func newReplacement(dir string, b *Bundle) (*replacement, error) {
	key, err := x509.MarshalPKCS8PrivateKey(b.TLS.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the TLS key: %w", err)
	}
	defer clear(key)
	r := &replacement{dir: dir, gen: generation + rand.Text(), files: []file{
		{rootsFile, encode(pemCert, raw(b.Roots)...)},
		{interFile, encode(pemCert, raw(b.Intermediates)...)},
		{tlsFile, encode(pemCert, b.TLS.Certificate...)},
		{tlsKeyFile, encode(pemKey, key)},
	}}
	if b.Twin != nil {
		r.files = append(
			r.files, file{twinFile, encode(pemCert, b.Twin.Raw)},
			file{controlFile, encode(pemX25519, b.Control.Bytes())},
			file{dataFile, encode(pemX25519, b.Data.Bytes())},
		)
	}
	return r, nil
}

// wipe overwrites the keys among the files' bytes.
func (r *replacement) wipe() {
	for _, f := range r.files {
		clear(f.data)
	}
}

func (r *replacement) steps() []func() error {
	gen := filepath.Join(r.dir, r.gen)
	steps := []func() error{func() error { return os.Mkdir(gen, 0o700) }}
	for _, f := range r.files {
		steps = append(steps, func() error { return writeSync(filepath.Join(gen, f.name), f.data) })
	}
	return append(
		steps,
		func() error { return syncDir(gen) },
		func() error { return os.Symlink(r.gen, gen+linkSuffix) },
		r.point,
		func() error { return syncDir(r.dir) },
		r.sweep,
	)
}

// point makes current name the new generation.
func (r *replacement) point() error {
	if err := os.Rename(filepath.Join(r.dir, r.gen+linkSuffix), filepath.Join(r.dir, current)); err != nil {
		return err
	}
	r.counts = true
	return nil
}

// run takes all steps. A generation that does not count is taken away again; one that does
// stays, whatever fails after.
func (r *replacement) run() error {
	for _, step := range r.steps() {
		err := step()
		if err == nil {
			continue
		}
		if !r.counts {
			gen := filepath.Join(r.dir, r.gen)
			err = errors.Join(err, os.RemoveAll(gen+linkSuffix), os.RemoveAll(gen))
		}
		return err
	}
	return nil
}

// sweep removes generations that no longer count, and what dead processes left. What it
// cannot remove now the next replacement does.
func (r *replacement) sweep() error {
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), generation) && e.Name() != r.gen {
			_ = os.RemoveAll(filepath.Join(r.dir, e.Name()))
		}
	}
	return err
}

func writeSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the box's own directory
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the box's own directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func encode(typ string, ders ...[]byte) (out []byte) {
	for _, d := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: d})...)
	}
	return out
}

func raw(cs []*x509.Certificate) (ders [][]byte) {
	for _, c := range cs {
		ders = append(ders, c.Raw)
	}
	return ders
}
