package issue

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"twinkey/ca/internal/ledger"
)

// PortalName says whether the router that shows leaf may have a web certificate for identifier, a DNS name or an address. The
// caller has seen the chain verified and the key proved. It fails with ErrForeign, and with ErrRevoked if leaf is no good any more.
func (d *Desk) PortalName(router string, leaf *x509.Certificate, identifier string) error {
	r, err := d.Router(router, leaf)
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(identifier); err == nil {
		// One address, one spelling, and none that is another's in disguise.
		if a.String() == identifier && a.Zone() == "" && !a.Is4In6() && slices.ContainsFunc(r.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return nil
		}
		return fmt.Errorf("%w: the address %s is in none of %v, which router %s is certified for", ErrForeign, identifier, r.Prefixes, router)
	}
	names := []string{r.Name}
	if d.cfg.PortalDomain != "" {
		names = append(names, r.Name+"."+d.cfg.PortalDomain)
	}
	if !slices.Contains(names, identifier) {
		return fmt.Errorf("%w: router %s may be called %s, not %q (portal-domain in ca.yaml adds a name)", ErrForeign, router, strings.Join(names, " or "), identifier)
	}
	return nil
}

// Reserved says whether a name or an address is a router's, so that nobody else may have a certificate for it: what routers are
// called, all of the portals' domain, and addresses that routers are certified for.
func Reserved(l *ledger.Ledger, domain, name string) (yes bool, err error) {
	name = strings.TrimSuffix(strings.ToLower(strings.TrimPrefix(name, "*.")), ".")
	if domain != "" && (name == domain || strings.HasSuffix(name, "."+domain)) {
		return true, nil
	}
	a, noAddr := netip.ParseAddr(name)
	a = a.Unmap().WithZone("")
	err = l.View(func(tx *ledger.Tx) error {
		routers, err := tx.Routers()
		yes = slices.ContainsFunc(routers, func(r ledger.Router) bool {
			return r.Active() && (r.Name == name || noAddr == nil && slices.ContainsFunc(r.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }))
		})
		return err
	})
	return yes, err
}
