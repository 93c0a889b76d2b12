package engine

import (
	"fmt"
	"net/netip"
	"slices"
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
	c := newCompanyThat(t, &company{net: n, policy: p, takes: [2]calls.Capabilities{everything, everything}, closed: got.take, listen: func(i int) udpio.Conn {
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
