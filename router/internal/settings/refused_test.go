package settings_test

import (
	"strings"
	"testing"
)

// Every value that is refused is shown where it stands, by the path of its key.
func TestRefusedWithItsPlace(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"tun:\n  mtu: 1400\n  device: fast\n", "router.yaml:3:11: tun.device: \"fast\" is none of auto, offload, water\n    3 |   device: fast\n      |           ^"},
		{"listen: 1701\n", "router.yaml:1:9: listen: "},
		{"\npublic: hq:1701\n", "router.yaml:2:9: public: "},
		{"ca: http://hq\n", "router.yaml:1:5: ca: "},
		{"directory: hq\n", "router.yaml:1:12: directory: "},
		{"data: {headers: short}\n", "router.yaml:1:17: data.headers: "},
		{"site:\n  links: often\n", "router.yaml:2:10: site.links: "},
		{"site:\n  prefixes:\n    - 10.1.0.0/24\n    - 10.2.0.1/24\n", "router.yaml:4:7: site.prefixes[1]: "},
		{"site: {prefixes: [10.1.0.0/24, 10.1.0.0/25]}\n", "router.yaml:1:32: site.prefixes[1]: "},
		{"site: {prefixes: [ten]}\n", "router.yaml:1:19: site.prefixes[0]: "},
		{"site: {peers: [rb, Rc]}\n", "router.yaml:1:20: site.peers[1]: "},
		{"security: {suites: [aes256-gcm, rot13]}\n", "router.yaml:1:33: security.suites[1]: "},
		{"security: {suites: []}\n", "router.yaml:1:20: security.suites: "},
		{"security: {rekey-time: 1h, rekey-grace: 2h}\n", "router.yaml:1:41: security.rekey-grace: "},
		{"security: {rekey-time: 3600}\n", "router.yaml:1:24: security.rekey-time: \"3600\" is no duration; write a number and a unit"},
		{"keepalive: {nat: -1s}\n", "router.yaml:1:18: keepalive.nat: "},
		{"renewal: {at: 2}\n", "router.yaml:1:15: renewal.at: "},
		{"accounting: {interim: 30s}\n", "router.yaml:1:23: accounting.interim: 30s is not between 1m0s and 1h0m0s"},
		{"accounting: {interim: 2h}\n", "router.yaml:1:23: accounting.interim: "},
		{"tun: {queues: -1}\n", "router.yaml:1:15: tun.queues: "},
		{"clients: {listen: \"10.1.1.1:0\"}\n", "router.yaml:1:19: clients.listen: nobody finds 10.1.1.1:0"},
		{"clients: {listen: 10.1.1.1}\n", "router.yaml:1:19: clients.listen: "},
		{"clients: {vouch: 1s}\n", "router.yaml:1:18: clients.vouch: 1s is less than 4s"},
		{"portal: {listen: \"10.1.1.1\"}\n", "router.yaml:1:18: portal.listen: "},
		{"portal: {listen: \"0.0.0.0:443\"}\n", "router.yaml:1:18: portal.listen: 0.0.0.0:443 is not one address and port"},
		{"portal: {listen: \"10.1.1.1:443\", http: \"10.1.1.1:443\"}\n", "router.yaml:1:40: portal.http: 10.1.1.1:443 is portal.listen already"},
		{"portal: {listen: \"10.1.1.1:443\", name: Ra}\n", "router.yaml:1:40: portal.name: \"Ra\" is no host name"},
		{"portal: {listen: \"10.1.1.1:443\", name: 10.1.1.1}\n", "router.yaml:1:40: portal.name: "},
		{"portal: {captive: true}\n", "router.yaml: portal.listen: it is needed"},
		{"security: {rekey-time: 20s}\n", "router.yaml: security.rekey-grace: 30s is not less"}, // a default, which stands nowhere
	} {
		if _, err := load(t, tt.text); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q:\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

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
		"renewal.warn-users":        {"renewal: {warn-users: 1ms}\n", "renewal.warn-users 1ms"},
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
