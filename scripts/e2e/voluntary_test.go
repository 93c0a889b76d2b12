//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// front is a company whose router ra serves users' own machines, and alice, who has one: hosta, at 10.1.1.3.
func front(t *testing.T, extra string) (c *lab.Company, alice netip.Addr) {
	t.Helper()
	needs(t, "nft", "nftables")
	c = network(t)
	ctx := t.Context()
	check(t, c.UpWith(ctx, lab.SiteA, lab.SiteB, lab.SiteA.Clients()+extra, ""))
	check(t, lab.Masquerade(ctx, c.RA, "wan0"))
	for _, uid := range []string{"alice", "bob"} {
		check(t, c.AddUser(ctx, uid, rand.Text()))
	}
	alice = netip.MustParseAddr("10.1.1.3")
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(alice, lab.SiteA.Users.Bits())))
	return c, alice
}

// reaches waits until a host reaches hostb from an address: the first packet asks for the call.
func reaches(t *testing.T, h *netlab.Host, from netip.Addr, within time.Duration, by ...*lab.Process) {
	t.Helper()
	check(t, lab.Until(t.Context(), "an answered ping from "+from.String(), within, func(ctx context.Context) error {
		_, err := h.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, From: from, Count: 1, Wait: 300 * time.Millisecond})
		return err
	}, by...))
}

// sends carries n patterned bytes from one host to another and compares.
func sends(t *testing.T, from, to *netlab.Host, at netip.Addr, n int64) {
	t.Helper()
	tr, err := netlab.Transfer(t.Context(), from, to, at, io.LimitReader(&pattern{seed: 7}, n))
	check(t, err)
	if !tr.Intact() || tr.Bytes != n {
		t.Errorf("%d bytes sent to %s, %d arrived, intact: %v", n, at, tr.Bytes, tr.Intact())
	}
}

// exits waits until a client has ended by itself and returns what it said.
func exits(t *testing.T, p *lab.Process, within time.Duration) string {
	t.Helper()
	select {
	case <-p.Exited():
	case <-time.After(within):
		t.Fatalf("the client is still there:\n%s", p.Tail())
	}
	return p.Tail()
}

// gone demands that nothing of a client is left on its machine, and no call at the far end.
func gone(t *testing.T, c *lab.Company, h *netlab.Host, uid string) {
	t.Helper()
	check(t, h.Do(func() error {
		if i, err := net.InterfaceByName("twinkey0"); err == nil {
			return fmt.Errorf("interface %s is still there", i.Name)
		}
		return nil
	}))
	check(t, lab.Until(t.Context(), "the end of "+uid+"'s call at rb", 10*time.Second, func(ctx context.Context) error {
		st, err := c.Status(ctx, lab.SiteB)
		if _, up := st.UserCall(uid); err == nil && up {
			err = errors.New("it is up")
		}
		return err
	}, c.Routers[lab.SiteB.Name]))
}

// clearOf looks through a capture: nothing with a private address of site B may stand in it, but ESP to rb must.
func clearOf(t *testing.T, file string) {
	t.Helper()
	esp, clear := 0, 0
	for f, err := range netlab.Frames(file) {
		check(t, err)
		if len(f) < 14+20 || binary.BigEndian.Uint16(f[12:]) != 0x0800 {
			continue
		}
		ip := f[14:]
		src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		if lab.SiteB.LAN.Contains(src) || lab.SiteB.LAN.Contains(dst) || bytes.Contains(ip, []byte("correct horse")) {
			clear++
		}
		if l := int(ip[0]&15) * 4; ip[9] == 17 && dst == lab.SiteB.WAN && len(ip) >= l+12 && binary.BigEndian.Uint16(ip[l+2:]) == 1701 && binary.BigEndian.Uint32(ip[l+8:]) != 0 {
			esp++
		}
	}
	if clear > 0 || esp < 100 {
		t.Errorf("%d packets left in the clear, %d in ESP", clear, esp)
	}
}

// A user's own machine on the LAN encrypts by itself; the router in front vouches for it, forwards, and carries no call.
func TestVoluntary(t *testing.T) {
	t.Parallel()
	c, alice := front(t, fmt.Sprintf("portal: {listen: \"%s:443\", name: ra}\n", portalAddr))
	ctx := t.Context()
	root := portalUp(t, c)
	capture, err := c.HostA.Capture("eth0", filepath.Join(c.Dir, "hosta.pcap"))
	check(t, err)
	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice")
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	mustPing(t, c, alice)
	sends(t, c.HostA, c.HostB, lab.SiteB.Host, 20<<20)
	sends(t, c.HostB, c.HostA, alice, 20<<20)
	check(t, capture.Close())
	clearOf(t, filepath.Join(c.Dir, "hosta.pcap"))

	st := status(t, c, lab.SiteA)
	if _, up := st.UserCall("alice"); up {
		t.Error("the router in front carries her call")
	}
	if len(st.Clients) != 1 || st.Clients[0].User != "alice" || st.Clients[0].Address != alice {
		t.Errorf("clients: %+v", st.Clients)
	}
	if call, up := status(t, c, lab.SiteB).UserCall("alice"); !up || call.Peer != lab.SiteA.Name {
		t.Errorf("at the far end: %+v, %v", call, up)
	}
	res, err := client(t, c, root, alice).Get("https://ra/")
	check(t, err)
	page, err := io.ReadAll(res.Body)
	check(t, errors.Join(err, res.Body.Close()))
	if s := string(page); !strings.Contains(s, "Your device encrypts by itself") || !strings.Contains(s, "<strong>alice</strong>") || strings.Contains(s, "<form") {
		t.Errorf("the portal shows her\n%s", s)
	}
	own, err := c.ClientStatus(ctx, c.HostA, "alice")
	check(t, err)
	if call, up := own.UserCall("alice"); !up || own.Client.Router != lab.SiteA.Name || own.Client.Address != alice || call.Peer != lab.SiteB.Name {
		t.Errorf("status: %+v", own)
	}

	// Nobody else from there, with the right password or without; nor may alice log in at the router itself.
	refused := func(want string, argv ...string) {
		t.Helper()
		if out, err := lab.Run(ctx, c.HostA, argv...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v\n%s", want, err, out)
		}
	}
	refused("somebody is logged in from 10.1.1.3", c.ClientLogin(lab.SiteA, "bob", "bob", "--interface", "twinkey1")...)
	if err := c.Login(ctx, lab.SiteA, "bob", alice, lab.SiteB.Name); err == nil || !strings.Contains(err.Error(), "bound to a client of alice") {
		t.Errorf("login of another at the router: %v", err)
	}
	refused("a client is running already", c.ClientLogin(lab.SiteA, "bob", "alice")...)
	refused("10.1.0.2 belongs to a site", c.ClientLogin(lab.SiteA, "bob", "bob", "--address", lab.SiteA.Host.String())...)
	mustPing(t, c, alice)

	out, err := c.Client(ctx, c.HostA, "alice", "logout")
	check(t, err)
	if !strings.Contains(out, "logged out") {
		t.Errorf("logout says %q", out)
	}
	exits(t, p, 10*time.Second)
	check(t, p.Stop()) // it ended well
	gone(t, c, c.HostA, "alice")
	mustNotPing(t, c, alice)
	if st := status(t, c, lab.SiteA); len(st.Clients) != 0 {
		t.Errorf("clients after the logout: %+v", st.Clients)
	}

	check(t, os.WriteFile(filepath.Join(c.Dir, "guess.password"), []byte("guess"), 0o600))
	wrong := func(uid string) string {
		t.Helper()
		out, err := c.Client(ctx, c.HostA, "alice", "login", uid, "--password-file", filepath.Join(c.Dir, "guess.password")) // router and root are known
		if err == nil {
			t.Fatalf("a wrong password was taken:\n%s", out)
		}
		return strings.NewReplacer("alice", "X", "nobody", "X").Replace(err.Error())
	}
	known, unknown := wrong("alice"), wrong("nobody")
	if known != unknown || !strings.Contains(known, "no such user, or a wrong password") || !strings.Contains(known, "exit status 5") {
		t.Errorf("answers tell known from unknown users:\n%s\n%s", known, unknown)
	}

	// A client that was killed leaves nothing, and may come again at once. The router's operator can end it.
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--peer", lab.SiteB.Name)
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	p.Kill()
	delete(c.Clients, "alice")
	check(t, c.HostA.Do(func() error {
		if _, err := net.InterfaceByName("twinkey0"); err == nil {
			return errors.New("a client that was killed has left its interface")
		}
		return nil
	}))
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--peer", lab.SiteB.Name)
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	mustPing(t, c, alice)
	_, err = c.Router(ctx, lab.SiteA, "logout", "alice")
	check(t, err)
	if said := exits(t, p, 10*time.Second); !strings.Contains(said, "hung up by the operator") {
		t.Errorf("the client says:\n%s", said)
	}
	delete(c.Clients, "alice") // it ended with an error, as it should
	gone(t, c, c.HostA, "alice")

	// Where the policy says revoke-on-close her certificate ends with her session, though the router never had a key of hers.
	policy(t, c, lab.SiteA, "policy:\n  - groups: [staff]\n    revoke-on-close: true\n")
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice")
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	if got := revocations(t, c, "alice"); len(got) != 0 || !strings.Contains(p.Tail(), "is revoked when the session ends") {
		t.Errorf("revoked before the end: %q, or the client says nothing of it:\n%s", got, p.Tail())
	}
	_, err = c.Client(ctx, c.HostA, "alice", "logout")
	check(t, err)
	exits(t, p, 10*time.Second)
	check(t, lab.Until(ctx, "the revocation at the end of the session", 30*time.Second, func(context.Context) error {
		if got := revocations(t, c, "alice"); len(got) != 1 || !strings.Contains(got[0], "twinkey://router/ra: ") || !strings.Contains(got[0], "the session at router ra has ended (revoke-on-close)") {
			return fmt.Errorf("noted: %q", got)
		}
		return nil
	}))
	refused("no such user, or a wrong password", c.ClientLogin(lab.SiteA, "alice", "alice")...)
}

// What is certified for a site and carried by no call leaves alice's machine by no other way: where it is in conflict with a network that the
// machine is in, which it goes on reaching, and where the user has named other sites. With the client the routes go, however it ends.
func TestVoluntaryWithholds(t *testing.T) {
	t.Parallel()
	c, alice := front(t, "")
	ctx := t.Context()
	neighbour, err := c.Lab.Host("neighbour")
	check(t, err)
	near := netip.MustParseAddr("10.2.0.130") // hostb is 10.2.0.2
	check(t, c.Lab.Link(neighbour, "eth0", netip.PrefixFrom(near, 25), c.HostA, "near0", netip.MustParsePrefix("10.2.0.129/25")))
	n := 0
	leaves := func(what string, want bool) {
		t.Helper()
		n++
		file := filepath.Join(c.Dir, fmt.Sprintf("withheld%d.pcap", n))
		capture, err := c.HostA.Capture("eth0", file)
		check(t, err)
		_, err = c.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, From: alice, Count: 3, Interval: 100 * time.Millisecond, Wait: 300 * time.Millisecond})
		check(t, capture.Close())
		if err == nil {
			t.Errorf("%s: hostb answers", what)
		}
		left := 0
		for f, err := range netlab.Frames(file) {
			check(t, err)
			if len(f) >= 14+20 && binary.BigEndian.Uint16(f[12:]) == 0x0800 && netip.AddrFrom4([4]byte(f[30:34])) == lab.SiteB.Host {
				left++
			}
		}
		if (left > 0) != want {
			t.Errorf("%s: %d packets left in the clear", what, left)
		}
	}
	nowhere := func(prefixes ...string) {
		t.Helper()
		out, err := c.Client(ctx, c.HostA, "alice", "status")
		check(t, err)
		if _, list, _ := strings.Cut(out, "Sent nowhere, rather than in the clear\nPREFIX\n"); !strings.HasPrefix(list, strings.Join(prefixes, "\n")+"\n") {
			t.Errorf("want %v:\n%s", prefixes, out)
		}
	}
	leaves("without a client", true) // and gets no further than ra

	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice")
	check(t, err)
	nowhere("10.2.0.0/25", lab.SiteB.Users.String()) // one prefix in the certificate
	leaves("in conflict with a network of the machine's", false)
	_, err = c.HostA.Ping(ctx, netlab.Ping{To: near, Count: 1, Wait: time.Second})
	check(t, err)
	out, err := c.Client(ctx, c.HostA, "alice", "status", "--json")
	check(t, err)
	if strings.Contains(out, `"withheld": 0,`) || !strings.Contains(out, `"withheld": `) {
		t.Errorf("nothing is counted:\n%s", out)
	}
	p.Kill()
	delete(c.Clients, "alice")
	leaves("after the client was killed", true)

	_, err = lab.Run(ctx, c.HostA, "ip", "link", "delete", "near0")
	check(t, err)
	p, err = c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--peer", "elsewhere")
	check(t, err)
	nowhere("10.2.0.0/23")
	leaves("of a site that is not named", false)
	check(t, p.Stop())
	leaves("after the logout", true)
}

// The same from behind a NAT: the laptop has no address that the company knows, and gets that of the NAT for its calls.
func TestVoluntaryBehindNAT(t *testing.T) {
	t.Parallel()
	c, alice := front(t, "")
	ctx := t.Context()
	laptop := behind(t, c)
	capture, err := laptop.Capture("eth0", filepath.Join(c.Dir, "laptop.pcap"))
	check(t, err)
	p, err := c.StartClient(ctx, laptop, lab.SiteA, "alice", "alice")
	check(t, err)
	own, err := c.ClientStatus(ctx, laptop, "alice")
	check(t, err)
	if own.Client.Address != alice {
		t.Errorf("the address of its calls is %s, want that of the NAT, %s", own.Client.Address, alice)
	}
	reaches(t, laptop, alice, 20*time.Second, p)
	sends(t, laptop, c.HostB, lab.SiteB.Host, 10<<20)
	sends(t, c.HostB, laptop, alice, 10<<20)
	check(t, capture.Close())
	clearOf(t, filepath.Join(c.Dir, "laptop.pcap"))
	check(t, p.Stop())
	gone(t, c, laptop, "alice")

	// The policy of the router in front holds on the laptop, that of the far end there; without a rule there is no session.
	p, err = c.StartClient(ctx, laptop, lab.SiteA, "alice", "alice")
	check(t, err)
	reaches(t, laptop, alice, 20*time.Second, p)
	pings := func(want bool, what string) {
		t.Helper()
		check(t, lab.Until(ctx, what, 10*time.Second, func(ctx context.Context) error {
			_, err := laptop.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, From: alice, Count: 1, Wait: 300 * time.Millisecond})
			if (err == nil) != want {
				return fmt.Errorf("a ping is answered: %v", err == nil)
			}
			return nil
		}, p))
	}
	const narrow, open, none = "policy:\n  - groups: [staff]\n    allow: [tcp/22]\n", "policy:\n  - groups: [staff]\n", "policy: []\n"
	policy(t, c, lab.SiteA, narrow)
	pings(false, "the policy of the router in front")
	out, err := c.Client(ctx, laptop, "alice", "status", "--json")
	check(t, err)
	if strings.Contains(out, `"denied": 0,`) || !strings.Contains(out, `"denied": `) {
		t.Errorf("nothing is counted on the laptop:\n%s", out)
	}
	policy(t, c, lab.SiteA, open)
	pings(true, "the policy that allows it again")
	policy(t, c, lab.SiteB, narrow)
	pings(false, "the policy of the far end")
	policy(t, c, lab.SiteB, open)
	pings(true, "the policy that allows it again")
	policy(t, c, lab.SiteA, none)
	if said := exits(t, p, 10*time.Second); !strings.Contains(said, "no rule is for users of group") {
		t.Errorf("the client says:\n%s", said)
	}
	delete(c.Clients, "alice")
	gone(t, c, laptop, "alice")
}

// A NAT that gets another address: the session was for the old one, so the client logs in anew and its calls have the new one.
func TestVoluntaryElsewhere(t *testing.T) {
	t.Parallel()
	c, alice := front(t, "")
	ctx := t.Context()
	laptop := behind(t, c)
	p, err := c.StartClient(ctx, laptop, lab.SiteA, "alice", "alice")
	check(t, err)
	reaches(t, laptop, alice, 20*time.Second, p)
	later := netip.MustParseAddr("10.1.1.9")
	_, err = lab.Run(ctx, c.HostA, "ip", "address", "delete", alice.String()+"/24", "dev", "eth0")
	check(t, err)
	check(t, c.HostA.AddAddress("eth0", netip.PrefixFrom(later, lab.SiteA.Users.Bits())))
	check(t, lab.Until(ctx, "a session from the other address", 60*time.Second, func(ctx context.Context) error {
		own, err := c.ClientStatus(ctx, laptop, "alice")
		if err == nil && own.Client.Address != later {
			err = fmt.Errorf("it is from %s", own.Client.Address)
		}
		return err
	}, p))
	reaches(t, laptop, later, 20*time.Second, p)
	check(t, p.Stop())
	gone(t, c, laptop, "alice")
}

// behind adds a laptop behind hosta, which becomes a NAT.
func behind(t *testing.T, c *lab.Company) *netlab.Host {
	t.Helper()
	laptop, err := c.Lab.Host("laptop")
	check(t, err)
	check(t, c.Lab.Link(laptop, "eth0", netip.MustParsePrefix("192.168.7.2/24"), c.HostA, "lan0", netip.MustParsePrefix("192.168.7.1/24")))
	check(t, laptop.DefaultRoute(netip.MustParseAddr("192.168.7.1")))
	check(t, c.HostA.Sysctl("net.ipv4.ip_forward", "1"))
	check(t, lab.Masquerade(t.Context(), c.HostA, "eth0"))
	return laptop
}

// policy gives a router another policy, without a restart.
func policy(t *testing.T, c *lab.Company, s lab.Site, yaml string) {
	t.Helper()
	file := filepath.Join(c.Dir, s.Name+".yaml")
	text, err := os.ReadFile(file)
	check(t, err)
	head, _, _ := strings.Cut(string(text), "policy:")
	check(t, os.WriteFile(file, []byte(head+yaml), 0o600))
	_, err = c.Router(t.Context(), s, "reload")
	check(t, err)
}

// A revocation while a transfer goes on ends call and client, and nobody else's.
func TestVoluntaryRevoked(t *testing.T) {
	t.Parallel()
	c, alice := front(t, "")
	ctx := t.Context()
	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice", "--peer", lab.SiteB.Name)
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	running, stop := context.WithCancel(ctx)
	defer stop()
	transfer := make(chan error, 1)
	go func() {
		_, err := netlab.Transfer(running, c.HostA, c.HostB, lab.SiteB.Host, &pattern{seed: 7}) // without end
		transfer <- err
	}()
	time.Sleep(500 * time.Millisecond)
	before := siteCall(t, c, lab.SiteB)
	if _, err := c.CACommand(ctx, "user", "revoke", "alice"); err != nil {
		t.Fatal(err)
	}
	if said := exits(t, p, 10*time.Second); !strings.Contains(said, "certificate revoked") {
		t.Errorf("the client says:\n%s", said)
	}
	delete(c.Clients, "alice")
	gone(t, c, c.HostA, "alice")
	mustNotPing(t, c, alice)
	if after := siteCall(t, c, lab.SiteB); after.ID != before.ID {
		t.Error("the site link has ended with it")
	}
	mustPing(t, c, lab.SiteA.Host)
	stop()
	<-transfer
	if st := status(t, c, lab.SiteA); len(st.Clients) != 0 {
		t.Errorf("clients: %+v", st.Clients)
	}
	out, err := lab.Run(ctx, c.HostA, c.ClientLogin(lab.SiteA, "alice", "alice")...)
	if err == nil || !strings.Contains(err.Error(), "no such user, or a wrong password") {
		t.Errorf("logging in again: %v\n%s", err, out)
	}
}

// While the router in front is away calls go on, for as long as it has vouched for them; when it is back the client logs in anew by itself.
func TestVoluntaryRouterRestarts(t *testing.T) {
	t.Parallel()
	c, alice := front(t, "  vouch: 8s\n")
	ctx := t.Context()
	p, err := c.StartClient(ctx, c.HostA, lab.SiteA, "alice", "alice")
	check(t, err)
	reaches(t, c.HostA, alice, 20*time.Second, p)
	first, _ := status(t, c, lab.SiteB).UserCall("alice")

	// Calls are placed anew before the word for them runs out, and no packet is lost.
	pong, err := c.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, From: alice, Count: 100, Interval: 100 * time.Millisecond})
	check(t, err)
	if pong.Received != pong.Sent {
		t.Errorf("%d of %d pings were lost", pong.Sent-pong.Received, pong.Sent)
	}
	second, up := status(t, c, lab.SiteB).UserCall("alice")
	if !up || second.ID == first.ID {
		t.Errorf("after 10 s, of which the router has vouched for 8: call %+v, %v", second, up)
	}

	check(t, c.Routers[lab.SiteA.Name].Stop())
	mustPing(t, c, alice)
	check(t, lab.Until(ctx, "the end of what was vouched for", 25*time.Second, func(ctx context.Context) error {
		st, err := c.Status(ctx, lab.SiteB)
		if _, up := st.UserCall("alice"); err == nil && up {
			err = errors.New("the call is up")
		}
		return err
	}, p, c.Routers[lab.SiteB.Name]))
	check(t, c.RouterUp(ctx, lab.SiteA))
	reaches(t, c.HostA, alice, 60*time.Second, p)
	check(t, lab.Until(ctx, "the session", 40*time.Second, func(ctx context.Context) error {
		own, err := c.ClientStatus(ctx, c.HostA, "alice")
		if err == nil && own.Directory.Problem != "" {
			err = errors.New(own.Directory.Problem)
		}
		return err
	}, p))
	if st := status(t, c, lab.SiteA); len(st.Clients) != 1 {
		t.Errorf("clients: %+v", st.Clients)
	}
	mustPing(t, c, alice)
	if tail := p.Tail(); !strings.Contains(tail, "logged in anew") {
		t.Errorf("the client says nothing of it:\n%s", tail)
	}
	check(t, p.Stop()) // SIGTERM: a clean logout
	gone(t, c, c.HostA, "alice")
}
