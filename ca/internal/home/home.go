package home

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/source"
	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Errors.
var (
	ErrNone    = errors.New("there is no CA")
	ErrDamaged = errors.New("it was there when this CA was made, and the CA must not go on without it")
)

// CA is an open home. One process has it open at a time.
type CA struct {
	Dir       string
	Config    Config
	Authority *authority.Authority
	Ledger    *ledger.Ledger
	Desk      *issue.Desk
	Identity  *identity.Identity
	Directory *client.Client  // nil if the configuration names none
	Sources   []source.Source // in the order of the configuration
}

// Options of Open.
type Options struct {
	Passphrase []byte
	Now        func() time.Time
	Log        *slog.Logger
	At         func(what, step string) // see issue.Config
}

// Socket is where the operator's commands reach the CA of dir while it runs.
func Socket(dir string) string { return filepath.Join(dir, fileSocket) }

// Open opens the home at dir. It fails with ledger.ErrInUse while another process has it.
func Open(dir string, o Options) (*CA, error) { return open(dir, o, true) }

// open does it; while a home is being made it has no identity yet.
func open(dir string, o Options, whole bool) (*CA, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c, err := LoadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	ca := &CA{Dir: dir, Config: c}
	if whole { // an empty ledger has forgotten all that was issued and revoked
		for _, name := range []string{fileLedger, fileIssued} {
			if _, err := os.Stat(ca.path(name)); errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%s is missing: %w", ca.path(name), ErrDamaged)
			}
		}
	}
	// The ledger first: who has it may touch the rest.
	if ca.Ledger, err = ledger.Open(filepath.Join(dir, fileLedger)); err != nil {
		return nil, err
	}
	if err := ca.unlock(o, whole); err != nil {
		return nil, errors.Join(err, ca.Close())
	}
	return ca, nil
}

func (ca *CA) unlock(o Options, whole bool) (err error) {
	a := authority.Config{Name: ca.Config.Name, DNSNames: ca.Config.Hosts, Database: ca.path(fileIssued), CRLURL: ca.Config.CRLURL(),
		CRLLifetime: ca.Config.Validity.CRL, ACME: ca.Config.ACME, Reserved: ca.reserved, Now: o.Now}
	if a.Root, err = ca.readCert(fileRootCert); err != nil {
		return err
	}
	if a.Intermediate, err = ca.readCert(fileIntermediateCert); err != nil {
		return err
	}
	if a.Signer, err = ca.readKey(fileIntermediateKey, o.Passphrase); err != nil {
		return err
	}
	if !a.Signer.PublicKey.Equal(a.Intermediate.PublicKey) {
		return fmt.Errorf("%s and %s do not belong together", ca.path(fileIntermediateKey), ca.path(fileIntermediateCert))
	}
	if a.Provisioner, err = ca.readKey(fileProvisionerKey, o.Passphrase); err != nil {
		return err
	}
	group, err := ca.readGroupKey()
	if err != nil {
		return err
	}
	profile, err := twincert.ParseProfile(ca.Config.Profile)
	if err != nil {
		return err
	}
	if whole {
		if ca.Identity, err = identity.Load(ca.path(dirIdentity)); err != nil {
			return err
		}
		if ca.Sources, err = OpenSources(ca.Dir, ca.Config.Sources, o.Log); err != nil {
			return err
		}
	}
	if ca.Authority, err = authority.Open(a); err != nil {
		return err
	}
	v := ca.Config.Validity
	d := issue.Config{Sources: len(ca.Sources) > 0, Authority: ca.Authority, Ledger: ca.Ledger, GroupKey: group, RenewUsers: ca.Config.Renew, Profile: profile, CRLURL: a.CRLURL, Patience: ca.Config.Patience, PortalDomain: ca.Config.Domain,
		Terms: issue.Terms{Router: v.Router, User: v.User, TLS: v.TLS, Grace: v.Grace, CRL: v.CRL}, Now: o.Now, Log: o.Log, At: o.At}
	if ca.Config.Directory != "" && whole {
		ca.Directory = client.New(ca.Config.Directory, ca.Identity.ClientTLS(identity.Scheme+"://directory"))
		d.Directory = ca.Directory
	}
	ca.Desk = issue.New(d)
	return nil
}

// reserved says whether a name or address is for a router's portal alone.
func (ca *CA) reserved(name string) (bool, error) {
	return issue.Reserved(ca.Ledger, ca.Config.Domain, name)
}

// Close lets both databases and the sources go.
func (ca *CA) Close() error {
	errs := []error{CloseSources(ca.Sources)}
	if ca.Authority != nil {
		errs = append(errs, ca.Authority.Close())
	}
	return errors.Join(append(errs, ca.Ledger.Close())...)
}

// RenewOwn gives the CA itself a new TLS certificate; the server uses it from the next
// connection on.
func (ca *CA) RenewOwn(ctx context.Context) error {
	b, err := ca.ownBundle(ctx)
	if err != nil {
		return err
	}
	return ca.Identity.Replace(b)
}

func (ca *CA) path(name string) string { return filepath.Join(ca.Dir, name) }

func (ca *CA) readCert(name string) (*x509.Certificate, error) {
	b, err := os.ReadFile(ca.path(name))
	if err != nil {
		return nil, fmt.Errorf("reading a certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: no certificate in PEM", ca.path(name))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ca.path(name), err)
	}
	return c, nil
}

// readSecret reads a file that nobody else may read.
func (ca *CA) readSecret(name string) ([]byte, error) {
	info, err := os.Stat(ca.path(name))
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	if err := identity.OwnerOnly(ca.path(name), info.Mode()); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(ca.path(name))
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	return b, nil
}

func (ca *CA) readKey(name string, passphrase []byte) (*ecdsa.PrivateKey, error) {
	b, err := ca.readSecret(name)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	k, err := authority.ParseKey(b, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ca.path(name), err)
	}
	return k, nil
}

func (ca *CA) readGroupKey() (secret.Key, error) {
	b, err := ca.readSecret(fileGroupKey)
	if err != nil {
		return secret.Key{}, err
	}
	defer clear(b)
	k, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(k) != groupKeyLen {
		return secret.Key{}, fmt.Errorf("%s: not %d bytes in hex", ca.path(fileGroupKey), groupKeyLen)
	}
	return secret.New(k), nil
}
