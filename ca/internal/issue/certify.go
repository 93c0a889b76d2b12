package issue

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
)

// backdate is how far before now a certificate begins: boxes' clocks differ.
const backdate = 5 * time.Minute

// leastTerm is the shortest certificate worth giving, when the CA's own is about to end.
const leastTerm = time.Hour

// term is the validity of a certificate that is to live for d and must not outlive its issuer.
func (d *Desk) term(life time.Duration) (from, to time.Time, err error) {
	now := d.now()
	from, to = now.Add(-backdate), now.Add(life)
	end := d.cfg.Authority.Intermediate().NotAfter
	if to.After(end) {
		to = end
	}
	if to.Sub(now) < min(leastTerm, life) {
		return from, to, fmt.Errorf("%w: it ends at %s", authority.ErrExpired, end.Format(time.RFC3339))
	}
	return from, to, nil
}

// twin signs a twin certificate. t lacks serial, validity and distribution points.
func (d *Desk) twin(t twincert.Template, life time.Duration) (*twincert.Certificate, error) {
	from, to, err := d.term(life)
	if err != nil {
		return nil, err
	}
	return d.sign(t, from, to)
}

// sign is twin for a term.
func (d *Desk) sign(t twincert.Template, from, to time.Time) (*twincert.Certificate, error) {
	var err error
	if t.Serial, err = authority.NewSerial(); err != nil {
		return nil, err
	}
	t.NotBefore, t.NotAfter = from, to
	t.CRLDistributionPoints = []string{d.cfg.CRLURL}
	der, err := twincert.Create(rand.Reader, &t, d.cfg.Authority.Intermediate(), d.cfg.Authority.Signer())
	if err != nil {
		return nil, err
	}
	return twincert.Parse(der)
}

// bearer is the URI that names whoever has a role and, if the role has names, a name.
func bearer(role, name string) string {
	uri := identity.Scheme + "://" + role
	if role == "router" {
		uri += "/" + name
	}
	return uri
}

// tls signs a TLS certificate for a bearer and returns it with its record.
func (d *Desk) tls(ctx context.Context, csr *x509.CertificateRequest, role, name string, hosts []string) ([]*x509.Certificate, ledger.Cert, error) {
	from, to, err := d.term(d.cfg.Terms.TLS)
	if err != nil {
		return nil, ledger.Cert{}, err
	}
	chain, err := d.cfg.Authority.SignTLS(ctx, csr, authority.TLS{Name: name, URI: bearer(role, name), Hosts: hosts, NotBefore: from, NotAfter: to})
	if err != nil {
		return nil, ledger.Cert{}, err
	}
	leaf := chain[0]
	return chain, ledger.Cert{Serial: leaf.SerialNumber.String(), Kind: client.KindTLS, Role: role, Name: name, DER: leaf.Raw, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}, nil
}

// OwnTLS signs a TLS certificate for the CA itself. It is in no database: nobody else can
// ask for one, and it lives in the identity of this box alone.
func (d *Desk) OwnTLS(ctx context.Context, csr *x509.CertificateRequest, company string, hosts []string) ([]*x509.Certificate, error) {
	if err := d.CheckClock(); err != nil {
		return nil, err
	}
	chain, _, err := d.tls(ctx, csr, "ca", company, hosts)
	return chain, err
}

func twinRecord(c *twincert.Certificate) ledger.Cert {
	return ledger.Cert{Serial: c.Serial.String(), Kind: client.KindTwin, Role: c.Role.String(), Name: c.Name, DER: c.Raw, Control: c.Keys.Control[:], NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// controlOf is the control public key in a twin certificate; nil in any other. Records of before it was noted have it in the
// certificate alone.
func controlOf(c ledger.Cert) []byte {
	if c.Control != nil || c.Kind != client.KindTwin {
		return c.Control
	}
	t, err := twincert.Parse(c.DER)
	if err != nil {
		return nil
	}
	return t.Keys.Control[:]
}

// certRecords are the directory's view of certificates.
func (d *Desk) certRecords(certs ...ledger.Cert) []client.CertRecord {
	out := make([]client.CertRecord, 0, len(certs))
	for _, c := range certs {
		out = append(out, client.CertRecord{ID: d.id(c.Serial), DER: c.DER, Kind: c.Kind})
	}
	return out
}

func (d *Desk) id(serial string) twincert.ID { return twincert.ID{Issuer: d.issuer(), Serial: serial} }

// Certificate finds one by serial number: decimal, or hexadecimal with 0x or colons.
func (d *Desk) Certificate(serial string) (ledger.Cert, error) {
	n, ok := parseSerial(serial)
	if !ok {
		return ledger.Cert{}, fmt.Errorf("serial number %q: %w", serial, ErrInvalid)
	}
	var c ledger.Cert
	err := d.View(func(tx *ledger.Tx) (err error) {
		var found bool
		if c, found, err = tx.Cert(n.String()); err == nil && !found {
			err = fmt.Errorf("certificate %s %w", n, ErrUnknown)
		}
		return err
	})
	return c, err
}

func parseSerial(s string) (*big.Int, bool) {
	base := 10
	if rest, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = rest, 16
	} else if strings.Contains(s, ":") {
		s, base = strings.ReplaceAll(s, ":", ""), 16
	}
	return new(big.Int).SetString(s, base)
}

// CertState is a certificate, and whether it is its bearer's present one of that kind.
type CertState struct {
	ledger.Cert
	Current bool
}

// Certs lists what was issued to the bearers of a role, or to one of them; empty: any. The newest of each comes first.
func (d *Desk) Certs(role, name string) ([]CertState, error) {
	var out []CertState
	err := d.View(func(tx *ledger.Tx) error {
		certs, err := tx.Certs()
		if err != nil {
			return err
		}
		current, err := presentCerts(tx, certs)
		for _, c := range certs {
			if (role == "" || c.Role == role) && (name == "" || c.Name == name) {
				out = append(out, CertState{c, current[c.Serial]})
			}
		}
		return err
	})
	slices.SortStableFunc(out, func(a, b CertState) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind), b.NotBefore.Compare(a.NotBefore))
	})
	return out, err
}

// presentCerts are the serials of the certificates that their bearers have now; what they had before goes on until it expires.
func presentCerts(tx *ledger.Tx, certs []ledger.Cert) (map[string]bool, error) {
	current := map[string]bool{}
	users, err := tx.Users()
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		current[u.Serial] = u.Active()
	}
	routers, err := tx.Routers()
	if err != nil {
		return nil, err
	}
	for _, r := range routers {
		current[r.Twin], current[r.TLS] = r.Active(), r.Active()
	}
	var own ledger.Cert // the directory's
	for _, c := range certs {
		if c.Role == RoleDirectory && c.Revoked.IsZero() && c.NotBefore.After(own.NotBefore) {
			own = c
		}
	}
	current[own.Serial] = own.Serial != ""
	return current, nil
}

// Expiring lists the present certificates of ours that end before limit, soonest first.
func (d *Desk) Expiring(limit time.Time) ([]ledger.Cert, error) {
	all, err := d.Certs("", "")
	if err != nil {
		return nil, err
	}
	var certs []ledger.Cert
	now := d.now()
	for _, c := range all {
		if c.Current && c.Revoked.IsZero() && !c.NotAfter.Before(now) && !c.NotAfter.After(limit) {
			certs = append(certs, c.Cert)
		}
	}
	slices.SortFunc(certs, func(a, b ledger.Cert) int { return a.NotAfter.Compare(b.NotAfter) })
	return certs, nil
}
