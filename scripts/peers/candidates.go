//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"twinkey/scripts/lab"
)

// candidate is one way of joining the two LANs.
type candidate struct {
	name string
	need []string // programs
	up   func(context.Context, *site) error
}

// Names that targets speak of.
const (
	none        = "none"
	ours        = "twinkey " // and a suite
	oursBest    = ours + "aes256-gcm"
	ours3DES    = ours + "3des-cbc-sha1"
	wireGuard   = "wireguard-go"
	openVPN     = "openvpn aes-256-gcm"
	openVPN3DES = "openvpn 3des-sha1"
)

// candidates are all of them, in the order of the table.
func candidates() []candidate {
	cs := []candidate{{name: none, up: upNone}}
	for _, suite := range []string{"aes256-gcm", "chacha20-poly1305", "aes128-gcm", "aes256-cbc-sha256", "3des-cbc-sha1", "null-sha256"} {
		cs = append(cs, candidate{ours + suite, nil, func(ctx context.Context, s *site) error { return upTwinkey(ctx, s, suite) }})
	}
	return append(cs,
		candidate{wireGuard, []string{"wireguard", "wg"}, upWireGuard},
		candidate{openVPN, []string{"openvpn"}, func(ctx context.Context, s *site) error {
			return upOpenVPN(ctx, s, "--data-ciphers AES-256-GCM --cipher AES-256-GCM --sndbuf 0 --rcvbuf 0")
		}},
		candidate{openVPN3DES, []string{"openvpn"}, func(ctx context.Context, s *site) error {
			return upOpenVPN(ctx, s, "--data-ciphers DES-EDE3-CBC --cipher DES-EDE3-CBC --auth SHA1 --providers legacy default")
		}},
		candidate{"tinc", []string{"tincd", "openssl"}, upTinc},
		candidate{"fastd", []string{"fastd"}, upFastd},
		candidate{"nebula", []string{"nebula", "nebula-cert"}, upNebula},
	)
}

// chosen are the candidates whose names begin with one of these, blanks and dashes aside; all of them if there are none.
func chosen(names []string) []candidate {
	bare := strings.NewReplacer(" ", "", "-", "").Replace
	return slices.DeleteFunc(candidates(), func(c candidate) bool {
		return len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(bare(c.name), bare(n)) })
	})
}

// missing is the first program that c needs and that is not there.
func (c candidate) missing() string {
	for _, n := range c.need {
		if _, err := exec.LookPath(n); err != nil {
			return n
		}
	}
	return ""
}

func upNone(ctx context.Context, s *site) error {
	return errors.Join(
		s.sh(ctx, 0, "ip route add %s via %s", lab.SiteB.LAN, lab.SiteB.WAN),
		s.sh(ctx, 1, "ip route add %s via %s", lab.SiteA.LAN, lab.SiteA.WAN))
}

func upTwinkey(ctx context.Context, s *site, suite string) error {
	yaml := fmt.Sprintf("security:\n  suites: [%s]\n  legacy: true\n", suite)
	if err := s.UpWith(ctx, lab.SiteA, lab.SiteB, yaml, yaml); err != nil {
		return err
	}
	s.pids = [2]int{s.Routers[lab.SiteA.Name].PID(), s.Routers[lab.SiteB.Name].PID()}
	return nil
}

func upWireGuard(ctx context.Context, s *site) error {
	dev := func(i int) string { return fmt.Sprintf("wg%d", i) } // each has a control socket by that name
	for i := range 2 {
		if err := s.sh(ctx, i, "umask 077; wg genkey >%[1]s; wg pubkey <%[1]s >%[1]s.pub", s.file(dev(i))); err != nil {
			return err
		}
		if err := s.start(i, "wireguard", "-f", dev(i)); err != nil {
			return err
		}
	}
	if err := s.routes(ctx, dev, 1420); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // for the control sockets
	for i, far := range []lab.Site{lab.SiteB, lab.SiteA} {
		if err := s.sh(ctx, i, "wg set %s listen-port 5182 private-key %s peer $(cat %s.pub) allowed-ips 0.0.0.0/0 endpoint %s:5182", dev(i), s.file(dev(i)), s.file(dev(1-i)), far.WAN); err != nil {
			return err
		}
	}
	return nil
}

func upOpenVPN(ctx context.Context, s *site, ciphers string) error {
	err := s.sh(ctx, 0, `cd %s
openssl ecparam -name prime256v1 -genkey -noout -out ca.key; openssl req -x509 -new -key ca.key -subj /CN=ca -days 3 -out ca.crt
for n in 0 1; do openssl ecparam -name prime256v1 -genkey -noout -out $n.key
openssl req -new -key $n.key -subj /CN=$n | openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 3 -out $n.crt; done`, s.Dir)
	if err != nil {
		return err
	}
	for _, i := range []int{1, 0} {
		args := fmt.Sprintf("--dev tun7 --dev-type tun --proto udp --port 5190 --ca %s --cert %s --key %s %s", s.file("ca.crt"), s.file(fmt.Sprint(i, ".crt")), s.file(fmt.Sprint(i, ".key")), ciphers)
		if i == 1 {
			args += " --ifconfig 10.99.0.2 10.99.0.1 --tls-server --dh none"
		} else {
			args += fmt.Sprintf(" --ifconfig 10.99.0.1 10.99.0.2 --tls-client --remote %s 5190", lab.SiteB.WAN)
		}
		if err := s.start(i, append([]string{"openvpn"}, strings.Fields(args)...)...); err != nil {
			return err
		}
	}
	return s.routes(ctx, named("tun7"), 0)
}

func upTinc(ctx context.Context, s *site) error {
	err := s.sh(ctx, 0, `cd %s
for n in ra rb; do mkdir -p $n/hosts; printf 'Name=%%s\nDevice=/dev/net/tun\nInterface=tinc0\nMode=router\nPrivateKeyFile=%s/%%s/key\n' $n $n >$n/tinc.conf; openssl genrsa -traditional -out $n/key 2048; done
echo ConnectTo=rb >>ra/tinc.conf
printf 'Address=%s\nSubnet=%s\nCipher=aes-256-cbc\nDigest=sha1\n' >ra/hosts/ra; printf 'Address=%s\nSubnet=%s\nCipher=aes-256-cbc\nDigest=sha1\n' >rb/hosts/rb
for n in ra rb; do openssl rsa -in $n/key -RSAPublicKey_out >>$n/hosts/$n; done; cp ra/hosts/ra rb/hosts/; cp rb/hosts/rb ra/hosts/`,
		s.Dir, s.Dir, lab.SiteA.WAN, lab.SiteA.LAN, lab.SiteB.WAN, lab.SiteB.LAN)
	if err != nil {
		return err
	}
	for i, n := range []string{"ra", "rb"} {
		if err := s.start(i, "tincd", "-c", s.file(n), "-D", "--pidfile="+s.file(n+".pid")); err != nil {
			return err
		}
	}
	return s.routes(ctx, named("tinc0"), 0)
}

func upFastd(ctx context.Context, s *site) error {
	var secret, public [2]string
	for i := range 2 {
		out, err := lab.Run(ctx, s.host(i), "fastd", "--generate-key")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if v, ok := strings.CutPrefix(line, "Secret: "); ok {
				secret[i] = strings.TrimSpace(v)
			}
			if v, ok := strings.CutPrefix(line, "Public: "); ok {
				public[i] = strings.TrimSpace(v)
			}
		}
	}
	for _, i := range []int{1, 0} {
		remote := ""
		if i == 0 {
			remote = fmt.Sprintf("remote %s:5300;", lab.SiteB.WAN)
		}
		conf := fmt.Sprintf("mode tun;\nmethod \"salsa2012+umac\";\nmtu 1406;\ninterface \"fst0\";\nsecret %q;\nbind any:5300;\npeer \"p\" { key %q; %s }\n", secret[i], public[1-i], remote)
		path := s.file(fmt.Sprintf("fastd%d", i))
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			return err
		}
		if err := s.start(i, "fastd", "-c", path); err != nil {
			return err
		}
	}
	return s.routes(ctx, named("fst0"), 0)
}

func upNebula(ctx context.Context, s *site) error {
	err := s.sh(ctx, 0, "cd %s; nebula-cert ca -name c; nebula-cert sign -name 0 -ip 10.98.0.1/24 -subnets %s; nebula-cert sign -name 1 -ip 10.98.0.2/24 -subnets %s", s.Dir, lab.SiteA.LAN, lab.SiteB.LAN)
	if err != nil {
		return err
	}
	for i, far := range []lab.Site{lab.SiteB, lab.SiteA} {
		conf := fmt.Sprintf(`pki: {ca: %[1]s/ca.crt, cert: %[1]s/%[2]d.crt, key: %[1]s/%[2]d.key}
static_host_map: {"10.98.0.%[3]d": ["%[4]s:4242"]}
lighthouse: {am_lighthouse: false}
listen: {host: 0.0.0.0, port: 4242}
tun: {dev: neb0, mtu: 1440, unsafe_routes: [{route: %[5]s, via: 10.98.0.%[3]d}]}
firewall: {outbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}], inbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}]}
`, s.Dir, i, 2-i, far.WAN, far.LAN)
		path := s.file(fmt.Sprintf("nebula%d.yml", i))
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			return err
		}
		if err := s.start(i, "nebula", "-config", path); err != nil {
			return err
		}
	}
	return nil
}
