package source

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"twinkey/pkg/identity"
	"twinkey/proto/secret"
)

// maxFile is the size in bytes above which a secret, key or certificate is refused.
const maxFile = 1 << 20

// in is the path of a file that a configuration in dir names.
func in(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// ReadSecret reads the secret that the configuration in dir names: a file that only its owner may read, without its
// last line end. The error is an *identity.PermissionsError if others may.
func ReadSecret(dir, name string) (secret.Key, error) {
	b, err := readOwn(in(dir, name))
	if err != nil {
		return secret.Key{}, err
	}
	k := secret.Copy(bytes.TrimRight(b, "\r\n"))
	clear(b)
	if k.Len() == 0 {
		return secret.Key{}, fmt.Errorf("%s: there is no secret in it", in(dir, name))
	}
	return k, nil
}

// readOwn reads a file that only its owner may read. What was looked at is what is read: its mode is asked of
// the open file.
func readOwn(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	if err := identity.OwnerOnly(path, info.Mode()); err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	return b, nil
}

// Roots reads the certificates against which a server's is verified; without a name they are the system's.
func Roots(dir, name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // that is what crypto/tls takes for the system's
	}
	b, err := os.ReadFile(in(dir, name)) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("reading a root certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: there is no certificate in PEM in it", in(dir, name))
	}
	return pool, nil
}

// errNoPair says that a certificate without its key, or the other way round, proves nothing.
var errNoPair = errors.New("certificate and key are given together")

// KeyPair reads a certificate with its chain, and the key to it, which only its owner may read.
func KeyPair(dir, certificate, key string) (tls.Certificate, error) {
	if certificate == "" || key == "" {
		return tls.Certificate{}, errNoPair
	}
	chain, err := os.ReadFile(in(dir, certificate)) //nolint:gosec // the operator names it
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading a certificate: %w", err)
	}
	k, err := readOwn(in(dir, key))
	if err != nil {
		return tls.Certificate{}, err
	}
	defer clear(k)
	pair, err := tls.X509KeyPair(chain, k)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and %s: %w", in(dir, certificate), in(dir, key), err)
	}
	return pair, nil
}
