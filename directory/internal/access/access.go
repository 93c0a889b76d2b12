package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"

	"twinkey/directory/client"
	"twinkey/directory/internal/store"
	"twinkey/pkg/identity"
	"twinkey/pkg/keybundle"
	"twinkey/pkg/lockout"
	"twinkey/pkg/twincert"
)

const (
	uriCA     = "twinkey://ca"
	uriRouter = "twinkey://router/"
)

// Caller is who asks: the bearer of a verified TLS certificate.
type Caller struct {
	URI    string
	Router string      // name of a router, else empty
	ID     twincert.ID // of the TLS certificate
}

// CA says whether the caller is the CA.
func (c Caller) CA() bool { return c.URI == uriCA }

// Right is what is asked.
type Right uint8

// The rights.
const (
	Read   Right = iota // sites, revocations, CRL, watch
	Change              // apply changes
	Own                 // a router's own site and its users' logins
)

func denied(format string, args ...any) error {
	return fmt.Errorf("%w: %w", client.ErrDenied, fmt.Errorf(format, args...))
}

// Who reads the caller from a connection whose handshake verified the certificate, if any
// was shown. Its error is client.ErrDenied.
func Who(cs *tls.ConnectionState) (Caller, error) {
	if cs == nil || len(cs.VerifiedChains) == 0 || len(cs.PeerCertificates) == 0 {
		return Caller{}, denied("no client certificate")
	}
	leaf := cs.PeerCertificates[0]
	uri, err := identity.PeerURI(leaf)
	if err != nil {
		return Caller{}, denied("client certificate: %w", err)
	}
	c := Caller{URI: uri, ID: twincert.IDOf(leaf)}
	if name, ok := strings.CutPrefix(uri, uriRouter); ok {
		if err := twincert.CheckName(name); err != nil {
			return Caller{}, denied("client certificate: %w", err)
		}
		c.Router = name
	}
	return c, nil
}

// Policy is what an operator can set.
type Policy struct {
	Lockout lockout.Policy
	// Least is what a password that a user chooses must cost a guesser; the salt does not count.
	Least keybundle.Params
}

// Guard answers for a register. Safe for concurrent use.
type Guard struct {
	reg     *store.Register
	trust   func() (roots, intermediates []*x509.Certificate)
	policy  Policy
	vouches vouches
}

// New returns a guard; trust yields the anchors of the moment.
func New(reg *store.Register, trust func() (roots, intermediates []*x509.Certificate), p Policy) *Guard {
	return &Guard{reg: reg, trust: trust, policy: p}
}

// Admit says whether the caller may do what it asks now. Its error is client.ErrDenied
// or one of the store's.
func (g *Guard) Admit(ctx context.Context, c Caller, right Right) error {
	return g.reg.Read(ctx, func(r *store.Reader) error { return g.admit(r, c, right) })
}

func (g *Guard) admit(r *store.Reader, c Caller, right Right) error {
	if r.Revoked(c.ID) {
		return denied("the TLS certificate of %s is revoked", c.URI)
	}
	switch {
	case c.CA():
		if right == Own {
			return denied("%s is no router", c.URI)
		}
		return nil
	case c.Router == "":
		return denied("%s has no rights here", c.URI)
	case right == Change:
		return denied("only the CA makes changes")
	}
	row, ok, err := r.Router(c.Router)
	if err != nil {
		return err
	}
	if !ok {
		return denied("router %s is not known here", c.Router)
	}
	if r.Revoked(row.ID) {
		return denied("the twin certificate of router %s is revoked", c.Router)
	}
	return nil
}

// Verify says whether a certificate is to be believed by the register's clock.
func (g *Guard) Verify(c *twincert.Certificate, role twincert.Role, revoked func(twincert.ID) bool) error {
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	rs, is := g.trust()
	for _, c := range rs {
		roots.AddCert(c)
	}
	for _, c := range is {
		inter.AddCert(c)
	}
	return c.Verify(twincert.VerifyOptions{Roots: roots, Intermediates: inter, Now: g.reg.Now(), Role: role, Revoked: revoked})
}

// Visible returns the filter of a caller's watch: news of a user's certificate go to the
// CA and to routers in whose scope the user is. It holds for the moment; ask again for
// each batch, because a new certificate may bring another scope.
func (g *Guard) Visible(ctx context.Context, c Caller) (func(client.Event) bool, error) {
	if c.CA() {
		return func(client.Event) bool { return true }, nil
	}
	var scope []string
	err := g.reg.Read(ctx, func(r *store.Reader) error {
		rr, ok, err := r.Router(c.Router)
		if err != nil || !ok {
			return err
		}
		row, _, err := r.Certificate(rr.ID)
		scope = row.Scope
		return err
	})
	if err != nil {
		return nil, err
	}
	return func(e client.Event) bool {
		n := e.Certificate
		return n == nil || n.Role == twincert.Router || twincert.InScope(scope, n.Name, n.Group)
	}, nil
}
