//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// candidate is one way of joining the two LANs.
type candidate struct {
	name string
	need []string // programs
	up   func(context.Context, *site) error
}

// site is the laboratory of one candidate and the processes that are its routers.
type site struct {
	*lab.Company
	pids  [2]int
	procs []*exec.Cmd
}

func candidates() []candidate {
	cs := []candidate{{name: "none", up: upNone}}
	for _, s := range []string{"aes256-gcm", "chacha20-poly1305", "aes128-gcm", "aes256-cbc-sha256", "3des-cbc-sha1", "null-sha256"} {
		cs = append(cs, candidate{"twinkey " + s, nil, func(ctx context.Context, s2 *site) error { return upTwinkey(ctx, s2, s) }})
	}
	return append(cs,
		candidate{"wireguard-go", []string{"wireguard", "wg"}, upWireGuard},
		candidate{"openvpn aes-256-gcm", []string{"openvpn"}, func(ctx context.Context, s *site) error {
			return upOpenVPN(ctx, s, "--data-ciphers AES-256-GCM --cipher AES-256-GCM --sndbuf 0 --rcvbuf 0")
		}},
		candidate{"openvpn 3des-sha1", []string{"openvpn"}, func(ctx context.Context, s *site) error {
			return upOpenVPN(ctx, s, "--data-ciphers DES-EDE3-CBC --cipher DES-EDE3-CBC --auth SHA1 --providers legacy default")
		}},
		candidate{"tinc", []string{"tincd", "openssl"}, upTinc},
		candidate{"fastd", []string{"fastd"}, upFastd},
		candidate{"nebula", []string{"nebula", "nebula-cert"}, upNebula},
	)
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

func newSite(ctx context.Context) (*site, error) {
	c, err := lab.New(ctx)
	if err != nil {
		return nil, err
	}
	return &site{Company: c}, nil
}

// close ends the candidate's processes and takes the network away.
func (s *site) close() error {
	for _, p := range s.procs {
		_ = p.Process.Signal(unix.SIGTERM)
	}
	for _, p := range s.procs {
		t := time.AfterFunc(3*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		t.Stop()
	}
	return s.Close()
}

func (s *site) host(i int) *netlab.Host { return []*netlab.Host{s.RA, s.RB}[i] }

// start runs a candidate's router at one end; it is what is measured there.
func (s *site) start(ctx context.Context, i int, argv ...string) error {
	cmd := s.host(i).Command(context.WithoutCancel(ctx), argv[0], argv[1:]...)
	log, err := os.Create(s.file(fmt.Sprintf("router%d.log", i)))
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", argv[0], err)
	}
	s.procs, s.pids[i] = append(s.procs, cmd), cmd.Process.Pid
	return nil
}

func (s *site) file(name string) string { return filepath.Join(s.Dir, name) }

// logs are the last lines of what the routers said.
func (s *site) logs() string {
	var b strings.Builder
	for i := range 2 {
		text, err := os.ReadFile(s.file(fmt.Sprintf("router%d.log", i)))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintln(&b, strings.Join(lines[max(0, len(lines)-6):], "\n"))
	}
	return b.String()
}

func (s *site) sh(ctx context.Context, i int, format string, a ...any) error {
	_, err := lab.Run(ctx, s.host(i), "sh", "-ec", fmt.Sprintf(format, a...))
	return err
}

// routes leads each LAN's packets for the other into an interface, once it is there.
func (s *site) routes(ctx context.Context, dev func(i int) string, up string) error {
	for i, far := range []lab.Site{lab.SiteB, lab.SiteA} {
		if err := s.sh(ctx, i, "for i in $(seq 100); do ip link show %[1]s >/dev/null 2>&1 && break; sleep .1; done; %[2]s ip link set %[1]s up; ip route replace %[3]s dev %[1]s",
			dev(i), strings.ReplaceAll(up, "DEV", dev(i)), far.LAN); err != nil {
			return err
		}
	}
	return nil
}

func named(dev string) func(int) string { return func(int) string { return dev } }

func upNone(ctx context.Context, s *site) error {
	return errors.Join(
		s.sh(ctx, 0, "ip route add %s via %s", lab.SiteB.LAN, lab.SiteB.WAN),
		s.sh(ctx, 1, "ip route add %s via %s", lab.SiteA.LAN, lab.SiteA.WAN))
}

func upTwinkey(ctx context.Context, s *site, suite string) error {
	yaml := fmt.Sprintf("security:\n  suites: [%s]\n  legacy: true\n", suite)
	for _, f := range []func(context.Context) error{
		s.StartCA, s.StartDirectory,
		func(ctx context.Context) error { return s.StartRouter(ctx, lab.SiteA, yaml) },
		func(ctx context.Context) error { return s.StartRouter(ctx, lab.SiteB, yaml) },
		s.WaitLink,
	} {
		if err := f(ctx); err != nil {
			return err
		}
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
		if err := s.start(ctx, i, "wireguard", "-f", dev(i)); err != nil {
			return err
		}
	}
	if err := s.routes(ctx, dev, "ip link set DEV mtu 1420;"); err != nil {
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
		if err := s.start(ctx, i, append([]string{"openvpn"}, strings.Fields(args)...)...); err != nil {
			return err
		}
	}
	return s.routes(ctx, named("tun7"), "")
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
		if err := s.start(ctx, i, "tincd", "-c", s.file(n), "-D", "--pidfile="+s.file(n+".pid")); err != nil {
			return err
		}
	}
	return s.routes(ctx, named("tinc0"), "")
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
		if err := s.start(ctx, i, "fastd", "-c", path); err != nil {
			return err
		}
	}
	return s.routes(ctx, named("fst0"), "")
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
tun: {dev: neb0, mtu: 1300, unsafe_routes: [{route: %[5]s, via: 10.98.0.%[3]d}]}
firewall: {outbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}], inbound: [{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}]}
`, s.Dir, i, 2-i, far.WAN, far.LAN)
		path := s.file(fmt.Sprintf("nebula%d.yml", i))
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			return err
		}
		if err := s.start(ctx, i, "nebula", "-config", path); err != nil {
			return err
		}
	}
	return nil
}
