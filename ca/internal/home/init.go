package home

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
)

// The files of a home.
const (
	fileConfig           = "ca.yaml"
	fileRootCert         = "root.crt"
	fileRootKey          = "root.key"
	fileIntermediateCert = "intermediate.crt"
	fileIntermediateKey  = "intermediate.key"
	fileProvisionerKey   = "provisioner.key"
	fileGroupKey         = "group.key"
	dirIdentity          = "identity"
	fileLedger           = "ledger.db"
	fileIssued           = "issued.db"
	fileSocket           = "admin.sock"
)

const groupKeyLen = 32

// ErrExists says that there is something already where a home was to be made.
var ErrExists = errors.New("there is something already")

// ErrInvalid says that no CA can be made with these options.
var ErrInvalid = errors.New("not possible")

// InitOptions say what a new CA is to be.
type InitOptions struct {
	Name       string
	Hosts      []string
	Port       string // of the URL that certificates name
	Directory  string // URL; may be empty
	Profile    string
	Passphrase []byte // encrypts the keys of root and intermediate; may be empty
	Now        func() time.Time
}

// Init makes the home of a new CA at dir, which must not be there or be empty. It returns
// the SHA-256 of the root certificate in hex.
func Init(ctx context.Context, dir string, o InitOptions) (fingerprint string, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	defaults, err := config.Parse[Config](fileConfig, nil)
	if err != nil {
		return "", err
	}
	c := defaults
	c.Name, c.Hosts, c.Directory, c.Profile = o.Name, o.Hosts, o.Directory, o.Profile
	if len(o.Hosts) > 0 {
		c.URL = "https://" + net.JoinHostPort(o.Hosts[0], o.Port)
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if n, err := strconv.ParseUint(o.Port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%w: port %q is not within 1 and 65535", ErrInvalid, o.Port)
	}
	if strings.TrimSpace(o.Name) == "" {
		return "", fmt.Errorf("%w: the company has no name", ErrInvalid)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("finding %s: %w", dir, err)
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return "", fmt.Errorf("%s: %w", dir, ErrExists)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // only what lies above the home
		return "", fmt.Errorf("making the CA's directory: %w", err)
	}
	draft, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-")
	if err != nil {
		return "", fmt.Errorf("making the CA's directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(draft))
		}
	}()
	root, err := furnish(ctx, draft, c, o)
	if err != nil {
		return "", err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) { // it is empty
		return "", fmt.Errorf("making the CA's directory: %w", err)
	}
	if err := os.Rename(draft, dir); err != nil {
		return "", fmt.Errorf("making the CA's directory: %w", err)
	}
	return Fingerprint(root), syncDir(filepath.Dir(dir))
}

// furnish writes everything that a home needs.
func furnish(ctx context.Context, dir string, c Config, o InitOptions) (*x509.Certificate, error) {
	h, err := authority.NewHierarchy(c.Name, o.Now())
	if err != nil {
		return nil, err
	}
	provisioner, err := authority.NewKey()
	if err != nil {
		return nil, err
	}
	group := make([]byte, groupKeyLen)
	if _, err := rand.Read(group); err != nil {
		return nil, fmt.Errorf("making a group key: %w", err)
	}
	files := map[string][]byte{
		fileConfig:           []byte(c.yaml()),
		fileRootCert:         certPEM(h.Root),
		fileIntermediateCert: certPEM(h.Intermediate),
		fileGroupKey:         []byte(hex.EncodeToString(group) + "\n"),
	}
	for name, k := range map[string]*ecdsa.PrivateKey{fileRootKey: h.RootKey, fileIntermediateKey: h.IntermediateKey, fileProvisionerKey: provisioner} {
		if files[name], err = authority.EncodeKey(k, o.Passphrase); err != nil {
			return nil, err
		}
	}
	for name, b := range files {
		if err := writeFile(filepath.Join(dir, name), b); err != nil {
			return nil, err
		}
	}
	ca, err := open(dir, Options{Passphrase: o.Passphrase, Now: o.Now}, false)
	if err != nil {
		return nil, err
	}
	bundle, err := ca.ownBundle(ctx)
	if err == nil {
		_, err = identity.Create(filepath.Join(dir, dirIdentity), bundle)
	}
	return h.Root, errors.Join(err, ca.Close(), syncDir(dir))
}

// ownBundle makes a TLS key for the CA itself and certifies it.
func (ca *CA) ownBundle(ctx context.Context) (identity.Bundle, error) {
	k, err := authority.NewKey()
	if err != nil {
		return identity.Bundle{}, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		return identity.Bundle{}, fmt.Errorf("asking for the CA's own certificate: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return identity.Bundle{}, fmt.Errorf("asking for the CA's own certificate: %w", err)
	}
	chain, err := ca.Desk.OwnTLS(ctx, csr, ca.Config.Name, ca.Config.Hosts)
	if err != nil {
		return identity.Bundle{}, err
	}
	b := identity.Bundle{
		Roots:         []*x509.Certificate{ca.Authority.Root()},
		Intermediates: []*x509.Certificate{ca.Authority.Intermediate()},
		TLS:           tls.Certificate{PrivateKey: k, Leaf: chain[0]},
	}
	for _, c := range chain {
		b.TLS.Certificate = append(b.TLS.Certificate, c.Raw)
	}
	return b, nil
}

// Fingerprint is how a root is named: the SHA-256 of its DER, in hex.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // the operator names it
	if err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
