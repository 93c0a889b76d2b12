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
	linkSuffix = ".link"   // of a link that is to become current

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

// PermissionsError is an ErrPermissions: which file or directory others may read.
type PermissionsError struct {
	Path string
	Mode fs.FileMode
}

func (e *PermissionsError) Error() string {
	return fmt.Sprintf("%s: %s (its mode is %#o)", e.Path, ErrPermissions, e.Mode.Perm())
}

// Is says that e is an ErrPermissions.
func (e *PermissionsError) Is(target error) bool { return target == ErrPermissions }

// Hint is what to do, the same whatever binary it is and whatever key.
func (e *PermissionsError) Hint() string {
	mode := "600"
	if e.Mode.IsDir() {
		mode = "700"
	}
	return "chmod " + mode + " " + e.Path + "; keys are for their owner alone: if others may have read them, replace them"
}

// OwnerOnly refuses with a *PermissionsError what others than its owner may read or write.
func OwnerOnly(path string, mode fs.FileMode) error {
	if mode.Perm()&0o077 != 0 {
		return &PermissionsError{path, mode}
	}
	return nil
}

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

// Reload reads the files again: another process has replaced them.
func (i *Identity) Reload() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	s, err := i.read()
	if err != nil {
		return fmt.Errorf("reloading the identity in %s: %w", i.dir, err)
	}
	i.now.Store(s)
	return nil
}

// maxReplaced is how often another process may replace the identity while it is read.
const maxReplaced = 8

// read loads the generation that counts. One that another process replaces and sweeps
// away in the middle is no failure: the next is read.
func (i *Identity) read() (*snapshot, error) {
	for n := 0; ; n++ {
		gen, err := i.counts()
		if err != nil {
			return nil, err
		}
		s, err := readGeneration(gen)
		if err == nil {
			return s, nil
		}
		if now, _ := i.counts(); now == gen || n == maxReplaced {
			return nil, err
		}
	}
}

// counts is the path of the generation that counts.
func (i *Identity) counts() (string, error) {
	st, err := os.Stat(i.dir)
	if err == nil {
		err = OwnerOnly(i.dir, st.Mode())
	}
	gen := ""
	if err == nil {
		gen, err = filepath.EvalSymlinks(filepath.Join(i.dir, current))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w (enrol this box first)", errors.Join(ErrNone, err))
	}
	return gen, err
}

func readGeneration(dir string) (*snapshot, error) {
	var b Bundle
	var err error
	if b.Roots, err = readCerts(filepath.Join(dir, rootsFile)); err != nil {
		return nil, err
	}
	if b.Intermediates, err = readCerts(filepath.Join(dir, interFile)); err != nil {
		return nil, err
	}
	if err := b.readTLS(dir); err != nil {
		return nil, err
	}
	_, err = os.Lstat(filepath.Join(dir, twinFile))
	switch {
	case err == nil:
		err = b.readTwin(dir)
	case errors.Is(err, fs.ErrNotExist): // not a router's
		err = nil
	}
	if err != nil {
		return nil, err
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
	defer clear(keys[0])
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
	if err := OwnerOnly(path, st.Mode()); err != nil {
		return nil, err
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
