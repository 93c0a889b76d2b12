package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/ca/internal/source"
	"twinkey/ca/internal/source/sourcetest"
	"twinkey/pkg/identity"
)

func TestPickGroup(t *testing.T) {
	staff, admins := source.Mapping{Value: "Staff", Group: "staff"}, source.Mapping{Value: "Admins", Group: "admins"}
	for name, tt := range map[string]struct {
		mappings []source.Mapping
		values   []string
		fallback string
		want     string
	}{
		"nothing":                              {nil, nil, "", ""},
		"the fallback":                         {nil, nil, "guests", "guests"},
		"the value itself":                     {nil, []string{"staff"}, "guests", "staff"},
		"the first that can be a name":         {nil, []string{"All Staff", "", "staff", "admins"}, "", "staff"},
		"a meaning":                            {[]source.Mapping{staff}, []string{"staff"}, "", "staff"},
		"the first mapping, not the first one": {[]source.Mapping{admins, staff}, []string{"staff", "admins"}, "", "admins"},
		"no meaning: never the value itself":   {[]source.Mapping{staff}, []string{"admins"}, "", ""},
		"no meaning: the fallback":             {[]source.Mapping{staff}, []string{"admins"}, "guests", "guests"},
	} {
		if got := source.PickGroup(tt.mappings, tt.values, strings.EqualFold, tt.fallback); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestServers(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := source.NewServers([]string{"a", "b", "c"})
	want := func(at time.Time, names ...string) {
		t.Helper()
		if got := s.Order(at); !slices.Equal(got, names) {
			t.Errorf("%v, want %v", got, names)
		}
	}
	want(now, "a", "b", "c")
	s.Silent("a", now)
	want(now, "b", "c", "a")
	s.Silent("b", now)
	want(now, "c", "a", "b")
	s.Answered("a")
	want(now, "a", "c", "b")
	want(now.Add(time.Minute), "a", "b", "c")
}

// A secret is for its owner alone, and is never shown.
func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	path := sourcetest.WriteFile(t, dir, "secret", "sesame \r\n")
	for _, name := range []string{"secret", path} {
		if k, err := source.ReadSecret(dir, name); err != nil || string(k.Bytes()) != "sesame " || strings.Contains(k.String(), "sesame") {
			t.Errorf("%s: %v", k, err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := source.ReadSecret(dir, "secret"); !errors.Is(err, identity.ErrPermissions) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := source.ReadSecret(dir, "gone"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	sourcetest.WriteFile(t, dir, "empty", "\n")
	sourcetest.WriteFile(t, dir, "large", strings.Repeat("x", 1<<20+1))
	for _, name := range []string{"empty", "large", "."} {
		if _, err := source.ReadSecret(dir, name); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestCertificates(t *testing.T) {
	pki := sourcetest.NewPKI(t, t.TempDir(), "root")
	pki.Issue(t, "ca")
	pki.Issue(t, "other")
	if pool, err := source.Roots(pki.Dir, ""); pool != nil || err != nil {
		t.Errorf("the system's: %v, %v", pool, err)
	}
	if pool, err := source.Roots(pki.Dir, "root.crt"); pool == nil || err != nil {
		t.Errorf("%v, %v", pool, err)
	}
	for _, name := range []string{"gone.crt", "ca.key"} {
		if _, err := source.Roots(pki.Dir, name); err == nil {
			t.Errorf("%s is taken for a root", name)
		}
	}
	if pair, err := source.KeyPair(pki.Dir, "ca.crt", "ca.key"); err != nil || pair.PrivateKey == nil {
		t.Error(err)
	}
	for _, c := range [][2]string{{"ca.crt", ""}, {"", "ca.key"}, {"ca.crt", "other.key"}, {"gone.crt", "ca.key"}, {"ca.crt", "gone.key"}} {
		if _, err := source.KeyPair(pki.Dir, c[0], c[1]); err == nil {
			t.Errorf("%v is taken", c)
		}
	}
	if err := os.Chmod(filepath.Join(pki.Dir, "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := source.KeyPair(pki.Dir, "ca.crt", "ca.key"); !errors.Is(err, identity.ErrPermissions) {
		t.Errorf("a key that others may read: %v", err)
	}
}
