package api

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/ledger"
	"twinkey/ca/internal/login"
	"twinkey/ca/internal/source"
	dirclient "twinkey/directory/client"
	"twinkey/pkg/identity"
	"twinkey/pkg/limit"
	"twinkey/pkg/lockout"
	"twinkey/pkg/sealedlogin"
	"twinkey/pkg/twincert"
	"twinkey/proto/secret"
)

// answers is a source that answers as it is told.
type answers struct{ err error }

func (*answers) Name() string { return "corp" }
func (*answers) Close() error { return nil }
func (a *answers) Check(context.Context, string, []byte) (source.Answer, error) {
	return source.Answer{Group: "staff"}, a.err
}

// asker makes a router whose TLS certificate the CA knows, without a directory to enrol it in.
func (b *box) asker(name string, life time.Duration) *identity.Identity {
	b.Helper()
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	now := time.Now()
	key, err := authority.NewKey()
	check(err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	check(err)
	csr, err := x509.ParseCertificateRequest(der)
	check(err)
	chain, err := b.ca.Authority.SignTLS(b.Context(), csr, authority.TLS{Name: name, URI: "twinkey://router/" + name, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(life)})
	check(err)
	bundle := identity.Bundle{Roots: []*x509.Certificate{b.ca.Authority.Root()}, Intermediates: chain[1:], TLS: tls.Certificate{PrivateKey: key, Leaf: chain[0]}}
	for _, c := range chain {
		bundle.TLS.Certificate = append(bundle.TLS.Certificate, c.Raw)
	}
	t := &twincert.Template{Profile: twincert.Paper, Role: twincert.Router, Name: name, Serial: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
	for _, k := range []struct {
		public  *[32]byte
		private *secret.Key
	}{{&t.Keys.Control, &bundle.Control}, {&t.Keys.Data, &bundle.Data}} {
		x, err := ecdh.X25519().GenerateKey(rand.Reader)
		check(err)
		*k.public, *k.private = [32]byte(x.PublicKey().Bytes()), secret.New(x.Bytes())
	}
	twin, err := twincert.Create(rand.Reader, t, b.ca.Authority.Intermediate(), b.ca.Authority.Signer())
	check(err)
	bundle.Twin, err = twincert.Parse(twin)
	check(err)
	serial := chain[0].SerialNumber.String()
	check(b.ca.Ledger.Update(func(tx *ledger.Tx) error {
		return tx.Take(ledger.Effects{
			Routers: []ledger.Router{{Name: name, Scope: []string{"group:staff"}, TLS: serial}},
			Certs:   []ledger.Cert{{Serial: serial, Kind: dirclient.KindTLS, Role: "router", Name: name, DER: chain[0].Raw, NotBefore: chain[0].NotBefore, NotAfter: chain[0].NotAfter}},
		})
	}))
	id, err := identity.Create(filepath.Join(b.TempDir(), name), bundle)
	check(err)
	return id
}

// asks has a source answer that, and says what becomes of a login at a router.
func (b *box) asks(id *identity.Identity, says error, uid string) error {
	b.Helper()
	lock := lockout.Default()
	lock.UserFailures = 2 // each refusal takes its time
	b.srv.door = login.New(login.Config{Desk: b.ca.Desk, Ledger: b.ca.Ledger, Sources: []source.Source{&answers{says}}, Lockout: lock, Now: b.srv.cfg.Now,
		TLS: func() tls.Certificate { return b.ca.Identity.Bundle().TLS }})
	_, err := caclient.AskLogin(b.Context(), b.url, id, uid, []byte("spring"))
	return err
}

// Each end of a login has a word of its own on the wire; of what concerns the user there is one.
func TestLoginOnTheWire(t *testing.T) {
	b := newBox(t)
	berlin := b.asker("berlin", time.Hour)
	for name, c := range map[string]struct {
		says error
		uid  string
		want error
		text string
	}{
		"rejected":     {fmt.Errorf("uid=alice is disabled: %w", source.ErrRejected), "alice", caclient.ErrDenied, "asking the CA about a password: refused by the CA: no such user, or a wrong password"},
		"source away":  {fmt.Errorf("10.0.0.7:636: connection refused: %w", source.ErrUnavailable), "alice", caclient.ErrSource, "asking the CA about a password: the CA cannot ask the source that knows users: corp"},
		"no directory": {nil, "alice", caclient.ErrUnavailable, ""},
		"no UserID":    {nil, "Alice!", caclient.ErrInvalid, ""},
	} {
		err := b.asks(berlin, c.says, c.uid)
		if !errors.Is(err, c.want) || c.text != "" && err.Error() != c.text {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := b.asks(berlin, source.ErrRejected, "alice"); !errors.Is(err, caclient.ErrDenied) {
		t.Fatalf("the second try: %v", err)
	}
	err := b.asks(berlin, nil, "alice")
	if e, ok := errors.AsType[*caclient.Error](err); !ok || !errors.Is(err, caclient.ErrLocked) || e.RetryAfter < 50*time.Second || e.RetryAfter > time.Minute {
		t.Errorf("the third: %v", err)
	}
}

// Only routers in good standing may ask about passwords.
func TestWhoMayAskAboutPasswords(t *testing.T) {
	b := newBox(t)
	directory, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	good, short, gone, replaced := b.asker("berlin", time.Hour), b.asker("paris", time.Minute), b.asker("rome", time.Hour), b.asker("madrid", time.Hour)
	if err := b.ca.Ledger.Update(func(tx *ledger.Tx) error {
		rome, _, err := tx.Router("rome")
		rome.Revoked = time.Now()
		c, _, cerr := tx.Cert(replaced.Bundle().TLS.Leaf.SerialNumber.String())
		c.Revoked = time.Now()
		return errors.Join(err, cerr, tx.Take(ledger.Effects{Routers: []ledger.Router{rome}, Certs: []ledger.Cert{c}}))
	}); err != nil {
		t.Fatal(err)
	}
	b.ahead = 2 * time.Minute
	other := newBox(t)
	mixed := other.asker("berlin", time.Hour).Bundle()
	mixed.Roots = append(mixed.Roots, b.ca.Authority.Root()) // so that only the CA can refuse
	stranger, err := identity.Create(filepath.Join(t.TempDir(), "stranger"), mixed)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		id   *identity.Identity
		want error
	}{
		"a router":                      {good, caclient.ErrSource},
		"the directory":                 {directory, caclient.ErrDenied},
		"an expired certificate":        {short, caclient.ErrDenied},
		"a revoked router":              {gone, caclient.ErrDenied},
		"a revoked certificate":         {replaced, caclient.ErrDenied},
		"a certificate of another root": {stranger, caclient.ErrDenied},
	} {
		if err := b.asks(c.id, source.ErrUnavailable, "alice"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// The directory of the same company at the CA's address is not the CA; that says nothing of the password.
	impostor := b.serve(http.NotFoundHandler(), directory.ServerTLS())
	if _, err := caclient.AskLogin(t.Context(), impostor, good, "alice", []byte("spring")); !errors.Is(err, caclient.ErrUnavailable) || !errors.Is(err, identity.ErrServer) {
		t.Errorf("the directory posing as the CA: %v", err)
	}
	for name, body := range map[string]string{"no certificate": `{"uid":"alice","password":"c3ByaW5n"}`, "garbled": `{"uid":`} {
		res, err := insecure().Post(b.url+caclient.PathLogin, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

// The CA's word for a login key is for routers, and is what a machine that knows the root believes; what is sealed to it is asked about like any password.
func TestSealedOnTheWire(t *testing.T) {
	b := newBox(t)
	berlin := b.asker("berlin", time.Hour)
	if statement, err := caclient.FetchLoginKey(t.Context(), b.url, berlin); err != nil || statement != nil {
		t.Errorf("without sources: %x, %v", statement, err)
	}
	if err := b.asks(berlin, source.ErrUnavailable, "alice"); !errors.Is(err, caclient.ErrSource) { // the door has a source from now on
		t.Fatal(err)
	}
	directory, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := caclient.FetchLoginKey(t.Context(), b.url, directory); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("asked by the directory: %v", err)
	}
	statement, err := caclient.FetchLoginKey(t.Context(), b.url, berlin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sealedlogin.ParseStatement(statement)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(b.ca.Authority.Root())
	if err := s.Verify(roots, time.Now()); err != nil {
		t.Fatalf("the CA's word is not believed: %v", err)
	}
	// Everybody of the company bears a certificate like the CA's; none of them is.
	bundle := berlin.Bundle()
	forged, err := sealedlogin.Sign(s.Key, s.NotAfter, bundle.TLS)
	if err != nil {
		t.Fatal(err)
	}
	if err := forged.Verify(roots, time.Now()); !errors.Is(err, sealedlogin.ErrStatement) {
		t.Errorf("a router's word: %v", err)
	}
	seal := func(router string) []byte {
		sealed, _, err := sealedlogin.Seal(s.Key, router, "alice", []byte("spring"))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	if _, err := caclient.AskSealed(t.Context(), b.url, berlin, "alice", seal("berlin")); !errors.Is(err, caclient.ErrSource) {
		t.Errorf("opened, and asked about: %v", err)
	}
	if _, err := caclient.AskSealed(t.Context(), b.url, berlin, "alice", seal("paris")); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("sealed for another router: %v", err)
	}
	if err := b.asks(berlin, source.ErrUnavailable, "alice"); !errors.Is(err, caclient.ErrSource) { // a CA that was restarted
		t.Fatal(err)
	}
	if _, err := caclient.AskSealed(t.Context(), b.url, berlin, "alice", seal("berlin")); !errors.Is(err, caclient.ErrLoginKey) {
		t.Errorf("to a key that is gone: %v", err)
	}
}

// A login has a password, or a sealed one, and nothing else.
func TestOneOfBoth(t *testing.T) {
	b := newBox(t)
	berlin := b.asker("berlin", time.Hour)
	client := caclient.HTTP(b.url, berlin)
	for body, want := range map[string]int{
		`{"uid":"alice"}`:                                        http.StatusBadRequest,
		`{"uid":"alice","password":null}`:                        http.StatusBadRequest,
		`{"uid":"alice","password":"c3ByaW5n","sealed":"AAAA"}`:  http.StatusBadRequest,
		`{"uid":"alice","password":"","sealed":""}`:              http.StatusBadRequest,
		`{"uid":"alice","password":"c3ByaW5n","router":"paris"}`: http.StatusBadRequest,
		`{"uid":"alice","password":"c3ByaW5n"} {}`:               http.StatusBadRequest,
		`{"uid":"Alice!","password":"c3ByaW5n"}`:                 http.StatusBadRequest,
		`{"uid":"alice","password":""}`:                          http.StatusForbidden, // a wrong one
		`{"uid":"bob","sealed":""}`:                              http.StatusForbidden,
	} {
		res, err := client.Post(b.url+caclient.PathLogin, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s, want %d", body, res.Status, want)
		}
	}
}

// What strangers at a router's address ask takes nothing from the router, which has limits of its own, and has an end.
func TestStrangersBesideARouter(t *testing.T) {
	b := newBox(t)
	berlin, gone := b.asker("berlin", time.Hour), b.asker("rome", time.Hour)
	if err := b.ca.Ledger.Update(func(tx *ledger.Tx) error {
		rome, _, err := tx.Router("rome")
		rome.Revoked = time.Now()
		return errors.Join(err, tx.Take(ledger.Effects{Routers: []ledger.Router{rome}}))
	}); err != nil {
		t.Fatal(err)
	}
	b.srv.plain = limit.NewRates(0.001, 1, hostBits)
	h, err := b.srv.public()
	if err != nil {
		t.Fatal(err)
	}
	b.url = b.serve(h, tlsConfig(b.ca.Identity))
	asks := func(path string) int {
		t.Helper()
		method, body := http.MethodPost, strings.NewReader(`{"uid":"alice","password":"c3ByaW5n"}`)
		if path == caclient.PathTrust {
			method = http.MethodGet
		}
		req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := insecure().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if got := asks(caclient.PathLogin); got != http.StatusForbidden {
		t.Errorf("the first: %d", got)
	}
	for _, path := range []string{caclient.PathLogin, caclient.PathTrust} {
		if got := asks(path); got != http.StatusTooManyRequests {
			t.Errorf("%s: %d", path, got)
		}
	}
	if err := b.asks(gone, source.ErrUnavailable, "alice"); !errors.Is(err, caclient.ErrTooMany) {
		t.Errorf("a revoked router: %v", err)
	}
	for range 3 {
		if err := b.asks(berlin, source.ErrUnavailable, "alice"); !errors.Is(err, caclient.ErrSource) {
			t.Errorf("the router: %v", err)
		}
	}
}
