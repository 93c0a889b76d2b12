package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Files of a generation.
const (
	rootsFile   = "root.pem"
	interFile   = "intermediates.pem"
	tlsFile     = "tls.pem"
	tlsKeyFile  = "tls.key"
	twinFile    = "twin.pem"
	controlFile = "control.key"
	dataFile    = "data.key"

	current    = "current" // symbolic link to the generation that counts
	generation = "gen-"    // prefix of their directories

	pemCert   = "CERTIFICATE"
	pemKey    = "PRIVATE KEY"
	pemX25519 = "X25519 PRIVATE KEY"
	maxFile   = 1 << 20
)

// Errors of Load and Create.
var (
	ErrExists      = errors.New("there is an identity already")
	ErrNone        = errors.New("there is no identity")
	ErrPermissions = errors.New("others may read it")
)

// Load reads the identity in dir.
func Load(dir string) (*Identity, error) {
	i := &Identity{dir: dir}
	s, err := i.read()
	if err != nil {
		return nil, fmt.Errorf("loading the identity in %s: %w", dir, err)
	}
	i.now.Store(s)
	return i, nil
}

// Create writes the first identity into dir, which is made with mode 0700.
func Create(dir string, b Bundle) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("creating an identity: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, current)); err == nil {
		return nil, fmt.Errorf("creating an identity in %s: %w", dir, ErrExists)
	}
	i := &Identity{dir: dir}
	if err := i.Replace(b); err != nil {
		return nil, err
	}
	return i, nil
}

// Reload reads the files again: another process has replaced them.
func (i *Identity) Reload() error {
	s, err := i.read()
	if err != nil {
		return fmt.Errorf("reloading the identity in %s: %w", i.dir, err)
	}
	i.now.Store(s)
	return nil
}

// Replace makes b the identity, on disk and in memory: all of it or nothing, also if the
// process dies in between. A new generation is written into a directory of its own and
// synced; then one rename of a symbolic link makes it the one that counts.
func (i *Identity) Replace(b Bundle) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, err := b.check()
	if err != nil {
		return fmt.Errorf("replacing the identity in %s: %w", i.dir, err)
	}
	old, _ := os.Readlink(filepath.Join(i.dir, current))
	gen, err := os.MkdirTemp(i.dir, generation) // mode 0700
	if err == nil {
		err = write(gen, &s.Bundle)
	}
	if err == nil {
		err = i.point(filepath.Base(gen))
	}
	if err != nil {
		return fmt.Errorf("replacing the identity in %s: %w", i.dir, errors.Join(err, os.RemoveAll(gen)))
	}
	i.now.Store(s)
	i.sweep(filepath.Base(gen), old)
	return nil
}

// point makes current name gen.
func (i *Identity) point(gen string) error {
	tmp := filepath.Join(i.dir, gen+".link")
	if err := os.Symlink(gen, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(i.dir, current)); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(i.dir)
}

// sweep removes generations that no longer count. What it cannot remove now a later
// Replace does.
func (i *Identity) sweep(keep, _ string) {
	entries, _ := os.ReadDir(i.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), generation) && e.Name() != keep {
			_ = os.RemoveAll(filepath.Join(i.dir, e.Name()))
		}
	}
}

func write(dir string, b *Bundle) error {
	key, err := x509.MarshalPKCS8PrivateKey(b.TLS.PrivateKey)
	if err != nil {
		return fmt.Errorf("encoding the TLS key: %w", err)
	}
	defer clear(key)
	files := []struct {
		name   string
		blocks []*pem.Block
	}{
		{rootsFile, certBlocks(b.Roots)},
		{interFile, certBlocks(b.Intermediates)},
		{tlsFile, derBlocks(b.TLS.Certificate)},
		{tlsKeyFile, []*pem.Block{{Type: pemKey, Bytes: key}}},
	}
	if b.Twin != nil {
		files = append(files, []struct {
			name   string
			blocks []*pem.Block
		}{
			{twinFile, derBlocks([][]byte{b.Twin.Raw})},
			{controlFile, []*pem.Block{{Type: pemX25519, Bytes: b.Control.Bytes()}}},
			{dataFile, []*pem.Block{{Type: pemX25519, Bytes: b.Data.Bytes()}}},
		}...)
	}
	for _, f := range files {
		var buf bytes.Buffer
		for _, blk := range f.blocks {
			if err := pem.Encode(&buf, blk); err != nil {
				return fmt.Errorf("encoding %s: %w", f.name, err)
			}
		}
		err := writeSync(filepath.Join(dir, f.name), buf.Bytes())
		clear(buf.Bytes())
		if err != nil {
			return err
		}
	}
	return syncDir(dir)
}

func writeSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func certBlocks(cs []*x509.Certificate) (bs []*pem.Block) {
	for _, c := range cs {
		bs = append(bs, &pem.Block{Type: pemCert, Bytes: c.Raw})
	}
	return bs
}

func derBlocks(ders [][]byte) (bs []*pem.Block) {
	for _, d := range ders {
		bs = append(bs, &pem.Block{Type: pemCert, Bytes: d})
	}
	return bs
}

// read loads the generation that counts.
func (i *Identity) read() (*snapshot, error) {
	st, err := os.Stat(i.dir)
	if err != nil {
		return nil, fmt.Errorf("%w (enrol this box first)", errors.Join(ErrNone, err))
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: chmod 700 %s", ErrPermissions, i.dir)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(i.dir, current))
	if err != nil {
		return nil, fmt.Errorf("%w (enrol this box first)", errors.Join(ErrNone, err))
	}
	var b Bundle
	if b.Roots, err = readCerts(filepath.Join(dir, rootsFile)); err != nil {
		return nil, err
	}
	if b.Intermediates, err = readCerts(filepath.Join(dir, interFile)); err != nil {
		return nil, err
	}
	if err := b.readTLS(dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, twinFile)); err == nil {
		if err := b.readTwin(dir); err != nil {
			return nil, err
		}
	}
	return b.check()
}

func (b *Bundle) readTLS(dir string) error {
	chain, err := readBlocks(filepath.Join(dir, tlsFile), pemCert)
	if err != nil {
		return err
	}
	keys, err := readBlocks(filepath.Join(dir, tlsKeyFile), pemKey)
	if err != nil {
		return err
	}
	if len(keys) != 1 {
		return fmt.Errorf("%s: not exactly one key", tlsKeyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(keys[0])
	if err != nil {
		return fmt.Errorf("reading %s: %w", tlsKeyFile, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("reading %s: %w", tlsKeyFile, twincert.ErrKey)
	}
	b.TLS = tls.Certificate{Certificate: chain, PrivateKey: ec}
	return nil
}

func (b *Bundle) readTwin(dir string) error {
	ders, err := readBlocks(filepath.Join(dir, twinFile), pemCert)
	if err != nil {
		return err
	}
	if len(ders) != 1 {
		return fmt.Errorf("%s: not exactly one certificate", twinFile)
	}
	if b.Twin, err = twincert.Parse(ders[0]); err != nil {
		return fmt.Errorf("reading %s: %w", twinFile, err)
	}
	for _, k := range []struct {
		file string
		to   *secret.Key
	}{{controlFile, &b.Control}, {dataFile, &b.Data}} {
		bs, err := readBlocks(filepath.Join(dir, k.file), pemX25519)
		if err != nil {
			return err
		}
		if len(bs) != 1 || len(bs[0]) != 32 {
			return fmt.Errorf("%s: not exactly one key of 32 bytes", k.file)
		}
		*k.to = secret.New(bs[0])
	}
	return nil
}

func readCerts(path string) (cs []*x509.Certificate, err error) {
	ders, err := readBlocks(path, pemCert)
	if err != nil {
		return nil, err
	}
	for _, d := range ders {
		c, err := x509.ParseCertificate(d)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", filepath.Base(path), err)
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// readBlocks reads a file of PEM blocks of one type that only its owner can read.
func readBlocks(path, typ string) (ders [][]byte, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: chmod 600 %s", ErrPermissions, path)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("reading %s: %w", path, fs.ErrInvalid)
	}
	rest, err := os.ReadFile(path) //nolint:gosec // the box's own directory
	if err != nil {
		return nil, err
	}
	defer clear(rest)
	for {
		var blk *pem.Block
		if blk, rest = pem.Decode(rest); blk == nil {
			break
		}
		if blk.Type != typ {
			return nil, fmt.Errorf("reading %s: a PEM block of type %q, not %q", path, blk.Type, typ)
		}
		ders = append(ders, blk.Bytes)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("reading %s: something that is no PEM block", path)
	}
	return ders, nil
}

// belongs says whether a private key is that of a public one.
func belongs(priv secret.Key, pub [32]byte) error {
	k, err := ecdh.X25519().NewPrivateKey(priv.Bytes())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if [32]byte(k.PublicKey().Bytes()) != pub {
		return ErrMismatch
	}
	return nil
}
