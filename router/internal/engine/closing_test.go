package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

// closed notes which certificates were handed over to be revoked, and whether the keys were there to prove it.
type closed struct {
	mu  sync.Mutex
	all []string
}

func (c *closed) take(router string, cr native.Credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := router + " " + cr.Certificate.Name
	if slices.Max(cr.Data.Private.Bytes()) == 0 {
		what += " without keys"
	}
	c.all = append(c.all, what)
}

func (c *closed) takeGuest(router string, end Ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf("%s guest %s, %s", router, end.Certificate.Name, end.Proof))
}

func (c *closed) is(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.all, want) {
		t.Errorf("closed %q, want %q", c.all, want)
	}
}

func revoking(yes bool) *policy.Policy {
	return must(policy.New([]policy.Rule{{Groups: []string{"staff"}, RevokeOnClose: yes}}))
}

// What ends the last login on a certificate has it revoked by the router that placed the calls, if the policy says so; a
// login that never had a call does not.
func TestClosed(t *testing.T) {
	for name, tt := range map[string]struct {
		policy *policy.Policy
		end    func(t *testing.T, c *company, alice native.Wish)
		want   []string
	}{
		"logout": {revoking(true), func(t *testing.T, c *company, _ native.Wish) {
			if ended, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil || len(ended) != 1 {
				t.Errorf("%v, %v", ended, err)
			}
		}, []string{"ra alice"}},
		"logout, and the policy does not say so": {revoking(false), func(t *testing.T, c *company, _ native.Wish) {
			if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
				t.Error(err)
			}
		}, nil},
		"hung up at the far end": {revoking(true), func(t *testing.T, c *company, _ native.Wish) {
			if _, err := c.rb.Hangup(t.Context(), 0, "alice"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}, []string{"ra alice"}},
		"revoked": {revoking(true), func(t *testing.T, c *company, alice native.Wish) {
			if err := c.ra.Revoke(t.Context(), alice.Cred.Certificate.ID()); err != nil {
				t.Error(err)
			}
		}, []string{"ra alice"}}, // once more does no harm, and the CA need not have been who told
		"the rule is taken away": {revoking(true), func(t *testing.T, c *company, _ native.Wish) {
			if err := c.ra.SetPolicy(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}, []string{"ra alice"}},
		"the rule comes while the call is up": {revoking(false), func(t *testing.T, c *company, _ native.Wish) {
			if err := c.ra.SetPolicy(t.Context(), revoking(true)); err != nil {
				t.Error(err)
			}
			if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
				t.Error(err)
			}
		}, []string{"ra alice"}},
		"idle": {must(policy.New([]policy.Rule{{Groups: []string{"staff"}, RevokeOnClose: true, Idle: 10 * time.Second}})), func(*testing.T, *company, native.Wish) {
			time.Sleep(time.Minute)
		}, []string{"ra alice"}},
		"the session is over": {must(policy.New([]policy.Rule{{Groups: []string{"staff"}, RevokeOnClose: true, Session: 10 * time.Second}})), func(*testing.T, *company, native.Wish) {
			time.Sleep(time.Minute)
		}, []string{"ra alice"}},
		"the router stops": {revoking(true), func(_ *testing.T, c *company, _ native.Wish) {
			c.ra.stop()
			time.Sleep(time.Minute)
		}, []string{"ra alice"}},
		"logout on a newer certificate, before a call is up on it": {revoking(true), func(t *testing.T, c *company, alice native.Wish) {
			c.net.Script(nothingPasses)
			if _, err := c.ra.succeed(c, c.ra.user(t, "alice"), newControl(), alice.Cred); err != nil {
				t.Error(err)
			}
			if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
				t.Error(err)
			}
		}, []string{"ra alice"}},
		"over to a newer certificate": {revoking(true), func(t *testing.T, c *company, alice native.Wish) {
			if _, err := c.ra.succeed(c, c.ra.user(t, "alice"), newControl(), alice.Cred); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if n := len(c.ra.calls(t)); n != 2 {
				t.Errorf("%d calls are up", n)
			}
		}, nil},
		"nothing ends": {revoking(true), func(t *testing.T, c *company, _ native.Wish) {
			time.Sleep(5 * time.Minute)
			if n := len(c.ra.calls(t)); n != 2 {
				t.Errorf("%d calls are up", n)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got closed
				c := closingCompany(t, tt.policy, &got)
				alice := c.alice("staff")
				if _, err := c.ra.Login(t.Context(), alice); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got.is(t)
				tt.end(t, c, alice)
				got.is(t, tt.want...)
				if tt.want != nil && alice.Cred.Data.Private.Len() > 0 && slices.Max(alice.Cred.Data.Private.Bytes()) != 0 {
					t.Error("the data key is still there")
				}
			})
		})
	}
}

func closingCompany(t *testing.T, p *policy.Policy, got *closed) *company {
	n := udptest.NewNetwork()
	c := newCompanyThat(t, &company{net: n, policy: p, takes: [2]calls.Capabilities{everything, everything}, closed: got.take, closedGuest: got.takeGuest, listen: func(i int) udpio.Conn {
		return must(n.Listen(netip.MustParseAddrPort(fmt.Sprintf("198.18.0.%d:1701", i))))
	}})
	c.linked()
	return c
}

// A login that fails has closed nothing: the certificate is as good as before.
func TestFailedLoginClosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got closed
		c := closingCompany(t, revoking(true), &got)
		if err := c.rb.SetPolicy(t.Context(), nil); err != nil { // the far end refuses
			t.Fatal(err)
		}
		if _, err := c.ra.Login(t.Context(), c.alice("staff")); err == nil {
			t.Error("it was taken")
		}
		time.Sleep(time.Minute)
		got.is(t)
	})
}

// While another login stands on the certificate nothing is revoked.
func TestTheLastLoginCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got closed
		c := closingCompany(t, revoking(true), &got)
		alice := c.alice("staff")
		if _, err := c.ra.Login(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		// A second one, to a router that never answers; she has keys of their own to wipe.
		second := alice
		second.Key.Peer = "rc"
		second.Cred = c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: "staff"})
		second.Cred.Certificate = alice.Cred.Certificate
		if err := c.ra.Do(t.Context(), func(time.Time) { c.ra.state.users[second.Key] = second }); err != nil {
			t.Fatal(err)
		}
		drop := func(w native.Wish) {
			t.Helper()
			if err := c.ra.Do(t.Context(), func(now time.Time) { c.ra.forgetUser(now, w.Key, "for the test") }); err != nil {
				t.Fatal(err)
			}
		}
		drop(alice)
		got.is(t)
		drop(second)
		got.is(t, "ra alice")
	})
}

// What ends a guest's stay has their certificate revoked too, by what they have proved beforehand.
func TestGuestsClose(t *testing.T) {
	leave := func(t *testing.T, c *company, g *Guest) {
		if err := c.ra.Leave(t.Context(), g, "logged out"); err != nil {
			t.Error(err)
		}
	}
	const alice = "ra guest alice, first"
	for name, tt := range map[string]struct {
		policy   *policy.Policy
		unproved bool
		end      func(t *testing.T, c *company, g *Guest)
		want     []string
	}{
		"logout": {revoking(true), false, leave, []string{alice}},
		"logout twice": {revoking(true), false, func(t *testing.T, c *company, g *Guest) {
			leave(t, c, g)
			leave(t, c, g)
		}, []string{alice}},
		"logout, and the policy does not say so": {revoking(false), false, leave, nil},
		"logout, and nothing is proved":          {revoking(true), true, leave, nil},
		"by the operator": {revoking(true), false, func(t *testing.T, c *company, _ *Guest) {
			if _, err := c.ra.Dismiss(t.Context(), "alice"); err != nil {
				t.Error(err)
			}
		}, []string{alice}},
		"revoked": {revoking(true), false, func(t *testing.T, c *company, g *Guest) {
			if err := c.ra.Revoke(t.Context(), g.Certificate.ID()); err != nil {
				t.Error(err)
			}
		}, []string{alice}},
		"the rule is taken away": {revoking(true), false, func(t *testing.T, c *company, _ *Guest) {
			if err := c.ra.SetPolicy(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}, []string{alice}},
		"the rule comes in between": {revoking(false), false, func(t *testing.T, c *company, g *Guest) {
			if err := c.ra.SetPolicy(t.Context(), revoking(true)); err != nil {
				t.Error(err)
			}
			leave(t, c, g)
		}, []string{alice}},
		"the rule is not what it was": {revoking(true), false, func(t *testing.T, c *company, g *Guest) {
			if err := c.ra.SetPolicy(t.Context(), revoking(false)); err != nil {
				t.Error(err)
			}
			leave(t, c, g)
		}, nil},
		"the router stops": {revoking(true), false, func(_ *testing.T, c *company, _ *Guest) {
			c.ra.stop()
			time.Sleep(time.Minute)
		}, []string{alice}},
		"the user comes again, and leaves": {revoking(true), false, func(t *testing.T, c *company, g *Guest) {
			again := &Guest{Certificate: g.Certificate, Address: g.Address, Dismissed: g.Dismissed, Replaces: g}
			if _, err := c.ra.Welcome(t.Context(), again); err != nil {
				t.Error(err)
			}
			leave(t, c, g)
			if gs := must(c.ra.Status(t.Context())).Guests; len(gs) != 1 {
				t.Errorf("guests: %+v", gs)
			}
			leave(t, c, again)
		}, []string{alice}},
		"the user comes again": {revoking(true), false, func(t *testing.T, c *company, g *Guest) {
			if _, err := c.ra.Welcome(t.Context(), &Guest{Certificate: g.Certificate, Address: g.Address, Dismissed: g.Dismissed, Replaces: g}); err != nil {
				t.Error(err)
			}
		}, nil},
		"a newer certificate, of which nothing is proved": {revoking(true), false, func(t *testing.T, c *company, g *Guest) {
			next, _ := c.guest("alice", g.Address)
			u := User{Guest: g, Certificate: g.Certificate}
			if _, err := c.ra.SucceedGuest(t.Context(), u, next.Certificate); err != nil {
				t.Error(err)
			}
			if err := c.ra.Prove(t.Context(), g, Ending{u.Certificate, []byte("of the one before")}); !errors.Is(err, ErrGone) {
				t.Errorf("proved of the certificate before: %v", err)
			}
			leave(t, c, g)
		}, []string{alice}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got closed
				c := closingCompany(t, tt.policy, &got)
				g, _ := c.guest("alice", aliceAt)
				if _, err := c.ra.Welcome(t.Context(), g); err != nil {
					t.Fatal(err)
				}
				if !tt.unproved {
					if err := c.ra.Prove(t.Context(), g, Ending{g.Certificate, []byte("first")}); err != nil {
						t.Fatal(err)
					}
				}
				got.is(t)
				if g := must(c.ra.Status(t.Context())).Guests[0]; g.Closing() != (!tt.unproved && g.closes) {
					t.Errorf("the status says that it closes: %v", g.Closing())
				}
				tt.end(t, c, g)
				got.is(t, tt.want...)
			})
		})
	}
}

// A source puts a guest into another group: from then on the rules of that one count, also for what becomes of the certificate at the end. Whom it has no
// rule for, or none from there, leaves.
func TestGuestInAnotherGroup(t *testing.T) {
	rules := must(policy.New([]policy.Rule{
		{Groups: []string{"staff"}},
		{Groups: []string{"closing"}, Session: time.Hour, RevokeOnClose: true},
		{Groups: []string{"far"}, From: []netip.Prefix{netip.MustParsePrefix("10.1.1.128/25")}, RevokeOnClose: true},
	}))
	for group, want := range map[string]string{"closing": "", "far": "there are no logins", "nobody": "no rule is for"} {
		t.Run(group, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got closed
				c := closingCompany(t, rules, &got)
				g, told := c.guest("alice", aliceAt)
				if _, err := c.ra.Welcome(t.Context(), g); err != nil {
					t.Fatal(err)
				}
				before := c.ra.user(t, "alice")
				next := c.successorIn(group, native.Credentials{Certificate: before.Certificate}, newControl(), time.Hour/2).Certificate
				terms, err := c.ra.SucceedGuest(t.Context(), before, next)
				if want != "" {
					if gs := must(c.ra.Status(t.Context())).Guests; !errors.Is(err, ErrGone) || len(gs) != 0 {
						t.Errorf("%v, guests: %+v", err, gs)
					}
					select {
					case reason := <-told:
						if !strings.Contains(reason, want) {
							t.Errorf("told %q, want %q", reason, want)
						}
					default:
						t.Error("told nothing")
					}
					got.is(t)
					return
				}
				if err != nil || terms.Session != time.Hour {
					t.Errorf("terms %+v, %v", terms, err)
				}
				if err := c.ra.Prove(t.Context(), g, Ending{next, []byte("of the newer one")}); err != nil {
					t.Fatal(err)
				}
				if gs := must(c.ra.Status(t.Context())).Guests; len(gs) != 1 || !gs[0].Closing() {
					t.Errorf("the status does not say that it closes: %+v", gs)
				}
				if err := c.ra.Leave(t.Context(), g, "logged out"); err != nil {
					t.Fatal(err)
				}
				got.is(t, "ra guest alice, of the newer one")
			})
		})
	}
}

// A guest and a login here on the same certificate: who is last closes it, once. Somebody else does not come in a guest's place.
func TestGuestAndLoginOnOneCertificate(t *testing.T) {
	for name, guestLast := range map[string]bool{"the guest is last": true, "the login is last": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got closed
				c := closingCompany(t, revoking(true), &got)
				alice := c.alice("staff")
				if _, err := c.ra.Login(t.Context(), alice); err != nil {
					t.Fatal(err)
				}
				g := &Guest{Certificate: alice.Cred.Certificate, Address: netip.MustParseAddr("10.1.1.9"), Dismissed: func(string) {}}
				if _, err := c.ra.Welcome(t.Context(), g); err != nil {
					t.Fatal(err)
				}
				if err := c.ra.Prove(t.Context(), g, Ending{g.Certificate, []byte("first")}); err != nil {
					t.Fatal(err)
				}
				bob, _ := c.guest("bob", g.Address)
				bob.Replaces = g
				if _, err := c.ra.Welcome(t.Context(), bob); !errors.Is(err, ErrBusy) {
					t.Errorf("bob in alice's place: %v", err)
				}
				logout := func() {
					if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
						t.Error(err)
					}
				}
				leave := func() {
					if err := c.ra.Leave(t.Context(), g, "logged out"); err != nil {
						t.Error(err)
					}
				}
				first, last, want := logout, leave, "ra guest alice, first"
				if !guestLast {
					first, last, want = leave, logout, "ra alice"
				}
				first()
				got.is(t)
				last()
				got.is(t, want)
			})
		})
	}
}
