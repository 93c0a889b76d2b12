package authority

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	stepacme "github.com/smallstep/certificates/acme"
	"golang.org/x/crypto/acme"

	"twinkey/ca/internal/board"
	"twinkey/pkg/twincert"
)

// skip skips, or fails where nothing may be left out.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func hierarchy(t *testing.T) Hierarchy {
	t.Helper()
	h, err := NewHierarchy("Example Corp", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func configOf(dir string, h Hierarchy) Config {
	return Config{Name: "Example Corp", DNSNames: []string{"127.0.0.1"}, Database: filepath.Join(dir, "issued.db"), Root: h.Root, Intermediate: h.Intermediate,
		Signer: h.IntermediateKey, Provisioner: h.RootKey, CRLURL: "https://ca.example:8700/crl", CRLLifetime: time.Hour, ACME: true}
}

func open(t *testing.T, c Config) *Authority {
	t.Helper()
	a, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(t *testing.T, template *x509.CertificateRequest) (*x509.CertificateRequest, *ecdsa.PrivateKey) {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, k)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr, k
}

func TestTLSForABearerTakesNothingFromTheRequestButItsKey(t *testing.T) {
	h := hierarchy(t)
	a := open(t, configOf(t.TempDir(), h))
	defer func() { _ = a.Close() }()
	evil, err := url.Parse("twinkey://ca")
	if err != nil {
		t.Fatal(err)
	}
	csr, k := request(t, &x509.CertificateRequest{URIs: []*url.URL{evil}, DNSNames: []string{"evil.example"}})
	now := time.Now().Truncate(time.Second).UTC()
	chain, err := a.SignTLS(t.Context(), csr, TLS{Name: "berlin", URI: "twinkey://router/berlin", Hosts: []string{"berlin.example", "192.0.2.1"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	c := chain[0]
	if len(c.URIs) != 1 || c.URIs[0].String() != "twinkey://router/berlin" || len(c.DNSNames) != 1 || c.DNSNames[0] != "berlin.example" || len(c.IPAddresses) != 1 {
		t.Errorf("names: %v %v %v", c.URIs, c.DNSNames, c.IPAddresses)
	}
	if !k.PublicKey.Equal(c.PublicKey) || !c.NotAfter.Equal(now.Add(time.Hour)) || c.IsCA || c.CRLDistributionPoints[0] != "https://ca.example:8700/crl" {
		t.Errorf("%+v", c)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(h.Root)
	inter.AddCert(chain[1])
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter}); err != nil {
		t.Error(err)
	}
	if _, err := a.store.GetCertificate(c.SerialNumber.String()); err == nil {
		t.Error("it is stored before anybody has recorded it")
	}
	for range 2 {
		if err := a.Record(c.Raw, c.SerialNumber); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := a.store.GetCertificate(c.SerialNumber.String()); err != nil || !got.Equal(c) {
		t.Errorf("recorded: %v", err)
	}
}

// posts is what the routers of a test have put at the CA.
var posts = board.New(time.Now)

// server serves a over TLS; client trusts its root alone.
func server(t *testing.T, a *Authority) (base string, client *http.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	h, err := a.Handler(port.Port(), posts.Answer, func(context.Context, string) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	csr, k := request(t, &x509.CertificateRequest{})
	now := time.Now()
	chain, err := a.SignTLS(t.Context(), csr, TLS{Name: "ca", URI: "twinkey://ca", Hosts: []string{"127.0.0.1"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = l
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: k}}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(a.Root())
	return srv.URL, &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}}, Timeout: 20 * time.Second}
}

func get(t *testing.T, c *http.Client, url string) (int, []byte) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, b
}

func TestRoutes(t *testing.T) {
	a := open(t, configOf(t.TempDir(), hierarchy(t)))
	defer func() { _ = a.Close() }()
	base, client := server(t, a)
	for _, path := range []string{"/health", "/version", "/roots", "/roots.pem", "/intermediates", "/provisioners", "/crl", "/acme/acme/directory"} {
		if code, b := get(t, client, base+path); code/100 != 2 {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	for _, path := range []string{"/renew", "/rekey", "/revoke", "/ssh/sign", "/ssh/roots", "/admin/provisioners", "/scep/x"} {
		res, err := client.Post(base+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s is served: %s", path, res.Status)
		}
	}
}

// Where strangers are to have no certificates, routers' portals have theirs all the same.
func TestACMEForRoutersAlone(t *testing.T) {
	c := configOf(t.TempDir(), hierarchy(t))
	c.ACME = false
	a := open(t, c)
	defer func() { _ = a.Close() }()
	base, client := server(t, a)
	if code, b := get(t, client, base+"/acme/acme/directory"); code/100 == 2 {
		t.Errorf("strangers: %d %s", code, b)
	}
	if code, b := get(t, client, base+PortalACME+"directory"); code != http.StatusOK {
		t.Errorf("routers: %d %s", code, b)
	}
}

// What is a router's is signed neither for whoever answers in the network under it, nor asked there.
func TestReservedNames(t *testing.T) {
	c := configOf(t.TempDir(), hierarchy(t))
	c.Reserved = func(name string) (bool, error) { return name == "127.0.0.1" || name == "ra", nil }
	a := open(t, c)
	defer func() { _ = a.Close() }()
	asked := false
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer web.Close()
	o := &outside{stepacme.NewClient(), a.reserved}
	if _, err := o.Get(web.URL + challengePath + "x"); !errors.Is(err, ErrReserved) {
		t.Errorf("http-01: %v", err)
	}
	if _, err := o.LookupTxt("_acme-challenge.ra"); !errors.Is(err, ErrReserved) {
		t.Errorf("dns-01: %v", err)
	}
	if _, err := o.TLSDial("tcp", web.Listener.Addr().String(), nil); !errors.Is(err, ErrReserved) || asked {
		t.Errorf("tls-alpn-01: %v", err)
	}
	p := &posted{posts.Answer}
	if _, err := p.LookupTxt("_acme-challenge.www.example"); !errors.Is(err, ErrReserved) {
		t.Errorf("dns-01 of a router: %v", err)
	}
	if _, err := p.TLSDial("tcp", web.Listener.Addr().String(), nil); !errors.Is(err, ErrReserved) {
		t.Errorf("tls-alpn-01 of a router: %v", err)
	}
	for _, raw := range []string{web.URL + challengePath + "x", web.URL + "/", "http://[::1]/x", "::"} {
		if _, err := p.Get(raw); err == nil || asked {
			t.Errorf("%s: %v, asked: %v", raw, err, asked)
		}
	}
	// Nor by a certificate that was validated as something else.
	for _, cert := range []*x509.Certificate{{DNSNames: []string{"www.example", "ra"}}, {IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, {Subject: pkix.Name{CommonName: "ra"}}} {
		if err := a.reserved(namesOf(cert)...); !errors.Is(err, ErrReserved) {
			t.Errorf("%v: %v", namesOf(cert), err)
		}
	}
	if err := a.reserved("www.example", "192.0.2.1"); err != nil {
		t.Error(err)
	}
}

// askSign asks /sign for a certificate, as the step command does.
func askSign(t *testing.T, a *Authority, base string, client *http.Client, sans []string) (int, string) {
	t.Helper()
	token, err := a.SignToken(sans[0], sans, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{}
	template.Subject.CommonName = sans[0]
	for _, s := range sans {
		if u, err := url.Parse(s); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
			continue
		}
		names, addrs := SplitHosts([]string{s})
		template.DNSNames, template.IPAddresses = append(template.DNSNames, names...), append(template.IPAddresses, addrs...)
	}
	csr, _ := request(t, template)
	body, err := json.Marshal(map[string]string{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})), "ott": token})
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Post(base+"/sign", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestSignWithATokenGivesPlainCertificatesOnly(t *testing.T) {
	a := open(t, configOf(t.TempDir(), hierarchy(t)))
	defer func() { _ = a.Close() }()
	base, client := server(t, a)
	if code, b := askSign(t, a, base, client, []string{"wiki.example", "192.0.2.7"}); code != http.StatusCreated {
		t.Errorf("plain: %d %s", code, b)
	}
	for _, name := range []string{"twinkey://ca", "twinkey://router/berlin", "TWINKEY://ca", "twinkey:ca"} {
		if code, b := askSign(t, a, base, client, []string{"wiki.example", name}); code/100 == 2 || strings.Contains(b, "BEGIN CERTIFICATE") {
			t.Errorf("%s was signed: %d %s", name, code, b)
		}
	}
}

func TestRenewalByTheAuthorityIsRefused(t *testing.T) {
	a := open(t, configOf(t.TempDir(), hierarchy(t)))
	defer func() { _ = a.Close() }()
	if _, err := a.step.Renew(a.Intermediate()); err == nil {
		t.Error("a renewal, which would lose the second key, was granted")
	}
}

// A whole order by http-01 on this machine, by an ACME client that knows nothing of us.
func TestACME(t *testing.T) {
	a := open(t, configOf(t.TempDir(), hierarchy(t)))
	defer func() { _ = a.Close() }()
	base, client := server(t, a)

	answers := http.NewServeMux()
	web := httptest.NewServer(answers)
	defer web.Close()
	addr, err := netip.ParseAddrPort(web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	stepacme.InsecurePortHTTP01 = int(addr.Port()) // port 80 otherwise
	t.Cleanup(func() { stepacme.InsecurePortHTTP01 = 0 })

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	account, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	ac := &acme.Client{Key: account, HTTPClient: client, DirectoryURL: base + "/acme/acme/directory"}
	if _, err := ac.Register(ctx, &acme.Account{}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	order, err := ac.AuthorizeOrder(ctx, acme.IPIDs("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	authz, err := ac.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range authz.Challenges {
		if ch.Type != "http-01" {
			continue
		}
		key, err := ac.HTTP01ChallengeResponse(ch.Token)
		if err != nil {
			t.Fatal(err)
		}
		answers.HandleFunc(ac.HTTP01ChallengePath(ch.Token), func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, key) })
		if _, err := ac.Accept(ctx, ch); err != nil {
			t.Fatal(err)
		}
	}
	if order, err = ac.WaitOrder(ctx, order.URI); err != nil {
		t.Fatal(err)
	}
	csr, _ := request(t, &x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	chain, _, err := ac.CreateOrderCert(ctx, order.FinalizeURL, csr.Raw, true)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(leaf.IPAddresses) != 1 || len(leaf.URIs) != 0 || leaf.CheckSignatureFrom(a.Intermediate()) != nil {
		t.Errorf("%+v", leaf)
	}
	if _, err := a.store.GetCertificate(leaf.SerialNumber.String()); err != nil {
		t.Errorf("it is not stored: %v", err)
	}
}

func TestRevocationSurvivesAReopen(t *testing.T) {
	h, dir := hierarchy(t), t.TempDir()
	a := open(t, configOf(dir, h))
	serial, err := NewSerial()
	if err != nil {
		t.Fatal(err)
	}
	before, err := a.CRL()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for range 2 {
		if err := a.Revoke(Revocation{Serial: serial, Reason: "stolen", At: now, Expires: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	after, err := a.RefreshCRL()
	if err != nil || after.Number <= before.Number {
		t.Fatalf("%d after %d, %v", after.Number, before.Number, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, configOf(dir, h))
	defer func() { _ = a.Close() }()
	if yes, err := a.Revoked(serial); err != nil || !yes {
		t.Errorf("forgotten: %v", err)
	}
	l, err := a.CRL()
	if err != nil || l.Number <= after.Number {
		t.Fatalf("%d after %d, %v", l.Number, after.Number, err)
	}
	crl, err := twincert.NewCRL(l.DER, h.Intermediate, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(l.DER)
	if err != nil || len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(serial) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if crl.Len() != 1 {
		t.Errorf("%d entries", crl.Len())
	}
	opensslReads(t, h, l.DER)
}

// opensslReads has another implementation check the CRL.
func opensslReads(t *testing.T, h Hierarchy, der []byte) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		skip(t, "needs openssl (apt install openssl)")
	}
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Intermediate.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("openssl", "crl", "-inform", "DER", "-noout", "-text", "-CAfile", ca) //nolint:gosec // a file of ours
	cmd.Stdin = bytes.NewReader(der)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("verify OK")) || !bytes.Contains(out, []byte("URI:https://ca.example:8700/crl")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSecondProcess(t *testing.T) {
	c := configOf(t.TempDir(), hierarchy(t))
	a := open(t, c)
	defer func() { _ = a.Close() }()
	if _, err := Open(c); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
}

func TestKeyFiles(t *testing.T) {
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, pass := range []string{"", "correct horse"} {
		b, err := EncodeKey(k, []byte(pass))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseKey(b, []byte(pass))
		if err != nil || !got.Equal(k) {
			t.Errorf("%q: %v", pass, err)
		}
		if pass == "" {
			continue
		}
		for _, wrong := range []string{"", "wrong"} {
			if _, err := ParseKey(b, []byte(wrong)); !errors.Is(err, ErrPassphrase) {
				t.Errorf("%q: %v", wrong, err)
			}
		}
		if _, err := exec.LookPath("openssl"); err != nil {
			skip(t, "needs openssl (apt install openssl)")
		}
		cmd := exec.Command("openssl", "pkey", "-noout", "-text", "-passin", "pass:"+pass)
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("P-256")) {
			t.Errorf("openssl: %v\n%s", err, out)
		}
	}
	for _, junk := range []string{"", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := ParseKey([]byte(junk), nil); err == nil {
			t.Errorf("%q parsed", junk)
		}
	}
}
