package native_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

func rules(rs ...policy.Rule) *policy.Policy { return must(policy.New(rs)) }

// wish is a user's call to rb from a router whose users have addresses 10.n.1.x.
func (w *world) wish(uid, group string, n byte) native.Wish {
	return native.Wish{Key: links.Key{Peer: "rb", User: uid}, Cred: w.user(uid, group, newPair()), Address: netip.AddrFrom4([4]byte{10, n, 1, 3})}
}

// refused tries a call and returns why it did not come up, as the caller's side says, and whether that is for good.
func (w *world) refused(a *box, wish native.Wish) (reason string, final bool) {
	w.t.Helper()
	before := len(find[native.CallDown](a))
	if err := a.e.PlaceCall(w.now, wish); err != nil {
		w.t.Fatal(err)
	}
	w.settle()
	w.pass(2 * time.Second)
	downs := find[native.CallDown](a)[before:]
	if a.up(wish.Key) != nil || len(downs) != 1 {
		w.t.Fatalf("the call is up, or has not come down once: %+v", downs)
	}
	return downs[0].Reason, downs[0].Final
}

// Either end says no, and says why; the site link has nothing to do with it.
func TestPolicyRefuses(t *testing.T) {
	staff := policy.Rule{Groups: []string{"staff"}}
	for _, tt := range []struct {
		name string
		a, b *policy.Policy
		want string
	}{
		{"no policy here", nil, rules(staff), `no rule is for users of group "staff"`},
		{"no policy there", rules(staff), nil, `no rule is for users of group "staff"`},
		{"another group there", rules(staff), rules(policy.Rule{Groups: []string{"guests"}}), `no rule is for users of group "staff"`},
		{"not from this address, here", rules(policy.Rule{Groups: []string{"staff"}, From: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}}), rules(staff), "from 10.1.1.3 there are no logins"},
		{"not from this address, there", rules(staff), rules(policy.Rule{Groups: []string{"staff"}, From: []netip.Prefix{netip.MustParsePrefix("10.3.0.0/16")}}), "from 10.1.1.3 there are no logins"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.router("ra", 1), w.router("rb", 2)
			a.policy, b.policy = tt.a, tt.b
			w.link(a, b)
			if reason, final := w.refused(a, w.wish("alice", "staff", 1)); !strings.Contains(reason, tt.want) || !final {
				t.Errorf("%q, for good: %v", reason, final)
			}
		})
	}
}

// A user's calls are counted where they meet, from whichever router they come.
func TestPolicyCountsCalls(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.router("ra", 1), w.router("rb", 2), w.router("rc", 3)
	b.policy = rules(policy.Rule{Groups: []string{"staff"}, Calls: 1})
	w.place(a, w.wish("alice", "staff", 1))
	if reason, _ := w.refused(c, w.wish("alice", "staff", 3)); !strings.Contains(reason, "1 calls of this user are up") {
		t.Errorf("alice at another router: %q", reason)
	}
	w.place(c, w.wish("bob", "staff", 3))
	// A second call from the same router takes the place of the first, as when a certificate was renewed.
	w.place(a, w.wish("alice", "staff", 1))
}

// The same user in both directions between two routers would be two calls of one name.
func TestUserInBothDirections(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	alice := w.wish("alice", "staff", 1)
	call := w.place(a, alice)
	back := native.Wish{Key: links.Key{Peer: "ra", User: "alice"}, Cred: alice.Cred, Address: netip.MustParseAddr("10.2.1.3")}
	if err := b.e.PlaceCall(w.now, back); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.pass(5 * time.Second)
	if downs := find[native.CallDown](b); len(downs) != 1 || downs[0].Call != nil || !strings.Contains(downs[0].Reason, "in the other direction") {
		t.Errorf("the second call: %+v", downs)
	}
	if ups := find[native.CallUp](b); len(ups) != 1 || call.Out() == nil {
		t.Errorf("calls that came up at rb: %+v", ups)
	}
}

// A session is as old as the login, whatever became of calls since.
func TestPolicySessionSinceLogin(t *testing.T) {
	w := newWorld(t)
	a, _ := w.router("ra", 1), w.router("rb", 2)
	a.policy = rules(policy.Rule{Groups: []string{"staff"}, Session: 8 * time.Hour})
	alice := w.wish("alice", "staff", 1)
	alice.Since = w.now.Add(-7*time.Hour - 50*time.Minute)
	call := w.place(a, alice)
	w.pass(11 * time.Minute)
	if call.Out() != nil {
		t.Error("the session goes on")
	}
}

func TestPolicyTimes(t *testing.T) {
	for _, end := range []string{"ra", "rb"} {
		w := newWorld(t)
		a, b := w.router("ra", 1), w.router("rb", 2)
		limited := rules(policy.Rule{Groups: []string{"staff"}, Idle: 10 * time.Minute, Session: 8 * time.Hour})
		w.boxes[end].policy = limited
		link := w.link(a, b)
		idle, busy := w.place(a, w.wish("alice", "staff", 1)), w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: w.user("bob", "staff", newPair()), Address: netip.MustParseAddr("10.1.1.4")})
		work := func(d time.Duration) {
			for range d / time.Minute {
				for _, x := range []*box{a, b} {
					if c := x.up(links.Key{Peer: "rb", User: "bob"}); c != nil {
						c.TxPackets.Add(1)
					}
				}
				for _, c := range w.inbound(b) {
					if c.User == "bob" {
						c.RxPackets.Add(1)
					}
				}
				w.pass(time.Minute)
			}
		}
		work(9 * time.Minute)
		if idle.Out() == nil || busy.Out() == nil {
			t.Fatalf("%s: a call ended before its time", end)
		}
		work(2 * time.Minute)
		if downs := find[native.CallDown](a); idle.Out() != nil || len(downs) != 1 || !downs[0].Final || !strings.Contains(downs[0].Reason, "nothing was sent or received for 10m") {
			t.Errorf("%s: idle: %+v", end, downs)
		}
		work(8*time.Hour - 20*time.Minute)
		if busy.Out() == nil {
			t.Fatalf("%s: the busy call ended before its time: %+v", end, find[native.CallDown](a))
		}
		work(20 * time.Minute)
		if downs := find[native.CallDown](a); busy.Out() != nil || len(downs) != 2 || !strings.Contains(downs[1].Reason, "the session time of 8h0m0s is over") {
			t.Errorf("%s: session: %+v", end, downs)
		}
		if link.Out() == nil {
			t.Errorf("%s: the site link has ended", end)
		}
	}
}

// A policy that changes changes what is up.
func TestPolicyChanges(t *testing.T) {
	w := newWorld(t)
	a, b := w.router("ra", 1), w.router("rb", 2)
	alice, bob := w.place(a, w.wish("alice", "staff", 1)), w.place(a, native.Wish{Key: links.Key{Peer: "rb", User: "bob"}, Cred: w.user("bob", "staff", newPair()), Address: netip.MustParseAddr("10.1.1.4")})
	b.policy = rules(policy.Rule{Groups: []string{"staff"}, To: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/28")}, From: []netip.Prefix{netip.MustParsePrefix("10.1.1.3/32")}})
	b.e.PolicyChanged(w.now)
	w.settle()
	if bob.Out() != nil || alice.Out() == nil {
		t.Errorf("bob's call is up: %v; alice's: %v", bob.Out() != nil, alice.Out() != nil)
	}
	for _, c := range w.inbound(b) {
		if c.User == "alice" && c.Filter() == nil {
			t.Error("alice's call has no filter")
		}
	}
}

// inbound are the users' calls that are up at the terminator.
func (w *world) inbound(b *box) (all []*calls.Call) {
	down := map[*calls.Call]bool{}
	for _, ev := range find[native.CallDown](b) {
		down[ev.Call] = true
	}
	for _, ev := range find[native.CallUp](b) {
		if ev.Call.User != "" && !down[ev.Call] {
			all = append(all, ev.Call)
		}
	}
	return all
}

// Of what the policy and the login say of a session's length the smaller counts, also after the policy was changed.
func TestSessionWithinTheLogin(t *testing.T) {
	for name, tt := range map[string]struct {
		policy, login, want time.Duration
	}{
		"the login's":   {8 * time.Hour, time.Hour, time.Hour},
		"the policy's":  {time.Hour, 8 * time.Hour, time.Hour},
		"no policy's":   {0, time.Hour, time.Hour},
		"no login's":    {time.Hour, 0, time.Hour},
		"either's, hit": {time.Hour, time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.router("ra", 1), w.router("rb", 2)
			a.policy = rules(policy.Rule{Groups: []string{"staff"}, Session: tt.policy})
			alice := w.wish("alice", "staff", 1)
			alice.Session, alice.Since = tt.login, w.now.Add(10*time.Minute-tt.want)
			call := w.place(a, alice)
			a.e.PolicyChanged(w.now)
			w.pass(8 * time.Minute)
			if call.Out() == nil {
				t.Fatal("the session ended too soon")
			}
			w.pass(3 * time.Minute)
			if call.Out() != nil {
				t.Error("the session goes on")
			}
			if downs := find[native.CallDown](a); len(downs) != 1 || downs[0].Cause != calls.SessionOver {
				t.Errorf("%+v", downs)
			}
		})
	}
}

// Why a call ended is told apart, as far as it can be.
func TestCauses(t *testing.T) {
	for name, tt := range map[string]struct {
		policy policy.Rule
		end    func(w *world, a *box, c *calls.Call)
		want   calls.Cause
	}{
		"logged out":       {policy.Rule{}, func(w *world, a *box, c *calls.Call) { a.e.Logout(w.now, c.ID, "bye") }, calls.Logout},
		"hung up for else": {policy.Rule{}, func(w *world, a *box, c *calls.Call) { a.e.Hangup(w.now, c.ID, "replaced") }, calls.OtherCause},
		"revoked":          {policy.Rule{}, func(w *world, a *box, c *calls.Call) { a.e.Revoked(w.now, c.Cert) }, calls.Revoked},
		"idle":             {policy.Rule{Idle: 10 * time.Minute}, func(w *world, _ *box, _ *calls.Call) { w.pass(11 * time.Minute) }, calls.Idle},
		"shut down":        {policy.Rule{}, func(w *world, a *box, _ *calls.Call) { a.e.Close(w.now, "stops") }, calls.Shutdown},
		"expired":          {policy.Rule{}, func(w *world, a *box, _ *calls.Call) { a.e.Expire(w.now.Add(10_000 * time.Hour)) }, calls.SessionOver},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.router("ra", 1), w.router("rb", 2)
			tt.policy.Groups = []string{"staff"}
			a.policy = rules(tt.policy)
			call := w.place(a, w.wish("alice", "staff", 1))
			tt.end(w, a, call)
			w.settle()
			downs := find[native.CallDown](a)
			if len(downs) != 1 || downs[0].Call != call || downs[0].Cause != tt.want {
				t.Errorf("%+v, want cause %d", downs, tt.want)
			}
		})
	}
}
