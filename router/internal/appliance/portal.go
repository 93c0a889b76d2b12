package appliance

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"twinkey/router/internal/admin"
	"twinkey/router/internal/authn"
	"twinkey/router/internal/engine"
	"twinkey/router/internal/links"
	"twinkey/router/internal/portal"
	"twinkey/router/internal/settings"
	"twinkey/router/internal/webcert"
)

// web is the portal and its certificate.
type web struct {
	*portal.Portal
	cert *webcert.Keeper
}

// openPortal opens the portal's listeners, if there is to be one.
func (a *Appliance) openPortal(ctx context.Context, s *settings.Settings) error {
	if !s.PortalListen.IsValid() {
		return nil
	}
	issuer, err := webcert.NewIssuer(a.ends.CA, a.id)
	if err != nil {
		return err
	}
	cert, err := webcert.Load(webcert.Config{
		File: s.PortalFile(), Names: portal.Names(s.Portal.Name, s.PortalListen), Issue: issuer.Issue, Log: a.log,
		Roots: func() []*x509.Certificate { return a.id.Bundle().Roots },
	})
	if err != nil {
		return err
	}
	p, err := portal.New(ctx, a.portalConfig(s, cert))
	if err != nil {
		return err
	}
	a.web = &web{p, cert}
	return nil
}

func (a *Appliance) portalConfig(s *settings.Settings, cert *webcert.Keeper) portal.Config {
	return portal.Config{
		Listen: s.PortalListen, HTTP: s.PortalHTTP, DNSName: s.Portal.Name, Name: a.id.Name(), Company: s.Portal.Company, Captive: s.Portal.Captive,
		Router: visitors{a}, Certificate: cert.Certificate, Root: func() *x509.Certificate { return a.id.Bundle().Roots[0] },
		Guesses: a.tries, Hold: authn.Hold, Log: a.log,
	}
}

func (w *web) run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { w.cert.Run(ctx) })
	err := w.Run(ctx)
	wg.Wait()
	return err
}

// close lets go of listeners that were never served.
func (w *web) close() error {
	if w == nil {
		return nil
	}
	return w.Close()
}

// Portal implements admin.Router.
func (a *Appliance) Portal(ctx context.Context) (admin.Portal, error) {
	if a.web == nil {
		return admin.Portal{}, &admin.Error{Kind: admin.KindNotFound, What: "this router has no portal", Hint: "set portal.listen in its configuration to an address of its LAN, such as 10.1.1.1:443, and restart it"}
	}
	s := a.set.Load()
	sum := webcert.Fingerprint(a.id.Bundle().Roots[0])
	p := admin.Portal{URL: a.web.URL(), Listen: s.PortalListen.String(), Names: a.web.Names(), Root: hex.EncodeToString(sum[:]),
		Problem: a.web.cert.Problem(), Refused: a.web.Refused(), Sessions: []admin.PortalSession{}}
	if s.PortalHTTP.IsValid() {
		p.HTTP = s.PortalHTTP.String()
	}
	if s.Portal.Captive {
		p.Captive = a.web.URL() + portal.PathCaptive[1:]
	}
	if c, err := a.web.cert.Certificate(); err == nil {
		sum := webcert.Fingerprint(c.Leaf)
		p.Certificate = &admin.PortalCertificate{Serial: c.Leaf.SerialNumber.String(), NotAfter: c.Leaf.NotAfter, RenewAt: webcert.RenewAt(c.Leaf), SHA256: hex.EncodeToString(sum[:])}
	} else if p.Problem == "" {
		p.Problem = err.Error()
	}
	for _, v := range a.web.Sessions(ctx) {
		p.Sessions = append(p.Sessions, admin.PortalSession(v))
	}
	return p, nil
}

// visitors is the router as the portal sees it.
type visitors struct{ a *Appliance }

// Login implements portal.Router.
func (v visitors) Login(ctx context.Context, l portal.Login) error {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	k := links.Key{Peer: l.Peer, User: l.User}
	_, err := v.a.login(ctx, k, l.Password, l.Address, l.Turn)
	if !errors.Is(err, engine.ErrBusy) {
		return err
	}
	// The password was right. Who is logged in from here already, and has lost the cookie (another browser, an emptied one), has their
	// session back: without it they could not even log out.
	standing, listErr := v.a.eng.Logins(ctx, l.Address)
	if listErr == nil && slices.ContainsFunc(standing, func(s engine.Standing) bool { return s.Key == k }) {
		return nil
	}
	return err
}

// ChangePassword implements portal.Router.
func (v visitors) ChangePassword(ctx context.Context, c portal.Change) error {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	return authn.ChangePassword(ctx, v.a.dir, v.a.gate, v.a.trust, c.User, c.Password, c.New)
}

// Logins implements portal.Router.
func (v visitors) Logins(ctx context.Context, at netip.Addr) ([]portal.Standing, error) {
	all, err := v.a.eng.Logins(ctx, at)
	if err != nil {
		return nil, err
	}
	warnings := v.a.users.Warnings()
	out := make([]portal.Standing, 0, len(all))
	for _, s := range all {
		w := warnings[s.Key]
		p := portal.Standing{User: s.Key.User, Peer: s.Key.Peer, Address: s.Address, Since: s.Since, Ending: w.Reason, Last: w.Last}
		if c := s.Call; c != nil {
			k := c.Active.Call
			p.Up, p.Remote, p.Suite, p.Hybrid, p.NotAfter, p.Ends = true, k.Bounds().Remote, suite(c.Suite), c.PostQuantum, c.NotAfter, c.Ends
			p.RxBytes, p.RxPackets, p.TxBytes, p.TxPackets = k.RxBytes.Load(), k.RxPackets.Load(), k.TxBytes.Load(), k.TxPackets.Load()
			p.Denied, p.Foreign = k.Denied.Load(), k.ForeignSource.Load()
		}
		out = append(out, p)
	}
	return out, nil
}

// Guest implements portal.Router.
func (v visitors) Guest(ctx context.Context, at netip.Addr) (portal.Guest, bool, error) {
	g, ok, err := v.a.eng.GuestAt(ctx, at)
	if err != nil || !ok {
		return portal.Guest{}, false, err
	}
	return portal.Guest{User: g.Certificate.Name, Since: g.Since}, true, nil
}

// Logout implements portal.Router.
func (v visitors) Logout(ctx context.Context, user string, at netip.Addr) error {
	_, err := v.a.eng.Logout(ctx, user, at)
	return err
}

// Peers implements portal.Router. A router that nobody can dial is no site to choose: it places calls itself.
func (v visitors) Peers() []string {
	v.a.mu.Lock()
	defer v.a.mu.Unlock()
	names := make([]string, 0, len(v.a.peers))
	for _, p := range v.a.peers {
		if p.Endpoint.IsValid() {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Bridged implements portal.Router.
func (v visitors) Bridged(addr netip.Addr) bool {
	return slices.ContainsFunc(v.a.set.Load().Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}
