package station

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/directory/client"
	"twinkey/pkg/twincert"
	"twinkey/router/internal/native"
	"twinkey/router/internal/sitemap"
	"twinkey/router/internal/trust"
	"twinkey/router/internal/voluntary"
)

// A router in front that is known by name, one hop away, does not vanish behind a site that is certified for where it is.
func TestTheWayToANamedRouterStaysClear(t *testing.T) {
	at, root := stub(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	_, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Home{Dir: t.TempDir(), Router: net.JoinHostPort("localhost", port), Root: root}, Options{User: "alice", Local: netip.MustParseAddr("127.0.0.1")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.front.Close()
	if got := front(s.home.Router, s.front.Reached()); len(got) != 0 {
		t.Fatalf("before it was asked: %v", got)
	}
	if err := s.front.Logout(t.Context(), make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	found := front(s.home.Router, s.front.Reached())
	peers := []native.Peer{{Name: "rb", Certified: prefixes("127.0.0.0/24", "10.2.0.0/24"), Announced: prefixes("127.0.0.0/24", "10.2.0.0/24")}}
	kept, refused := apart(peers, nil, reaching(found, peers))
	if got := fmt.Sprint(kept[0].Announced); got != "[10.2.0.0/24]" || len(refused) != 1 {
		t.Errorf("kept %s, refused %+v", got, refused)
	}
}

// Who answers in the router's place and is none is not noted: it would keep a site's packets out of the interface.
func TestAStrangerIsNotReached(t *testing.T) {
	at, _ := stub(t, func(http.ResponseWriter, *http.Request) {})
	c := voluntary.NewClient(at, netip.Addr{}, root())
	defer c.Close()
	if err := c.Logout(t.Context(), make([]byte, 32)); !isCode(err, voluntary.CodeRouter) {
		t.Fatalf("a stranger: %v", err)
	}
	if got := c.Reached(); len(got) != 0 {
		t.Errorf("reached %v", got)
	}
}

func TestFront(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		router  string
		reached []netip.Addr
		want    string
	}{
		{"gw.example:8443", nil, "[]"}, {"gw.example:8443", []netip.Addr{b, a}, "[10.1.1.1 2001:db8::1]"},
		{"10.1.1.1:8443", nil, "[10.1.1.1]"}, {"10.1.1.1:8443", []netip.Addr{a}, "[10.1.1.1]"}, {"[2001:db8::1]:8443", []netip.Addr{a}, "[10.1.1.1 2001:db8::1]"},
	} {
		if got := fmt.Sprint(front(tt.router, tt.reached)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.router, got, tt.want)
		}
	}
}

// A single address stands in a network, unless it is the end of a line.
func TestNetworks(t *testing.T) {
	var addrs []net.Addr
	for _, a := range []string{"192.168.7.5/24", "10.128.0.5/32", "2001:db8::5/128", "fe80::1/64"} {
		p := netip.MustParsePrefix(a)
		addrs = append(addrs, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	if got := fmt.Sprint(networks(net.FlagUp|net.FlagBroadcast, addrs)); got != "[192.168.7.0/24 10.128.0.5/32 2001:db8::5/128]" {
		t.Errorf("Ethernet: %s", got)
	}
	if got := fmt.Sprint(networks(net.FlagUp|net.FlagPointToPoint, addrs)); got != "[192.168.7.0/24]" {
		t.Errorf("a tunnel: %s", got)
	}
}

// What no call carries goes nowhere, but for what has to stay clear; what may be called is not in it.
func TestWithheld(t *testing.T) {
	at := netip.MustParseAddrPort("198.51.100.2:1701")
	peers := []native.Peer{
		{Name: "rb", Endpoint: at, Certified: prefixes("10.2.0.0/24", "10.2.1.0/24")},
		{Name: "rc", Certified: prefixes("10.3.0.0/24")},               // cannot be dialled
		{Name: "rd", Endpoint: at, Certified: prefixes("10.4.0.0/24")}, // has ended
	}
	over := []native.Refusal{{Peer: "rd", What: "calls", Reason: "no rule"}}
	around := surroundings{own: prefixes("192.168.7.0/24", "172.16.0.9/32"), clear: prefixes("192.168.7.0/24")}
	for _, tt := range []struct{ certified, want string }{
		{"10.2.0.0/24", "[]"},
		{"10.2.1.0/24 10.2.0.0/24 10.9.0.0/16", "[10.9.0.0/16]"}, // of a site that is not called
		{"10.2.0.0/23", "[]"},
		{"10.2.0.0/22", "[10.2.2.0/23]"}, // in conflict with rb's
		{"10.3.0.0/24 10.4.0.0/24", "[10.3.0.0/24 10.4.0.0/24]"},
		{"192.168.7.0/24 192.168.7.128/25", "[]"},
		{"192.168.4.0/22", "[192.168.4.0/23 192.168.6.0/24]"},               // this machine stands in it
		{"172.16.0.0/24", "[172.16.0.0/24]"},                                // by an address alone
		{"10.1.1.0/30 10.1.1.1/32", "[10.1.1.0/32 10.1.1.2/31]"},            // the router in front is in it
		{"2001:db8::/64 2001:db9::/126", "[2001:db8::/64 2001:db9::2/127]"}, // and by another address
		{"10.9.0.0/16 10.9.0.0/24", "[10.9.0.0/16 10.9.0.0/24]"},
	} {
		certified := make(map[netip.Prefix]bool)
		for _, p := range prefixes(strings.Fields(tt.certified)...) {
			certified[p] = true
		}
		reaching := []netip.Addr{netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("2001:db9::"), netip.MustParseAddr("2001:db9::1")}
		if got := fmt.Sprint(withheld(certified, peers, over, around, reaching)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.certified, got, tt.want)
		}
	}
}

// What a site was certified for is remembered when its router is revoked or leaves the map, and learnt of one whose certificate is over; what
// somebody else has signed is not.
func TestLearn(t *testing.T) {
	now := time.Now()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	issuer := func(name string) *x509.Certificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: now.Add(-3 * time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key))))
	}
	company, stranger := issuer("company"), issuer("stranger")
	serial := int64(1)
	site := func(by *x509.Certificate, name string, ends time.Duration, certified ...string) client.Site {
		serial++
		keys := alice()
		der := must(twincert.Create(rand.Reader, &twincert.Template{Profile: twincert.Paper, Role: twincert.Router, Name: name, Serial: big.NewInt(serial), Prefixes: prefixes(certified...),
			Keys: twincert.Keys{Control: keys.Control.Public, Data: keys.Data.Public}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(ends)}, by, key))
		return client.Site{Name: name, Certificate: der}
	}
	s := &Station{certified: make(map[netip.Prefix]bool)}
	r := &run{s: s, trust: trust.New(time.Hour)}
	r.trust.SetAnchors([]*x509.Certificate{company}, nil)
	r.trust.Heard(now)
	known := func(what, want string) {
		t.Helper()
		believed, _ := sitemap.Believe(now, r.trust, r.sites)
		r.learn(now, believed)
		got := slices.SortedFunc(maps.Keys(s.certified), netip.Prefix.Compare)
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	rb := site(company, "rb", time.Minute, "10.2.0.0/24")
	r.sites = []client.Site{rb, site(stranger, "rx", time.Minute, "10.9.0.0/24")}
	known("a site", "[10.2.0.0/24]")
	r.trust.Revoke(must(twincert.Parse(rb.Certificate)).ID())
	known("revoked", "[10.2.0.0/24]")
	r.sites = []client.Site{site(company, "rc", -time.Hour, "10.3.0.0/24")}
	known("another one, expired", "[10.2.0.0/24 10.3.0.0/24]")
	impostor := site(company, "rd", -time.Hour, "10.4.0.0/24")
	impostor.Name = "re"
	r.sites = []client.Site{impostor}
	known("one under another name", "[10.2.0.0/24 10.3.0.0/24]")
}

// Every address of a prefix is in what is carved of it, once, or in a hole.
func TestCarve(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	whole := netip.MustParsePrefix("10.9.0.0/24")
	for range 200 {
		var holes []netip.Prefix
		for range rng.IntN(5) {
			holes = append(holes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(8 + rng.IntN(2)), 0, byte(rng.IntN(256))}), 22+rng.IntN(11)).Masked())
		}
		left := carve(whole, holes)
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})
			n := 0
			for _, p := range left {
				if p.Contains(a) {
					n++
				}
			}
			if hole := slices.ContainsFunc(holes, func(h netip.Prefix) bool { return h.Contains(a) }); hole && n != 0 || !hole && n != 1 {
				t.Fatalf("%s is in %d of %v; holes %v", a, n, left, holes)
			}
		}
	}
}

func TestCarveEverything(t *testing.T) {
	if got := fmt.Sprint(carve(netip.MustParsePrefix("::/0"), nil), carve(netip.MustParsePrefix("0.0.0.0/0"), prefixes("0.0.0.0/1"))); got != "[::/1 8000::/1] [128.0.0.0/1]" {
		t.Errorf("got %s", got)
	}
}

// Who is named is called, and of the others it is said; without names it is everybody.
func TestNamed(t *testing.T) {
	peers := []native.Peer{{Name: "rb"}, {Name: "rc"}}
	if got, refused := named(peers, nil); len(got) != 2 || len(refused) != 0 {
		t.Errorf("nobody is named: %+v, %+v", got, refused)
	}
	if got, refused := named(peers, []string{"rc", "rx"}); len(got) != 1 || got[0].Name != "rc" || len(refused) != 1 || refused[0].Peer != "rb" {
		t.Errorf("rc is named: %+v, %+v", got, refused)
	}
	if len(peers) != 2 || peers[1].Name != "rc" {
		t.Errorf("what was handed in was changed: %+v", peers)
	}
}

// A machine that changes its network has its routes looked at anew, once the map that they came from is there and believed.
func TestMoved(t *testing.T) {
	now := time.Now()
	home, away := surroundings{own: prefixes("192.168.7.0/24")}, surroundings{own: prefixes("10.2.0.0/24")}
	other := surroundings{own: home.own, front: []netip.Addr{netip.MustParseAddr("10.2.0.1")}}
	routed := surroundings{own: home.own, clear: prefixes("10.7.0.0/16")}
	r := &run{trust: trust.New(time.Minute), sites: []client.Site{{Name: "rb"}}}
	r.trust.Heard(now)
	if r.moved(now, away) {
		t.Error("before there was a map")
	}
	r.around = &home
	if r.moved(now, home) || !r.moved(now, away) || !r.moved(now, other) || !r.moved(now, routed) {
		t.Errorf("stayed %v, moved %v, the router elsewhere %v, another route %v", r.moved(now, home), r.moved(now, away), r.moved(now, other), r.moved(now, routed))
	}
	r.unread = true
	if r.moved(now, away) {
		t.Error("while a newer map waits")
	}
	r.unread = false
	if r.moved(now.Add(2*time.Minute), away) {
		t.Error("while nothing is believed")
	}
}
