package settings_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"twinkey/pkg/config"
	"twinkey/router/internal/settings"
)

func load(t *testing.T, text string) (*settings.Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "router.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return settings.Load(file)
}

func TestEveryKeyIsDocumentedAndTheExampleLoads(t *testing.T) {
	if missing := config.Undocumented[settings.File](); len(missing) > 0 {
		t.Errorf("not documented: %v", missing)
	}
	s, err := load(t, config.Document[settings.File]())
	if err != nil {
		t.Fatal(err)
	}
	empty, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := settings.Reloadable(s, empty); err != nil {
		t.Errorf("the example is not the defaults: %v", err)
	}
	for _, suite := range s.Suites {
		if suite.Legacy() {
			t.Errorf("%s is offered by default", suite)
		}
	}
}

func TestBadFilesSayWhereAndWhat(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":            {"site:\n  prefix: [10.1.0.0/24]\n", "2:3: site.prefix: unknown key; did you mean prefixes?"},
		"host bits":              {"site:\n  prefixes: [10.1.0.1/24]\n", "did you mean 10.1.0.0/24?"},
		"no port":                {"public: 198.51.100.1\n", "address and a port"},
		"no scheme":              {"directory: hq:8702\n", "no https:// URL"},
		"links":                  {"site:\n  links: sometimes\n", `"sometimes" is neither start nor demand`},
		"unknown suite":          {"security:\n  suites: [rot13]\n", "rot13"},
		"no suite":               {"security:\n  suites: []\n", "at least one suite"},
		"legacy suite":           {"security:\n  suites: [3des-cbc-sha1]\n", "set security.legacy to true"},
		"grace beyond life":      {"security:\n  rekey-time: 1m\n  rekey-grace: 2m\n", "rekey-grace"},
		"rekeying without end":   {"security:\n  rekey-time: 1s\n", "rekey-time"},
		"no staleness":           {"security:\n  staleness: 0s\n", "staleness"},
		"impossible MTU":         {"tun:\n  mtu: 100\n", "between 576 and 9000"},
		"renewal after the end":  {"renewal:\n  at: 1.5\n", "between 0 and 1"},
		"a rule for nobody":      {"policy:\n  - to: [10.2.0.0/24]\n", "policy[0].groups: it is for nobody"},
		"a rule's host bits":     {"policy:\n  - groups: [staff]\n  - groups: [staff]\n    to: [10.2.0.1/24]\n", "4:9: policy[1].to: 10.2.0.1/24 has host bits set: did you mean 10.2.0.0/24?"},
		"no protocol":            {"policy:\n  - groups: [staff]\n    allow: [http]\n", `"http" is no protocol`},
		"ports of what has none": {"policy:\n  - groups: [staff]\n    allow: [icmp/8]\n", "only tcp and udp have ports"},
		"compression":            {"data:\n  compression: gzip\n", `"gzip" is neither off nor lz4`},
		"not YAML":               {"site: [\n", "router.yaml"},
	} {
		if _, err := load(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tt.want)
		}
	}
	if s, err := load(t, "security:\n  legacy: true\n  suites: [aes256-gcm, 3des-cbc-sha1]\n"); err != nil || len(s.Suites) != 2 {
		t.Errorf("legacy, allowed: %v", err)
	}
}

func TestWhatNeedsARestart(t *testing.T) {
	base, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	for text, restart := range map[string]bool{
		"listen: 0.0.0.0:1702\n":              true,
		"tun:\n  name: tun7\n":                true,
		"security:\n  post-quantum: false\n":  true,
		"security:\n  staleness: 1h\n":        false,
		"site:\n  prefixes: [10.1.0.0/24]\n":  false,
		"public: 198.51.100.1:1701\n":         false,
		"renewal:\n  at: 0.5\n":               false,
		"site:\n  peers: [rb]\n":              false,
		"keepalive:\n  hello: 20s\n":          true,
		"data:\n  compression: lz4\n":         true,
		"policy:\n  - groups: [staff]\n":      false,
		"portal: {listen: 10.1.1.1:443}\n":    true,
		"security:\n  suites: [aes128-gcm]\n": true,
	} {
		s, err := load(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if err := settings.Reloadable(base, s); errors.Is(err, settings.ErrRestart) != restart {
			t.Errorf("%q: %v", text, err)
		}
	}
}
