package issue

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/twincert"
)

// The roles that can enrol.
const (
	RoleRouter    = "router"
	RoleDirectory = "directory"
	RoleUser      = "user" // on a machine of their own
)

// Keys are what a box or a user has proved to hold.
type Keys struct {
	CSR  *x509.CertificateRequest // nil: a user's
	Twin twincert.Keys            // zero unless it is a router or a user
	User string                   // UserID
	Old  *twincert.Certificate    // of a user who renews
}

// digest tells one set of keys from another.
func (k Keys) digest() []byte {
	h := sha256.New()
	if k.CSR != nil {
		h.Write(k.CSR.RawSubjectPublicKeyInfo)
	}
	h.Write(k.Twin.Control[:])
	h.Write(k.Twin.Data[:])
	return h.Sum(nil)
}

// role is that which has such keys.
func (k Keys) role() string {
	switch {
	case k.CSR == nil:
		return RoleUser
	case k.Twin != twincert.Keys{}:
		return RoleRouter
	}
	return RoleDirectory
}

// Issued is what a box or a user gets.
type Issued struct {
	TLS  []*x509.Certificate // leaf first; none for a user
	Twin []byte              // DER; nil for a directory
}

// Enroll certifies the keys of a box that shows a token, and uses the token up. The same
// keys again within a few minutes get the same answer, in case the first one was lost.
func (d *Desk) Enroll(ctx context.Context, token string, k Keys) (Issued, error) {
	id, sec, ok := splitToken(token)
	if !ok {
		return Issued{}, ErrToken
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t, issued, err := d.redeem(id, sec, k)
	if err != nil || issued != nil {
		return deref(issued), err
	}
	if t.Role != k.role() {
		return Issued{}, fmt.Errorf("%w: the token is for a %s, which has %s", ErrInvalid, t.Role, keysOf(t.Role))
	}
	if t.Role == RoleUser && t.Name != k.User {
		return Issued{}, fmt.Errorf("%w: the token is not for user %s", ErrInvalid, k.User)
	}
	if t.Role == RoleDirectory {
		return d.enrollDirectory(ctx, t, k)
	}
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return Issued{}, err
	}
	defer cancel()
	// What was under way is decided now; it may have been this very token.
	if t, issued, err = d.redeem(id, sec, k); err != nil || issued != nil {
		return deref(issued), err
	}
	if t.Intent != 0 {
		return Issued{}, ErrToken
	}
	if t.Role == RoleUser {
		return d.enrollUser(ctx, t, k)
	}
	profile, err := twincert.ParseProfile(t.Profile)
	if err != nil {
		return Issued{}, fmt.Errorf("token %s: %w: %w", t.ID, ledger.ErrDamaged, err)
	}
	r := ledger.Router{Name: t.Name, Prefixes: t.Prefixes, Scope: t.Scope, Profile: profile.String(), Enrolled: d.now()}
	in := &ledger.Intent{Kind: ledger.KindIssue, What: "enrolling router " + t.Name, Reserved: t.ID, Change: &client.Change{Actor: "token:" + t.ID}}
	return d.certifyRouter(ctx, in, r, t.Hosts, k, &t)
}

func keysOf(role string) string {
	switch role {
	case RoleRouter:
		return "a TLS, a control and a data key"
	case RoleUser:
		return "a control and a data key, and no TLS key"
	}
	return "neither control nor data key"
}

func deref(i *Issued) Issued {
	if i == nil {
		return Issued{}
	}
	return *i
}

func (d *Desk) reissue(tx *ledger.Tx, u *ledger.Use) (*Issued, error) {
	i := &Issued{}
	var c ledger.Cert
	if u.TLS != "" {
		var ok bool
		var err error
		if c, ok, err = tx.Cert(u.TLS); err != nil || !ok {
			return nil, fmt.Errorf("certificate %s: %w", u.TLS, ledger.ErrDamaged)
		}
		leaf, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", u.TLS, ledger.ErrDamaged)
		}
		i.TLS = []*x509.Certificate{leaf, d.cfg.Authority.Intermediate()}
	}
	if u.Twin == "" {
		return i, nil
	}
	w, ok, err := tx.Cert(u.Twin)
	if err != nil || !ok {
		return nil, fmt.Errorf("certificate %s: %w", u.Twin, ledger.ErrDamaged)
	}
	if !c.Revoked.IsZero() || !w.Revoked.IsZero() {
		return nil, ErrToken
	}
	i.Twin = w.DER
	return i, nil
}

// certifyRouter issues both certificates of a router and makes the twin certificate its
// current one in the directory.
func (d *Desk) certifyRouter(ctx context.Context, in *ledger.Intent, r ledger.Router, hosts []string, k Keys, t *ledger.Token) (Issued, error) {
	chain, leaf, err := d.tls(ctx, k.CSR, RoleRouter, r.Name, hosts)
	if err != nil {
		return Issued{}, fmt.Errorf("%s: %w: %w", in.What, ErrNothingIssued, err)
	}
	profile, err := twincert.ParseProfile(r.Profile)
	if err != nil {
		return Issued{}, fmt.Errorf("router %s: %w: %w", r.Name, ledger.ErrDamaged, err)
	}
	twin, err := d.twin(twincert.Template{Profile: profile, Role: twincert.Router, Name: r.Name, Keys: k.Twin, Scope: r.Scope, Prefixes: r.Prefixes}, d.cfg.Terms.Router)
	if err != nil {
		return Issued{}, fmt.Errorf("%s: %w: %w", in.What, ErrNothingIssued, err)
	}
	r.TLS, r.Twin = leaf.Serial, twin.Serial.String()
	in.Effects.Routers = []ledger.Router{r}
	in.Effects.Certs = []ledger.Cert{leaf, twinRecord(twin)}
	in.Change.Certificates = d.certRecords(in.Effects.Certs...)
	in.Change.Routers = []client.RouterRecord{{Name: r.Name, ID: twin.ID()}}
	if t != nil {
		d.use(in, *t, k, leaf.Serial, r.Twin)
	}
	if err := d.commit(ctx, in); err != nil {
		return Issued{}, fmt.Errorf("%s: %w", in.What, err)
	}
	return Issued{TLS: chain, Twin: twin.Raw}, nil
}

// use makes it an effect of in that t has been used.
func (d *Desk) use(in *ledger.Intent, t ledger.Token, k Keys, tls, twin string) {
	t.Intent = 0
	t.Used = &ledger.Use{Request: k.digest(), TLS: tls, Twin: twin, Time: d.now()}
	in.Effects.Tokens = []ledger.Token{t}
}

// enrollDirectory certifies the directory. It is not up yet, so the ledger alone decides.
func (d *Desk) enrollDirectory(ctx context.Context, t ledger.Token, k Keys) (Issued, error) {
	if err := d.CheckClock(); err != nil {
		return Issued{}, err
	}
	in := &ledger.Intent{Kind: ledger.KindIssue, What: "enrolling the directory", Reserved: t.ID}
	chain, leaf, err := d.tls(ctx, k.CSR, RoleDirectory, "directory", t.Hosts)
	if err != nil {
		return Issued{}, err
	}
	in.Effects.Certs = []ledger.Cert{leaf}
	d.use(in, t, k, leaf.Serial, "")
	if err := d.commit(ctx, in); err != nil {
		return Issued{}, fmt.Errorf("%s: %w", in.What, err)
	}
	return Issued{TLS: chain}, nil
}

// Renew certifies new keys for the bearer of an old TLS certificate. The caller has seen
// its chain verified and its key proved; whether it is ours, revoked, or too long expired is
// checked here.
func (d *Desk) Renew(ctx context.Context, role, name string, old *x509.Certificate, k Keys) (Issued, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.renewable(role, name, old.SerialNumber, old.NotAfter); err != nil {
		return Issued{}, err
	}
	if role != k.role() {
		return Issued{}, fmt.Errorf("%w: a %s has %s", ErrInvalid, role, keysOf(role))
	}
	hosts := slices.Clone(old.DNSNames)
	for _, a := range old.IPAddresses {
		hosts = append(hosts, a.String())
	}
	if role == RoleDirectory {
		return d.renewDirectory(ctx, hosts, k)
	}
	ctx, cancel, err := d.begin(ctx)
	if err != nil {
		return Issued{}, err
	}
	defer cancel()
	var r ledger.Router
	err = d.View(func(tx *ledger.Tx) (err error) {
		var ok bool
		if r, ok, err = tx.Router(name); err == nil && (!ok || !r.Active()) {
			err = fmt.Errorf("router %s %w", name, ErrRevoked)
		}
		return err
	})
	if err != nil {
		return Issued{}, err
	}
	r.Renewed = d.now()
	in := &ledger.Intent{Kind: ledger.KindIssue, What: "renewing router " + name, Change: &client.Change{Actor: bearer(role, name)}}
	return d.certifyRouter(ctx, in, r, hosts, k, nil)
}

func (d *Desk) renewable(role, name string, serial *big.Int, end time.Time) error {
	if role != RoleRouter && role != RoleDirectory {
		return fmt.Errorf("%w: a certificate of %s is not renewed here", ErrInvalid, role)
	}
	if late := d.now().Sub(end); late > d.cfg.Terms.Grace {
		return fmt.Errorf("%w: the certificate expired %s ago, renewals are granted for %s", ErrRevoked, late.Round(time.Second), d.cfg.Terms.Grace)
	}
	c, err := d.Certificate(serial.String())
	if err != nil {
		return err
	}
	revoked, err := d.cfg.Authority.Revoked(serial)
	if err != nil {
		return err
	}
	if revoked || !c.Revoked.IsZero() {
		return fmt.Errorf("certificate %s of %s %s %w", serial, role, name, ErrRevoked)
	}
	if c.Role != role || role == RoleRouter && c.Name != name || c.Kind != client.KindTLS {
		return fmt.Errorf("%w: certificate %s is not that of %s %s", ErrInvalid, serial, role, name)
	}
	return nil
}

// Router returns the router that shows a TLS certificate of ours, whose chain and key the
// caller has seen verified, if it may ask for anything now: the certificate is valid and
// neither it nor the router is revoked.
func (d *Desk) Router(name string, shown *x509.Certificate) (ledger.Router, error) {
	if now := d.now(); now.After(shown.NotAfter) || now.Before(shown.NotBefore) {
		return ledger.Router{}, fmt.Errorf("%w: the certificate of router %s is valid from %s to %s", ErrRevoked, name, shown.NotBefore.Format(time.RFC3339), shown.NotAfter.Format(time.RFC3339))
	}
	if err := d.renewable(RoleRouter, name, shown.SerialNumber, shown.NotAfter); err != nil {
		return ledger.Router{}, err
	}
	var r ledger.Router
	err := d.View(func(tx *ledger.Tx) (err error) {
		var ok bool
		if r, ok, err = tx.Router(name); err == nil && (!ok || !r.Active()) {
			err = fmt.Errorf("router %s %w", name, ErrRevoked)
		}
		return err
	})
	return r, err
}

func (d *Desk) renewDirectory(ctx context.Context, hosts []string, k Keys) (Issued, error) {
	if err := d.CheckClock(); err != nil {
		return Issued{}, err
	}
	in := &ledger.Intent{Kind: ledger.KindIssue, What: "renewing the directory"}
	chain, leaf, err := d.tls(ctx, k.CSR, RoleDirectory, "directory", hosts)
	if err != nil {
		return Issued{}, err
	}
	in.Effects.Certs = []ledger.Cert{leaf}
	if err := d.commit(ctx, in); err != nil {
		return Issued{}, fmt.Errorf("%s: %w", in.What, err)
	}
	return Issued{TLS: chain}, nil
}
