package native_test

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// texts are all packets that a box got, in any call.
func (b *box) texts() (all []string) {
	for _, ts := range b.got {
		all = append(all, ts...)
	}
	slices.Sort(all)
	return all
}

func TestSiteLinkCarriesPacketsBothWays(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	out := w.link(a, b)
	in := b.up(links.Key{Peer: "ra"})
	if in == nil {
		t.Fatal("the call is not up at the terminator")
	}
	a.say(out, "hello b")
	b.say(in, "hello a")
	w.settle()
	if got := b.texts(); len(got) != 1 || got[0] != "hello b" {
		t.Errorf("rb got %q", got)
	}
	if got := a.texts(); len(got) != 1 || got[0] != "hello a" {
		t.Errorf("ra got %q", got)
	}
	if up := find[native.TunnelUp](a)[0]; !up.PostQuantum || up.Suite != esp.AES256GCM || up.Peer != "rb" {
		t.Errorf("tunnel %+v", up)
	}
	if in.Peer != "ra" || in.PeerCert != a.self.Certificate.ID() || out.PeerCert != b.self.Certificate.ID() {
		t.Errorf("certificates of the call: %v at ra, %v at rb", out.PeerCert, in.PeerCert)
	}
}

// The paper, section 2 step 4: same control key and same destination as a tunnel that is
// up: no new tunnel, another call, with keys of its own.
func TestUsersOfAGroupShareATunnelAndNoKeys(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.link(a, b)
	group := newPair()
	alice, bob := w.user("alice", "staff", group), w.user("bob", "staff", group)
	ca := w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: alice, Address: netip.MustParseAddr("10.1.1.3")})
	cb := w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: bob, Address: netip.MustParseAddr("10.1.1.4")})
	if n := len(find[native.TunnelUp](a)); n != 2 {
		t.Errorf("%d tunnels, want one for the site link and one for the group", n)
	}
	if ca.LocalTunnel != cb.LocalTunnel || ca.LocalSession == cb.LocalSession || ca.Out().SA.SPI() == cb.Out().SA.SPI() {
		t.Errorf("alice %d/%d, bob %d/%d", ca.LocalTunnel, ca.LocalSession, cb.LocalTunnel, cb.LocalSession)
	}

	// Alice's certificate is revoked: her call ends at both ends, bob's and the site link go on.
	for _, x := range []*box{a, b} {
		x.trust.Revoke(alice.Certificate.ID())
		x.e.Revoked(w.now, alice.Certificate.ID())
	}
	w.settle()
	for _, x := range []*box{a, b} {
		downs := find[native.CallDown](x)
		if len(downs) != 1 || downs[0].Key.User != "alice" || !downs[0].Final {
			t.Errorf("%s: calls down: %+v", x.name, downs)
		}
	}
	if ca.Out() != nil {
		t.Error("alice's call still seals")
	}
	b.got = map[uint64][]string{}
	a.say(cb, "bob is here")
	w.settle()
	if got := b.texts(); len(got) != 1 {
		t.Errorf("bob's packet: %q", got)
	}
	again := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: alice, Address: netip.MustParseAddr("10.1.1.3")}
	if err := a.e.PlaceCall(w.now, again); !errors.Is(err, twincert.ErrRevoked) {
		t.Errorf("alice calls again with a revoked certificate: %v", err)
	}
	a.trust = trust.New(time.Hour) // a router that has not heard of it
	a.trust.SetAnchors([]*x509.Certificate{w.root}, []*x509.Certificate{w.issuer})
	a.trust.Heard(w.now)
	a.start(nil)
	if err := a.e.PlaceCall(w.now, again); err != nil {
		t.Error(err)
	}
	w.settle()
	w.pass(2 * time.Second)
	if c := a.up(again.Key); c != nil || len(find[native.Refused](b)) == 0 {
		t.Errorf("alice's call is up again: %v, %+v", c, b.events)
	}
}

// A user who has made the keys on a machine of their own has a control key of their own: their tunnel is theirs alone.
// What their group says, by its name in the certificate, goes for them as for the others.
func TestUserWithKeysOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	group := newPair()
	bob := w.user("bob", "staff", group)
	alice := w.user("alice", "staff", newPair())
	cb := w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: bob, Address: netip.MustParseAddr("10.1.1.4")})
	ca := w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: alice, Address: netip.MustParseAddr("10.1.1.3")})
	if ca.LocalTunnel == cb.LocalTunnel {
		t.Error("she shares a tunnel with users whose control key is another")
	}
	for _, tun := range b.e.Tunnels() {
		if tun.Calls != 1 || tun.Group != "staff" {
			t.Errorf("tunnel of %s, group %q, %d calls", tun.Certificate, tun.Group, tun.Calls)
		}
	}
	// Policy and scope know her by her group.
	b.policy = must(policy.New([]policy.Rule{{Groups: []string{"sales"}}}))
	b.e.PolicyChanged(w.now)
	w.settle()
	if downs := find[native.CallDown](a); len(downs) != 2 {
		t.Errorf("calls down when no rule is for staff: %+v", downs)
	}
	b.policy = must(policy.New([]policy.Rule{{Groups: []string{"staff"}}}))
	w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: alice, Address: netip.MustParseAddr("10.1.1.3")})
	eve := native.Wish{Key: links.Key{Peer: "rb", User: "eve"}, Cred: w.user("eve", "sales", newPair()), Address: netip.MustParseAddr("10.1.1.9")}
	if err := a.e.PlaceCall(w.now, eve); err == nil {
		w.settle()
		w.pass(5 * time.Second)
	}
	if a.up(eve.Key) != nil {
		t.Error("a user of a group out of scope has a call with keys of their own")
	}
	// Hers is revoked: the tunnel goes with the only certificate that it stood on.
	for _, x := range []*box{a, b} {
		x.trust.Revoke(alice.Certificate.ID())
		x.e.Revoked(w.now, alice.Certificate.ID())
	}
	w.settle()
	if a.up(links.Key{Peer: "rb", User: "alice"}) != nil {
		t.Error("her call is up after the revocation")
	}
}

// What was given up does not come up later, wherever it stood.
func TestCancel(t *testing.T) {
	for _, passed := range []int{0, 1, 2, 3, 4, 6, 8, 1000} {
		w := newWorld(t)
		a, b := w.router("ra", 1), w.router("rb", 2)
		alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", newPair()), Address: netip.MustParseAddr("10.1.1.3")}
		if err := a.e.PlaceCall(w.now, alice); err != nil {
			t.Fatal(err)
		}
		n := 0
		w.weather = func(*box, []byte) int { // so many datagrams pass before she gives up
			if n++; n <= passed {
				return 1
			}
			return 0
		}
		w.settle()
		a.e.Cancel(w.now, alice.Key, "given up")
		w.weather = func(*box, []byte) int { return 1 }
		w.settle()
		w.pass(30 * time.Second)
		if downs := find[native.CallDown](a); len(downs) != 1 || downs[0].Reason != "given up" || !downs[0].Final {
			t.Errorf("after %d datagrams: %+v", passed, downs)
		}
		for _, x := range []*box{a, b} {
			for _, tun := range x.e.Tunnels() {
				if tun.Calls != 0 {
					t.Errorf("after %d datagrams %s has a call", passed, x.name)
				}
			}
		}
		w.place(a, alice)
	}
}

func TestTerminatorRefuses(t *testing.T) {
	tests := []struct {
		name string
		wish func(w *world, a *box) native.Wish
		want error
	}{
		{"a user out of the router's scope", func(w *world, a *box) native.Wish {
			return native.Wish{Key: links.Key{Peer: "rb", User: "eve"}, Cred: w.user("eve", "sales", newPair()), Address: netip.MustParseAddr("10.1.1.9")}
		}, native.ErrScope},
		{"an address that the router is not certified for", func(w *world, a *box) native.Wish {
			return native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", newPair()), Address: netip.MustParseAddr("10.9.9.9")}
		}, native.ErrAddress},
		{"a certificate of another CA", func(w *world, a *box) native.Wish {
			other := newWorld(w.t)
			return native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: other.user("alice", "staff", newPair()), Address: netip.MustParseAddr("10.1.1.3")}
		}, nil},
		{"a router's certificate that is not its own", func(w *world, a *box) native.Wish {
			c := w.router("rc", 3)
			return native.Wish{Key: links.Key{Peer: "rb"}, Cred: c.self.Credentials}
		}, native.ErrNotRouter},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.router("ra", 1), w.router("rb", 2)
			wish := tt.wish(w, a)
			if err := a.e.PlaceCall(w.now, wish); err != nil {
				t.Fatal(err)
			}
			w.settle()
			w.pass(2 * time.Second)
			if c := a.up(wish.Key); c != nil {
				t.Fatal("the call is up")
			}
			refused := find[native.Refused](b)
			if len(refused) == 0 || tt.want != nil && !strings.Contains(refused[0].Reason, tt.want.Error()) {
				t.Errorf("refused: %+v, want %v", refused, tt.want)
			}
			if downs := find[native.CallDown](a); len(downs) != 1 {
				t.Errorf("the caller heard %+v", downs)
			}
		})
	}
}

func TestStaleRouterAdmitsNoCall(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.now = w.now.Add(2 * time.Hour)
	if err := a.e.PlaceCall(w.now, native.Wish{Key: links.Key{Peer: "rb"}, Cred: a.self.Credentials}); err == nil {
		t.Error("a router that has not heard of revocations for two hours places a call")
	}
	a.trust.Heard(w.now)
	if err := a.e.PlaceCall(w.now, native.Wish{Key: links.Key{Peer: "rb"}, Cred: a.self.Credentials}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if c := a.up(links.Key{Peer: "rb"}); c != nil || len(find[native.Refused](b)) == 0 {
		t.Error("the terminator, stale, admitted a call")
	}
}

// Rekeying by time: every SA pair is replaced, packets in flight included none is lost.
func TestRekeyLosesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	out := w.link(a, b)
	in := b.up(links.Key{Peer: "ra"})
	first := out.Out().SA.SPI()
	sent := 0
	for range 3 * 3600 { // three hours in steps of a second, a packet each way in each
		a.say(out, "x")
		b.say(in, "y")
		sent++
		w.now = w.now.Add(time.Second)
		for _, x := range w.boxes {
			x.trust.Heard(w.now)
			x.e.Advance(w.now)
		}
		w.settle()
	}
	if got := len(b.texts()); got != sent {
		t.Errorf("rb got %d of %d packets", got, sent)
	}
	if got := len(a.texts()); got != sent {
		t.Errorf("ra got %d of %d packets", got, sent)
	}
	var data, control int
	for _, r := range find[native.Rekeyed](a) {
		if r.Call != nil {
			data++
		} else {
			control++
		}
	}
	if data != 3 && data != 2 || control != data || out.Out().SA.SPI() == first {
		t.Errorf("%d data and %d control rekeys in three hours", data, control)
	}
	if a.unread+b.unread != 0 {
		t.Errorf("%d datagrams could not be opened", a.unread+b.unread)
	}
}

// An address belongs to one user at a time, and is free again when the call has ended.
func TestAnAddressIsBoundOnce(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	group, addr := newPair(), netip.MustParseAddr("10.1.1.3")
	first := w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", group), Address: addr})
	bob := native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: w.user("bob", "staff", group), Address: addr}
	if err := a.e.PlaceCall(w.now, bob); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if a.up(bob.Key) != nil || len(find[native.Refused](b)) != 1 {
		t.Fatalf("bob took alice's address: %+v", b.events)
	}
	a.e.Hangup(w.now, first.ID, "alice goes")
	w.settle()
	w.place(a, bob)
}

// One end only listens. The other goes over to the new keys all the same, before its
// packets in the old ones are no longer opened.
func TestRekeyOfACallThatIsSilentOneWay(t *testing.T) {
	for _, sender := range []string{"ra", "rb"} {
		w := newWorld(t)
		a, b := w.router("ra", 1), w.router("rb", 2)
		quiet := func(c *native.Config) { c.Echo, c.RekeyTime = 0, 10*time.Minute }
		a.start(quiet)
		b.start(quiet)
		out := w.link(a, b)
		from, to, c := a, b, out
		if sender == "rb" {
			from, to, c = b, a, b.up(links.Key{Peer: "ra"})
		}
		const seconds = 3600
		for range seconds {
			from.say(c, "x")
			w.pass(time.Second)
		}
		if got := len(to.texts()); got != seconds {
			t.Errorf("%s sends: %d of %d packets arrived", sender, got, seconds)
		}
	}
}

// Rekeying by use: the end that has sent so much asks, whichever it is.
func TestRekeyByUse(t *testing.T) {
	for name, change := range map[string]func(*native.Config){
		"packets": func(c *native.Config) { c.RekeyPackets = 50 },
		"bytes":   func(c *native.Config) { c.RekeyBytes = 5000 },
	} {
		for _, sender := range []string{"ra", "rb"} {
			t.Run(name+" sent by "+sender, func(t *testing.T) {
				w := newWorld(t)
				a, b := w.router("ra", 1), w.router("rb", 2)
				a.start(change)
				b.start(change)
				out := w.link(a, b)
				from, to, c := a, b, out
				if sender == "rb" {
					from, to, c = b, a, b.up(links.Key{Peer: "ra"})
				}
				first := c.Out().SA.SPI()
				for range 200 {
					from.say(c, strings.Repeat("x", 100))
					w.pass(500 * time.Millisecond)
				}
				if c.Out().SA.SPI() == first || len(to.texts()) != 200 {
					t.Errorf("SPI %#x, at first %#x; %d of 200 packets arrived", c.Out().SA.SPI(), first, len(to.texts()))
				}
			})
		}
	}
}

// Loss, duplication and reordering of the control path delay a call and change nothing.
func TestSetUpInBadWeather(t *testing.T) {
	for seed := range 20 {
		w := newWorld(t)
		a, b := w.router("ra", 1), w.router("rb", 2)
		n := seed
		w.weather = func(*box, []byte) int {
			n = n*1103515245 + 12345
			switch (n >> 16) & 7 {
			case 0:
				return 0
			case 1:
				return 2
			default:
				return 1
			}
		}
		for range 3 { // as often as links would have tried in this time
			if err := a.e.PlaceCall(w.now, native.Wish{Key: links.Key{Peer: "rb"}, Cred: a.self.Credentials}); err != nil {
				t.Fatal(err)
			}
			w.settle()
			w.pass(30 * time.Second)
			if a.up(links.Key{Peer: "rb"}) != nil {
				break
			}
		}
		if a.up(links.Key{Peer: "rb"}) == nil || b.up(links.Key{Peer: "ra"}) == nil {
			t.Errorf("seed %d: no call\nra %v %+v\nrb %v %+v", seed, a.events, a.e.Counters, b.events, b.e.Counters)
		}
	}
}

// What anybody can send from outside ends nothing: StopCCN and CDN in the clear that name
// a tunnel which is up are dropped and counted.
func TestForgedTeardownOutsideTheSA(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	out := w.link(a, b)
	for _, forged := range forgeries(out) {
		b.receive(a.addr, forged(out.PeerTunnel, out.PeerSession))
		a.receive(b.addr, forged(out.LocalTunnel, out.LocalSession))
	}
	w.settle()
	w.pass(3 * time.Second)
	if len(find[native.CallDown](a))+len(find[native.CallDown](b))+len(find[native.TunnelDown](a))+len(find[native.TunnelDown](b)) != 0 {
		t.Error("a forged message ended something")
	}
	if a.e.Counters.Unprotected != 2 || b.e.Counters.Unprotected != 2 {
		t.Errorf("counted %d at ra, %d at rb", a.e.Counters.Unprotected, b.e.Counters.Unprotected)
	}
	a.say(out, "still here")
	w.settle()
	if len(b.texts()) != 1 {
		t.Error("the call no longer carries packets")
	}
}

// A terminator that is flooded with first messages asks for cookies, remembers nothing of
// those who do not come back, and still serves who does.
func TestFloodIsAskedForCookies(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	var first []byte
	w.weather = func(from *box, d []byte) int {
		if from == a && first == nil {
			first = append([]byte(nil), d...)
		}
		return 1
	}
	w.link(a, b)
	before := len(b.e.Tunnels())
	for i := range 5000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 1701)
		b.receive(from, first)
	}
	b.flush()
	if n := len(b.e.Tunnels()) - before; n > 64 {
		t.Errorf("%d tunnels for strangers", n)
	}
	if b.e.Counters.Cookies == 0 {
		t.Error("no cookie was asked for")
	}
	c := w.router("rc", 3)
	w.wire = nil
	w.link(c, b)
}

func TestPeerThatVanishesIsNoticed(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.link(a, b)
	w.weather = func(*box, []byte) int { return 0 }
	w.pass(90 * time.Second)
	if len(find[native.CallDown](a)) == 0 || len(a.e.Tunnels()) != 0 {
		t.Errorf("after 90 s of silence: %+v, %d tunnels", a.events, len(a.e.Tunnels()))
	}
	w.weather = func(*box, []byte) int { return 1 }
	w.link(a, b)
}

func TestPeerThatMovesIsFollowed(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.link(a, b)
	in := b.up(links.Key{Peer: "ra"})
	moved := netip.MustParseAddrPort("203.0.113.7:40000")
	b.e.Moved(w.now, in.LocalTunnel, moved)
	if in.Out().To != moved {
		t.Errorf("data still goes to %s", in.Out().To)
	}
}

func TestExpiredCertificateEndsItsCallOnly(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	w.link(a, b)
	control := newPair()
	alice := w.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff", NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(time.Hour)}, &control)
	w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: alice, Address: netip.MustParseAddr("10.1.1.3")})
	w.now = alice.Certificate.NotAfter.Add(time.Second)
	a.e.Expire(w.now)
	w.settle()
	var users, sites int
	for _, d := range find[native.CallDown](a) {
		if d.Key.User == "alice" {
			users++
		} else {
			sites++
		}
	}
	if users != 1 || sites != 0 {
		t.Errorf("%d of alice's calls ended, and %d of others", users, sites)
	}
}

func TestUnknownPeer(t *testing.T) {
	w := newWorld(t)
	a := w.router("ra", 1)
	if err := a.e.PlaceCall(w.now, native.Wish{Key: links.Key{Peer: "nobody"}, Cred: a.self.Credentials}); !errors.Is(err, native.ErrUnknownPeer) {
		t.Errorf("err = %v", err)
	}
}

// Without ML-KEM at one end the tunnel comes up without it, and says so.
func TestPostQuantumOnlyWhereBothWantIt(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	b.start(func(c *native.Config) { c.Hybrid = false })
	w.link(a, b)
	if find[native.TunnelUp](a)[0].PostQuantum || find[native.CallUp](a)[0].PostQuantum {
		t.Error("claims ML-KEM")
	}
}

var _ = handshake.MaxMessage
