package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	caclient "twinkey/ca/client"
	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/home"
	"twinkey/ca/internal/issue"
	"twinkey/ca/internal/ledger"
	"twinkey/pkg/identity"
)

// box serves a CA without a directory, whose clock the test moves.
type box struct {
	*testing.T
	ca          *home.CA
	srv         *Server
	url         string
	fingerprint string
	ahead       time.Duration // of the CA's clock
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{T: t}
	dir := filepath.Join(t.TempDir(), "ca")
	var err error
	if b.fingerprint, err = home.Init(t.Context(), dir, home.InitOptions{Name: "Example Corp", Hosts: []string{"127.0.0.1"}, Port: "8700", Profile: "paper"}); err != nil {
		t.Fatal(err)
	}
	now := func() time.Time { return time.Now().Add(b.ahead) }
	if b.ca, err = home.Open(dir, home.Options{Now: now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.ca.Close(); err != nil {
			t.Error(err)
		}
	})
	if b.srv, err = New(Config{CA: b.ca, Port: 8700, Now: now}); err != nil {
		t.Fatal(err)
	}
	h, err := b.srv.public()
	if err != nil {
		t.Fatal(err)
	}
	b.url = b.serve(h, tlsConfig(b.ca.Identity))
	return b
}

func (b *box) serve(h http.Handler, c *tls.Config) (url string) {
	b.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Listener = tls.NewListener(s.Listener, c)
	s.Start()
	b.Cleanup(s.Close)
	return strings.Replace(s.URL, "http://", "https://", 1)
}

func (b *box) token(ttl time.Duration) string {
	b.Helper()
	tok, _, err := b.ca.Desk.Token(issue.TokenRequest{Role: issue.RoleDirectory, Hosts: []string{"127.0.0.1"}, TTL: ttl})
	if err != nil {
		b.Fatal(err)
	}
	return tok
}

func (b *box) enroll(token string) (*identity.Identity, error) {
	b.Helper()
	got, _, err := caclient.Enroll(b.Context(), b.url, b.fingerprint, token, caclient.Options{})
	if err != nil {
		return nil, err
	}
	return identity.Create(filepath.Join(b.TempDir(), "identity"), got)
}

func (b *box) renew(id *identity.Identity) error {
	b.Helper()
	_, err := caclient.Renew(b.Context(), b.url, id, caclient.Options{Now: func() time.Time { return time.Now().Add(b.ahead) }})
	return err
}

func TestEnrolAndRenew(t *testing.T) {
	b := newBox(t)
	id, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if id.Role() != "directory" {
		t.Errorf("role %s", id.Role())
	}
	got, err := caclient.Renew(t.Context(), b.url, id, caclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got.TLS.Leaf.Equal(id.Bundle().TLS.Leaf) {
		t.Error("the same certificate again")
	}
	if err := id.Replace(got); err != nil {
		t.Fatal(err)
	}
	if err := b.renew(id); err != nil {
		t.Errorf("with the renewed one: %v", err)
	}
	roots, inter, _, err := caclient.FetchTrust(t.Context(), b.url, id)
	if err != nil || len(roots) != 1 || len(inter) != 1 || home.Fingerprint(roots[0]) != b.fingerprint {
		t.Errorf("trust: %v %v %v", roots, inter, err)
	}
	crl, err := b.ca.Authority.CRL()
	if err != nil {
		t.Fatal(err)
	}
	if der, err := caclient.FetchCRL(t.Context(), b.url, id); err != nil || !bytes.Equal(der, crl.DER) {
		t.Errorf("CRL: %d bytes, %v", len(der), err)
	}
}

// crypto/tls would not let an expired certificate in; the CA must, within the grace.
func TestRenewalAfterExpiry(t *testing.T) {
	b := newBox(t)
	id, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	b.ahead = time.Until(id.Bundle().TLS.Leaf.NotAfter) + 24*time.Hour
	if err := b.renew(id); err != nil {
		t.Errorf("a day after expiry: %v", err)
	}
	b.ahead += 30 * 24 * time.Hour
	if err := b.renew(id); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("after the grace: %v", err)
	}
}

func TestRenewalNeedsACertificateOfOurs(t *testing.T) {
	b, other := newBox(t), newBox(t)
	stranger, err := other.enroll(other.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	// The stranger trusts our root, so that only we can refuse.
	mixed := stranger.Bundle()
	mixed.Roots = append(mixed.Roots, b.ca.Authority.Root())
	id, err := identity.Create(filepath.Join(t.TempDir(), "identity"), mixed)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.renew(id); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("a certificate of another CA: %v", err)
	}
	if err := b.renew(b.ca.Identity); !errors.Is(err, caclient.ErrInvalid) && !errors.Is(err, caclient.ErrDenied) && !errors.Is(err, caclient.ErrUnavailable) {
		t.Errorf("the CA's own: %v", err)
	}
	res, err := insecure().Post(b.url+caclient.PathRenew, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("without a certificate: %s", res.Status)
	}
}

// What routers alone may ask, and what nobody can prove without keys.
func TestWhoEndsSessions(t *testing.T) {
	b := newBox(t)
	for _, path := range []string{caclient.PathClose, caclient.PathRenewUser} {
		want := map[string]int{caclient.PathClose: http.StatusForbidden, caclient.PathRenewUser: http.StatusBadRequest}[path]
		res, err := insecure().Post(b.url+path, "application/json", strings.NewReader(`{"closed":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s without a certificate: %s", path, res.Status)
		}
	}
	id, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := caclient.Close(t.Context(), b.url, id, []caclient.Closed{{Serial: "1", Proof: make([]byte, 32)}}); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("the directory: %v", err)
	}
	key, err := caclient.FetchCloseKey(t.Context(), b.url, id)
	if err != nil {
		t.Fatal(err)
	}
	want, err := b.ca.Desk.CloseKey()
	if err != nil || !want.Equal(key) {
		t.Errorf("another key than the CA's own (%v)", err)
	}
}

func TestEnrolmentRefused(t *testing.T) {
	b := newBox(t)
	used := b.token(time.Hour)
	if _, err := b.enroll(used); err != nil {
		t.Fatal(err)
	}
	router, _, err := b.ca.Desk.Token(issue.TokenRequest{Role: issue.RoleRouter, Name: "berlin", TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token string
		want  error
	}{
		"used":                     {used, caclient.ErrDenied},
		"unknown":                  {"twinkey-directory.aaaaaaaaaa.bbbb", caclient.ErrDenied},
		"no token":                 {"hello", caclient.ErrInvalid},
		"a router's, as directory": {strings.Replace(router, "router", "directory", 1), caclient.ErrInvalid},
	} {
		if _, err := b.enroll(c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if _, err := b.enroll(router); !errors.Is(err, caclient.ErrUnavailable) || !strings.Contains(err.Error(), issue.ErrNoDirectory.Error()) {
		t.Errorf("a router without a directory: %v", err)
	}
	short := b.token(time.Minute)
	b.ahead = 2 * time.Minute
	if _, err := b.enroll(short); !errors.Is(err, caclient.ErrDenied) {
		t.Errorf("expired: %v", err)
	}
}

func TestTheBoxFindsOutWhoIsNotTheCA(t *testing.T) {
	b := newBox(t)
	if _, _, err := caclient.Enroll(t.Context(), b.url, strings.Repeat("ab", 32), b.token(time.Hour), caclient.Options{}); !errors.Is(err, caclient.ErrFingerprint) {
		t.Errorf("another root: %v", err)
	}
	for _, bad := range []string{"", "abc", strings.Repeat("zz", 32), strings.Repeat("ab", 33)} {
		if _, _, err := caclient.Enroll(t.Context(), b.url, bad, b.token(time.Hour), caclient.Options{}); !errors.Is(err, caclient.ErrInvalid) {
			t.Errorf("fingerprint %q: %v", bad, err)
		}
	}
	// As openssl prints it.
	colons := strings.ToUpper(strings.Join(pairs(b.fingerprint), ":"))
	if _, _, err := caclient.Enroll(t.Context(), b.url, colons, b.token(time.Hour), caclient.Options{}); err != nil {
		t.Errorf("fingerprint with colons: %v", err)
	}

	// A server of the same company, with a certificate of the same root, in between.
	tok := b.token(time.Hour)
	id, err := b.enroll(b.token(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 10)
	impostor := b.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.URL.Path
		res, err := insecure().Get(b.url + r.URL.Path)
		if err != nil {
			return
		}
		defer func() { _ = res.Body.Close() }()
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	}), id.ServerTLS())
	_, _, err = caclient.Enroll(t.Context(), impostor, b.fingerprint, tok, caclient.Options{})
	if !errors.Is(err, caclient.ErrDenied) || !errors.Is(err, identity.ErrServer) {
		t.Errorf("the directory posing as the CA: %v", err)
	}
	close(seen)
	for path := range seen {
		if path != caclient.PathRoots {
			t.Errorf("the impostor was sent %s", path)
		}
	}
}

func pairs(s string) (out []string) {
	for i := 0; i < len(s); i += 2 {
		out = append(out, s[i:i+2])
	}
	return out
}

func insecure() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}} //nolint:gosec // a test
}

func TestOnlyTLS13(t *testing.T) {
	b := newBox(t)
	c, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}) //nolint:gosec // a test
	if err == nil {
		_ = c.Close()
		t.Error("TLS 1.2 was taken")
	}
}

func TestOversizedAndGarbledRequests(t *testing.T) {
	b := newBox(t)
	for _, path := range []string{caclient.PathEnroll, "/sign"} {
		for name, body := range map[string][]byte{"empty": nil, "garbled": []byte("{{{"), "huge": bytes.Repeat([]byte("a"), 1<<20)} {
			res, err := insecure().Post(b.url+path, "application/json", bytes.NewReader(body))
			if err != nil {
				continue // it hung up on us, which is as good
			}
			out, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if res.StatusCode/100 != 4 || bytes.Contains(out, []byte(b.ca.Dir)) {
				t.Errorf("%s %s: %s %s", path, name, res.Status, out)
			}
		}
	}
}

func TestRateLimit(t *testing.T) {
	b := newBox(t)
	c, refused := insecure(), 0
	for range 3 * burstPerAddress {
		res, err := c.Post(b.url+caclient.PathChallenge, "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			refused++
			if res.Header.Get("Retry-After") == "" {
				t.Error("it does not say when to come back")
			}
		}
	}
	if refused < burstPerAddress {
		t.Errorf("%d of %d refused", refused, 3*burstPerAddress)
	}
}

func TestErrorsTellStrangersNothingOfOurs(t *testing.T) {
	secret := errors.New("/var/lib/twinkey-ca/ledger.db")
	for _, err := range []error{
		fmt.Errorf("writing: %w: %w", ledger.ErrStorage, secret), fmt.Errorf("%w: %w", authority.ErrStorage, secret),
		fmt.Errorf("%w: %w", issue.ErrNothingIssued, secret), fmt.Errorf("%w: %w", issue.ErrClock, secret), secret,
	} {
		code, _ := codeOf(err)
		if got := public(code, err); strings.Contains(got, "/var") {
			t.Errorf("%v: %s", err, got)
		}
	}
}

func TestServeStopsAndStartsAgain(t *testing.T) {
	b := newBox(t)
	for range 2 {
		public, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		admin, err := ListenAdmin(b.ca.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(home.Socket(b.ca.Dir)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.srv.Serve(ctx, public, admin) }()
		a := NewAdmin(b.ca.Dir)
		var s Status
		if err := a.Get(t.Context(), &s, "status"); err != nil || s.Fingerprint != b.fingerprint || len(s.Warnings) > 0 {
			t.Errorf("%+v, %v", s, err)
		}
		a.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := NewAdmin(b.ca.Dir).Get(t.Context(), &s, "status"); !errors.Is(err, ErrNotRunning) {
			t.Errorf("afterwards: %v", err)
		}
	}
}

func TestWarningsBeforeTheCAsOwnCertificatesEnd(t *testing.T) {
	b := newBox(t)
	inter := b.ca.Authority.Intermediate().NotAfter
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Now(), ""}, {inter.Add(-29 * 24 * time.Hour), "intermediate"}, {inter.Add(time.Hour), "clock"},
		{b.ca.Authority.Root().NotAfter.Add(-89 * 24 * time.Hour), "root"},
	} {
		b.ahead = time.Until(c.at)
		got := strings.Join(b.srv.warnings(c.at), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("at %s: %q", c.at.Format(time.DateOnly), got)
		}
	}
}

func TestOwnCertificateRenewsItself(t *testing.T) {
	b := newBox(t)
	old := b.ca.Identity.Bundle().TLS.Leaf
	b.srv.renewOwn(t.Context(), time.Now())
	if !b.ca.Identity.Bundle().TLS.Leaf.Equal(old) {
		t.Error("too early")
	}
	b.ahead = 61 * 24 * time.Hour
	b.srv.renewOwn(t.Context(), time.Now().Add(b.ahead))
	got := b.ca.Identity.Bundle().TLS.Leaf
	if got.Equal(old) || !got.NotAfter.After(old.NotAfter) {
		t.Error("it was not renewed")
	}
	c, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if shown := c.ConnectionState().PeerCertificates[0]; !shown.Equal(got) {
		t.Error("the server still shows the old one")
	}
}
