package twincert_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/twincert"
)

// extensionOf takes an extension out of a certificate that holds it.
func extensionOf(t testing.TB, x *twincert.Template, critical bool, oid ...int) pkix.Extension {
	t.Helper()
	x.Profile = twincert.Compat
	std, err := x509.ParseCertificate(create(t, newAuthority(t), x).Raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range std.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier(oid)) {
			e.Critical = critical
			return e
		}
	}
	t.Fatalf("no extension %v", oid)
	return pkix.Extension{}
}

func nets(s string) (ns []*net.IPNet) {
	for f := range strings.FieldsSeq(s) {
		_, n, err := net.ParseCIDR(f)
		if err != nil {
			panic(err)
		}
		ns = append(ns, n)
	}
	return ns
}

// A CA that is itself bounded certifies nothing beyond its bounds: what the root of a group
// of companies lets a subsidiary's CA do. The router has 10.1.0.0/24, 10.1.1.128/25 and
// fd00:1::/48, and the scope group:staff, user:eve.
func TestTheIssuersConstraints(t *testing.T) {
	blocks := func(s string, critical bool) pkix.Extension {
		x := router(t, twincert.Compat)
		x.Prefixes = prefixes(s)
		return extensionOf(t, x, critical, oidBlock...)
	}
	scope := func(s ...string) pkix.Extension {
		x := router(t, twincert.Compat)
		x.Scope = s
		return extensionOf(t, x, false, oidSDA...)
	}
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		want   error
	}{
		{"DNS names, which it has none of", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }, nil},
		{"addresses that hold it", func(c *x509.Certificate) { c.PermittedIPRanges = nets("10.0.0.0/8 fd00::/8") }, nil},
		{"addresses without IPv6", func(c *x509.Certificate) { c.PermittedIPRanges = nets("10.0.0.0/8") }, twincert.ErrConstraint},
		{"addresses narrower than it", func(c *x509.Certificate) { c.PermittedIPRanges = nets("10.1.0.0/25 10.1.1.0/24 fd00::/8") }, twincert.ErrConstraint},
		{"addresses that leave out part of it", func(c *x509.Certificate) { c.ExcludedIPRanges = nets("10.1.1.192/26") }, twincert.ErrConstraint},
		{"addresses that leave out others", func(c *x509.Certificate) { c.ExcludedIPRanges = nets("10.2.0.0/16") }, nil},
		{"IPAddrBlocks that hold it", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{blocks("10.0.0.0/8 fd00::/8", false)}
		}, nil},
		{"IPAddrBlocks that do not", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{blocks("10.2.0.0/16 fd00::/8", false)}
		}, twincert.ErrConstraint},
		{"critical IPAddrBlocks, which crypto/x509 does not know", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{blocks("10.0.0.0/8 fd00::/8", true)}
		}, twincert.ErrConstraint},
		{"IPAddrBlocks that nobody can read", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oidBlock, Value: []byte{0x30, 0}}}
		}, twincert.ErrConstraint},
		{"a scope that holds it", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{scope("user:eve", "group:staff", "group:guests")}
		}, nil},
		{"a scope of everybody", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{scope("*")} }, nil},
		{"a scope that does not", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{scope("user:eve")} }, twincert.ErrConstraint},
		{"a scope that nobody can read", func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{{Id: oidSDA, Value: []byte{0x30, 0}}} }, twincert.ErrConstraint},
		{"expired itself", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, twincert.ErrExpired},
		{"a path of no length", func(c *x509.Certificate) { c.MaxPathLenZero = true }, twincert.ErrConstraint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthorityWith(t, tt.change)
			lax := *a.issuer // Create refuses what outlives its issuer; the test is of Verify
			lax.NotAfter = now.AddDate(9, 0, 0)
			a.issuer = &lax
			if err := create(t, a, router(t, twincert.Paper)).Verify(a.options(twincert.Router)); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
		})
	}
}

// openssl walks the path with its own RFC 3779 code: our IPAddrBlocks are canonical to it,
// and within those of the CAs or not.
func TestOpenSSLVerifiesThePath(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		skip(t, "needs openssl (apt install openssl)")
	}
	x := router(t, twincert.Compat)
	x.Prefixes = prefixes("10.0.0.0/8 fd00::/8")
	bounds := extensionOf(t, x, true, oidBlock...)
	a := newAuthorityWith(t, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{bounds} })
	file := func(name string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	root, inter := file("root", a.root.Raw), file("inter", a.issuer.Raw)
	for ps, want := range map[string]string{
		"10.1.0.0/24 10.1.1.128/25 fd00:1::/48":         "OK",
		"10.1.0.0/24 10.1.1.0/25 fd00::/16 fd01::/16":   "OK", // a range, and two made one
		"10.255.255.254/32 10.0.0.0/32 10.0.0.1/32":     "OK",
		"10.1.0.0/24 192.168.0.0/24":                    "RFC 3779 resource not subset of parent's resources",
		"9.255.255.0/24 10.0.0.0/24 fd00:1::/48 ::/128": "RFC 3779 resource not subset of parent's resources",
	} {
		x.Prefixes = prefixes(ps)
		leaf := file("leaf", create(t, a, x).Raw)
		out, _ := exec.Command(openssl, "verify", "-attime", fmt.Sprint(now.Unix()), "-CAfile", root, "-untrusted", inter, leaf).CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: want %q\n%s", ps, want, out)
		}
	}
}

// A Go TLS server whose root is ours takes no twin certificate for a client's: the EKU is
// ours alone. The client here claims a P-256 key, so that nothing else stops it.
func TestNoTLSServerTakesATwinCertificate(t *testing.T) {
	a := newAuthority(t)
	key, server := issue(t, "server", a.issuer, a.key, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.DNSNames = false, x509.KeyUsageDigitalSignature, []string{"server"}
	})
	clientKey, client := issue(t, "client", a.issuer, a.key, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage = false, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	user := router(t, twincert.Paper)
	user.Role, user.Name, user.Group, user.Scope, user.Prefixes = twincert.User, "alice", "staff", nil, nil
	compat := *user
	compat.Profile = twincert.Compat
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.roots, Time: func() time.Time { return now },
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw, a.issuer.Raw}, PrivateKey: key}},
	}
	for name, der := range map[string][]byte{
		"client":        client.Raw, // the control: this one is taken
		"router paper":  create(t, a, router(t, twincert.Paper)).Raw,
		"router compat": create(t, a, router(t, twincert.Compat)).Raw,
		"user paper":    create(t, a, user).Raw,
		"user compat":   create(t, a, &compat).Raw,
	} {
		for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(v), func(t *testing.T) {
				err := handshake(t, config, &tls.Config{
					MaxVersion: v, RootCAs: a.roots, ServerName: "server", Time: config.Time, //nolint:gosec // the server decides
					Certificates: []tls.Certificate{{Certificate: [][]byte{der, a.issuer.Raw}, PrivateKey: clientKey}},
				})
				if name == "client" {
					if err != nil {
						t.Errorf("a client's certificate is refused: %v", err)
					}
					return
				}
				// Of a user's there is nothing to refuse but its use.
				ie, invalid := errors.AsType[x509.CertificateInvalidError](err)
				_, critical := errors.AsType[x509.UnhandledCriticalExtension](err)
				if !critical && (!invalid || ie.Reason != x509.IncompatibleUsage) || critical && !strings.HasPrefix(name, "router") {
					t.Errorf("err = %v, want incompatible usage", err)
				}
			})
		}
	}
}

// handshake returns what the server says of a client.
func handshake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	s, c := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Client(c, client)
		if conn.Handshake() == nil {
			_, _ = conn.Read(make([]byte, 1))
		}
		_ = c.Close()
	}()
	err := tls.Server(s, server).Handshake()
	_ = s.Close()
	<-done
	return err
}

func TestCRL(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	c := create(t, a, router(t, twincert.Paper))
	tests := []struct {
		name   string
		change func(*x509.RevocationList)
		issuer *x509.Certificate
		now    time.Time
		want   error
	}{
		{"current", nil, a.issuer, now, nil},
		{"made just now by a clock ahead of ours", nil, a.issuer, now.Add(-time.Minute), nil},
		{"says where it lies", func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 8, 0xa0, 6, 0xa0, 4, 0x86, 2, 'h', ':'}}}
		}, a.issuer, now, nil},
		{"old", nil, a.issuer, now.Add(2 * time.Hour), twincert.ErrExpired},
		{"of tomorrow", nil, a.issuer, now.AddDate(0, 0, -1), twincert.ErrNotYetValid},
		{"of a CA of the same name", nil, other.issuer, now, errAny},
		{"of another CA", nil, a.root, now, twincert.ErrCRL},
		{"a delta", func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}}
		}, a.issuer, now, twincert.ErrCRL},
		{"a delta that does not say so loudly", func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 27}, Value: []byte{2, 1, 1}}}
		}, a.issuer, now, twincert.ErrCRL},
		{"of users only", func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x81, 1, 0xff}}}
		}, a.issuer, now, twincert.ErrCRL},
		{"of other issuers too", func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}
		}, a.issuer, now, twincert.ErrCRL},
		{"with something critical that nobody knows", func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 99}, Critical: true, Value: []byte{5, 0}}}
		}, a.issuer, now, twincert.ErrCRL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &x509.RevocationList{
				Number: big.NewInt(7), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
				RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: c.Serial, RevocationTime: now}},
			}
			if tt.change != nil {
				tt.change(l)
			}
			der, err := x509.CreateRevocationList(rand.Reader, l, a.issuer, a.key)
			if err != nil {
				t.Fatal(err)
			}
			crl, err := twincert.NewCRL(der, tt.issuer, tt.now)
			if tt.want != nil {
				if err == nil || tt.want != errAny && !errors.Is(err, tt.want) {
					t.Errorf("err = %v, want %v", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if crl.Number().Int64() != 7 || crl.Len() != 1 || !crl.ThisUpdate().Equal(now) || !crl.NextUpdate().Equal(now.Add(time.Hour)) {
				t.Errorf("number %v, %d entries, %v to %v", crl.Number(), crl.Len(), crl.ThisUpdate(), crl.NextUpdate())
			}
			// Issuer and serial number count, not the number alone.
			if !crl.Contains(c.ID()) || crl.Contains(twincert.ID{Issuer: "00", Serial: c.ID().Serial}) || crl.Contains(twincert.IDOf(a.issuer)) {
				t.Error("the CRL revokes another certificate than it names")
			}
		})
	}
}

// errAny stands for an error of crypto/x509 without a name.
var errAny = errors.New("any error")

func TestSignLowS(t *testing.T) {
	a := newAuthority(t)
	digest := make([]byte, 32)
	for range 32 { // half of all plain signatures have a high s
		sig, err := twincert.SignLowS(rand.Reader, a.key, digest)
		if err != nil || !twincert.VerifyLowS(&a.key.PublicKey, digest, sig) {
			t.Fatalf("%x: %v", sig, err)
		}
		if digest[0]++; twincert.VerifyLowS(&a.key.PublicKey, digest, sig) {
			t.Fatal("signature of another digest")
		}
	}
	seen := 0
	for seen == 0 { // until a plain one has a high s
		sig, err := ecdsa.SignASN1(rand.Reader, a.key, digest)
		if err != nil {
			t.Fatal(err)
		}
		if !twincert.VerifyLowS(&a.key.PublicKey, digest, sig) {
			seen++
			if !ecdsa.VerifyASN1(&a.key.PublicKey, digest, sig) {
				t.Error("a plain signature is none")
			}
		}
	}
}

func TestInScope(t *testing.T) {
	for _, tt := range []struct {
		scope, uid, group string
		want              bool
	}{
		{"", "eve", "staff", false},
		{"*", "eve", "", true},
		{"user:eve", "eve", "staff", true},
		{"user:eve", "adam", "staff", false},
		{"group:staff", "adam", "staff", true},
		{"group:staff", "staff", "", false},
		{"user:staff", "eve", "staff", false},
		{"group:guests user:adam", "adam", "staff", true},
	} {
		if got := twincert.InScope(strings.Fields(tt.scope), tt.uid, tt.group); got != tt.want {
			t.Errorf("%s of %s in %q: %v", tt.uid, tt.group, tt.scope, got)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"a", "0", "eve", "router-1.example_com", strings.Repeat("a", 63)} {
		if err := twincert.CheckName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "-a", "_a", "A", "a b", "a/b", "ä", "a\n", "a\x00", "*", strings.Repeat("a", 64)} {
		if twincert.CheckName(bad) == nil {
			t.Errorf("%q is taken for a name", bad)
		}
	}
}

func TestWordsComeBack(t *testing.T) {
	for _, p := range []twincert.Profile{twincert.Paper, twincert.Compat} {
		if got, err := twincert.ParseProfile(p.String()); err != nil || got != p {
			t.Errorf("profile %v comes back as %v, %v", p, got, err)
		}
	}
	for _, r := range []twincert.Role{twincert.Router, twincert.User, 0} {
		var back twincert.Role
		text, err := r.MarshalText()
		if err == nil {
			err = back.UnmarshalText(text)
		}
		if err != nil || back != r {
			t.Errorf("role %v comes back as %v, %v", r, back, err)
		}
	}
	var r twincert.Role
	if _, err := twincert.ParseProfile("other"); err == nil || r.UnmarshalText([]byte("root")) == nil {
		t.Error("a word that is none is taken")
	}
}
