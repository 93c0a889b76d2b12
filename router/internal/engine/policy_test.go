package engine

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

// experiments allows the protocol of packet, 253, to rb's host and nothing else.
func experiments(t testing.TB) *policy.Policy {
	var s policy.Service
	if err := s.UnmarshalText([]byte("253")); err != nil {
		t.Fatal(err)
	}
	return must(policy.New([]policy.Rule{{Groups: []string{"staff"}, To: []netip.Prefix{netip.MustParsePrefix("10.2.0.1/32")}, Allow: []policy.Service{s}}}))
}

// What the policy does not let through is dropped at the end where it meets it, and counted; what it lets through goes both ways; the
// site link is not concerned.
func TestPolicyInTheDataPath(t *testing.T) {
	n := udptest.NewNetwork()
	c := newCompanyThat(t, &company{net: n, policy: experiments(t), takes: [2]calls.Capabilities{everything, everything}, listen: func(i int) udpio.Conn {
		return must(n.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}), 1701)))
	}})
	c.linked()
	alice := native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"}), Address: netip.MustParseAddr("10.1.1.3")}
	call, err := c.ra.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "alice's call at rb", func() bool { return len(c.rb.calls(t)) == 2 })
	passes := func(from, to *site, p []byte) {
		t.Helper()
		from.inject(t, p)
		to.arrives(t, p)
	}
	passes(c.ra, c.rb, packet(alice.Address, c.rb.host, "allowed"))
	passes(c.rb, c.ra, packet(c.rb.host, alice.Address, "and back"))

	other := netip.MustParseAddr("10.2.0.9")
	c.ra.inject(t, packet(alice.Address, other, "to another host"))
	until(t, "the packet to another host is counted", func() bool { return call.Denied.Load() == 1 })
	c.rb.inject(t, packet(other, alice.Address, "from another host"))
	far := func() *calls.Call {
		for _, s := range c.rb.calls(t) {
			if s.Active.Call.User == "alice" {
				return s.Active.Call
			}
		}
		t.Fatal("no call of alice at rb")
		return nil
	}
	until(t, "the packet from another host is counted", func() bool { return far().Denied.Load() == 1 })
	c.rb.nothingArrives(t)
	passes(c.ra, c.rb, packet(c.ra.host, other, "the site link has no policy"))

	// The far end enforces its own, whatever this one thinks.
	if err := c.ra.SetPolicy(t.Context(), must(policy.New([]policy.Rule{{Groups: []string{"staff"}}}))); err != nil {
		t.Fatal(err)
	}
	c.ra.inject(t, packet(alice.Address, other, "to another host"))
	until(t, "the packet is counted at the far end", func() bool { return far().Denied.Load() == 2 })
	c.rb.nothingArrives(t)

	// Without a rule her call ends, and she cannot have another.
	if err := c.ra.SetPolicy(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of alice's call", func() bool { return len(c.ra.calls(t)) == 1 && len(c.rb.calls(t)) == 1 })
	if _, err := c.ra.Login(t.Context(), c.alice("staff")); !errors.Is(err, policy.ErrDenied) {
		t.Errorf("another login: %v", err)
	}
	time.Sleep(10 * time.Millisecond)
	if len(c.ra.calls(t)) != 1 {
		t.Error("her call came back by itself")
	}

	// What the far end refuses is told as that, in its words.
	if err := errors.Join(c.ra.SetPolicy(t.Context(), experiments(t)), c.rb.SetPolicy(t.Context(), nil)); err != nil {
		t.Fatal(err)
	}
	_, err = c.ra.Login(t.Context(), c.alice("staff"))
	if f, ok := errors.AsType[*Failed](err); !ok || !f.Refused || !strings.Contains(f.Reason, policy.ErrDenied.Error()) {
		t.Errorf("refused by the far end: %#v", err)
	}
}
