package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"twinkey/pkg/tun/tuntest"
	"twinkey/pkg/twincert"
	"twinkey/proto/esp"
	"twinkey/proto/handshake"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

var aliceAt = netip.MustParseAddr("10.1.1.3")

func (c *company) guest(uid string, a netip.Addr) (*Guest, <-chan string) {
	told := make(chan string, 1)
	cert := c.credentials(twincert.Template{Role: twincert.User, Name: uid, Group: "staff"}).Certificate
	return &Guest{Certificate: cert, Address: a, Dismissed: func(reason string) { told <- reason }}, told
}

func TestWelcome(t *testing.T) {
	c := newCompany(t)
	alice, _ := c.guest("alice", aliceAt)
	if _, err := c.ra.Welcome(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	bob := native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "bob", Group: "staff"}), Address: netip.MustParseAddr("10.1.1.4")}
	if _, err := c.ra.Login(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	if g, ok, err := c.ra.GuestAt(t.Context(), aliceAt); err != nil || !ok || g.Certificate.Name != "alice" || g.Since.IsZero() {
		t.Errorf("at her address: %+v, %v, %v", g, ok, err)
	}
	if g, ok, err := c.ra.GuestAt(t.Context(), bob.Address); err != nil || ok {
		t.Errorf("at the address of a user who is logged in here: %+v, %v", g, err)
	}
	for name, tt := range map[string]struct {
		uid, at string
		want    error
	}{
		"the address of a guest":            {"carol", "10.1.1.3", ErrBusy},
		"of the same guest":                 {"alice", "10.1.1.3", ErrBusy},
		"of a user who is logged in here":   {"carol", "10.1.1.4", ErrBusy},
		"of the same, on their own machine": {"bob", "10.1.1.4", ErrBusy},
		"of a host of the site":             {"carol", "10.1.0.9", ErrBridged},
		"of nobody here":                    {"carol", "10.9.0.9", ErrNotOurs},
		"of a host of another site":         {"carol", "10.2.0.9", ErrNotOurs},
	} {
		g, _ := c.guest(tt.uid, netip.MustParseAddr(tt.at))
		if _, err := c.ra.Welcome(t.Context(), g); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.ra.Vacant(t.Context(), netip.MustParseAddr("10.1.0.9")); !errors.Is(err, ErrBridged) {
		t.Errorf("vacant: %v", err)
	}
	w := bob
	w.Key, w.Address = links.Key{Peer: "rb", User: "carol"}, aliceAt
	if _, err := c.ra.Login(t.Context(), w); !errors.Is(err, ErrBusy) {
		t.Errorf("a login from the address of a guest: %v", err)
	}
	if gs := must(c.ra.Status(t.Context())).Guests; len(gs) != 1 || gs[0].Certificate.Name != "alice" || gs[0].Since.IsZero() {
		t.Errorf("guests: %+v", gs)
	}
	// Who has left makes room, and nobody leaves for who came after.
	if err := c.ra.Leave(t.Context(), alice, "logged out"); err != nil {
		t.Fatal(err)
	}
	next, _ := c.guest("carol", aliceAt)
	if _, err := c.ra.Welcome(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := c.ra.Leave(t.Context(), alice, "again"); err != nil {
		t.Fatal(err)
	}
	if gs := must(c.ra.Status(t.Context())).Guests; len(gs) != 1 || gs[0].Certificate.Name != "carol" {
		t.Errorf("guests: %+v", gs)
	}
}

// Whatever would end a user's call ends a guest's stay.
func TestGuestsAreDismissed(t *testing.T) {
	rule := func(r policy.Rule) *policy.Policy { return must(policy.New([]policy.Rule{r})) }
	for name, tt := range map[string]struct {
		do   func(c *company, g *Guest) error
		want string
	}{
		"revoked": {func(c *company, g *Guest) error { return c.ra.Revoke(t.Context(), g.Certificate.ID()) }, "certificate revoked"},
		"no rule any more": {func(c *company, _ *Guest) error {
			return c.ra.SetPolicy(t.Context(), rule(policy.Rule{Groups: []string{"guests"}}))
		}, "no rule is for"},
		"not from there": {func(c *company, _ *Guest) error {
			return c.ra.SetPolicy(t.Context(), rule(policy.Rule{Groups: []string{"staff"}, From: []netip.Prefix{netip.MustParsePrefix("10.1.1.128/25")}}))
		}, "there are no logins"},
		"the operator": {func(c *company, g *Guest) error {
			if n, err := c.ra.Dismiss(t.Context(), g.Certificate.Name); n != 1 || err != nil {
				t.Errorf("dismissed %d, %v", n, err)
			}
			return nil
		}, byOperator},
		"the address is bridged now": {func(c *company, _ *Guest) error {
			return c.ra.SetMap(t.Context(), Map{Local: c.ra.peer.Certified, Wanted: func(string) bool { return true }, Peers: []native.Peer{c.rb.peer}})
		}, "which this router bridges"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCompany(t)
			g, told := c.guest("alice", aliceAt)
			if _, err := c.ra.Welcome(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			if err := tt.do(c, g); err != nil {
				t.Fatal(err)
			}
			select {
			case reason := <-told:
				if !strings.Contains(reason, tt.want) {
					t.Errorf("told %q, want %q", reason, tt.want)
				}
			default:
				t.Error("told nothing")
			}
			if gs := must(c.ra.Status(t.Context())).Guests; len(gs) != 0 {
				t.Errorf("still there: %+v", gs)
			}
		})
	}
}

// front signs for a machine as the router in front of it does, from another goroutine.
type front struct {
	by *site
	to *Engine

	mu    sync.Mutex
	asked int
}

func (f *front) Sign(_ time.Time, s handshake.Statement, done func(time.Time, handshake.Voucher, error)) {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	go func() {
		here := f.by.self.Signer.(native.LocalSigner)
		s.Bound = native.Held{Address: aliceAt, Until: time.Now().Add(time.Hour)}.Append(nil)
		d := s.Digest()
		v := handshake.Voucher{Router: here.Router, Bound: s.Bound, Signature: must(here.By(d[:]))}
		_ = f.to.Do(context.Background(), func(now time.Time) { done(now, v, nil) })
	}()
}

// machine is a user's own machine: an engine without a certificate of its own.
type machine struct {
	*site
	front *front
	ended chan string
}

func (c *company) machine(t *testing.T) *machine {
	conn := must(c.net.Listen(netip.MustParseAddrPort("203.0.113.7:40123")))
	m := &machine{site: &site{name: "machine", dev: tuntest.New("tun-m", 1400), trust: trust.New(time.Hour), host: aliceAt, done: make(chan error, 1)}, ended: make(chan string, 8)}
	m.trust.SetAnchors([]*x509.Certificate{c.ca}, nil)
	m.trust.Heard(time.Now())
	m.Engine = must(New(Config{
		Device: m.dev, Ports: []Port{port(m.dev, conn)}, Trust: m.trust, Log: slog.New(slog.DiscardHandler), Name: "alice",
		Install: func(_, _ []netip.Prefix) error { return nil }, Policy: must(policy.New([]policy.Rule{{Groups: []string{policy.Everybody}}})),
		Ended: func(k links.Key, reason string) { m.ended <- k.Peer + ": " + reason },
		Native: native.Config{
			Rand: rand.Reader, Suites: []esp.Suite{esp.AES256GCM}, MRU: 1400, Capabilities: everything,
			Hello: 15 * time.Second, RekeyTime: 10 * time.Minute, RekeyGrace: 30 * time.Second,
		},
	}))
	m.front = &front{by: c.ra, to: m.Engine}
	ctx, stop := context.WithCancel(context.Background())
	go func() { m.done <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-m.done; err != nil {
			t.Error(err)
		}
	})
	if err := m.SetSelf(t.Context(), native.Self{Signer: m.front}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetMap(t.Context(), Map{Wanted: func(string) bool { return false }, Peers: []native.Peer{c.rb.peer}}); err != nil {
		t.Fatal(err)
	}
	return m
}

// The call of a machine of a user's own is placed by the first packet, and anew beside the old one; a revocation ends it for good.
func TestOwnMachine(t *testing.T) {
	c := newCompany(t)
	m := c.machine(t)
	alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"}), Address: aliceAt}
	if err := m.Want(t.Context(), alice, true); err != nil {
		t.Fatal(err)
	}
	if err := m.Want(t.Context(), alice, true); !errors.Is(err, ErrBusy) {
		t.Errorf("wanted twice: %v", err)
	}
	time.Sleep(50 * time.Millisecond)
	if n := len(m.calls(t)); n != 0 {
		t.Fatalf("%d calls before a packet asked for one", n)
	}
	m.inject(t, packet(aliceAt, c.rb.host, "knock"))
	until(t, "alice's call", func() bool { return len(m.calls(t)) == 1 })
	until(t, "the same at rb, which may be slower to know", func() bool {
		return slices.ContainsFunc(c.rb.calls(t), func(cs CallStatus) bool { return cs.Active.Call.User == "alice" })
	})
	first := m.calls(t)[0].Active.Call.ID
	cross := func(text string) {
		t.Helper()
		p := packet(aliceAt, c.rb.host, text)
		m.inject(t, p)
		c.rb.arrives(t, p)
		back := packet(c.rb.host, aliceAt, "re: "+text)
		c.rb.inject(t, back)
		m.arrives(t, back)
	}
	cross("hello")
	if err := m.Anew(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "another call in its place", func() bool {
		cross("steady")
		cs := m.calls(t)
		return len(cs) == 1 && cs[0].Active.Call.ID != first
	})
	m.front.mu.Lock()
	asked := m.front.asked
	m.front.mu.Unlock()
	if asked != 2 {
		t.Errorf("the router in front vouched for %d tunnels, want 2", asked)
	}
	if err := c.rb.Revoke(t.Context(), alice.Cred.Certificate.ID()); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of her call", func() bool { return len(m.calls(t)) == 0 })
	if err := m.Revoke(t.Context(), alice.Cred.Certificate.ID()); err != nil { // the router in front tells it too
		t.Fatal(err)
	}
	select {
	case got := <-m.ended:
		if got != "rb: certificate revoked" {
			t.Errorf("ended: %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told that the call has ended for good")
	}
	if !bytes.Equal(alice.Cred.Data.Private.Bytes(), make([]byte, 32)) {
		t.Error("the private key was not wiped")
	}
}

func TestAbandon(t *testing.T) {
	c := newCompany(t)
	m := c.machine(t)
	alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"}), Address: aliceAt}
	if err := m.Want(t.Context(), alice, false); err != nil {
		t.Fatal(err)
	}
	until(t, "alice's call, which nothing had to ask for", func() bool { return len(m.calls(t)) == 1 })
	until(t, "the same at rb", func() bool {
		for _, cs := range c.rb.calls(t) {
			if cs.Active.Call.User == "alice" {
				return true
			}
		}
		return false
	})
	if err := m.Abandon(t.Context(), "logged out"); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of it at rb", func() bool {
		for _, cs := range c.rb.calls(t) {
			if cs.Active.Call.User == "alice" {
				return false
			}
		}
		return true
	})
	if got := <-m.ended; got != "rb: logged out" {
		t.Errorf("ended: %q", got)
	}
}

// A machine that was killed knows nothing of the call that it had; when it has another one, from the same address, the far end lets the
// old one go. Another machine of the same user, elsewhere, keeps its own.
func TestCallOfAKilledMachine(t *testing.T) {
	c := newCompany(t)
	cert := twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"}
	control := c.credentials(cert).Control
	m := c.machine(t)
	want := func(cr native.Credentials) {
		t.Helper()
		if err := m.Want(t.Context(), native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: cr, Address: aliceAt}, false); err != nil {
			t.Fatal(err)
		}
	}
	hers := func() (ids []uint64) {
		for _, cs := range c.rb.calls(t) {
			if cs.Active.Call.User == "alice" && cs.Active.Call.Held {
				ids = append(ids, cs.Active.Call.ID)
			}
		}
		return ids
	}
	elsewhere := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentialsWith(cert, &control), Address: netip.MustParseAddr("10.1.1.9")}
	if _, err := c.ra.Login(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	want(c.credentialsWith(cert, nil))
	until(t, "the first call", func() bool { return len(hers()) == 1 })
	first := hers()[0]
	// As if it had been killed: it sends nothing more, and forgets.
	if err := m.Do(t.Context(), func(now time.Time) {
		for _, k := range []links.Key{{Peer: "rb", User: "alice"}} {
			w := m.state.users[k]
			m.native.Retire("rb", w.Cred.Certificate.Keys.Control)
			delete(m.state.users, k)
			m.links.Forget(k)
			m.state.active = map[uint64]Active{}
		}
	}); err != nil {
		t.Fatal(err)
	}
	want(c.credentialsWith(cert, nil))
	until(t, "the second call alone", func() bool { ids := hers(); return len(ids) == 1 && ids[0] != first })
	n := 0
	for _, cs := range c.rb.calls(t) {
		if cs.Active.Call.User == "alice" && !cs.Active.Call.Held {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d calls of the user from elsewhere, want 1", n)
	}
}
