package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// Scheme of the URI that names the bearer of a TLS certificate.
const Scheme = "twinkey"

// Errors.
var (
	ErrURI      = errors.New("not exactly one twinkey:// name in the certificate")
	ErrServer   = errors.New("the server is not who it should be")
	ErrMismatch = errors.New("key and certificate do not belong together")
)

// Bundle is everything that a box owns of keys and certificates. A router has a twin
// certificate and its private keys, others do not.
type Bundle struct {
	Roots, Intermediates []*x509.Certificate
	TLS                  tls.Certificate // leaf first, Leaf set; key ECDSA P-256
	Twin                 *twincert.Certificate
	Control, Data        secret.Key // X25519 private keys
}

// Identity is a Bundle on disk. Safe for concurrent use.
type Identity struct {
	dir string
	mu  sync.Mutex // one Replace at a time
	now atomic.Pointer[snapshot]
}

type snapshot struct {
	Bundle
	roots *x509.CertPool
	uri   *url.URL
}

// PeerURI returns the one twinkey:// name of a certificate.
func PeerURI(c *x509.Certificate) (string, error) {
	u, err := bearer(c)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

func bearer(c *x509.Certificate) (*url.URL, error) {
	var found *url.URL
	for _, u := range c.URIs {
		if u.Scheme != Scheme {
			continue
		}
		if found != nil {
			return nil, ErrURI
		}
		found = u
	}
	if found == nil || found.User != nil || found.Port() != "" || found.RawQuery != "" || found.Fragment != "" {
		return nil, ErrURI
	}
	name := strings.TrimPrefix(found.Path, "/")
	switch found.Host {
	case "ca", "directory":
		if found.Path != "" {
			return nil, ErrURI
		}
	case "router", "operator":
		if twincert.CheckName(name) != nil {
			return nil, ErrURI
		}
	default:
		return nil, ErrURI
	}
	// One bearer, one spelling: no %72a beside ra.
	if found.String() != Scheme+"://"+found.Host+found.Path {
		return nil, ErrURI
	}
	return found, nil
}

// check says whether the parts of a bundle belong together.
func (b *Bundle) check() (*snapshot, error) {
	if len(b.TLS.Certificate) == 0 {
		return nil, fmt.Errorf("%w: there is no TLS certificate", ErrMismatch)
	}
	leaf, err := x509.ParseCertificate(b.TLS.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("parsing the TLS certificate: %w", err)
	}
	b.TLS.Leaf = leaf
	key, ok := b.TLS.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() || !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("%w: the TLS certificate is not that of the TLS key", ErrMismatch)
	}
	s := &snapshot{Bundle: *b, roots: x509.NewCertPool()}
	if s.uri, err = bearer(leaf); err != nil {
		return nil, err
	}
	if len(b.Roots) == 0 {
		return nil, errors.New("there is no root certificate to trust")
	}
	for _, r := range b.Roots {
		s.roots.AddCert(r)
	}
	if s.uri.Host != "router" {
		if b.Twin != nil {
			return nil, fmt.Errorf("%w: a twin certificate beside that of %s", ErrMismatch, s.uri)
		}
		return s, s.anchored()
	}
	if err := b.checkTwin(strings.TrimPrefix(s.uri.Path, "/")); err != nil {
		return nil, err
	}
	return s, s.anchored()
}

// anchored says whether the certificates hang from our roots. It looks at the last moment
// of each: a box that slept past expiry must be able to load what it renews with. That an
// expired certificate is good for nothing else is its peers' to say.
func (s *snapshot) anchored() error {
	inter, last := x509.NewCertPool(), s.TLS.Leaf.NotAfter
	for _, c := range s.Intermediates {
		inter.AddCert(c)
	}
	for _, der := range s.TLS.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("parsing the chain of the TLS certificate: %w", err)
		}
		inter.AddCert(c)
		if c.NotAfter.Before(last) {
			last = c.NotAfter
		}
	}
	opts := x509.VerifyOptions{Roots: s.roots, Intermediates: inter, CurrentTime: last, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := s.TLS.Leaf.Verify(opts); err != nil {
		return fmt.Errorf("%w: the TLS certificate does not hang from our roots: %w", ErrMismatch, err)
	}
	if s.Twin == nil {
		return nil
	}
	err := s.Twin.Verify(twincert.VerifyOptions{Roots: s.roots, Intermediates: inter, Now: s.Twin.NotAfter, Role: twincert.Router, AllowUnknownRevocation: true})
	if err != nil {
		return fmt.Errorf("%w: the twin certificate does not hang from our roots: %w", ErrMismatch, err)
	}
	return nil
}

func (b *Bundle) checkTwin(name string) error {
	if b.Twin == nil {
		return fmt.Errorf("%w: a router needs a twin certificate", ErrMismatch)
	}
	if b.Twin.Role != twincert.Router || b.Twin.Name != name {
		return fmt.Errorf("%w: the twin certificate is that of %s %s, the TLS certificate that of router %s", ErrMismatch, b.Twin.Role, b.Twin.Name, name)
	}
	for _, k := range []struct {
		name string
		priv secret.Key
		pub  [32]byte
	}{{"control", b.Control, b.Twin.Keys.Control}, {"data", b.Data, b.Twin.Keys.Data}} {
		if err := belongs(k.priv, k.pub); err != nil {
			return fmt.Errorf("%w: %s key", err, k.name)
		}
	}
	return nil
}

// Bundle returns what the box is now. Its keys are shared, not copied.
func (i *Identity) Bundle() Bundle { return i.now.Load().Bundle }

// Role is ca, directory, router or operator.
func (i *Identity) Role() string { return i.now.Load().uri.Host }

// Name is a router's or operator's name, else empty.
func (i *Identity) Name() string { return strings.TrimPrefix(i.now.Load().uri.Path, "/") }

// SignHandshake signs a SHA-256 digest with the TLS key, low-S, ASN.1.
func (i *Identity) SignHandshake(rand io.Reader, digest []byte) ([]byte, error) {
	key, ok := i.now.Load().TLS.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, twincert.ErrKey
	}
	return twincert.SignLowS(rand, key, digest)
}

// ClientTLS is the configuration of a client that presents this identity and talks only
// to the bearer of serverURI, such as twinkey://directory: TLS 1.3, our roots alone. Host
// names do not count: the name in the certificate does.
func (i *Identity) ClientTLS(serverURI string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c := i.now.Load().TLS
			return &c, nil
		},
		// Chain and name are checked below, against the newest roots.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does all of it and more
		VerifyConnection:   func(cs tls.ConnectionState) error { return i.verifyServer(cs, serverURI) },
	}
}

func (i *Identity) verifyServer(cs tls.ConnectionState, want string) error {
	return VerifyServer(cs, i.now.Load().roots, want)
}

// VerifyServer checks a server's chain against roots alone, and its name.
func VerifyServer(cs tls.ConnectionState, roots *x509.CertPool, want string) error {
	return VerifyBearer(cs.PeerCertificates, roots, want, time.Time{})
}

// VerifyBearer checks a chain, leaf first, as that of a server: against roots alone, now (zero: the system's time), and that it names want.
func VerifyBearer(chain []*x509.Certificate, roots *x509.CertPool, want string, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it shows no certificate", ErrServer)
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("verifying the server: %w", err)
	}
	uri, err := PeerURI(leaf)
	if err != nil {
		return fmt.Errorf("verifying the server: %w", err)
	}
	if uri != want {
		return fmt.Errorf("%w: it is %s, not %s", ErrServer, uri, want)
	}
	return nil
}

// ServerTLS is the configuration of a server: TLS 1.3, the newest certificate for each
// handshake, client certificates of our roots verified where one is shown.
func (i *Identity) ServerTLS() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.VerifyClientCertIfGiven,
		// A resumed session would be believed on an old proof, and each handshake has
		// ticket keys of its own anyway.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := i.now.Load().TLS
			return &c, nil
		},
	}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.GetConfigForClient = nil
		c.ClientCAs = i.now.Load().roots
		return c, nil
	}
	return base
}
