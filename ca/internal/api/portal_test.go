package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// yes is a directory that takes everything.
type yes struct{}

func (yes) Health(context.Context) error               { return nil }
func (yes) Apply(context.Context, client.Change) error { return nil }
func (yes) Has(context.Context, string) (bool, error)  { return true, nil }

// routers gives the box's CA a directory, and the portals a domain.
func (b *box) routers() {
	b.Helper()
	v := b.ca.Config.Validity
	b.ca.Config.Domain = "portal.example"
	b.ca.Desk = issue.New(issue.Config{
		Authority: b.ca.Authority, Ledger: b.ca.Ledger, Directory: yes{}, GroupKey: secret.New(make([]byte, 32)), Profile: twincert.Paper, CRLURL: b.ca.Config.CRLURL(),
		Patience: time.Second, PortalDomain: "portal.example", Now: b.srv.cfg.Now, Terms: issue.Terms{Router: v.Router, User: v.User, TLS: v.TLS, Grace: v.Grace, CRL: v.CRL},
	})
}

// router enrols one.
func (b *box) router(name, prefix string) *identity.Identity {
	b.Helper()
	token, _, err := b.ca.Desk.Token(issue.TokenRequest{Role: issue.RoleRouter, Name: name, Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}, Scope: []string{"group:staff"}, TTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	id, err := b.enroll(token)
	if err != nil {
		b.Fatal(err)
	}
	return id
}

// order orders a certificate as a router's portal does. put is how answers get to the CA.
func (b *box) order(hc *http.Client, directory string, put func(caclient.ChallengeAnswer) error, names ...string) (*x509.Certificate, error) {
	b.Helper()
	finalize, err := b.validated(hc, directory, put, nil, names...)
	if err != nil {
		return nil, err
	}
	return finalize()
}

// validated orders one and shows whose the names are. What is left is to finalize the order, for new keys each time.
func (b *box) validated(hc *http.Client, directory string, put func(caclient.ChallengeAnswer) error, opt []acme.OrderOption, names ...string) (finalize func() (*x509.Certificate, error), err error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	b.Cleanup(cancel)
	account := newKey(b.T)
	ac := &acme.Client{Key: account, HTTPClient: hc, DirectoryURL: b.url + directory, RetryBackoff: func(int, *http.Request, *http.Response) time.Duration { return -1 }}
	if _, err := ac.Register(ctx, &acme.Account{}, acme.AcceptTOS); err != nil {
		return nil, err
	}
	var ids []acme.AuthzID
	csr := &x509.CertificateRequest{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			ids, csr.IPAddresses = append(ids, acme.IPIDs(n)...), append(csr.IPAddresses, ip)
		} else {
			ids, csr.DNSNames = append(ids, acme.DomainIDs(n)...), append(csr.DNSNames, n)
		}
	}
	o, err := ac.AuthorizeOrder(ctx, ids, opt...)
	if err != nil {
		return nil, err
	}
	for _, u := range o.AuthzURLs {
		z, err := ac.GetAuthorization(ctx, u)
		if err != nil {
			return nil, err
		}
		for _, ch := range z.Challenges {
			if ch.Type != "http-01" {
				continue
			}
			text, err := ac.HTTP01ChallengeResponse(ch.Token)
			if err != nil {
				return nil, err
			}
			if err := put(caclient.ChallengeAnswer{Identifier: z.Identifier.Value, Token: ch.Token, KeyAuthorization: text}); err != nil {
				return nil, err
			}
			if _, err := ac.Accept(ctx, ch); err != nil {
				return nil, err
			}
		}
		if z, err = ac.GetAuthorization(ctx, u); err != nil || z.Status != acme.StatusValid {
			return nil, errors.Join(err, errors.New("authorization is "+z.Status))
		}
	}
	return func() (*x509.Certificate, error) {
		der, err := x509.CreateCertificateRequest(rand.Reader, csr, newKey(b.T))
		if err != nil {
			return nil, err
		}
		chain, _, err := ac.CreateOrderCert(ctx, o.FinalizeURL, der, true)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(chain[0])
	}, nil
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// post is how a router's answers get to the CA.
func (b *box) post(id *identity.Identity) func(caclient.ChallengeAnswer) error {
	return func(a caclient.ChallengeAnswer) error { return caclient.PutAnswer(b.Context(), b.url, id, a) }
}

func nothing(caclient.ChallengeAnswer) error { return nil }

// A router gets a certificate for its portal by an ACME client that knows nothing of us but where answers are put. Nobody asks the
// network: 10.1.0.1 and ra.portal.example are nowhere.
func TestPortalCertificate(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra := b.router("ra", "10.1.0.0/16")
	for _, names := range [][]string{{"10.1.0.1"}, {"ra"}, {"ra.portal.example", "10.1.0.1"}} {
		c, err := b.order(caclient.HTTP(b.url, ra), caclient.PathACME, b.post(ra), names...)
		if err != nil {
			t.Fatalf("%v: %v", names, err)
		}
		for _, n := range names {
			if err := c.VerifyHostname(n); err != nil {
				t.Error(err)
			}
		}
		if len(c.DNSNames)+len(c.IPAddresses) != len(names) || len(c.URIs) != 0 || c.CheckSignatureFrom(b.ca.Authority.Intermediate()) != nil {
			t.Errorf("%v: %+v", names, c)
		}
	}
}

// What a router may not be called it gets no certificate for, and cannot even say that it answers for.
func TestPortalCertificateRefused(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra, rb := b.router("ra", "10.1.0.0/16"), b.router("rb", "10.2.0.0/16")
	asRA := caclient.HTTP(b.url, ra)
	for _, name := range []string{
		"10.2.0.1", "192.0.2.1", "::ffff:10.1.0.1", "rb", "rb.portal.example", "x.ra.portal.example", "portal.example", "ra.portal.example.org", "www.example", "127.0.0.1",
	} {
		if c, err := b.order(asRA, caclient.PathACME, b.post(ra), name); !errors.Is(err, caclient.ErrDenied) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	// Nothing that was put: the order fails, whatever would answer in the network.
	for _, name := range []string{"10.1.0.1", "ra", "127.0.0.1", "localhost"} {
		if c, err := b.order(asRA, caclient.PathACME, nothing, name); err == nil {
			t.Errorf("%s without an answer: %v", name, c)
		}
	}
	// Another router can neither answer for it nor use what it has put.
	if c, err := b.order(caclient.HTTP(b.url, rb), caclient.PathACME, b.post(rb), "10.1.0.1"); err == nil {
		t.Errorf("rb is 10.1.0.1: %v", c)
	}
	forged := func(a caclient.ChallengeAnswer) error {
		a.KeyAuthorization = a.Token + ".AAAA"
		return b.post(ra)(a)
	}
	if c, err := b.order(asRA, caclient.PathACME, forged, "10.1.0.1"); err == nil {
		t.Errorf("with the answer of another account: %v", c)
	}
	// Strangers' ACME does not know names of routers, whoever answers under them.
	for _, name := range []string{"10.1.0.1", "ra", "any.portal.example", "*.portal.example", "10.2.3.4"} {
		if c, err := b.order(asRA, "/acme/acme/directory", b.post(ra), name); err == nil {
			t.Errorf("%s by strangers' ACME: %v", name, c)
		}
	}
	// An answer of a router that is none any more does not count.
	if _, err := b.ca.Desk.RevokeRouter(t.Context(), "operator", "ra", "stolen"); err != nil {
		t.Fatal(err)
	}
	if err := b.post(ra)(caclient.ChallengeAnswer{Identifier: "10.1.0.1", Token: "a", KeyAuthorization: "a.b"}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("of a revoked router: %v", err)
	}
	if c, err := b.order(asRA, caclient.PathACME, nothing, "10.1.0.1"); !forbidden(err) {
		t.Errorf("an order of a revoked router: %v, %v", c, err)
	}
	b.ahead = time.Until(rb.Bundle().TLS.Leaf.NotAfter) + time.Hour
	if err := b.post(rb)(caclient.ChallengeAnswer{Identifier: "10.2.0.1", Token: "a", KeyAuthorization: "a.b"}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("with an expired certificate: %v", err)
	}
}

// forbidden says whether an ACME client was sent away.
func forbidden(err error) bool {
	e, ok := errors.AsType[*acme.Error](err)
	return ok && (e.StatusCode == http.StatusForbidden || e.StatusCode == http.StatusUnauthorized)
}

// An order that was validated while all was well is of no use to a router that is none any more, or that may not be called so any more.
func TestPortalOrderOutlivesNothing(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra := b.router("ra", "10.1.0.0/16")
	hold := func(name string) func() (*x509.Certificate, error) {
		finalize, err := b.validated(caclient.HTTP(b.url, ra), caclient.PathACME, b.post(ra), nil, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return finalize
	}
	address, name, named := hold("10.1.0.1"), hold("ra"), hold("ra.portal.example")
	b.lose("ra", "10.3.0.0/16")
	if c, err := address(); !forbidden(err) {
		t.Errorf("for an address of a prefix that it has lost: %v, %v", c, err)
	}
	if c, err := name(); err != nil {
		t.Errorf("for the name that it still has: %v, %v", c, err)
	}
	if _, err := b.ca.Desk.RevokeRouter(t.Context(), "operator", "ra", "stolen"); err != nil {
		t.Fatal(err)
	}
	if c, err := named(); !forbidden(err) {
		t.Errorf("of a revoked router: %v, %v", c, err)
	}
}

// lose certifies a router for another prefix instead of what it had.
func (b *box) lose(name, prefix string) {
	b.Helper()
	err := b.ca.Ledger.Update(func(tx *ledger.Tx) error {
		r, _, err := tx.Router(name)
		if err != nil {
			return err
		}
		r.Prefixes = []netip.Prefix{netip.MustParsePrefix(prefix)}
		return tx.Take(ledger.Effects{Routers: []ledger.Router{r}})
	})
	if err != nil {
		b.Fatal(err)
	}
}

// Another router that has the order's account does not finalize it either.
func TestPortalOrderIsFinalizedByItsRouter(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra, rb := b.router("ra", "10.1.0.0/16"), b.router("rb", "10.2.0.0/16")
	hc := caclient.HTTP(b.url, ra)
	finalize, err := b.validated(hc, caclient.PathACME, b.post(ra), nil, "10.1.0.1")
	if err != nil {
		t.Fatal(err)
	}
	hc.CloseIdleConnections()
	hc.Transport = caclient.HTTP(b.url, rb).Transport
	if c, err := finalize(); !forbidden(err) {
		t.Errorf("rb is 10.1.0.1: %v, %v", c, err)
	}
}

// A portal's certificate cannot be taken back: it begins now and lasts 30 days.
func TestPortalCertificateTerm(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra := b.router("ra", "10.1.0.0/16")
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name       string
		from, term time.Duration
		good       bool
	}{
		{"usual", 0, 30 * day, true}, {"short", 0, day, true}, {"90 days", 0, 90 * day, false}, {"31 days", 0, 31 * day, false},
		{"in a month", 30 * day, 30 * day, false}, {"in a day", day, day, false}, {"in ten years", 3650 * day, 30 * day, false},
	} {
		from := time.Now().Add(tt.from)
		opt := []acme.OrderOption{acme.WithOrderNotBefore(from), acme.WithOrderNotAfter(from.Add(tt.term))}
		var c *x509.Certificate
		finalize, err := b.validated(caclient.HTTP(b.url, ra), caclient.PathACME, b.post(ra), opt, "10.1.0.1")
		if err == nil {
			c, err = finalize()
		}
		if (err == nil) != tt.good {
			t.Errorf("%s: %v, %v", tt.name, c, err)
		}
	}
}

// Only routers come that far.
func TestPortalACMEIsForRouters(t *testing.T) {
	b := newBox(t)
	b.routers()
	dir, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*http.Client{"nobody": insecure(), "the directory": caclient.HTTP(b.url, dir)} {
		for _, path := range []string{caclient.PathACME, authority.PortalACME + "new-nonce", authority.PortalACME} {
			res, err := c.Get(b.url + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusForbidden {
				t.Errorf("%s got %s: %s", name, path, res.Status)
			}
		}
		for _, path := range []string{"/acme/%70ortal/directory", "/acme/%2570ortal/directory", "//acme/portal/directory", "/acme/./portal/directory"} {
			res, err := c.Get(b.url + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				t.Errorf("%s got past by %s", name, path)
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.url+caclient.PathAnswer, strings.NewReader(`{"identifier":"10.1.0.1","token":"a","key_authorization":"a.b"}`))
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s put an answer: %s", name, res.Status)
		}
	}
	if _, ok := b.srv.board.Answer("10.1.0.1", "a"); ok {
		t.Error("it lies on the board")
	}
}

// An answer is one JSON value with the fields that we know, and nothing behind it.
func TestPortalAnswersAreOneValue(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra := b.router("ra", "10.1.0.0/16")
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: ra.ClientTLS("twinkey://ca")}}
	t.Cleanup(hc.CloseIdleConnections)
	for name, tt := range map[string]struct {
		body   string
		status int
	}{
		"an answer":            {`{"identifier":"10.1.0.1","token":"a","key_authorization":"a.b"}`, http.StatusOK},
		"white space behind":   {`{"identifier":"10.1.0.1","token":"b","key_authorization":"b.b"}` + " \n", http.StatusOK},
		"another behind it":    {`{"identifier":"10.1.0.1","token":"c","key_authorization":"c.b"}{"token":"d"}`, http.StatusBadRequest},
		"bytes behind it":      {`{"identifier":"10.1.0.1","token":"e","key_authorization":"e.b"}x`, http.StatusBadRequest},
		"a field of no answer": {`{"identifier":"10.1.0.1","token":"f","key_authorization":"f.b","g":1}`, http.StatusBadRequest},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.url+caclient.PathAnswer, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != tt.status {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	for token, want := range map[string]bool{"a": true, "b": true, "c": false, "d": false, "e": false, "f": false} {
		if _, ok := b.srv.board.Answer("10.1.0.1", token); ok != want {
			t.Errorf("the answer to %q lies on the board: %v", token, ok)
		}
	}
}

// The answers of one router leave room for those of others, and what is no answer is refused.
func TestPortalAnswersAreBounded(t *testing.T) {
	b := newBox(t)
	b.routers()
	ra := b.router("ra", "10.1.0.0/16")
	var last error
	for i := range 32 {
		token := strings.Repeat("a", i+1)
		last = b.post(ra)(caclient.ChallengeAnswer{Identifier: "10.1.0.1", Token: token, KeyAuthorization: token + ".b"})
		if last != nil {
			break
		}
	}
	if !errors.Is(last, caclient.ErrTooMany) {
		t.Errorf("after many: %v", last)
	}
	if err := b.post(ra)(caclient.ChallengeAnswer{Identifier: "10.1.0.1", Token: "a\nb", KeyAuthorization: "a\nb.c"}); !errors.Is(err, caclient.ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
}
