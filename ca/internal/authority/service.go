package authority

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/certificates/cas/apiv1"
	"github.com/smallstep/certificates/cas/softcas"

	"twinkey/pkg/identity"
)

// ErrReserved says that a certificate was asked for by a way that must not give it.
var ErrReserved = errors.New("not to be had this way")

// service signs for smallstep. It is softcas but for what it refuses.
type service struct {
	*softcas.SoftCAS
	reserved func(names ...string) error
	now      func() time.Time
}

// skew is how far the clock of whoever orders may be ahead.
const skew = 5 * time.Minute

// CreateCertificate signs. Requests that came by ACME or a token carry a provisioner, those
// of SignTLS none.
func (s *service) CreateCertificate(req *apiv1.CreateCertificateRequest) (*apiv1.CreateCertificateResponse, error) {
	if req.Provisioner == nil && !req.IsCAServerCert {
		return s.SoftCAS.CreateCertificate(req)
	}
	if req.Template == nil {
		return nil, fmt.Errorf("%w: no template", ErrReserved)
	}
	if err := plain(req.Template); err != nil {
		return nil, err
	}
	res, err := s.SoftCAS.CreateCertificate(req)
	if err != nil {
		return nil, err
	}
	// A template can hide names in raw extensions; what was signed cannot.
	if err := plain(res.Certificate); err != nil {
		return nil, err
	}
	// The operator may sign for whom they like, and a router has shown at the board that it is its own name.
	if p := req.Provisioner; p == nil || p.Name != provisionerName && p.Name != routersACME {
		if err := s.reserved(namesOf(res.Certificate)...); err != nil {
			return nil, err
		}
	}
	// What is ordered today for a later year outlives the router that ordered it.
	if p := req.Provisioner; p != nil && p.Name == routersACME && res.Certificate.NotBefore.After(s.now().Add(skew)) {
		return nil, fmt.Errorf("%w: a certificate that begins at %s", ErrReserved, res.Certificate.NotBefore.UTC().Format(time.RFC3339))
	}
	return res, nil
}

// namesOf are all that a browser could take the bearer for.
func namesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	if c.Subject.CommonName != "" {
		names = append(names, c.Subject.CommonName)
	}
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	return names
}

// RenewCertificate refuses: a renewal is a new request with new keys.
func (s *service) RenewCertificate(*apiv1.RenewCertificateRequest) (*apiv1.RenewCertificateResponse, error) {
	return nil, fmt.Errorf("%w: renewal", ErrReserved)
}

// plain refuses everything that could pass for a certificate of ours.
func plain(c *x509.Certificate) error {
	switch {
	case c.IsCA:
		return fmt.Errorf("%w: a CA certificate", ErrReserved)
	case len(c.UnknownExtKeyUsage) > 0:
		return fmt.Errorf("%w: extended key usage %v", ErrReserved, c.UnknownExtKeyUsage)
	}
	for _, u := range c.ExtKeyUsage {
		if !slices.Contains([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, u) {
			return fmt.Errorf("%w: extended key usage %d", ErrReserved, u)
		}
	}
	for _, u := range c.URIs {
		if strings.EqualFold(u.Scheme, identity.Scheme) {
			return fmt.Errorf("%w: the name %s", ErrReserved, u)
		}
	}
	return nil
}
