package twincert_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/twincert"
)

// authority is a root and an intermediate as the CA makes them.
type authority struct {
	root         *x509.Certificate
	roots, inter *x509.CertPool
	issuer       *x509.Certificate
	key          *ecdsa.PrivateKey
}

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newAuthority(t testing.TB) *authority {
	t.Helper()
	return newAuthorityWith(t, func(*x509.Certificate) {})
}

// newAuthorityWith changes what both CA certificates say.
func newAuthorityWith(t testing.TB, change func(*x509.Certificate)) *authority {
	t.Helper()
	rootKey, root := issue(t, "root", nil, nil, change)
	key, inter := issue(t, "intermediate", root, rootKey, change)
	a := &authority{root: root, roots: x509.NewCertPool(), inter: x509.NewCertPool(), issuer: inter, key: key}
	a.roots.AddCert(root)
	a.inter.AddCert(inter)
	return a
}

func issue(t testing.TB, cn string, parent *x509.Certificate, signer *ecdsa.PrivateKey, change func(*x509.Certificate)) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(cn))), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(9, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	change(tmpl)
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, c
}

func newKeys(t testing.TB) (k twincert.Keys) {
	t.Helper()
	for _, to := range []*[32]byte{&k.Control, &k.Data} {
		priv, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		*to = [32]byte(priv.PublicKey().Bytes())
	}
	return k
}

func router(t testing.TB, p twincert.Profile) *twincert.Template {
	return &twincert.Template{
		Profile: p, Role: twincert.Router, Name: "ra", Keys: newKeys(t), Serial: big.NewInt(4711),
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 3, 0), Scope: []string{"user:eve", "group:staff"},
		Prefixes:              []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.1.1.128/25"), netip.MustParsePrefix("fd00:1::/48")},
		CRLDistributionPoints: []string{"https://ca.example/crl"},
	}
}

func create(t testing.TB, a *authority, tmpl *twincert.Template) *twincert.Certificate {
	t.Helper()
	der, err := twincert.Create(rand.Reader, tmpl, a.issuer, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := twincert.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func noneRevoked(twincert.ID) bool { return false }

func (a *authority) options(role twincert.Role) twincert.VerifyOptions {
	return twincert.VerifyOptions{Roots: a.roots, Intermediates: a.inter, Now: now, Role: role, Revoked: noneRevoked}
}

func TestBothProfilesSayTheSame(t *testing.T) {
	a := newAuthority(t)
	for _, p := range []twincert.Profile{twincert.Paper, twincert.Compat} {
		t.Run(p.String(), func(t *testing.T) {
			tmpl := router(t, p)
			c := create(t, a, tmpl)
			if c.Keys != tmpl.Keys || c.Profile != p || c.Role != twincert.Router || c.Name != "ra" {
				t.Errorf("read back %+v", c)
			}
			if got := strings.Join(c.Scope, " "); got != "group:staff user:eve" {
				t.Errorf("scope %q", got)
			}
			if len(c.Prefixes) != 3 || !c.Covers(netip.MustParsePrefix("10.1.1.129/32")) || c.Covers(netip.MustParsePrefix("10.1.1.0/24")) || c.Covers(netip.MustParsePrefix("10.0.0.0/8")) {
				t.Errorf("prefixes %v", c.Prefixes)
			}
			if err := c.Verify(a.options(twincert.Router)); err != nil {
				t.Error(err)
			}
			if want := twincert.IDOf(&x509.Certificate{RawIssuer: a.issuer.RawSubject, SerialNumber: tmpl.Serial}); c.ID() != want {
				t.Errorf("ID %v, want %v", c.ID(), want)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	c := create(t, a, router(t, twincert.Paper))
	tests := []struct {
		name   string
		change func(*twincert.VerifyOptions)
		want   error
	}{
		{"expired", func(o *twincert.VerifyOptions) { o.Now = now.AddDate(1, 0, 0) }, twincert.ErrExpired},
		{"not yet valid", func(o *twincert.VerifyOptions) { o.Now = now.AddDate(0, 0, -1) }, twincert.ErrNotYetValid},
		{"another CA", func(o *twincert.VerifyOptions) { o.Roots, o.Intermediates = other.roots, other.inter }, twincert.ErrUnknownAuthority},
		{"same names, other keys", func(o *twincert.VerifyOptions) { o.Intermediates = other.inter }, twincert.ErrUnknownAuthority},
		{"another role", func(o *twincert.VerifyOptions) { o.Role = twincert.User }, twincert.ErrRole},
		{"revoked", func(o *twincert.VerifyOptions) { o.Revoked = func(id twincert.ID) bool { return id == c.ID() } }, twincert.ErrRevoked},
		{"issuer revoked", func(o *twincert.VerifyOptions) {
			o.Revoked = func(id twincert.ID) bool { return id == twincert.IDOf(a.issuer) }
		}, twincert.ErrRevoked},
		{"no roots", func(o *twincert.VerifyOptions) { o.Roots = nil }, twincert.ErrUnknownAuthority},
		{"no time", func(o *twincert.VerifyOptions) { o.Now = time.Time{} }, twincert.ErrUnknownAuthority},
		{"nothing known of revocations", func(o *twincert.VerifyOptions) { o.Revoked = nil }, twincert.ErrRevocationUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := a.options(twincert.Router)
			tt.change(&o)
			if err := c.Verify(o); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCreateRefusesWhatParseWould(t *testing.T) {
	a := newAuthority(t)
	tests := []struct {
		name   string
		change func(*twincert.Template)
	}{
		{"both keys the same", func(x *twincert.Template) { x.Keys.Data = x.Keys.Control }},
		{"key of low order", func(x *twincert.Template) { x.Keys.Data = [32]byte{1} }},
		{"low order, high bit set", func(x *twincert.Template) { x.Keys.Control = [32]byte{0, 31: 0x80} }},
		{"name with a slash", func(x *twincert.Template) { x.Name = "ra/../rb" }},
		{"no name", func(x *twincert.Template) { x.Name = "" }},
		{"unknown scope", func(x *twincert.Template) { x.Scope = []string{"groups:staff"} }},
		{"user with prefixes", func(x *twincert.Template) { x.Role = twincert.User }},
		{"host bits", func(x *twincert.Template) { x.Prefixes = []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")} }},
		{"outlives its issuer", func(x *twincert.Template) { x.NotAfter = now.AddDate(20, 0, 0) }},
		{"ends before it begins", func(x *twincert.Template) { x.NotAfter = x.NotBefore }},
		{"serial 0", func(x *twincert.Template) { x.Serial = new(big.Int) }},
		{"no profile", func(x *twincert.Template) { x.Profile = 0 }},
		{"no role", func(x *twincert.Template) { x.Role = 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x := router(t, twincert.Compat)
			tt.change(x)
			if der, err := twincert.Create(rand.Reader, x, a.issuer, a.key); err == nil {
				t.Errorf("made %x", der)
			}
		})
	}
}

// Every byte of a certificate counts: with any one of them changed it is no longer
// parsed, or no longer verified.
func TestNoByteCanBeChanged(t *testing.T) {
	a := newAuthority(t)
	for _, p := range []twincert.Profile{twincert.Paper, twincert.Compat} {
		c := create(t, a, router(t, p))
		for i := range c.Raw {
			der := append([]byte(nil), c.Raw...)
			der[i] ^= 1
			got, err := twincert.Parse(der)
			if err == nil && got.Verify(a.options(twincert.Router)) == nil {
				t.Errorf("%s: byte %d changed, and believed", p, i)
			}
			if err != nil {
				if _, ok := errors.AsType[*twincert.Error](err); !ok {
					t.Errorf("%s: byte %d: error of type %T", p, i, err)
				}
			}
		}
		for n := range c.Raw {
			if _, err := twincert.Parse(c.Raw[:n]); err == nil {
				t.Errorf("%s: a prefix of %d bytes parses", p, n)
			}
		}
	}
}

// What crypto/x509 does today with profile paper: it takes the certificate and reads no key
// out of it. If this fails after an upgrade of Go, the Go that it runs on has become strict,
// and what is said of it in doc.go is out of date; Parse and Verify do not lean on it.
func TestStandardLibraryOverlooksTheSecondKey(t *testing.T) {
	a := newAuthority(t)
	std, err := x509.ParseCertificate(create(t, a, router(t, twincert.Paper)).Raw)
	if err != nil {
		t.Fatalf("crypto/x509 refuses profile paper now: %v", err)
	}
	if std.PublicKey != nil {
		t.Errorf("crypto/x509 reads the key %v", std.PublicKey)
	}
	if err := std.CheckSignatureFrom(a.issuer); err != nil {
		t.Errorf("crypto/x509 verifies it no longer: %v", err)
	}
}

// openssl is the independent reader: asn1parse for both profiles, x509 for compat.
func TestOpenSSLReadsIt(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		skip(t, "needs openssl (apt install openssl)")
	}
	a := newAuthority(t)
	for _, p := range []twincert.Profile{twincert.Paper, twincert.Compat} {
		file := filepath.Join(t.TempDir(), "c.pem")
		if err := os.WriteFile(file, create(t, a, router(t, p)).PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(openssl, "asn1parse", "-in", file).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", p, err, out)
		}
		want := 3 // two keys and the signature
		if p == twincert.Compat {
			want = 2 // the data key stands inside an extension's OCTET STRING
		}
		if got := strings.Count(string(out), "BIT STRING"); got != want {
			t.Errorf("%s: asn1parse finds %d BIT STRINGs, want %d\n%s", p, got, want, out)
		}
		if p == twincert.Paper {
			continue
		}
		out, err = exec.Command(openssl, "x509", "-in", file, "-noout", "-text").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "X25519 Public-Key") || !strings.Contains(string(out), "10.1.0.0/24") {
			t.Errorf("x509: %v\n%s", err, out)
		}
	}
}

func TestTextNamesEverything(t *testing.T) {
	text := create(t, newAuthority(t), router(t, twincert.Paper)).Text(now)
	for _, want := range []string{"profile paper", "4711", "router", "group:staff", "10.1.1.128/25", "fd00:1::/48", "lives for 92 days", "https://ca.example/crl"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestIDText(t *testing.T) {
	id := twincert.ID{Issuer: "300a", Serial: "18446744073709551616"}
	b, err := id.MarshalText()
	var back twincert.ID
	if err != nil || back.UnmarshalText(b) != nil || back != id {
		t.Errorf("%s came back as %v", b, back)
	}
	for _, bad := range []string{"", "1", "@", "x@00", "-1@00", "01@00", "1@0", "1@AA", "1@zz"} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is no ID", bad)
		}
	}
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("TWINKEY_NO_SKIP") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func FuzzParse(f *testing.F) {
	a := newAuthority(f)
	for _, p := range []twincert.Profile{twincert.Paper, twincert.Compat} {
		f.Add(create(f, a, router(f, p)).Raw)
		user := router(f, p)
		user.Role, user.Scope, user.Prefixes, user.Group = twincert.User, nil, nil, "staff"
		f.Add(create(f, a, user).Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := twincert.Parse(der)
		if err != nil {
			if _, ok := errors.AsType[*twincert.Error](err); !ok {
				t.Fatalf("error of type %T: %v", err, err)
			}
			return
		}
		if again, err := twincert.ParsePEM(c.PEM()); err != nil || again.ID() != c.ID() || again.Keys != c.Keys {
			t.Fatalf("%v: came back different", err)
		}
		_ = c.Text(now)
	})
}

func BenchmarkParse(b *testing.B) {
	c := create(b, newAuthority(b), router(b, twincert.Paper))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := twincert.Parse(c.Raw); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify checks two signatures: the certificate's and the intermediate's.
func BenchmarkVerify(b *testing.B) {
	a := newAuthority(b)
	c := create(b, a, router(b, twincert.Paper))
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Verify(a.options(twincert.Router)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	a := newAuthority(b)
	tmpl := router(b, twincert.Paper)
	for b.Loop() {
		if _, err := twincert.Create(rand.Reader, tmpl, a.issuer, a.key); err != nil {
			b.Fatal(err)
		}
	}
}
