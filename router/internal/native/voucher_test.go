package native_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/proto/handshake"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
	"twinkey/router/internal/trust"
)

// front is a router in front of a user's own machine: it vouches for what is asked, at once or when it is told to.
type front struct {
	by      *box
	bound   []byte
	says    func(*handshake.Statement) // what it signs instead
	err     error
	waits   bool
	pending []func(now time.Time)
}

func (f *front) Sign(now time.Time, s handshake.Statement, done func(time.Time, handshake.Voucher, error)) {
	answer := func(now time.Time) {
		here := f.by.self.Signer.(native.LocalSigner)
		s.Bound = f.bound
		if f.says != nil {
			f.says(&s)
		}
		d := s.Digest()
		done(now, handshake.Voucher{Router: here.Router, Bound: f.bound, Signature: must(here.By(d[:]))}, f.err)
	}
	if f.waits {
		f.pending = append(f.pending, answer)
		return
	}
	answer(now)
}

// machine adds a user's own machine behind a router, somewhere else on the network.
func (w *world) machine(f *front) *box {
	b := &box{w: w, name: "machine", addr: netip.MustParseAddrPort("203.0.113.7:40123"), table: calls.NewTable(), trust: trust.New(time.Hour), got: map[uint64][]string{}}
	b.policy = must(policy.New([]policy.Rule{{Groups: []string{policy.Everybody}}}))
	b.trust.SetAnchors([]*x509.Certificate{w.root}, []*x509.Certificate{w.issuer})
	b.trust.Heard(w.now)
	b.self = native.Self{Signer: f}
	w.boxes[b.name], w.byAddr[b.addr] = b, b
	b.start(nil)
	return b
}

var aliceAt = netip.MustParseAddr("10.1.1.3")

func (w *world) held(d time.Duration) []byte {
	return native.Held{Address: aliceAt, Until: w.now.Add(d)}.Append(nil)
}

func refusals(b *box) string {
	var all []string
	for _, r := range find[native.Refused](b) {
		all = append(all, r.Reason)
	}
	return strings.Join(all, "; ")
}

// While the router in front is asked, other tunnels go on. What it says makes the far end take the call for one of its users.
func TestARouterElsewhereVouches(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	f := &front{by: a, bound: w.held(time.Hour), waits: true}
	m := w.machine(f)
	wish := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", newPair()), Address: aliceAt}
	if err := m.e.PlaceCall(w.now, wish); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if len(f.pending) != 1 {
		t.Fatalf("the router in front was asked %d times", len(f.pending))
	}
	w.link(a, b)
	w.pass(3 * time.Second)
	if m.up(wish.Key) != nil {
		t.Fatal("the call is up, and nobody has vouched for it")
	}
	if len(f.pending) != 1 {
		t.Errorf("asked %d times for one handshake", len(f.pending))
	}
	f.pending[0](w.now)
	w.settle()
	w.pass(5 * time.Second)
	out, in := m.up(wish.Key), b.up(links.Key{Peer: "ra", User: "alice"})
	if out == nil || in == nil {
		t.Fatalf("not up: %+v; %s", m.events, refusals(b))
	}
	if ps := in.Bounds().Remote; len(ps) != 1 || ps[0].Addr() != aliceAt {
		t.Errorf("the far end takes packets from %v", ps)
	}
	m.say(out, "hello")
	w.settle()
	if got := b.got[in.ID]; len(got) != 1 || got[0] != "hello" {
		t.Errorf("arrived: %q", got)
	}
}

// A router that does not vouch, or too late, costs this attempt and nothing else; the reason is told to whoever waits for the call.
func TestNobodyVouches(t *testing.T) {
	w := newWorld(t)
	a := w.router("ra", 1)
	w.router("rb", 2)
	f := &front{by: a, bound: w.held(time.Hour), err: errors.New("nobody is logged in")}
	m := w.machine(f)
	wish := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", newPair()), Address: aliceAt}
	check := func(name, want string) {
		t.Helper()
		down := find[native.CallDown](m)
		if len(down) == 0 || !strings.Contains(down[len(down)-1].Reason, want) || down[len(down)-1].Final {
			t.Errorf("%s: %+v", name, down)
		}
		w.pass(time.Minute)
		if ts := m.e.Tunnels(); len(ts) != 0 {
			t.Errorf("%s: left over: %+v", name, ts)
		}
	}
	if err := m.e.PlaceCall(w.now, wish); err != nil {
		t.Fatal(err)
	}
	w.settle()
	check("refused", "nobody is logged in")
	f.err, f.waits = nil, true
	if err := m.e.PlaceCall(w.now, wish); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.pass(30 * time.Second)
	check("no answer", "did not finish the set-up")
	f.pending[0](w.now) // the answer comes when nobody wants it any more
	w.settle()
	if m.up(wish.Key) != nil || len(m.e.Tunnels()) != 0 {
		t.Error("an answer that came too late made a call")
	}
}

// What a router has said for one user is good for that user's certificate, from that address, for that time.
func TestTerminatorHoldsToTheVoucher(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world, f *front, wish *native.Wish)
		want   string
	}{
		"another address":         {func(_ *world, _ *front, wish *native.Wish) { wish.Address = netip.MustParseAddr("10.1.1.4") }, "calls from 10.1.1.3, not from 10.1.1.4"},
		"a host's address":        {func(_ *world, _ *front, wish *native.Wish) { wish.Address = netip.MustParseAddr("10.1.0.2") }, "not from 10.1.0.2"},
		"out of date":             {func(w *world, f *front, _ *native.Wish) { f.bound = w.held(-time.Second) }, "its word was good until"},
		"cut":                     {func(_ *world, f *front, _ *native.Wish) { f.bound = f.bound[:7] }, "is cut"},
		"an address that is none": {func(_ *world, f *front, _ *native.Wish) { f.bound = append(f.bound, 0) }, "cannot be read"},
		"signed for another certificate": {func(w *world, f *front, _ *native.Wish) {
			other := w.user("bob", "staff", newPair()).Certificate.Raw
			f.says = func(s *handshake.Statement) { s.Certificate = other }
		}, "signature over the handshake is wrong"},
		"signed for another key": {func(_ *world, f *front, _ *native.Wish) {
			f.says = func(s *handshake.Statement) { s.Control[0] ^= 1 }
		}, "signature over the handshake is wrong"},
		"signed for another handshake": {func(_ *world, f *front, _ *native.Wish) {
			f.says = func(s *handshake.Statement) { s.Hash[0] ^= 1 }
		}, "signature over the handshake is wrong"},
		"a router's certificate": {func(_ *world, f *front, wish *native.Wish) {
			wish.Cred, wish.Key.User, wish.Address = f.by.self.Credentials, "", netip.Addr{}
		}, "it shows the certificate of router ra"},
		"out of the router's scope": {func(w *world, _ *front, wish *native.Wish) {
			wish.Cred = w.user("alice", "guests", newPair())
		}, "may not speak for this user"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.router("ra", 1), w.router("rb", 2)
			f := &front{by: a, bound: w.held(time.Hour)}
			m := w.machine(f)
			wish := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", newPair()), Address: aliceAt}
			tt.change(w, f, &wish)
			if err := m.e.PlaceCall(w.now, wish); err != nil {
				t.Fatal(err)
			}
			w.settle()
			w.pass(5 * time.Second)
			if len(find[native.CallUp](b)) > 0 || !strings.Contains(refusals(b), tt.want) {
				t.Errorf("refusals: %q, want %q", refusals(b), tt.want)
			}
		})
	}
}

// Users of a group share a control key, and routers place their calls in one tunnel; one that a router holds to a user is that user's.
func TestAHeldTunnelIsOneUsers(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	m := w.machine(&front{by: a, bound: w.held(time.Hour)})
	control := newPair()
	alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", control), Address: aliceAt}
	w.place(m, alice)
	bob := native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: w.user("bob", "staff", control), Address: aliceAt}
	if err := m.e.PlaceCall(w.now, bob); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.pass(time.Second)
	if m.up(bob.Key) != nil || !strings.Contains(refusals(b), "the tunnel is alice's, the call bob's") {
		t.Errorf("refusals: %q", refusals(b))
	}
	if m.up(alice.Key) == nil {
		t.Error("alice's call has ended with it")
	}
}

// When the word has run out the far end ends the tunnel; one that was had anew goes on.
func TestAVoucherRunsOut(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	f := &front{by: a, bound: w.held(time.Minute)}
	m := w.machine(f)
	wish := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: w.user("alice", "staff", newPair()), Address: aliceAt}
	first := w.place(m, wish)
	w.pass(30 * time.Second)
	f.bound = w.held(time.Hour)
	m.e.Retire("rb", wish.Cred.Certificate.Keys.Control)
	second := w.place(m, wish)
	if first == second {
		t.Fatal("no other call")
	}
	w.pass(time.Minute)
	b.e.Expire(w.now)
	w.settle()
	w.pass(time.Second)
	var reasons []string
	for _, d := range find[native.CallDown](b) {
		reasons = append(reasons, d.Reason)
	}
	if len(reasons) != 1 || !strings.Contains(reasons[0], "has not vouched for it again") {
		t.Errorf("ended at the far end: %q", reasons)
	}
	if m.up(wish.Key) != second {
		t.Error("the call that was vouched for anew has ended")
	}
}

// A user's own machine answers nobody: it has no certificate of a router.
func TestAMachineAnswersNobody(t *testing.T) {
	w := newWorld(t)
	a := w.router("ra", 1)
	m := w.machine(&front{by: a})
	m.peer = native.Peer{Name: "machine", Endpoint: m.addr, Announced: a.peer.Announced, Certified: a.peer.Certified}
	if err := a.e.PlaceCall(w.now, native.Wish{Key: links.Key{Peer: "machine"}, Cred: a.self.Credentials}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if n := len(m.e.Tunnels()); n != 0 || m.e.Counters.Stray == 0 {
		t.Errorf("%d tunnels, %+v", n, m.e.Counters)
	}
}

func FuzzParseHeld(f *testing.F) {
	f.Add(native.Held{Address: aliceAt, Until: time.Unix(1_800_000_000, 0)}.Append(nil))
	f.Add(native.Held{Address: netip.MustParseAddr("2001:db8::1"), Until: time.Unix(1, 0)}.Append(nil))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := native.ParseHeld(in)
		if err != nil {
			if !errors.Is(err, native.ErrHeld) {
				t.Fatalf("err = %v", err)
			}
			return
		}
		if out := h.Append(nil); !bytes.Equal(in, out) {
			t.Fatalf("%x came back as %x", in, out)
		}
	})
}
