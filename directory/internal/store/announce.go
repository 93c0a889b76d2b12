package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// maxPrefixes is how many prefixes one site may announce.
const maxPrefixes = 512

// Verify says whether a certificate of that role is to be believed now.
type Verify func(c *twincert.Certificate, role twincert.Role, revoked func(twincert.ID) bool) error

// Announce stores where router name is reached and what lies behind it. It fails with
// client.ErrInvalid for what no router may announce and with client.ErrDenied for what
// this one's certificate does not cover.
func (r *Register) Announce(ctx context.Context, actor, name, endpoint string, prefixes []netip.Prefix, verify Verify) error {
	if err := checkEndpoint(endpoint); err != nil {
		return err
	}
	prefixes, err := canonical(prefixes)
	if err != nil {
		return err
	}
	err = r.Write(ctx, actor, func(w *Writer) error {
		rr, row, c, err := w.trusted(name, verify)
		if err != nil {
			return err
		}
		for _, p := range prefixes {
			if !c.Covers(p) {
				return fmt.Errorf("%w: the certificate of router %s does not cover %s", client.ErrDenied, name, p)
			}
		}
		if rr.Endpoint == endpoint && slices.Equal(rr.Prefixes, prefixes) {
			return errApplied
		}
		rr.Endpoint, rr.Prefixes, rr.Updated = endpoint, prefixes, w.now
		w.Audit(AuditSite, name, fmt.Sprintf("endpoint %q, prefixes %v", endpoint, prefixes))
		return w.putRouter(name, rr, row)
	})
	if errors.Is(err, errApplied) {
		return nil
	}
	return err
}

// trusted returns a router and its current certificate, which verify has passed.
func (r *Reader) trusted(name string, verify Verify) (RouterRow, CertRow, *twincert.Certificate, error) {
	var no *twincert.Certificate
	rr, ok, err := r.Router(name)
	if err != nil {
		return rr, CertRow{}, no, err
	}
	if !ok {
		return rr, CertRow{}, no, fmt.Errorf("%w: router %s is not known", client.ErrDenied, name)
	}
	row, ok, err := r.Certificate(rr.ID)
	if err != nil {
		return rr, row, no, err
	}
	if !ok {
		return rr, row, no, fmt.Errorf("%w: router %s has no certificate", ErrDamaged, name)
	}
	c, err := twincert.Parse(row.DER)
	if err != nil {
		return rr, row, no, fmt.Errorf("%w: certificate of router %s: %w", ErrDamaged, name, err)
	}
	if err := verify(c, twincert.Router, r.Revoked); err != nil {
		return rr, row, no, fmt.Errorf("%w: twin certificate of router %s: %w", client.ErrDenied, name, err)
	}
	return rr, row, c, nil
}

// TrustedRouter returns the current certificate of a router if verify passes it, else
// client.ErrDenied.
func (r *Reader) TrustedRouter(name string, verify Verify) (*twincert.Certificate, error) {
	_, _, c, err := r.trusted(name, verify)
	return c, err
}

func checkEndpoint(s string) error {
	if s == "" {
		return nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return invalid("endpoint %q: %w", s, err)
	}
	if ip := a.Addr(); a.Port() == 0 || !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" {
		return invalid("endpoint %s cannot be dialled by others", a)
	}
	return nil
}

// canonical sorts prefixes and drops doubles.
func canonical(in []netip.Prefix) ([]netip.Prefix, error) {
	if len(in) > maxPrefixes {
		return nil, invalid("%d prefixes, at most %d may be announced", len(in), maxPrefixes)
	}
	out := make([]netip.Prefix, 0, len(in))
	for _, p := range in {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return nil, invalid("prefix %s is not canonical, %s would be", p, p.Masked())
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(out), nil
}

// Sites returns every router whose current certificate is not revoked, by name.
func (r *Reader) Sites() ([]client.Site, error) {
	sites := []client.Site{}
	for k, v := range r.tx.Range(Routers, nil) {
		rr, err := decode[RouterRow](Routers, k, v)
		if err != nil {
			return nil, err
		}
		if r.Revoked(rr.ID) {
			continue
		}
		row, ok, err := r.Certificate(rr.ID)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%w: router %s has no certificate", ErrDamaged, k)
		}
		sites = append(sites, site(strings.Clone(string(k)), rr, row))
	}
	return sites, nil
}

// Revocations returns all of them.
func (r *Reader) Revocations() ([]client.Revocation, error) {
	out := []client.Revocation{}
	for k, v := range r.tx.Range(Revoked, nil) {
		rev, err := decode[client.Revocation](Revoked, k, v)
		if err != nil {
			return nil, err
		}
		out = append(out, rev)
	}
	return out, nil
}
