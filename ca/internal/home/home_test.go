package home

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/ca/internal/authority"
	"twinkey/ca/internal/ledger"
	"twinkey/pkg/config"
	"twinkey/pkg/identity"
)

func TestEveryKeyIsDocumented(t *testing.T) {
	if got := config.Undocumented[Config](); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

func TestInitWritesTheConfigurationThatItWasGiven(t *testing.T) {
	want, err := config.Parse[Config](fileConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	want.Name, want.Hosts = `Müller & "Söhne": #1`, []string{"ca.example", "192.0.2.1", "2001:db8::1"}
	want.URL, want.Directory, want.Profile = "https://ca.example:8700", "https://[2001:db8::1]:8702", "compat"
	got, err := config.Parse[Config](fileConfig, []byte(want.yaml()))
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != want.Name || !slices.Equal(got.Hosts, want.Hosts) || got.URL != want.URL || got.Directory != want.Directory || got.Profile != want.Profile || got.Validity != want.Validity {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestConfigurationRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"hosts":             func(c *Config) { c.Hosts = nil },
		"hosts[0]: \"*":     func(c *Config) { c.Hosts = []string{"*.example"} },
		"url":               func(c *Config) { c.URL = "http://ca.example" },
		"directory":         func(c *Config) { c.Directory = "directory.example:8702" },
		"profile":           func(c *Config) { c.Profile = "x" },
		"portal-domain":     func(c *Config) { c.Domain = ".portal.example" },
		"portal-domain: ":   func(c *Config) { c.Domain = "192.0.2.1" },
		"patience":          func(c *Config) { c.Patience = time.Hour },
		"validity.router":   func(c *Config) { c.Validity.Router = 0 },
		"validity.user":     func(c *Config) { c.Validity.User = 100 * 365 * 24 * time.Hour },
		"lockout.failures":  func(c *Config) { c.Lockout.Failures = 0 },
		"lockout.strangers": func(c *Config) { c.Lockout.Strangers = 101 },
		"lockout.window":    func(c *Config) { c.Lockout.Window = time.Second },
		"lockout.lock":      func(c *Config) { c.Lockout.Lock = 48 * time.Hour },
		"validity.crl":      func(c *Config) { c.Validity.CRL = time.Second },
		"validity.grace":    func(c *Config) { c.Validity.Grace = -1 },
	} {
		c, err := config.Parse[Config](fileConfig, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Hosts, c.URL = []string{"ca.example"}, "https://ca.example:8700"
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func made(t *testing.T, pass string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Init(t.Context(), dir, InitOptions{Name: "Example Corp", Hosts: []string{"127.0.0.1"}, Port: "8700", Profile: "paper", Passphrase: []byte(pass)}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAHomeIsWholeOrNotThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	_, err := Init(t.Context(), dir, InitOptions{Name: "Example Corp", Hosts: []string{"127.0.0.1"}, Port: "8700", Profile: "nonsense"})
	if err == nil {
		t.Fatal("made")
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	dir = made(t, "")
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 1 {
		t.Errorf("beside the home: %v, %v", left, err)
	}
	if _, err := Init(t.Context(), dir, InitOptions{Name: "x", Hosts: []string{"127.0.0.1"}, Port: "8700", Profile: "paper"}); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v", err)
	}
}

func TestNobodyElseCanReadAnything(t *testing.T) {
	dir := made(t, "")
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := made(t, "correct horse")
	if _, err := Open(dir, Options{}); !errors.Is(err, authority.ErrPassphrase) {
		t.Errorf("without the passphrase: %v", err)
	}
	ca, err := Open(dir, Options{Passphrase: []byte("correct horse")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Passphrase: []byte("correct horse")}); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("twice: %v", err)
	}
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.TempDir(), Options{}); !errors.Is(err, ErrNone) {
		t.Errorf("an empty directory: %v", err)
	}
	one, other := made(t, ""), made(t, "")
	b, err := os.ReadFile(filepath.Join(other, fileIntermediateKey))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one, fileIntermediateKey), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(one, Options{}); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("another CA's key: %v", err)
	}
	if err := os.Chmod(filepath.Join(other, fileGroupKey), 0o640); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if _, err := Open(other, Options{}); !errors.Is(err, identity.ErrPermissions) {
		t.Errorf("a key that others may read: %v", err)
	}
	// The root's key may be elsewhere.
	dir = made(t, "")
	if err := os.Remove(filepath.Join(dir, fileRootKey)); err != nil {
		t.Fatal(err)
	}
	if ca, err = Open(dir, Options{}); err != nil {
		t.Fatalf("without the root's key: %v", err)
	}
	if err := ca.Close(); err != nil {
		t.Error(err)
	}
}
