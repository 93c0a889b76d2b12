package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"twinkey/pkg/twincert"
	"twinkey/pkg/udpio/udptest"
	"twinkey/proto/handshake"
	"twinkey/proto/secret"
	"twinkey/router/internal/links"
	"twinkey/router/internal/native"
)

func nothingPasses(udptest.Datagram) []time.Duration { return nil }

func (c *company) crosses(text string) {
	c.t.Helper()
	there, back := packet(c.ra.host, c.rb.host, text), packet(c.rb.host, c.ra.host, text)
	c.ra.inject(c.t, there)
	c.rb.arrives(c.t, there)
	c.rb.inject(c.t, back)
	c.ra.arrives(c.t, back)
}

// alice is a user at ra.
func (c *company) alice(group string) native.Wish {
	return native.Wish{Key: links.Key{Peer: "rb", User: "alice"}, Cred: c.credentials(twincert.Template{Role: twincert.User, Name: "alice", Group: group}), Address: netip.MustParseAddr("10.1.1.3")}
}

// Both ends notice that the path is gone, keep trying, and are linked again soon after it
// is back, the user's call included.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		if _, err := c.ra.Login(t.Context(), c.alice("staff")); err != nil {
			t.Fatal(err)
		}
		c.net.Script(nothingPasses)
		time.Sleep(5 * time.Minute)
		if a, b := len(c.ra.calls(t)), len(c.rb.calls(t)); a != 0 || b != 0 {
			t.Fatalf("after 5 minutes of silence %d and %d calls are up", a, b)
		}
		c.ra.inject(t, packet(c.ra.host, c.rb.host, "lost"))
		c.net.Script(nil)
		time.Sleep(time.Minute)
		if a, b := len(c.ra.calls(t)), len(c.rb.calls(t)); a != 2 || b != 2 {
			t.Fatalf("a minute after the path came back %d and %d calls are up", a, b)
		}
		c.crosses("again")
	})
}

// A router that died without a word and starts anew is linked again before its peer has
// noticed that it was gone.
func TestPeerThatStartsAnew(t *testing.T) {
	for _, name := range []string{"ra", "rb"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t)
				c.linked()
				c.net.Script(nothingPasses)
				died, n := c.ra, 1
				if name == "rb" {
					died, n = c.rb, 2
				}
				died.stop()
				time.Sleep(2 * time.Second)
				c.net.Script(nil)
				anew := c.site(name, n)
				if name == "ra" {
					c.ra = anew
				} else {
					c.rb = anew
				}
				c.ra.setMap(t, c)
				c.rb.setMap(t, c)
				time.Sleep(15 * time.Second)
				c.crosses("anew")
				time.Sleep(time.Minute) // what the survivor held to the dead one is gone
				if a, b := len(c.ra.calls(t)), len(c.rb.calls(t)); a != 1 || b != 1 {
					t.Fatalf("%d and %d calls are up", a, b)
				}
				c.crosses("anew")
			})
		})
	}
}

// Half an hour of bad weather with rekeying every ten minutes: the link stays what it was, and
// packets are lost by the weather alone.
func TestBadWeather(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			c := newCompany(t)
			c.net.Script(udptest.Weather{Loss: 0.1, Duplicate: 0.1, Delay: 10 * time.Millisecond, Jitter: 30 * time.Millisecond}.Script(seed))
			time.Sleep(30 * time.Second)
			c.linked()
			first := c.ra.calls(t)[0].Active.Call.ID
			const n = 900
			for i := range n {
				c.ra.inject(t, packet(c.ra.host, c.rb.host, fmt.Sprint(i)))
				time.Sleep(2 * time.Second)
			}
			got := c.rb.collect(t, time.Second)
			if len(got) < n*80/100 {
				t.Errorf("seed %d: %d of %d packets arrived", seed, len(got), n)
			}
			if now := c.ra.calls(t); len(now) != 1 || now[0].Active.Call.ID != first {
				t.Errorf("seed %d: the link was lost: %+v", seed, now)
			}
		})
	}
}

// A link on demand is opened by the first packet that needs it, by no other.
func TestLinkOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		for _, s := range []*site{c.ra, c.rb} {
			m := Map{Local: s.peer.Announced, Public: true, Demand: true, Wanted: func(string) bool { return true }}
			if err := s.SetMap(t.Context(), m); err != nil { // nobody else: the link ends
				t.Fatal(err)
			}
			m.Peers = []native.Peer{c.ra.peer}
			if s == c.ra {
				m.Peers[0] = c.rb.peer
			}
			if err := s.SetMap(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		if len(c.ra.calls(t)) != 0 {
			t.Fatal("nobody asked for the link")
		}
		c.ra.inject(t, packet(c.ra.host, netip.MustParseAddr("192.0.2.1"), "elsewhere"))
		time.Sleep(time.Minute)
		if len(c.ra.calls(t)) != 0 {
			t.Fatal("a packet to elsewhere opened the link")
		}
		c.ra.inject(t, packet(c.ra.host, c.rb.host, "open"))
		time.Sleep(10 * time.Second)
		c.linked()
		c.crosses("open now")
	})
}

// A user whom the far end refuses is told so, once, and her keys are wiped.
func TestLoginThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		eve := c.alice("sales") // not in the scope of ra
		if call, err := c.ra.Login(t.Context(), eve); err == nil {
			t.Fatalf("call %d is up", call.ID)
		}
		if !bytes.Equal(eve.Cred.Data.Private.Bytes(), make([]byte, 32)) {
			t.Error("the private key was not wiped")
		}
		if l := must(c.ra.Status(t.Context())).Links; len(l) != 1 {
			t.Errorf("links: %+v", l)
		}
		for range 2 { // the second time no one is logged in either
			lost := c.alice("staff")
			lost.Key.Peer = "nobody"
			if _, err := c.ra.Login(t.Context(), lost); !errors.Is(err, native.ErrUnknownPeer) {
				t.Errorf("err = %v", err)
			}
		}
		abroad := c.alice("staff")
		abroad.Address = netip.MustParseAddr("10.9.9.9")
		if _, err := c.ra.Login(t.Context(), abroad); !errors.Is(err, ErrNotOurs) {
			t.Errorf("err = %v", err)
		}
	})
}

// A user's address is nobody else's: neither of the site, which the site link carries, nor of another router.
func TestUsersLiveApartFromSites(t *testing.T) {
	for name, tt := range map[string]struct {
		address string
		want    error
	}{
		"for users":                      {"10.1.1.3", nil},
		"a host of the site":             {"10.1.0.2", ErrBridged},
		"the site's own network address": {"10.1.0.0", ErrBridged},
		"nowhere":                        {"10.9.9.9", ErrNotOurs},
		"a host of another site":         {"10.2.0.2", ErrNotOurs},
		"certified for both":             {"10.1.1.200", ErrBridged},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t)
				c.rb.peer.Certified = append(c.rb.peer.Certified, netip.MustParsePrefix("10.1.1.192/26"))
				c.ra.setMap(t, c)
				c.linked()
				alice := c.alice("staff")
				alice.Address = netip.MustParseAddr(tt.address)
				if _, err := c.ra.Login(t.Context(), alice); !errors.Is(err, tt.want) {
					t.Errorf("err = %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// A prefix that is bridged from now on takes its addresses back from users, and their keys go.
func TestBridgingEndsUsersCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		alice := c.alice("staff")
		if _, err := c.ra.Login(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		c.ra.peer.Announced = c.ra.peer.Certified
		c.ra.setMap(t, c)
		time.Sleep(time.Second)
		if n := len(c.ra.calls(t)); n != 1 {
			t.Errorf("%d calls are up, want the site link alone", n)
		}
		if !bytes.Equal(alice.Cred.Data.Private.Bytes(), make([]byte, 32)) {
			t.Error("the private key was not wiped")
		}
	})
}

// A login that nobody waits for any more leaves nothing behind.
func TestLoginThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		c.net.Script(nothingPasses)
		alice := c.alice("staff")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ra.Login(ctx, alice); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("err = %v", err)
		}
		if !bytes.Equal(alice.Cred.Data.Private.Bytes(), make([]byte, 32)) {
			t.Error("the private key was not wiped")
		}
		c.net.Script(nil)
		time.Sleep(time.Minute)
		for _, s := range []*site{c.ra, c.rb} {
			for _, call := range s.calls(t) {
				if call.Active.Call.User != "" {
					t.Errorf("%s: a call of %s is up", s.name, call.Active.Call.User)
				}
			}
		}
		if _, err := c.ra.Login(t.Context(), c.alice("staff")); err != nil {
			t.Errorf("logging in again: %v", err)
		}
	})
}

// The user whose login opened a group's tunnel logs out and her keys are wiped: the
// tunnel goes on with the keys of those who are still in it, rekeying included.
func TestTheFirstOfAGroupLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		group := c.credentials(twincert.Template{Role: twincert.User, Name: "first", Group: "staff"}).Control
		user := func(uid, address string) native.Wish {
			own := must(handshake.NewKeyPair(secret.Copy(group.Private.Bytes())))
			return native.Wish{Key: links.Key{Peer: "rb", User: uid}, Cred: c.credentialsWith(twincert.Template{Role: twincert.User, Name: uid, Group: "staff"}, &own), Address: netip.MustParseAddr(address)}
		}
		if _, err := c.ra.Login(t.Context(), user("alice", "10.1.1.3")); err != nil {
			t.Fatal(err)
		}
		bob, err := c.ra.Login(t.Context(), user("bob", "10.1.1.4"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ra.Hangup(t.Context(), 0, "alice"); err != nil {
			t.Fatal(err)
		}
		for i := range 25 {
			time.Sleep(time.Minute)
			p := packet(netip.MustParseAddr("10.1.1.4"), c.rb.host, fmt.Sprint(i))
			c.ra.inject(t, p)
			c.rb.arrives(t, p)
		}
		var found bool
		for _, call := range c.ra.calls(t) {
			found = found || call.Active.Call == bob
		}
		if !found {
			t.Error("bob's call was lost")
		}
		for _, tun := range must(c.ra.Status(t.Context())).Tunnels {
			if tun.Association.Rekeys < 2 {
				t.Errorf("tunnel %d was rekeyed %d times in 25 minutes", tun.ID, tun.Association.Rekeys)
			}
		}
	})
}

// Revocation at either end ends the call at once, and it does not come back.
func TestRevoke(t *testing.T) {
	for _, at := range []string{"ra", "rb"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCompany(t)
				c.linked()
				alice := c.alice("staff")
				id := alice.Cred.Certificate.ID()
				if _, err := c.ra.Login(t.Context(), alice); err != nil {
					t.Fatal(err)
				}
				s := c.ra
				if at == "rb" {
					s = c.rb
				}
				if err := s.Revoke(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				for range 2 {
					if a, b := len(c.ra.calls(t)), len(c.rb.calls(t)); a != 1 || b != 1 {
						t.Errorf("%d and %d calls are up", a, b)
					}
					time.Sleep(5 * time.Minute)
				}
				if wiped := bytes.Equal(alice.Cred.Data.Private.Bytes(), make([]byte, 32)); wiped != (at == "ra") {
					t.Errorf("the private key was wiped at ra, which heard at %s: %v", at, wiped)
				}
			})
		})
	}
}

// A peer that leaves the site map has no link any more; one that comes back has.
func TestPeerLeavesTheMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		if err := c.ra.SetMap(t.Context(), Map{Local: c.ra.peer.Announced, Public: true, Wanted: func(string) bool { return true }}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if a, b := len(c.ra.calls(t)), len(c.rb.calls(t)); a != 0 || b != 0 {
			t.Fatalf("%d and %d calls are up", a, b)
		}
		time.Sleep(5 * time.Minute)
		if a := len(c.ra.calls(t)); a != 0 {
			t.Fatal("a router that is not in the site map was let in")
		}
		c.ra.setMap(t, c)
		time.Sleep(time.Minute)
		c.linked()
		c.crosses("back")
	})
}

// What is asked of an engine that has ended is answered.
func TestAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompany(t)
		c.linked()
		c.ra.stop()
		synctest.Wait()
		time.Sleep(time.Second)
		if _, err := c.ra.Status(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("Status: %v", err)
		}
		if _, err := c.ra.Login(t.Context(), c.alice("staff")); !errors.Is(err, ErrStopped) {
			t.Errorf("Login: %v", err)
		}
		if _, err := c.ra.Hangup(t.Context(), 1, ""); !errors.Is(err, ErrStopped) {
			t.Errorf("Hangup: %v", err)
		}
	})
}

// Of the portal: a login is seen from its address alone, and only its user's and its address's is ended.
func TestLoginsOfAnAddress(t *testing.T) {
	c := newCompany(t)
	c.linked()
	alice := c.alice("staff")
	call, err := c.ra.Login(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	at, err := c.ra.Logins(t.Context(), alice.Address)
	if err != nil || len(at) != 1 || at[0].Key != alice.Key || at[0].Call == nil || at[0].Call.Active.Call != call || at[0].Since.IsZero() {
		t.Fatalf("%+v, %v", at, err)
	}
	all, err := c.ra.Logins(t.Context(), netip.Addr{})
	if err != nil || len(all) != 1 {
		t.Errorf("in all: %+v, %v", all, err)
	}
	elsewhere := alice.Address.Next()
	if at, err := c.ra.Logins(t.Context(), elsewhere); err != nil || len(at) != 0 {
		t.Errorf("from another address: %+v, %v", at, err)
	}
	for _, other := range []struct {
		user string
		at   netip.Addr
	}{{"alice", elsewhere}, {"bob", alice.Address}, {"", alice.Address}} {
		if n, err := c.ra.Logout(t.Context(), other.user, other.at); n != 0 || err != nil {
			t.Errorf("%v ended %d: %v", other, n, err)
		}
	}
	if n, err := c.rb.Logout(t.Context(), "alice", alice.Address); n != 0 || err != nil {
		t.Errorf("at the far end %d ended: %v", n, err)
	}
	if n, err := c.ra.Logout(t.Context(), "alice", alice.Address); n != 1 || err != nil {
		t.Errorf("%d ended: %v", n, err)
	}
	if at, err := c.ra.Logins(t.Context(), alice.Address); err != nil || len(at) != 0 {
		t.Errorf("after the end: %+v, %v", at, err)
	}
	until(t, "the end of alice's call at rb", func() bool { return len(c.rb.calls(t)) == 1 })
}
