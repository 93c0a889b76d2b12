package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"twinkey/pkg/config"
	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/router/internal/policy"
)

// File is the configuration file as it is written.
type File struct {
	State     string `yaml:"state" doc:"Directory that holds this box's keys and certificates (identity/) and its control socket." default:"/var/lib/twinkey-router"`
	Listen    string `yaml:"listen" doc:"UDP address for tunnels." default:"0.0.0.0:1701"`
	Public    string `yaml:"public" doc:"Address and port at which peers reach this box; empty: nobody can dial it, it dials." example:"198.51.100.1:1701"`
	Directory string `yaml:"directory" doc:"URL of the directory; empty: the one that enrolment told." example:"https://hq.example:8702"`
	CA        string `yaml:"ca" doc:"URL of the CA; empty: the one that enrolment used." example:"https://hq.example:8700"`

	Tun       Tun       `yaml:"tun" doc:"The interface that carries private packets."`
	Lan       Lan       `yaml:"lan" doc:"The interfaces that have an address within site.prefixes."`
	Data      Data      `yaml:"data" doc:"How packets travel in calls."`
	Site      Site      `yaml:"site" doc:"What this box bridges."`
	Security  Security  `yaml:"security" doc:"Suites, rekeying and what happens when nothing is heard of revocations."`
	Keepalive Keepalive `yaml:"keepalive" doc:"How silence is noticed."`
	Renewal   Renewal   `yaml:"renewal" doc:"When certificates are renewed."`
	Clients   Clients   `yaml:"clients" doc:"Users' own machines that encrypt by themselves (twinkey-router client login)."`
	Portal    Portal    `yaml:"portal" doc:"Where users log in with a browser."`

	Accounting Accounting `yaml:"accounting" doc:"What is told of calls that are up."`

	Policy []policy.Rule `yaml:"policy" doc:"What users may do in their calls, here and from here. A user whose group no rule names gets no call."`
}

// maxQueues is what the kernel lets a TUN interface have.
const maxQueues = 256

// Tun is the part of File on the interface.
type Tun struct {
	Name   string `yaml:"name" doc:"Name of the interface." default:"twinkey0"`
	Device string `yaml:"device" doc:"How packets are exchanged with the kernel: offload (whole trains of segments), water (one by one), or auto: offload where the kernel has it." default:"auto"`
	Queues int    `yaml:"queues" doc:"Queues of the interface and sockets, each with a thread of its own; 0: one for each core." default:"0"`
	MTU    int    `yaml:"mtu" doc:"Largest private packet in bytes; 0: what fits a path of 1500 bytes with any of the suites that are allowed." default:"0"`
}

// Data is the part of File on how packets travel in calls.
type Data struct {
	Headers     string `yaml:"headers" doc:"compact: leave out where the peer agrees what its end can tell by itself, inner UDP, L2TP and PPP headers, IV, 5 bytes of IPv4, 29 bytes less a packet or 37; full: send and take them always, for captures that tools can read." default:"compact"`
	Compression string `yaml:"compression" doc:"lz4: each packet is compressed by itself where the peer offers the same and it pays; off. Whoever can have chosen text sent beside a secret, and sees the lengths of packets, can learn of the secret." default:"off"`
}

// Lan is the part of File on the other side of the box.
type Lan struct {
	Offload bool `yaml:"offload" doc:"Have these interfaces join UDP datagrams that they receive into trains, as they do with TCP (rx-udp-gro-forwarding) while the router runs." default:"true"`
}

// Site is the part of File on prefixes and links.
type Site struct {
	Prefixes []string `yaml:"prefixes" doc:"Private prefixes that are bridged to the other sites over site links. Each must lie within one that this box's certificate covers." example:"[10.1.0.0/24]"`
	Links    string   `yaml:"links" doc:"When site links are opened: start, or demand (the first packet opens them)." default:"start"`
	Peers    []string `yaml:"peers" doc:"Names of the routers to keep site links with; empty: every router in the site map." example:"[rb, rc]"`
}

// Security is the part of File on suites and limits.
type Security struct {
	Suites       []string      `yaml:"suites" doc:"Suites to offer, best first; the end that is dialled chooses from what both allow. Known: aes256-gcm, chacha20-poly1305, aes128-gcm, aes256-cbc-sha256; legacy: 3des-cbc-sha1, null-sha256." default:"[aes256-gcm, chacha20-poly1305, aes128-gcm, aes256-cbc-sha256]"`
	Legacy       bool          `yaml:"legacy" doc:"Must be true before a legacy suite is accepted in suites." default:"false"`
	PostQuantum  bool          `yaml:"post-quantum" doc:"Offer ML-KEM-768 beside X25519 in every handshake." default:"true"`
	RekeyTime    time.Duration `yaml:"rekey-time" doc:"A security association is replaced when it is this old." default:"1h"`
	RekeyBytes   uint64        `yaml:"rekey-bytes" doc:"... or has carried this many bytes; 0: the suite's own limit." default:"0"`
	RekeyPackets uint64        `yaml:"rekey-packets" doc:"... or this many packets; 0: the suite's own limit." default:"0"`
	RekeyGrace   time.Duration `yaml:"rekey-grace" doc:"How long a replaced association still opens packets that were under way." default:"30s"`
	Staleness    time.Duration `yaml:"staleness" doc:"New calls are refused when the directory was silent for longer than this and no current CRL is held; calls that are up go on. While the directory is away the CRL is fetched from the CA." default:"15m"`
}

// Keepalive is the part of File on silence.
type Keepalive struct {
	Hello time.Duration `yaml:"hello" doc:"L2TP HELLO after this much silence of the peer." default:"15s"`
	NAT   time.Duration `yaml:"nat" doc:"A one-byte datagram after this much silence of our own, so that a NAT keeps its mapping; 0: never." default:"20s"`
	Echo  time.Duration `yaml:"echo" doc:"LCP Echo-Request in a call after this much silence; 0: never." default:"30s"`
}

// Renewal is the part of File on certificates.
type Renewal struct {
	At   float64       `yaml:"at" doc:"Fraction of a certificate's life after which it is renewed." default:"0.66"`
	Warn time.Duration `yaml:"warn" doc:"Warn when a certificate (also the CA's) lives for less than this." default:"240h"`
	// Users is for certificates of users who are logged in: the CA renews them by itself, if it does, long before.
	Users time.Duration `yaml:"warn-users" doc:"Warn when the certificate of a user who is logged in lives for less than this and cannot be renewed; 0: the last tenth of its life, a day at the most." default:"0"`
}

// Clients is the part of File on users' own machines.
type Clients struct {
	Listen netip.AddrPort `yaml:"listen" doc:"Address and port of the LAN, TCP, where users' own machines log in; empty: they cannot." example:"10.1.1.1:8443"`
	Vouch  time.Duration  `yaml:"vouch" doc:"How long this router's word for a client's tunnel is good at the far end. The client asks again before; who was logged out here loses the tunnel then at the latest." default:"1h"`
}

// Portal is the part of File on the users' web page. Without listen there is none.
type Portal struct {
	Listen  string `yaml:"listen" doc:"Address of this box on its LAN, and port, for HTTPS; users reach it from the addresses that they log in from. It must lie within a prefix that this box's certificate covers. Empty: no portal." example:"10.1.1.1:443"`
	HTTP    string `yaml:"http" doc:"The same for plain HTTP: whatever is asked there, browsers are sent on to the portal; empty: nowhere." example:"10.1.1.1:80"`
	Name    string `yaml:"name" doc:"What the portal is called, beside its address: the router's name, or that within portal-domain of the CA's configuration; the LAN's DNS must know it. Empty: its address alone." example:"ra.portal.example"`
	Company string `yaml:"company" doc:"Company that the page shows." example:"Example Ltd"`
	Captive bool   `yaml:"captive" doc:"Answer machines that ask whether they are captive (RFC 8908), at /captive." default:"false"`
}

// Accounting is the part of File on what is told of calls.
type Accounting struct {
	Interim time.Duration `yaml:"interim" doc:"How often the directory is told what users' calls have carried so far, for the sources that keep accounts (RADIUS)." default:"5m"`
}

// Settings is a checked File.
type Settings struct {
	File
	PortalListen, PortalHTTP netip.AddrPort // invalid where the file names none
	Listen, Public           netip.AddrPort // Public is invalid where the file names none
	Prefixes                 []netip.Prefix
	Suites                   []esp.Suite
	Policy                   *policy.Policy
}

// ErrLegacy says that a legacy suite is listed and legacy is not switched on.
var ErrLegacy = errors.New("legacy suite")

// Load reads and checks the file at path.
func Load(path string) (*Settings, error) {
	var s *Settings
	_, err := config.Load(path, func(f File) (err error) {
		s, err = f.Check()
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Default is what an empty file says.
func Default() (*Settings, error) {
	f, err := config.Parse[File]("defaults", nil)
	if err != nil {
		return nil, err
	}
	return f.Check()
}

// wrong is what a check says of the value of a key; config.Load adds where it stands.
func wrong(key, format string, args ...any) error {
	return config.Wrong(key, fmt.Errorf(format, args...))
}

// Check turns what was written into what may be used. It fails with a *config.Error.
func (f File) Check() (*Settings, error) {
	s := &Settings{File: f}
	var err error
	if s.Listen, err = netip.ParseAddrPort(f.Listen); err != nil {
		return nil, wrong("listen", "%w (write an address and a port, such as 0.0.0.0:1701)", err)
	}
	if f.Public != "" {
		if s.Public, err = netip.ParseAddrPort(f.Public); err != nil {
			return nil, wrong("public", "%w (write an address and a port, such as 198.51.100.1:1701)", err)
		}
		if s.Public.Addr().IsUnspecified() || s.Public.Port() == 0 {
			return nil, wrong("public", "nobody can dial %s: an address and a port are needed, such as 198.51.100.1:1701", s.Public)
		}
	}
	if c := f.Clients.Listen; c.IsValid() && c.Port() == 0 {
		return nil, wrong("clients.listen", "nobody finds %s: a port is needed, such as 10.1.1.1:8443", c)
	}
	for key, raw := range map[string]string{"directory": f.Directory, "ca": f.CA} {
		if raw != "" && !strings.HasPrefix(raw, "https://") {
			return nil, wrong(key, "%q is no https:// URL", raw)
		}
	}
	if err := s.checkSite(); err != nil {
		return nil, err
	}
	if err := s.checkSuites(); err != nil {
		return nil, err
	}
	if err := s.checkRanges(); err != nil {
		return nil, err
	}
	if err := s.checkPortal(); err != nil {
		return nil, err
	}
	if s.Policy, err = policy.New(f.Policy); err != nil {
		if e, ok := errors.AsType[*policy.FieldError](err); ok {
			return nil, wrong(fmt.Sprintf("policy[%d].%s", e.Rule, e.Field), "%w", e.Err)
		}
		return nil, wrong("policy", "%w", err)
	}
	return s, nil
}

func (s *Settings) checkSite() error {
	for i, p := range s.Site.Prefixes {
		key := fmt.Sprintf("site.prefixes[%d]", i)
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return config.Wrong(key, err)
		}
		if prefix != prefix.Masked() {
			return wrong(key, "%s has host bits set: did you mean %s?", prefix, prefix.Masked())
		}
		if j := slices.IndexFunc(s.Prefixes, prefix.Overlaps); j >= 0 {
			return wrong(key, "%s overlaps %s", prefix, s.Prefixes[j])
		}
		s.Prefixes = append(s.Prefixes, prefix)
	}
	if d := s.Tun.Device; d != "auto" && d != "offload" && d != "water" {
		return wrong("tun.device", "%q is none of auto, offload, water", d)
	}
	if h := s.Data.Headers; h != "compact" && h != "full" {
		return wrong("data.headers", "%q is neither compact nor full", h)
	}
	if c := s.Data.Compression; c != "off" && c != "lz4" {
		return wrong("data.compression", "%q is neither off nor lz4", c)
	}
	if s.Tun.Queues < 0 || s.Tun.Queues > maxQueues {
		return wrong("tun.queues", "%d is not between 0 and %d", s.Tun.Queues, maxQueues)
	}
	if s.Site.Links != "start" && s.Site.Links != "demand" {
		return wrong("site.links", "%q is neither start nor demand", s.Site.Links)
	}
	for i, name := range s.Site.Peers {
		if err := twincert.CheckName(name); err != nil {
			return wrong(fmt.Sprintf("site.peers[%d]", i), "%q: %w", name, err)
		}
	}
	return nil
}

func (s *Settings) checkSuites() error {
	if len(s.Security.Suites) == 0 {
		return wrong("security.suites", "at least one suite is needed")
	}
	for i, name := range s.Security.Suites {
		key := fmt.Sprintf("security.suites[%d]", i)
		suite, err := esp.ParseSuite(name)
		if err != nil {
			return config.Wrong(key, err)
		}
		if suite.Legacy() && !s.Security.Legacy {
			return wrong(key, "%w %s: set security.legacy to true if you accept what it lacks", ErrLegacy, suite)
		}
		if slices.Contains(s.Suites, suite) {
			return wrong(key, "%s is listed twice", suite)
		}
		s.Suites = append(s.Suites, suite)
	}
	return nil
}

// Limits of the file. An IPv6 interface needs 1280 bytes (RFC 8200 section 5), the kernel
// takes interface names of 15.
const (
	minMTU, minMTU6, maxMTU = 576, 1280, 9000
	maxName                 = 15
	// A call that is not told of for a day counts as lost; RFC 2869 5.16 wants no interims more often than once a minute.
	minInterim, maxInterim = time.Minute, time.Hour
)

func (s *Settings) checkRanges() error {
	six := slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() })
	switch mtu := s.Tun.MTU; {
	case mtu != 0 && (mtu < minMTU || mtu > maxMTU):
		return wrong("tun.mtu", "%d is not between %d and %d", mtu, minMTU, maxMTU)
	case mtu != 0 && six && mtu < minMTU6:
		return wrong("tun.mtu", "%d is less than the %d that IPv6 needs", mtu, minMTU6)
	case s.Tun.Name == "" || len(s.Tun.Name) > maxName:
		return wrong("tun.name", "%q has not 1 to %d bytes", s.Tun.Name, maxName)
	case !(s.Renewal.At > 0 && s.Renewal.At < 1): // so also not a number
		return wrong("renewal.at", "%v is not between 0 and 1", s.Renewal.At)
	}
	return s.checkTimes()
}

func (s *Settings) checkTimes() error {
	for _, d := range []struct {
		key     string
		is, min time.Duration
		zeroToo bool
	}{
		{"security.rekey-time", s.Security.RekeyTime, 10 * time.Second, false},
		{"security.rekey-grace", s.Security.RekeyGrace, time.Second, false},
		{"security.staleness", s.Security.Staleness, time.Second, false},
		{"keepalive.hello", s.Keepalive.Hello, time.Second, false},
		{"keepalive.nat", s.Keepalive.NAT, time.Second, true},
		{"keepalive.echo", s.Keepalive.Echo, time.Second, true},
		{"renewal.warn", s.Renewal.Warn, time.Second, true},
		{"clients.vouch", s.Clients.Vouch, 4 * time.Second, false},
		{"renewal.warn-users", s.Renewal.Users, time.Second, true},
	} {
		if d.is < d.min && (!d.zeroToo || d.is != 0) {
			return wrong(d.key, "%s is less than %s", d.is, d.min)
		}
	}
	if i := s.Accounting.Interim; i < minInterim || i > maxInterim {
		return wrong("accounting.interim", "%s is not between %s and %s", i, minInterim, maxInterim)
	}
	if s.Security.RekeyGrace >= s.Security.RekeyTime {
		return wrong("security.rekey-grace", "%s is not less than rekey-time (%s)", s.Security.RekeyGrace, s.Security.RekeyTime)
	}
	return nil
}

// checkPortal reads where the portal is.
func (s *Settings) checkPortal() error {
	p := s.Portal
	if p.Listen == "" {
		if p != (Portal{}) {
			return wrong("portal.listen", "it is needed for a portal: an address of this box on its LAN, and a port, such as 10.1.1.1:443")
		}
		return nil
	}
	for _, x := range []struct {
		key, raw string
		to       *netip.AddrPort
	}{{"portal.listen", p.Listen, &s.PortalListen}, {"portal.http", p.HTTP, &s.PortalHTTP}} {
		if x.raw == "" {
			continue
		}
		a, err := netip.ParseAddrPort(x.raw)
		if err != nil {
			return wrong(x.key, "%w (write an address and a port, such as 10.1.1.1:443)", err)
		}
		if a.Addr().IsUnspecified() || a.Port() == 0 || a.Addr().Is4In6() || a.Addr().Zone() != "" {
			return wrong(x.key, "%s is not one address and port: write that of this box on its LAN, such as 10.1.1.1:443", a)
		}
		*x.to = a
	}
	if s.PortalHTTP == s.PortalListen {
		return wrong("portal.http", "%s is portal.listen already", s.PortalHTTP)
	}
	if p.Name != "" && !hostName(p.Name) {
		return wrong("portal.name", "%q is no host name in lower case, such as ra.portal.example", p.Name)
	}
	if len(p.Company) > maxCompany {
		return wrong("portal.company", "it has more than %d bytes", maxCompany)
	}
	return nil
}

// maxCompany is what still looks well at the top of a phone's screen.
const maxCompany = 200

// hostName says whether s is a DNS name as hosts have it (RFC 1123 section 2.1), and not an address.
func hostName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// PortalFile is where the portal's key and certificate are.
func (s *Settings) PortalFile() string { return filepath.Join(s.State, "portal.pem") }

// IdentityDir is where the box's keys and certificates are.
func (s *Settings) IdentityDir() string { return filepath.Join(s.State, "identity") }

// Socket is the router's control socket.
func (s *Settings) Socket() string { return filepath.Join(s.State, "control.sock") }

// WantsPeer says whether a site link to the router called name is wanted.
func (s *Settings) WantsPeer(name string) bool {
	return len(s.Site.Peers) == 0 || slices.Contains(s.Site.Peers, name)
}

// ErrRestart says that a change takes effect only when the router starts anew.
var ErrRestart = errors.New("this change needs a restart")

// Reloadable says whether a running router can go over from one configuration to
// another: what sockets, interface and handshakes were made with cannot change.
func Reloadable(old, now *Settings) error {
	fixed := []struct {
		key  string
		same bool
	}{
		{"state", old.State == now.State},
		{"listen", old.Listen == now.Listen},
		{"directory", old.Directory == now.Directory},
		{"ca", old.CA == now.CA},
		{"tun", old.Tun == now.Tun},
		{"data", old.Data == now.Data},
		{"lan", old.Lan == now.Lan},
		{"security.suites", slices.Equal(old.Suites, now.Suites)},
		{"security.post-quantum", old.Security.PostQuantum == now.Security.PostQuantum},
		{"security.rekey-time", old.Security.RekeyTime == now.Security.RekeyTime},
		{"security.rekey-bytes", old.Security.RekeyBytes == now.Security.RekeyBytes},
		{"security.rekey-packets", old.Security.RekeyPackets == now.Security.RekeyPackets},
		{"security.rekey-grace", old.Security.RekeyGrace == now.Security.RekeyGrace},
		{"keepalive", old.Keepalive == now.Keepalive},
		{"clients.listen", old.Clients.Listen == now.Clients.Listen},
		{"portal", old.Portal == now.Portal},
	}
	for _, f := range fixed {
		if !f.same {
			return fmt.Errorf("%s: %w", f.key, ErrRestart)
		}
	}
	return nil
}
