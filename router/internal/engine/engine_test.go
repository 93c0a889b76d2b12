package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"twinkey/pkg/tun/tuntest"
	"twinkey/pkg/twincert"
	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/proto/ip"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// company is an authority and two engines, ra and rb, over interfaces and a network in memory.
type company struct {
	t      testing.TB
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
	net    *udptest.Network
	listen func(i int) udpio.Conn
	hybrid bool
	policy *policy.Policy        // of both; nil: everything is allowed
	scope  []string              // of both; nil: group:staff
	takes  [2]calls.Capabilities // of ra and rb
	packs  [2]bool               // likewise: data.compression
	closed func(router string, cr native.Credentials)
	// closedGuest is the same for guests
	closedGuest func(router string, end Ending)
	ra, rb      *site
}

type site struct {
	*Engine
	name  string
	dev   *tuntest.Device
	trust *trust.Store
	self  native.Self
	peer  native.Peer
	host  netip.Addr
	done  chan error
	stop  context.CancelFunc

	mu     sync.Mutex
	events []CallEvent
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newCompany(t testing.TB) *company {
	n := udptest.NewNetwork()
	return newCompanyOver(t, n, false, func(i int) udpio.Conn {
		return must(n.Listen(netip.MustParseAddrPort(fmt.Sprintf("198.18.0.%d:1701", i))))
	})
}

// everything is what a router of today takes.
const everything = calls.Bare | calls.Checksums | calls.ImplicitIV | calls.ShortIPv4

// newCompanyOver is a company whose routers listen where listen says.
func newCompanyOver(t testing.TB, n *udptest.Network, hybrid bool, listen func(i int) udpio.Conn) *company {
	return newCompanyThat(t, &company{net: n, hybrid: hybrid, listen: listen, takes: [2]calls.Capabilities{everything, everything}})
}

func newCompanyThat(t testing.TB, c *company) *company {
	c.t, c.key = t, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	c.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, c.key.Public(), c.key))))
	c.serial = 1
	c.ra, c.rb = c.site("ra", 1), c.site("rb", 2)
	for _, s := range []*site{c.ra, c.rb} {
		s.setMap(t, c)
	}
	return c
}

func (c *company) credentials(tmpl twincert.Template) native.Credentials {
	return c.credentialsWith(tmpl, nil)
}

// credentialsWith certifies new data keys, and control keys if none are given.
func (c *company) credentialsWith(tmpl twincert.Template, control *handshake.KeyPair) native.Credentials {
	pair := func() handshake.KeyPair {
		return must(handshake.NewKeyPair(secret.New(must(ecdh.X25519().GenerateKey(rand.Reader)).Bytes())))
	}
	cr := native.Credentials{Control: pair(), Data: pair()}
	if control != nil {
		cr.Control = *control
	}
	c.serial++
	tmpl.Profile, tmpl.Serial, tmpl.Keys = twincert.Paper, big.NewInt(c.serial), twincert.Keys{Control: cr.Control.Public, Data: cr.Data.Public}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(50*time.Minute)
	cr.Certificate = must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, c.ca, c.key))))
	return cr
}

func (c *company) scopes() []string {
	if c.scope == nil {
		return []string{"group:staff"}
	}
	return c.scope
}

// renew gives the site a new twin certificate with new keys.
func (s *site) renew(c *company, certified []netip.Prefix) {
	s.self.Credentials = c.credentials(twincert.Template{Role: twincert.Router, Name: s.name, Scope: c.scopes(), Prefixes: certified})
	s.peer.ID = s.self.Certificate.ID()
}

func (c *company) site(name string, n int) *site {
	announced := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", n))
	certified := []netip.Prefix{announced, netip.MustParsePrefix(fmt.Sprintf("10.%d.1.0/24", n))}
	conn := c.listen(n)
	addr := conn.LocalAddr()
	s := &site{name: name, dev: tuntest.New("tun-"+name, 1400), trust: trust.New(time.Hour), host: announced.Addr().Next(), done: make(chan error, 1)}
	s.trust.SetAnchors([]*x509.Certificate{c.ca}, nil)
	s.trust.Heard(time.Now())
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c.serial++
	tlsDER := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(c.serial), URIs: []*url.URL{must(url.Parse("twinkey://router/" + name))},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(50 * time.Minute), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.ca, key.Public(), c.key))
	s.self.Signer = native.LocalSigner{Router: tlsDER, By: func(d []byte) ([]byte, error) { return twincert.SignLowS(rand.Reader, key, d) }}
	s.renew(c, certified)
	s.peer = native.Peer{Name: name, Endpoint: addr, Announced: []netip.Prefix{announced}, Certified: certified, Scope: c.scopes(), ID: s.self.Certificate.ID()}
	s.Engine = must(New(Config{
		Device: s.dev, Ports: []Port{port(s.dev, conn)}, Trust: s.trust, Log: slog.New(slog.DiscardHandler), Name: name,
		Install: func(_, _ []netip.Prefix) error { return nil }, Record: s.note, Policy: cmp.Or(c.policy, must(policy.New([]policy.Rule{{Groups: []string{policy.Everybody}}}))),
		Closed: func(cr native.Credentials) {
			if c.closed != nil {
				c.closed(name, cr)
			}
		},
		ClosedGuest: func(end Ending) {
			if c.closedGuest != nil {
				c.closedGuest(name, end)
			}
		},
		Native: native.Config{
			Rand: rand.Reader, Suites: []esp.Suite{esp.AES256GCM}, MRU: 1400, Hybrid: c.hybrid, Capabilities: c.takes[n-1], Compression: c.packs[n-1],
			Hello: 15 * time.Second, RekeyTime: 10 * time.Minute, RekeyGrace: 30 * time.Second,
		},
	}))
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.done <- s.Run(ctx) }()
	c.t.Cleanup(func() {
		stop()
		if err := <-s.done; err != nil {
			c.t.Errorf("%s: %v", name, err)
		}
	})
	if err := s.SetSelf(context.Background(), s.self); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// note keeps what the engine records of calls.
func (s *site) note(v CallEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, v)
}

// noted are the records of users' calls.
func (s *site) noted() (out []CallEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.events {
		if v.Call.Kind == calls.User {
			out = append(out, v)
		}
	}
	return out
}

// setMap tells a site of all others.
func (s *site) setMap(t testing.TB, c *company) {
	t.Helper()
	m := Map{Local: s.peer.Announced, Public: true, Wanted: func(string) bool { return true }}
	for _, o := range []*site{c.ra, c.rb} {
		if o != s {
			m.Peers = append(m.Peers, o.peer)
		}
	}
	if err := s.SetMap(context.Background(), m); err != nil {
		t.Fatal(err)
	}
}

// until waits for ok, which asks something that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// calls are the calls that are up at a site.
func (s *site) calls(t testing.TB) []CallStatus {
	t.Helper()
	return must(s.Status(t.Context())).Calls
}

func (c *company) linked() {
	c.t.Helper()
	until(c.t, "the site link at both ends", func() bool { return len(c.ra.calls(c.t)) == 1 && len(c.rb.calls(c.t)) == 1 })
}

// What is withheld goes nowhere, and its sender is told, though not for each packet; what merely has no call waits for one in silence.
func TestWithheld(t *testing.T) {
	c := newCompany(t)
	c.linked()
	m := Map{Local: c.ra.peer.Announced, Public: true, Wanted: func(string) bool { return true }, Peers: []native.Peer{c.rb.peer}, Withheld: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}
	if err := c.ra.SetMap(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	nowhere := netip.MustParseAddr("10.9.1.2")
	sent := packet(c.ra.host, nowhere, "for a site that is not to be had")
	c.ra.inject(t, sent)
	got := c.ra.delivered(t, 5*time.Second)
	if p, err := ip.Parse(got); err != nil || p.Protocol() != ip.ICMP || p.Src() != nowhere || p.Dst() != c.ra.host || !bytes.Equal(p.Payload()[:2], []byte{3, 13}) || !bytes.HasSuffix(got, sent) {
		t.Errorf("the sender hears % x, %v", got, err)
	}
	c.ra.inject(t, packet(c.ra.host, netip.MustParseAddr("10.8.1.2"), "for nobody"))
	for range 20 {
		c.ra.inject(t, sent)
	}
	until(t, "what was sent is counted", func() bool { return c.ra.drops.Withheld.Load() == 21 })
	told := 0
	for c.ra.delivered(t, 50*time.Millisecond) != nil {
		told++
	}
	if st := must(c.ra.Status(t.Context())); told > 10 || st.Drops["withheld"] != 21 || st.Drops["no_call"] != 1 || !slices.Equal(st.Withheld, m.Withheld) {
		t.Errorf("told %d times more: %v, %v", told, st.Drops, st.Withheld)
	}
	crossing := packet(c.ra.host, c.rb.host, "for rb")
	c.ra.inject(t, crossing)
	c.rb.arrives(t, crossing)
}

// packet is an IPv4 packet of protocol 253 (RFC 3692) with a text.
func packet(src, dst netip.Addr, text string) []byte {
	p := make([]byte, 20, 20+len(text))
	n := 20 + len(text)
	p[0], p[2], p[3], p[8], p[9] = 0x45, byte(n>>8), byte(n), 64, 253
	copy(p[12:], src.AsSlice())
	copy(p[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[10:], ip.Checksum(ip.Sum(0, p)))
	return append(p, text...)
}

// inject puts a packet where the kernel of a site would have routed it.
func (s *site) inject(t testing.TB, p []byte) {
	t.Helper()
	if err := s.dev.Inject(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// delivered waits for one packet that a site delivers to its LAN; nil: there is none.
func (s *site) delivered(t testing.TB, wait time.Duration) []byte {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	got, _ := s.dev.Delivered(ctx)
	return got
}

func (s *site) arrives(t testing.TB, want []byte) {
	t.Helper()
	if got := s.delivered(t, 5*time.Second); !bytes.Equal(got, want) {
		t.Fatalf("%s delivered %q, want %q: %v", s.name, got, want, must(s.Status(t.Context())).Drops)
	}
}

func (s *site) nothingArrives(t testing.TB) {
	t.Helper()
	if got := s.delivered(t, 100*time.Millisecond); got != nil {
		t.Errorf("%s delivered %q", s.name, got)
	}
}

func TestPacketsCrossBothWays(t *testing.T) {
	c := newCompany(t)
	c.linked()
	for i := range 50 {
		there := packet(c.ra.host, c.rb.host, fmt.Sprint("there ", i))
		c.ra.inject(t, there)
		c.rb.arrives(t, there)
		back := packet(c.rb.host, c.ra.host, fmt.Sprint("back ", i))
		c.rb.inject(t, back)
		c.ra.arrives(t, back)
	}
}

// Addresses that are not bound to the call neither enter nor leave it, nor does what is
// addressed to somebody who is not behind it.
func TestForeignAddressesDoNotCross(t *testing.T) {
	c := newCompany(t)
	c.linked()
	foreign := netip.MustParseAddr("10.9.9.9")
	c.ra.inject(t, packet(foreign, c.rb.host, "foreign source"))
	c.ra.inject(t, packet(c.ra.host, netip.MustParseAddr("10.2.1.9"), "certified, not bridged"))
	c.ra.inject(t, []byte("no packet at all"))
	c.rb.nothingArrives(t)
	if n := c.ra.calls(t)[0].Active.Call.ForeignSource.Load(); n != 1 {
		t.Errorf("%d foreign sources counted", n)
	}
	d := must(c.ra.Status(t.Context())).Drops
	if d["no_call"] != 1 || d["bad_packet"] != 1 {
		t.Errorf("drops: %v", d)
	}
}

// The far end believes no peer that lets a foreign source into a call, be it the link of the sites or a user's: what it delivers it has
// held against the call's addresses itself.
func TestTheFarEndDropsForeignSources(t *testing.T) {
	c := newCompany(t)
	c.linked()
	alice := c.alice("staff")
	hers, err := c.ra.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "alice's call at rb", func() bool { return len(c.rb.calls(t)) == 2 })
	at := func(s *site, k calls.Kind) *calls.Call {
		for _, x := range s.calls(t) {
			if x.Active.Call.Kind == k {
				return x.Active.Call
			}
		}
		t.Fatalf("%s has no call of kind %v", s.name, k)
		return nil
	}
	link := at(c.ra, calls.SiteLink)
	if hers != at(c.ra, calls.User) {
		t.Fatal("another call than alice's")
	}
	bob := netip.MustParseAddr("10.1.1.4") // ra is certified for the address, but nobody is logged in there

	// ra no longer looks: its link takes everything, and rb no longer expects alice at her address.
	b := *link.Bounds()
	b.Local = append(slices.Clone(b.Local), netip.MustParsePrefix("0.0.0.0/0"))
	link.SetBounds(b)
	atRB := at(c.rb, calls.User)
	b = *atRB.Bounds()
	b.Remote = []netip.Prefix{netip.PrefixFrom(bob, 32)}
	atRB.SetBounds(b)

	for _, src := range []netip.Addr{bob, netip.MustParseAddr("10.9.9.9"), c.rb.host, alice.Address} {
		c.ra.inject(t, packet(src, c.rb.host, "foreign"))
	}
	c.rb.nothingArrives(t)
	if sent := link.TxPackets.Load(); sent != 3 {
		t.Errorf("%d packets left over the link", sent)
	}
	if n := at(c.rb, calls.SiteLink).ForeignSource.Load(); n != 3 {
		t.Errorf("%d foreign sources counted on the link", n)
	}
	if n := atRB.ForeignSource.Load(); n != 1 || hers.TxPackets.Load() != 1 {
		t.Errorf("%d of %d foreign sources counted in alice's call", n, hers.TxPackets.Load())
	}
}

// A renewed certificate at either end: the link is made anew beside the old one, and no
// packet of a steady stream is lost.
func TestRenewalIsMakeBeforeBreak(t *testing.T) {
	c := newCompany(t)
	c.linked()
	first := c.ra.calls(t)[0].Active.Call.ID
	sent, got := 0, 0
	step := func() {
		p := packet(c.ra.host, c.rb.host, fmt.Sprint(sent))
		c.ra.inject(t, p)
		sent++
		c.rb.arrives(t, p)
		got++
	}
	step()
	c.ra.renew(c, c.ra.peer.Certified)
	if err := c.ra.SetSelf(t.Context(), c.ra.self); err != nil {
		t.Fatal(err)
	}
	c.rb.setMap(t, c)
	until(t, "another call in the place of the old one", func() bool {
		step()
		cs := c.ra.calls(t)
		return len(cs) == 1 && cs[0].Active.Call.ID != first
	})
	second := c.ra.calls(t)[0].Active.Call.ID
	c.rb.renew(c, c.rb.peer.Certified)
	if err := c.rb.SetSelf(t.Context(), c.rb.self); err != nil {
		t.Fatal(err)
	}
	c.ra.setMap(t, c)
	until(t, "another call after the far end was renewed", func() bool {
		step()
		cs := c.ra.calls(t)
		return len(cs) == 1 && cs[0].Active.Call.ID != second
	})
	if sent != got {
		t.Errorf("%d of %d packets arrived", got, sent)
	}
}

func TestLoginAndLogout(t *testing.T) {
	c := newCompany(t)
	c.linked()
	alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"}), Address: netip.MustParseAddr("10.1.1.3")}
	call, err := c.ra.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "alice's call at rb", func() bool { return len(c.rb.calls(t)) == 2 })
	p := packet(alice.Address, c.rb.host, "alice")
	c.ra.inject(t, p)
	c.rb.arrives(t, p)
	back := packet(c.rb.host, alice.Address, "to alice")
	c.rb.inject(t, back)
	c.ra.arrives(t, back)
	if call.TxPackets.Load() != 1 || call.RxPackets.Load() != 1 {
		t.Errorf("alice's call carried %d and %d packets", call.TxPackets.Load(), call.RxPackets.Load())
	}
	if _, err := c.ra.Login(t.Context(), alice); err == nil {
		t.Error("alice is logged in twice")
	}
	if ended, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil || len(ended) != 1 {
		t.Fatalf("ended %v: %v", ended, err)
	}
	until(t, "the end of alice's call at rb", func() bool { return len(c.rb.calls(t)) == 1 })
	c.ra.inject(t, packet(alice.Address, c.rb.host, "nobody"))
	c.rb.nothingArrives(t)
	if !bytes.Equal(alice.Cred.Data.Private.Bytes(), make([]byte, 32)) {
		t.Error("her private key was not wiped")
	}
}

// What the calls of the users who logged in here have carried is recorded between their beginning and their end, and
// nothing of other calls.
func TestInterim(t *testing.T) {
	c := newCompany(t)
	c.linked()
	alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"}), Address: netip.MustParseAddr("10.1.1.3")}
	call, err := c.ra.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "alice's call at rb", func() bool { return len(c.rb.noted()) == 1 })
	for _, s := range []*site{c.ra, c.rb} {
		if err := s.Interim(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
		t.Fatal(err)
	}
	if err := c.ra.Interim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.ra.noted(); len(got) != 3 || !got[0].Up || got[0].Still || !got[1].Still || got[1].Up || got[2].Up || got[2].Still || got[2].Cause != calls.Logout || got[1].Call != call {
		t.Errorf("at ra: %+v", got)
	}
	until(t, "the end of alice's call at rb", func() bool { return len(c.rb.noted()) == 2 })
	if got := c.rb.noted(); got[1].Still {
		t.Errorf("at rb, where she did not log in: %+v", got)
	}
}

// A router that stops tells its peer, at once.
func TestStopIsTold(t *testing.T) {
	c := newCompany(t)
	c.linked()
	c.rb.stop()
	until(t, "the end of the call at ra", func() bool { return len(c.ra.calls(t)) == 0 })
	if l := must(c.ra.Status(t.Context())).Links; len(l) != 1 || l[0].State == links.Up {
		t.Errorf("links: %+v", l)
	}
}

func TestOverlappingPrefixesAreRefused(t *testing.T) {
	local := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
	peer := func(name string, ps ...string) native.Peer {
		p := native.Peer{Name: name}
		for _, s := range ps {
			p.Certified = append(p.Certified, netip.MustParsePrefix(s))
		}
		p.Announced = p.Certified
		return p
	}
	kept, refused := Disjoint(local, []native.Peer{peer("rc", "10.3.0.0/16"), peer("rb", "10.2.0.0/24", "10.1.0.0/16", "10.3.7.0/24")})
	if len(kept) != 2 || kept[0].Name != "rb" || len(kept[0].Announced) != 2 || len(kept[1].Announced) != 0 {
		t.Errorf("kept %+v", kept)
	}
	if len(refused) != 2 || refused[0].What != "10.1.0.0/16" || refused[1].What != "10.3.0.0/16" {
		t.Errorf("refused %+v", refused)
	}
}
