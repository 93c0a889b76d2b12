package trust

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
)

// ErrStale says that too long has passed without word of revocations.
var ErrStale = errors.New("no word of revocations for too long")

// ErrRouter says that a certificate does not name a router.
var ErrRouter = errors.New("not a router's TLS certificate")

// Store is what a router knows of whom to believe. Safe for concurrent use.
type Store struct {
	bound time.Duration

	mu      sync.RWMutex
	roots   *x509.CertPool
	inter   *x509.CertPool
	issuers []*x509.Certificate
	revoked map[twincert.ID]struct{}
	heard   time.Time // when the directory last spoke; zero: never
	crl     *twincert.CRL
}

// New returns a store that believes nobody until SetAnchors and Heard; bound is how long
// it goes on after the directory fell silent.
func New(bound time.Duration) *Store {
	return &Store{bound: bound, revoked: make(map[twincert.ID]struct{})}
}

// SetBound changes how long the store goes on without the directory.
func (s *Store) SetBound(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = d
}

// SetAnchors replaces roots and intermediates.
func (s *Store) SetAnchors(roots, intermediates []*x509.Certificate) {
	rp, ip := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		rp.AddCert(c)
	}
	for _, c := range intermediates {
		ip.AddCert(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roots, s.inter = rp, ip
	s.issuers = slices.Concat(intermediates, roots)
}

// Heard notes that the directory spoke at now.
func (s *Store) Heard(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = now
}

// Told notes that somebody else says that the directory spoke at a moment, none that is still to come. It counts only while a CRL is current, which they cannot make: who
// holds back revocations would say so for ever.
func (s *Store) Told(at, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crl != nil && now.Before(s.crl.NextUpdate()) && !at.After(now) {
		s.heard = at
	}
}

// LastHeard is when the directory last spoke; zero: never.
func (s *Store) LastHeard() time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.heard
}

// Revoke adds ids; a certificate once revoked stays so.
func (s *Store) Revoke(ids ...twincert.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.revoked[id] = struct{}{}
	}
}

// SetCRL takes a CRL that one of our issuers signed, unless we hold a newer one.
func (s *Store) SetCRL(der []byte, now time.Time) error {
	_, err := s.TakeCRL(der, now)
	return err
}

// TakeCRL is SetCRL, and returns what the CRL revokes that was not known to be revoked.
func (s *Store) TakeCRL(der []byte, now time.Time) (news []twincert.ID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{errors.New("no issuer is known")}
	for _, issuer := range s.issuers {
		crl, err := twincert.NewCRL(der, issuer, now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s.crl != nil && crl.Number().Cmp(s.crl.Number()) < 0 {
			return nil, nil
		}
		for id := range crl.All() {
			if !s.isRevoked(id) {
				news = append(news, id)
			}
		}
		s.crl = crl
		return news, nil
	}
	return nil, fmt.Errorf("taking a CRL: %w", errs[len(errs)-1])
}

// Revoked says whether id is known to be revoked.
func (s *Store) Revoked(id twincert.ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.isRevoked(id)
}

func (s *Store) isRevoked(id twincert.ID) bool {
	if _, ok := s.revoked[id]; ok {
		return true
	}
	return s.crl != nil && s.crl.Contains(id)
}

// Fresh returns nil while we may admit new calls, else ErrStale with since when.
func (s *Store) Fresh(now time.Time) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.fresh(now)
}

func (s *Store) fresh(now time.Time) error {
	if s.word(now) != None {
		return nil
	}
	if s.heard.IsZero() {
		return fmt.Errorf("%w: the directory was not reached since the start", ErrStale)
	}
	return fmt.Errorf("%w: the directory was last heard %s ago, the bound is %s", ErrStale, now.Sub(s.heard).Round(time.Second), s.bound)
}

// Twin parses and verifies a peer's twin certificate. It fails with ErrStale or with
// twincert's errors; a certificate that passes was valid and unrevoked at now.
func (s *Store) Twin(now time.Time, der []byte, role twincert.Role) (*twincert.Certificate, error) {
	c, err := twincert.Parse(der)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.fresh(now); err != nil {
		return nil, err
	}
	if err := c.Verify(twincert.VerifyOptions{Roots: s.roots, Intermediates: s.inter, Now: now, Role: role, Revoked: s.isRevoked}); err != nil {
		return nil, fmt.Errorf("verifying the twin certificate of %s: %w", c.Name, err)
	}
	return c, nil
}

// Issued parses a certificate that one of our issuers has signed, though it may have been revoked, or have ended, since. What it says was
// so once.
func (s *Store) Issued(now time.Time, der []byte, role twincert.Role) (*twincert.Certificate, error) {
	c, err := twincert.Parse(der)
	if err != nil {
		return nil, err
	}
	if now.After(c.NotAfter) {
		now = c.NotAfter
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := c.Verify(twincert.VerifyOptions{Roots: s.roots, Intermediates: s.inter, Now: now, Role: role, AllowUnknownRevocation: true}); err != nil {
		return nil, fmt.Errorf("verifying who issued the twin certificate of %s: %w", c.Name, err)
	}
	return c, nil
}

// Router parses and verifies a router's TLS certificate (the leaf alone: intermediates
// are our own) and returns it with the router's name.
func (s *Store) Router(now time.Time, der []byte) (*x509.Certificate, string, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, "", fmt.Errorf("parsing a router's TLS certificate: %w", err)
	}
	uri, err := identity.PeerURI(c)
	if err != nil {
		return nil, "", err
	}
	name, ok := strings.CutPrefix(uri, "twinkey://router/")
	if !ok {
		return nil, "", fmt.Errorf("%w: it names %s", ErrRouter, uri)
	}
	if _, ok := c.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, "", fmt.Errorf("%w: its key is no ECDSA key", ErrRouter)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.fresh(now); err != nil {
		return nil, "", err
	}
	opts := x509.VerifyOptions{Roots: s.roots, Intermediates: s.inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := c.Verify(opts); err != nil {
		return nil, "", fmt.Errorf("verifying the TLS certificate of router %s: %w", name, err)
	}
	if s.isRevoked(twincert.IDOf(c)) {
		return nil, "", fmt.Errorf("verifying the TLS certificate of router %s: %w", name, twincert.ErrRevoked)
	}
	return c, name, nil
}
