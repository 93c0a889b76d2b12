package twincert

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// within says whether a CA's own certificate lets it certify c's prefixes and scope.
//
//	nameConstraints, iPAddress       RFC 5280 4.2.1.10   bounds the prefixes
//	IPAddrBlocks                     RFC 3779 2.3        bounds the prefixes
//	subjectDirectoryAttributes       ours                bounds the scope
//
// Constraints on names that a twin certificate does not have are crypto/x509's to apply. It
// also refuses a CA with critical IPAddrBlocks: only those marked non-critical get here.
func (c *Certificate) within(ca *x509.Certificate) error {
	for _, p := range c.Prefixes {
		if !permits(ca, p) {
			return fmt.Errorf("%w: %s may not certify prefix %s", ErrConstraint, printable(ca.Subject.String()), p)
		}
	}
	for _, x := range ca.Extensions {
		switch {
		case x.Id.Equal(oidIPAddrBlock) && len(c.Prefixes) > 0:
			bounds, err := parseBlocks(x.Value)
			if err != nil {
				return fmt.Errorf("%w: IPAddrBlocks of %s: %w", ErrConstraint, printable(ca.Subject.String()), err)
			}
			if i := slices.IndexFunc(c.Prefixes, func(p netip.Prefix) bool { return !covers(bounds, p) }); i >= 0 {
				return fmt.Errorf("%w: %s may not certify prefix %s", ErrConstraint, printable(ca.Subject.String()), c.Prefixes[i])
			}
		case x.Id.Equal(oidSDA) && len(c.Scope) > 0:
			bounds, err := parseScope(x.Value)
			if err != nil {
				return fmt.Errorf("%w: scope of %s: %w", ErrConstraint, printable(ca.Subject.String()), err)
			}
			if i := slices.IndexFunc(c.Scope, func(s string) bool { return !slices.Contains(bounds, s) && !slices.Contains(bounds, "*") }); i >= 0 {
				return fmt.Errorf("%w: %s may not certify scope %s", ErrConstraint, printable(ca.Subject.String()), c.Scope[i])
			}
		}
	}
	return nil
}

// permits applies the name constraints of type iPAddress to a prefix.
func permits(ca *x509.Certificate, p netip.Prefix) bool {
	for _, n := range ca.ExcludedIPRanges {
		if q, ok := prefixOf(n); !ok || q.Overlaps(p) {
			return false
		}
	}
	if len(ca.PermittedIPRanges) == 0 {
		return true
	}
	var permitted []netip.Prefix
	for _, n := range ca.PermittedIPRanges {
		if q, ok := prefixOf(n); ok {
			permitted = append(permitted, q)
		}
	}
	return covers(permitted, p)
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, size := n.Mask.Size()
	return netip.PrefixFrom(a, ones), ok && size == a.BitLen()
}

// covers says whether p lies within one of ps.
func covers(ps []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(ps, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
}
