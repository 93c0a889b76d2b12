package settings_test

import (
	"strings"
	"testing"
)

// What could not work is refused when it is read, with every word that one needs to mend it.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"a key twice":               {"listen: 0.0.0.0:1\nlisten: 0.0.0.0:2\n", "router.yaml:2 listen"},
		"unknown key at the top":    {"listne: 0.0.0.0:1701\n", "router.yaml:1 listne listen"},
		"public by name":            {"public: hq.example:1701\n", "public 198.51.100.1:1701"},
		"public nowhere":            {"public: 0.0.0.0:1701\n", "public 0.0.0.0 198.51.100.1:1701"},
		"public without a port":     {"public: 198.51.100.1:0\n", "public port"},
		"overlapping prefixes":      {"site: {prefixes: [10.1.0.0/24, 10.1.0.0/25]}\n", "site.prefixes 10.1.0.0/25 10.1.0.0/24"},
		"no prefix":                 {"site: {prefixes: [10.1.0.0]}\n", "site.prefixes 10.1.0.0"},
		"a peer that is no name":    {"site: {peers: [Rb]}\n", "site.peers Rb"},
		"a suite twice":             {"security: {suites: [aes256-gcm, aes256-gcm]}\n", "security.suites aes256-gcm twice"},
		"MTU too small for IPv6":    {"tun: {mtu: 1000}\nsite: {prefixes: [\"2001:db8::/64\"]}\n", "tun.mtu 1000 1280"},
		"large MTU":                 {"tun: {mtu: 9001}\n", "tun.mtu 9001 9000"},
		"interface name":            {"tun: {name: a-name-that-is-too-long}\n", "tun.name 15"},
		"hello":                     {"keepalive: {hello: 1ms}\n", "keepalive.hello 1ms"},
		"NAT":                       {"keepalive: {nat: -1s}\n", "keepalive.nat -1s"},
		"echo":                      {"keepalive: {echo: 10ms}\n", "keepalive.echo 10ms"},
		"renewal.at is no number":   {"renewal: {at: .nan}\n", "renewal.at"},
		"renewal.warn":              {"renewal: {warn: -1h}\n", "renewal.warn -1h"},
		"a time without its unit":   {"security: {rekey-time: 3600}\n", "router.yaml:1 rekey-time"},
		"a section that is no such": {"site: 7\n", "router.yaml:1 site"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(t, tt.text)
			if err == nil {
				t.Fatalf("taken: %+v", s.File)
			}
			for _, word := range strings.Fields(tt.want) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the message lacks %q:\n%v", word, err)
				}
			}
		})
	}
}
