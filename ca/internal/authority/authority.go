package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	stepauth "github.com/smallstep/certificates/authority"
	"github.com/smallstep/certificates/authority/config"
	"github.com/smallstep/certificates/authority/provisioner"
	"github.com/smallstep/certificates/cas/apiv1"
	"github.com/smallstep/certificates/cas/softcas"
	"github.com/smallstep/certificates/db"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.step.sm/crypto/jose"
)

// Errors, besides those of the operating system.
var (
	ErrInUse   = errors.New("database is in use by another process")
	ErrStorage = errors.New("the database cannot be written")
	ErrExpired = errors.New("the CA's own certificate is not valid now")
)

// Terms of the certificates that ACME and /sign give.
const (
	plainDefault = 30 * 24 * time.Hour
	plainMax     = 90 * 24 * time.Hour
	plainMin     = 5 * time.Minute
	portalMax    = plainDefault // a portal's cannot be taken back, so it is not for longer than it has to be
)

// never is longer than any process lives; see the package comment on the CRL.
const never = 200 * 365 * 24 * time.Hour

// Who asks for a plain certificate, as smallstep sees it.
const (
	provisionerName = "operator" // issuer of tokens for /sign
	strangersACME   = "acme"
	routersACME     = "portal"
)

// Config of an authority. All fields but Now, ACME, Reserved and Answer are needed.
type Config struct {
	Name               string   // of the company
	DNSNames           []string // names and addresses of the server; links and token audiences use them
	Database           string   // path of smallstep's bbolt file
	Root, Intermediate *x509.Certificate
	Signer             *ecdsa.PrivateKey // of Intermediate
	Provisioner        *ecdsa.PrivateKey // signs tokens for /sign
	CRLURL             string            // where the CRL lies, in every certificate and in the CRL
	CRLLifetime        time.Duration     // from one CRL to its nextUpdate
	ACME               bool              // whether strangers may get plain TLS certificates
	// Reserved says whether a name or an address is not for strangers; nil: none is.
	Reserved func(name string) (bool, error)
	Now      func() time.Time // nil: time.Now
}

// Authority signs, revokes and serves. Safe for concurrent use.
type Authority struct {
	cfg   Config
	step  *stepauth.Authority
	cas   *service
	store *db.DB
	jwk   *jose.JSONWebKey
}

// Open opens the database, makes a fresh CRL and returns the authority. It fails with
// ErrInUse while another process has the database, with ErrStorage if the disk is full.
func Open(c Config) (*Authority, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	adb, err := db.New(&db.Config{Type: "bbolt", DataSource: c.Database})
	if err != nil {
		return nil, fmt.Errorf("opening database %s: %w", c.Database, explain(err))
	}
	store, ok := adb.(*db.DB)
	if !ok {
		return nil, fmt.Errorf("opening database %s: unexpected type %T", c.Database, adb)
	}
	a := &Authority{cfg: c, store: store}
	if err := a.embed(); err != nil {
		return nil, errors.Join(explain(err), store.Shutdown())
	}
	return a, nil
}

func (a *Authority) embed() (err error) {
	soft, err := softcas.New(context.Background(), apiv1.Options{CertificateChain: []*x509.Certificate{a.cfg.Intermediate}, Signer: a.cfg.Signer})
	if err != nil {
		return fmt.Errorf("preparing the signer: %w", err)
	}
	a.cas = &service{soft, a.reserved, a.cfg.Now}
	if a.jwk, err = signingKey(a.cfg.Provisioner); err != nil {
		return err
	}
	public := a.jwk.Public()
	yes, no := true, false
	claims := &provisioner.Claims{
		MinTLSDur: &provisioner.Duration{Duration: plainMin}, MaxTLSDur: &provisioner.Duration{Duration: plainMax},
		DefaultTLSDur: &provisioner.Duration{Duration: plainDefault}, DisableRenewal: &yes, EnableSSHCA: &no,
	}
	provisioners := provisioner.List{&provisioner.JWK{Type: "JWK", Name: provisionerName, Key: &public, Claims: claims}}
	portal := *claims
	portal.MaxTLSDur = &provisioner.Duration{Duration: portalMax}
	// Only what is asked of the board: the other challenges would ask the network.
	provisioners = append(provisioners, &provisioner.ACME{Type: "ACME", Name: routersACME, Claims: &portal, Challenges: []provisioner.ACMEChallenge{provisioner.HTTP_01}})
	if a.cfg.ACME {
		provisioners = append(provisioners, &provisioner.ACME{Type: "ACME", Name: strangersACME, Claims: claims})
	}
	cfg := &config.Config{
		DNSNames:        a.cfg.DNSNames,
		CommonName:      a.cfg.Name,
		AuthorityConfig: &config.AuthConfig{Provisioners: provisioners},
		CRL: &config.CRLConfig{Enabled: true, GenerateOnRevoke: true, IDPurl: a.cfg.CRLURL,
			CacheDuration: &provisioner.Duration{Duration: a.cfg.CRLLifetime}, RenewPeriod: &provisioner.Duration{Duration: never}},
	}
	a.step, err = stepauth.NewEmbedded(stepauth.WithConfig(cfg), stepauth.WithDatabase(held{a.store}),
		stepauth.WithX509RootCerts(a.cfg.Root), stepauth.WithX509CAService(a.cas),
		stepauth.WithX509IntermediateCerts(a.cfg.Intermediate), stepauth.WithQuietInit())
	if err != nil {
		return fmt.Errorf("starting the authority: %w", err)
	}
	return nil
}

// Close lets the database go.
func (a *Authority) Close() error { return a.step.Shutdown() }

// Root is the trust anchor.
func (a *Authority) Root() *x509.Certificate { return a.cfg.Root }

// Intermediate is what signs every certificate.
func (a *Authority) Intermediate() *x509.Certificate { return a.cfg.Intermediate }

// Signer is the intermediate's key.
func (a *Authority) Signer() crypto.Signer { return a.cfg.Signer }

// Valid says whether the CA's own certificates are valid now; a clock that jumped is the
// usual reason why not.
func (a *Authority) Valid(now time.Time) error {
	for _, c := range []*x509.Certificate{a.cfg.Root, a.cfg.Intermediate} {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return fmt.Errorf("%w: the clock says %s, %q is valid from %s to %s", ErrExpired, now.UTC().Format(time.RFC3339),
				c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// explain puts an error of ours before what the database says.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout) || strings.HasSuffix(err.Error(), bolterrors.ErrTimeout.Error()):
		return ErrInUse
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return err
}
