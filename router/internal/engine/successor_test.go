package engine

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/pkg/udpio"
	"twinkey/pkg/udpio/udptest"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/calls"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
	"twinkey/router/internal/policy"
)

func newControl() handshake.KeyPair {
	return must(handshake.NewKeyPair(secret.New(must(ecdh.X25519().GenerateKey(rand.Reader)).Bytes())))
}

// successor certifies the data key of a user anew, beside this control key, for so long.
func (c *company) successor(old native.Credentials, control handshake.KeyPair, life time.Duration) native.Credentials {
	return c.successorIn(old.Certificate.Group, old, control, life)
}

func (c *company) successorIn(group string, old native.Credentials, control handshake.KeyPair, life time.Duration) native.Credentials {
	tmpl := twincert.Template{Role: twincert.User, Name: old.Certificate.Name, Group: group, Profile: twincert.Paper,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life)}
	c.serial++
	tmpl.Serial, tmpl.Keys = big.NewInt(c.serial), twincert.Keys{Control: control.Public, Data: old.Certificate.Keys.Data}
	return native.Credentials{
		Certificate: must(twincert.Parse(must(twincert.Create(rand.Reader, &tmpl, c.ca, c.key)))),
		Control:     must(handshake.NewKeyPair(secret.Copy(control.Private.Bytes()))),
	}
}

// succeed does what the router does with a successor: its data key is the one that was held.
func (s *site) succeed(c *company, u User, control handshake.KeyPair, old native.Credentials) (native.Credentials, error) {
	return s.succeedFor(c, u, control, old, 45*time.Minute)
}

func (s *site) succeedFor(c *company, u User, control handshake.KeyPair, old native.Credentials, life time.Duration) (native.Credentials, error) {
	return s.goOver(c, u, c.successor(old, control, life))
}

func (s *site) goOver(c *company, u User, cred native.Credentials) (native.Credentials, error) {
	err := s.Succeed(c.t.Context(), u, func(data secret.Key) (_ native.Credentials, err error) {
		cred.Data, err = handshake.NewKeyPair(secret.Copy(data.Bytes()))
		return cred, err
	})
	return cred, err
}

func (s *site) user(t testing.TB, uid string) User {
	t.Helper()
	us := must(s.Users(t.Context()))
	i := slices.IndexFunc(us, func(u User) bool { return u.Key.User == uid })
	if i < 0 {
		t.Fatalf("%s is not logged in: %+v", uid, us)
	}
	return us[i]
}

// groupCalls are the users' calls of a site and the tunnels that they are in.
func (s *site) groupCalls(t testing.TB) (ids []uint64, tunnels []uint16) {
	t.Helper()
	for _, c := range s.calls(t) {
		if c.Key.User != "" {
			ids = append(ids, c.Active.Call.ID)
			if !slices.Contains(tunnels, c.Active.Call.LocalTunnel) {
				tunnels = append(tunnels, c.Active.Call.LocalTunnel)
			}
		}
	}
	return ids, tunnels
}

// staff are two users of a group, logged in at ra: their calls are in one tunnel.
func (c *company) staff() (users [2]native.Wish, tunnel uint16) {
	c.t.Helper()
	control := newControl()
	for i, uid := range []string{"alice", "bob"} {
		own := must(handshake.NewKeyPair(secret.Copy(control.Private.Bytes()))) // each login has keys of its own to wipe
		users[i] = native.Wish{Key: links.Key{Peer: "rb", User: uid}, Address: netip.MustParseAddr(fmt.Sprintf("10.1.1.%d", 3+i)),
			Cred: c.credentialsWith(twincert.Template{Role: twincert.User, Name: uid, Group: "staff"}, &own)}
		if _, err := c.ra.Login(c.t.Context(), users[i]); err != nil {
			c.t.Fatal(err)
		}
	}
	_, tunnels := c.ra.groupCalls(c.t)
	if len(tunnels) != 1 {
		c.t.Fatalf("the calls are in tunnels %v", tunnels)
	}
	return users, tunnels[0]
}

// What the CA's CRL alone says ends calls; the logins wait for the directory, which may know of newer certificates. There is no call until then.
func TestCut(t *testing.T) {
	for name, newer := range map[string]bool{"there is a newer certificate": true, "there is none": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t)
				c.linked()
				users, _ := c.staff()
				old := users[0].Cred
				for _, s := range []*site{c.ra, c.rb} {
					if err := s.Cut(t.Context(), old.Certificate.ID()); err != nil {
						t.Fatal(err)
					}
				}
				for range 10 {
					time.Sleep(time.Minute)
					for _, s := range []*site{c.ra, c.rb} {
						if ids, _ := s.groupCalls(t); len(ids) != 1 {
							t.Fatalf("%s has the users' calls %v", s.name, ids)
						}
					}
					if us := must(c.ra.Users(t.Context())); len(us) != 2 {
						t.Fatalf("logged in: %+v", us)
					}
				}
				if newer {
					if _, err := c.ra.succeed(c, c.ra.user(t, "alice"), newControl(), old); err != nil {
						t.Fatal(err)
					}
				}
				for _, s := range []*site{c.ra, c.rb} { // the directory is back
					if err := s.Revoke(t.Context(), old.Certificate.ID()); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				want := 1
				if newer {
					want = 2
				}
				for _, s := range []*site{c.ra, c.rb} {
					if ids, _ := s.groupCalls(t); len(ids) != want {
						t.Errorf("%s has the users' calls %v", s.name, ids)
					}
				}
				if us := must(c.ra.Users(t.Context())); len(us) != want {
					t.Errorf("logged in: %+v", us)
				}
				if len(c.ra.state.doubted) != 0 {
					t.Errorf("kept %v", c.ra.state.doubted)
				}
			})
		})
	}
}

// Who logs out while the call is placed anew on a newer certificate is logged out.
func TestLogoutDuringASuccession(t *testing.T) {
	for name, wait := range map[string]time.Duration{"the new call is being placed": 0, "both are up": 100 * time.Millisecond, "the old one has gone": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t)
				c.linked()
				users, _ := c.staff()
				alice := users[0]
				if _, err := c.ra.succeed(c, c.ra.user(t, "alice"), newControl(), alice.Cred); err != nil {
					t.Fatal(err)
				}
				time.Sleep(wait)
				if n, err := c.ra.Logout(t.Context(), "alice", alice.Address); n != 1 || err != nil {
					t.Fatalf("%d logins ended, %v", n, err)
				}
				time.Sleep(time.Minute)
				if us := must(c.ra.Users(t.Context())); len(us) != 1 || us[0].Key.User != "bob" {
					t.Errorf("still logged in: %+v", us)
				}
				for _, s := range []*site{c.ra, c.rb} {
					if ids, _ := s.groupCalls(t); len(ids) != 1 {
						t.Errorf("%s has the users' calls %v", s.name, ids)
					}
				}
			})
		})
	}
}

// The group has another control key: both users' calls are placed anew, in one new tunnel; the old tunnel goes, and no packet of
// either user is lost meanwhile.
func TestRotationIsMakeBeforeBreak(t *testing.T) {
	c := newCompany(t)
	c.linked()
	users, tunnel := c.staff()
	sent := 0
	step := func() {
		for _, u := range users {
			there, back := packet(u.Address, c.rb.host, fmt.Sprint("there ", sent)), packet(c.rb.host, u.Address, fmt.Sprint("back ", sent))
			c.ra.inject(t, there)
			c.rb.arrives(t, there)
			c.rb.inject(t, back)
			c.ra.arrives(t, back)
		}
		sent++
	}
	until(t, "the calls at rb", func() bool { ids, _ := c.rb.groupCalls(t); return len(ids) == 2 })
	step()
	next := newControl()
	for _, u := range users {
		if _, err := c.ra.succeed(c, c.ra.user(t, u.Key.User), next, u.Cred); err != nil {
			t.Fatal(err)
		}
		step()
		if !bytes.Equal(u.Cred.Data.Private.Bytes(), make([]byte, 32)) || !bytes.Equal(u.Cred.Control.Private.Bytes(), make([]byte, 32)) {
			t.Error("the keys before were not wiped")
		}
	}
	until(t, "two calls in one other tunnel, and the old tunnel gone", func() bool {
		step()
		ids, tunnels := c.ra.groupCalls(t)
		st := must(c.ra.Status(t.Context()))
		return len(ids) == 2 && len(tunnels) == 1 && tunnels[0] != tunnel && len(st.Tunnels) == 2 // the site link's besides
	})
	for _, u := range users {
		if got := c.ra.user(t, u.Key.User); got.Certificate.Keys.Control != next.Public || got.Certificate.Keys.Data != u.Cred.Certificate.Keys.Data {
			t.Errorf("%s is logged in with other keys", u.Key.User)
		}
	}
	// Now the old certificates can be revoked, and nobody notices.
	ids := []twincert.ID{users[0].Cred.Certificate.ID(), users[1].Cred.Certificate.ID()}
	for _, s := range []*site{c.ra, c.rb} {
		if err := s.Revoke(t.Context(), ids...); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if ids, _ := c.ra.groupCalls(t); len(ids) != 2 {
		t.Errorf("calls %v", ids)
	}
}

// The same keys for longer: the call is placed anew in the tunnel that stands.
func TestRenewalOfAUser(t *testing.T) {
	c := newCompany(t)
	c.linked()
	users, tunnel := c.staff()
	before := c.ra.user(t, "alice")
	control := must(handshake.NewKeyPair(secret.Copy(users[0].Cred.Control.Private.Bytes())))
	cred, err := c.ra.succeed(c, before, control, users[0].Cred)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "alice's call on the new certificate, alone", func() bool {
		n, now := 0, false
		for _, x := range c.ra.calls(t) {
			if x.Key.User == "alice" {
				n, now = n+1, x.Active.Call.Cert == cred.Certificate.ID()
			}
		}
		return n == 1 && now
	})
	if _, tunnels := c.ra.groupCalls(t); !slices.Equal(tunnels, []uint16{tunnel}) {
		t.Errorf("the calls are in tunnels %v, not in %d", tunnels, tunnel)
	}
	// Whoever comes with news of the certificate before finds that it is not hers any more.
	late, err := c.ra.succeed(c, before, control, users[0].Cred)
	if !errors.Is(err, ErrGone) {
		t.Errorf("err = %v", err)
	}
	if late.Data.Private.Len() != 0 {
		t.Error("what came late was opened")
	}
	bad := errors.New("it does not open")
	if err := c.ra.Succeed(t.Context(), c.ra.user(t, "bob"), func(secret.Key) (native.Credentials, error) { return native.Credentials{}, bad }); !errors.Is(err, bad) {
		t.Errorf("err = %v", err)
	}
	if got := c.ra.user(t, "bob"); got.Certificate.ID() != users[1].Cred.Certificate.ID() {
		t.Error("bob has another certificate")
	}
	if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of alice's login", func() bool { return len(must(c.ra.Users(t.Context()))) == 1 })
	if !bytes.Equal(cred.Data.Private.Bytes(), make([]byte, 32)) {
		t.Error("her private key was not wiped")
	}
}

// The old certificate is revoked while the call on the new one is being placed: the call goes, the login stays.
func TestRevocationOvertakesASuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		users, _ := c.staff()
		c.net.Script(nothingPasses) // the new call does not come up
		cred, err := c.ra.succeed(c, c.ra.user(t, "alice"), newControl(), users[0].Cred)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*site{c.ra, c.rb} {
			if err := s.Revoke(t.Context(), users[0].Cred.Certificate.ID()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		for _, x := range c.ra.calls(t) {
			if x.Key.User == "alice" {
				t.Errorf("her call stands on %s, which is revoked", x.Active.Call.Cert)
			}
		}
		c.net.Script(nil)
		time.Sleep(time.Minute)
		up := false
		for _, x := range c.ra.calls(t) {
			up = up || x.Key.User == "alice" && x.Active.Call.Cert == cred.Certificate.ID()
		}
		if !up {
			t.Error("her call on the new certificate is not up")
		}
		// Revoking that ends the login.
		if err := c.ra.Revoke(t.Context(), cred.Certificate.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if us := must(c.ra.Users(t.Context())); len(us) != 1 || us[0].Key.User != "bob" {
			t.Errorf("logged in: %+v", us)
		}
	})
}

// Alice is put into another group, and what she had before is revoked in the same moment: her login goes on, in a tunnel of that group, under its
// rules at both ends. In a group that the policy has no call for she is let go of, whatever is revoked.
func TestSuccessorInAnotherGroup(t *testing.T) {
	rules := must(policy.New([]policy.Rule{{Groups: []string{"staff"}}, {Groups: []string{"guests"}, To: []netip.Prefix{netip.MustParsePrefix("10.2.0.7/32")}}}))
	for name, group := range map[string]string{"with a rule": "guests", "without": "nobody"} {
		t.Run(name, func(t *testing.T) {
			n := udptest.NewNetwork()
			c := newCompanyThat(t, &company{net: n, policy: rules, scope: []string{"*"}, takes: [2]calls.Capabilities{everything, everything}, listen: func(i int) udpio.Conn {
				return must(n.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(i)}), 1701)))
			}})
			c.linked()
			users, tunnel := c.staff()
			until(t, "the calls at rb", func() bool { ids, _ := c.rb.groupCalls(t); return len(ids) == 2 })
			alice, bob := users[0], users[1]
			sent := packet(alice.Address, c.rb.host, "as staff")
			c.ra.inject(t, sent)
			c.rb.arrives(t, sent)
			cred, err := c.ra.goOver(c, c.ra.user(t, "alice"), c.successorIn(group, alice.Cred, newControl(), 45*time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if group == "nobody" {
				until(t, "the end of alice's login and call", func() bool {
					ids, _ := c.ra.groupCalls(t)
					return len(must(c.ra.Users(t.Context()))) == 1 && len(ids) == 1
				})
				if !bytes.Equal(cred.Data.Private.Bytes(), make([]byte, 32)) {
					t.Error("her private key was not wiped")
				}
				return
			}
			for _, s := range []*site{c.rb, c.ra} {
				if err := s.Revoke(t.Context(), alice.Cred.Certificate.ID()); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "alice's call in a tunnel of its own, at both ends", func() bool {
				_, tunnels := c.ra.groupCalls(t)
				up := 0
				for _, s := range []*site{c.ra, c.rb} {
					for _, x := range s.calls(t) {
						if x.Key.User == "alice" && x.Active.Call.Cert == cred.Certificate.ID() {
							up++
						} else if x.Key.User == "alice" {
							t.Errorf("%s: a call of hers stands on %s", s.name, x.Active.Call.Cert)
						}
					}
				}
				return up == 2 && len(tunnels) == 2 && slices.Contains(tunnels, tunnel)
			})
			c.ra.inject(t, packet(alice.Address, c.rb.host, "as a guest, where staff may go"))
			allowed := packet(alice.Address, netip.MustParseAddr("10.2.0.7"), "where guests may go")
			c.ra.inject(t, allowed)
			c.rb.arrives(t, allowed)
			// What the near end would let pass the far end does not.
			if err := c.ra.SetPolicy(t.Context(), must(policy.New([]policy.Rule{{Groups: []string{policy.Everybody}}}))); err != nil {
				t.Fatal(err)
			}
			c.ra.inject(t, packet(alice.Address, c.rb.host, "as a guest, where staff may go"))
			until(t, "the packet is counted at the far end", func() bool {
				for _, x := range c.rb.calls(t) {
					if x.Key.User == "alice" {
						return x.Active.Call.Denied.Load() == 1
					}
				}
				return false
			})
			c.rb.nothingArrives(t)
			there := packet(bob.Address, c.rb.host, "bob is staff")
			c.ra.inject(t, there)
			c.rb.arrives(t, there)
		})
	}
}

// A successor that comes while the call is still being placed: what comes up on the certificate before is replaced, and if that is revoked
// as well the call is placed anew, and whoever waits for it has it.
func TestSuccessorDuringALogin(t *testing.T) {
	for name, revoked := range map[string]bool{"alone": false, "with a revocation": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { successorDuringALogin(t, revoked) })
		})
	}
}

func successorDuringALogin(t *testing.T, revoked bool) {
	c := newCompany(t)
	c.linked()
	c.net.Script(nothingPasses)
	alice := c.alice("staff")
	done := make(chan error, 1)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() {
		_, err := c.ra.Login(ctx, alice)
		done <- err
	}()
	time.Sleep(time.Second)
	before := c.ra.user(t, "alice")
	cred, err := c.ra.succeed(c, before, newControl(), alice.Cred)
	if err != nil {
		t.Fatal(err)
	}
	if revoked {
		for _, s := range []*site{c.ra, c.rb} {
			if err := s.Revoke(t.Context(), before.Certificate.ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.net.Script(nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	n := 0
	for _, x := range c.ra.calls(t) {
		if x.Key.User == "alice" {
			n++
			if x.Active.Call.Cert != cred.Certificate.ID() {
				t.Errorf("her call stands on %s", x.Active.Call.Cert)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d calls", n)
	}
}

// At the end of its certificate a call ends, at both ends, and says so.
func TestCertificateEndsDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended []string
		c := newCompany(t)
		c.linked()
		alice := c.alice("staff")
		if _, err := c.ra.Login(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		if _, err := c.ra.succeedFor(c, c.ra.user(t, "alice"), newControl(), alice.Cred, 10*time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the call of before is gone
		until := c.ra.user(t, "alice").Certificate.NotAfter
		var mu sync.Mutex
		record := func(v CallEvent) {
			mu.Lock()
			defer mu.Unlock()
			if !v.Up && v.Key.User == "alice" {
				ended = append(ended, v.Reason)
			}
		}
		for _, s := range []*site{c.ra, c.rb} {
			if err := s.Do(t.Context(), func(time.Time) { s.c.Record = record }); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Until(until) - time.Second)
		for _, s := range []*site{c.ra, c.rb} { // the directory has been heard all along
			s.trust.Heard(time.Now())
		}
		if ids, _ := c.ra.groupCalls(t); len(ids) != 1 {
			t.Fatalf("before the end: calls %v", ids)
		}
		time.Sleep(30 * time.Second)
		if us := must(c.ra.Users(t.Context())); len(us) != 0 {
			t.Errorf("still logged in: %+v", us)
		}
		mu.Lock()
		defer mu.Unlock()
		want := "certificate of user alice expired at " + until.UTC().Format(time.RFC3339)
		if !slices.Equal(ended, []string{want, want}) {
			t.Errorf("ended because of %q, want %q at both ends", ended, want)
		}
	})
}

// The far end has heard of a revocation and we have not: the calls end, the login waits for what the directory will say; a newer certificate
// brings the call back, the revocation ends the login.
func TestRevocationThatOnlyThePeerHasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		users, _ := c.staff()
		for _, u := range users {
			if err := c.rb.Revoke(t.Context(), u.Cred.Certificate.ID()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if ids, _ := c.ra.groupCalls(t); len(ids) != 0 {
			t.Errorf("calls %v", ids)
		}
		if us := must(c.ra.Users(t.Context())); len(us) != 2 {
			t.Fatalf("logged in: %+v", us)
		}
		cred, err := c.ra.succeed(c, c.ra.user(t, "alice"), newControl(), users[0].Cred)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range users {
			if err := c.ra.Revoke(t.Context(), u.Cred.Certificate.ID()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if us := must(c.ra.Users(t.Context())); len(us) != 1 || us[0].Certificate.ID() != cred.Certificate.ID() {
			t.Errorf("logged in: %+v", us)
		}
		if ids, _ := c.ra.groupCalls(t); len(ids) != 1 {
			t.Errorf("calls %v", ids)
		}
	})
}

// Both ends know of a revocation, and succession is still asking for a newer certificate: the calls end, the login waits for what comes
// of it. A revocation that is in a CRL alone ends it all the same, later.
func TestRevocationBeforeItIsActedOn(t *testing.T) {
	for name, then := range map[string]func(c *company, u native.Wish) (stays bool){
		"a newer certificate": func(c *company, u native.Wish) bool {
			must(c.ra.succeed(c, c.ra.user(c.t, "alice"), newControl(), u.Cred))
			return true
		},
		"no newer one": func(c *company, u native.Wish) bool {
			if err := c.ra.Revoke(c.t.Context(), u.Cred.Certificate.ID()); err != nil {
				c.t.Fatal(err)
			}
			return false
		},
		"nothing": func(*company, native.Wish) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t)
				c.linked()
				users, _ := c.staff()
				id := users[0].Cred.Certificate.ID()
				c.ra.trust.Revoke(id)
				if err := c.rb.Revoke(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second) // as long as succession takes at the most
				if ids, _ := c.ra.groupCalls(t); len(ids) != 1 {
					t.Errorf("calls %v", ids)
				}
				if us := must(c.ra.Users(t.Context())); len(us) != 2 {
					t.Fatalf("logged in: %+v", us)
				}
				want := 1
				if then(c, users[0]) {
					want = 2
					if err := c.ra.Revoke(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute)
				if us := must(c.ra.Users(t.Context())); len(us) != want {
					t.Errorf("logged in: %+v", us)
				}
				if ids, _ := c.ra.groupCalls(t); len(ids) != want {
					t.Errorf("calls %v", ids)
				}
				if err := c.ra.Do(t.Context(), func(time.Time) {
					if len(c.ra.state.doubted) != 0 {
						t.Errorf("kept %v", c.ra.state.doubted)
					}
				}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// A guest is on the newer certificate: the revocation of the one before does not concern them, that of the newer one ends their stay.
func TestGuestSucceeds(t *testing.T) {
	c := newCompany(t)
	g, told := c.guest("alice", aliceAt)
	if _, err := c.ra.Welcome(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	before := c.ra.user(t, "alice")
	if before.Guest != g || before.Key.Peer != "" {
		t.Errorf("%+v", before)
	}
	next := c.successor(native.Credentials{Certificate: before.Certificate}, newControl(), time.Hour/2).Certificate
	if _, err := c.ra.SucceedGuest(t.Context(), before, next); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ra.SucceedGuest(t.Context(), before, next); !errors.Is(err, ErrGone) {
		t.Errorf("again: %v", err)
	}
	if err := c.ra.Revoke(t.Context(), before.Certificate.ID()); err != nil {
		t.Fatal(err)
	}
	if gs := must(c.ra.Status(t.Context())).Guests; len(gs) != 1 || gs[0].Certificate.ID() != next.ID() {
		t.Errorf("guests: %+v", gs)
	}
	if err := c.ra.Revoke(t.Context(), next.ID()); err != nil {
		t.Fatal(err)
	}
	if reason := <-told; reason != "certificate revoked" {
		t.Errorf("dismissed: %q", reason)
	}
}
