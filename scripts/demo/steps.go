//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// fileSize of each transferred file: long enough that no packet could slip by the search.
const fileSize = 4 << 20

// Addresses on the cable of hosta from which the users work. The site link does not carry them: without a call of
// one's own nothing leaves from there.
var (
	aliceAddr = netip.MustParseAddr("10.1.1.3")
	bobAddr   = netip.MustParseAddr("10.1.1.4")

	users = []struct {
		uid  string
		addr netip.Addr
	}{{"alice", aliceAddr}, {"bob", bobAddr}}
)

func (d *demo) pingAcross(ctx context.Context) error {
	for _, x := range []struct {
		from *netlab.Host
		to   netip.Addr
	}{{d.HostA, lab.SiteB.Host}, {d.HostB, lab.SiteA.Host}} {
		if err := d.ping(ctx, x.from, netlab.Ping{To: x.to, Count: 5}); err != nil {
			return err
		}
	}
	return nil
}

// ping demands that every request is answered.
func (d *demo) ping(ctx context.Context, from *netlab.Host, p netlab.Ping) error {
	pong, err := from.Ping(ctx, p)
	if err != nil {
		return err
	}
	by := ""
	if p.From.IsValid() {
		by = " as " + p.From.String()
	}
	d.show("%s%s -> %s: %s", from.Name(), by, p.To, pong)
	if pong.Received != pong.Sent {
		return fmt.Errorf("%d of %d requests from %s to %s were lost", pong.Sent-pong.Received, pong.Sent, from.Name(), p.To)
	}
	return nil
}

func (d *demo) transferAcross(ctx context.Context) error {
	d.aToB, d.bToA = make([]byte, fileSize), make([]byte, fileSize)
	for _, x := range []struct {
		from, to *netlab.Host
		addr     netip.Addr
		file     []byte
	}{{d.HostA, d.HostB, lab.SiteB.Host, d.aToB}, {d.HostB, d.HostA, lab.SiteA.Host, d.bToA}} {
		if _, err := rand.Read(x.file); err != nil {
			return fmt.Errorf("making a file: %w", err)
		}
		t, err := netlab.Transfer(ctx, x.from, x.to, x.addr, bytes.NewReader(x.file))
		if err != nil {
			return err
		}
		if !t.Intact() {
			return fmt.Errorf("from %s to %s: sent %x, received %x", x.from.Name(), x.to.Name(), t.Sent, t.Received)
		}
		d.show("%s -> %s: %d bytes at %.0f Mbit/s, SHA-256 %x... on both ends", x.from.Name(), x.to.Name(), t.Bytes, t.Rate()/1e6, t.Sent[:8])
	}
	return nil
}

func (d *demo) addUsers(ctx context.Context) error {
	for _, u := range users {
		if err := d.AddUser(ctx, u.uid, rand.Text()); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) login(ctx context.Context) error {
	for _, u := range users {
		if err := d.HostA.AddAddress("eth0", netip.PrefixFrom(u.addr, lab.SiteA.Users.Bits())); err != nil {
			return err
		}
		if err := d.mustNotPing(ctx, u.addr); err != nil {
			return err
		}
		if err := d.Login(ctx, lab.SiteA, u.uid, u.addr, lab.SiteB.Name); err != nil {
			return err
		}
		if err := d.ping(ctx, d.HostA, netlab.Ping{To: lab.SiteB.Host, From: u.addr, Count: 3}); err != nil {
			return err
		}
	}
	st, err := d.Status(ctx, lab.SiteA)
	if err != nil {
		return err
	}
	alice, aok := st.UserCall("alice")
	bob, bok := st.UserCall("bob")
	site, sok := st.SiteCall()
	switch {
	case !aok || !bok || !sok:
		return fmt.Errorf("a call is missing: %+v", st.Calls)
	case alice.Tunnel != bob.Tunnel:
		return fmt.Errorf("alice's call is in tunnel %d, bob's in %d", alice.Tunnel, bob.Tunnel)
	case site.Tunnel == alice.Tunnel:
		return fmt.Errorf("the users' calls are in the routers' own tunnel %d", site.Tunnel)
	case alice.SPIIn == bob.SPIIn || alice.SPIOut == bob.SPIOut:
		return fmt.Errorf("the calls share a security association: %+v", st.Calls)
	}
	d.show("tunnel %d carries alice (SPIs %s, %s) and bob (SPIs %s, %s); tunnel %d the site link", alice.Tunnel, alice.SPIIn, alice.SPIOut, bob.SPIIn, bob.SPIOut, site.Tunnel)
	return nil
}

// Of the users' transfers, which go on until they are ended.
const (
	userRate  = 10_000_000 // bytes a second, each
	userBytes = userRate / 2
	enough    = 10 * time.Second // for so many to arrive
)

// transferAsUsers begins a transfer of each user, and demands that it goes through the user's own call.
func (d *demo) transferAsUsers(ctx context.Context) error {
	before, err := d.Status(ctx, lab.SiteB)
	if err != nil {
		return err
	}
	for _, u := range users {
		x, err := netlab.StartStream(ctx, d.HostA, u.addr, d.HostB, lab.SiteB.Host, userRate)
		if err != nil {
			return err
		}
		d.streams[u.uid] = x
	}
	for _, u := range users {
		if err := d.arrives(ctx, u.uid, userBytes); err != nil {
			return err
		}
	}
	after, err := d.Status(ctx, lab.SiteB)
	if err != nil {
		return err
	}
	for _, u := range users {
		was, _ := before.UserCall(u.uid)
		is, _ := after.UserCall(u.uid)
		through := is.RxBytes - was.RxBytes
		if through < userBytes {
			return fmt.Errorf("%s's call has carried %d bytes of %d", u.uid, through, userBytes)
		}
		d.show("%s -> %s as %s: %d bytes through %s's call by now, at %d Mbit/s; it goes on", d.HostA.Name(), lab.SiteB.Host, u.addr, through, u.uid, userRate*8/1_000_000)
	}
	return nil
}

// arrives waits until so many more bytes of a user's transfer have arrived.
func (d *demo) arrives(ctx context.Context, uid string, more int64) error {
	x := d.streams[uid]
	from := x.Received()
	return lab.Until(ctx, uid+"'s transfer", enough, func(context.Context) error {
		if got := x.Received() - from; got < more {
			return fmt.Errorf("%d of %d bytes have arrived", got, more)
		}
		return nil
	}, d.Routers[lab.SiteA.Name], d.Routers[lab.SiteB.Name])
}

func (d *demo) status(ctx context.Context) error {
	out, err := d.Router(ctx, lab.SiteA, "status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(strings.TrimSpace(out)) {
		d.show("%s", strings.TrimRight(line, "\n"))
	}
	return nil
}

// revocationTimeout is what a router may take to hear of it: the watch tells it at once, so this is patience.
const revocationTimeout = 10 * time.Second

func (d *demo) revoke(ctx context.Context) error {
	before, err := d.Status(ctx, lab.SiteA)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := d.CACommand(ctx, "user", "revoke", "alice", "--reason", "keyCompromise"); err != nil {
		return err
	}
	var after lab.Status
	for _, s := range []lab.Site{lab.SiteB, lab.SiteA} { // both ends must know; ra's word is compared below
		err := lab.Until(ctx, "the end of alice's call at "+s.Name, revocationTimeout, func(ctx context.Context) (err error) {
			if after, err = d.Status(ctx, s); err != nil {
				return err
			}
			if c, ok := after.UserCall("alice"); ok {
				return fmt.Errorf("it is up: %+v", c)
			}
			return nil
		}, d.Routers[s.Name], d.Company.Directory, d.Company.CA)
		if err != nil {
			return err
		}
	}
	d.show("alice's call ended on both routers within %v of the command", time.Since(start).Round(time.Millisecond))
	if err := d.arrives(ctx, "bob", userBytes); err != nil { // by then hostb has taken what rb had sent on for alice
		return err
	}
	stuck := d.streams["alice"].Received()
	if err := d.arrives(ctx, "bob", userBytes); err != nil {
		return err
	}
	if more := d.streams["alice"].Received() - stuck; more != 0 {
		return fmt.Errorf("%d bytes of alice's transfer arrived after her call had ended", more)
	}
	d.streams["alice"].Break()
	bob, err := d.streams["bob"].End(ctx)
	if err != nil {
		return err
	}
	if !bob.Intact() {
		return fmt.Errorf("of bob's transfer: sent %x, received %x", bob.Sent, bob.Received)
	}
	d.show("alice's transfer stopped there; bob's went on: %d bytes at %.0f Mbit/s, SHA-256 %x... on both ends", bob.Bytes, bob.Rate()/1e6, bob.Sent[:8])
	if err := survived(before, after); err != nil {
		return err
	}
	for _, p := range []netlab.Ping{{To: lab.SiteB.Host, From: bobAddr, Count: 3}, {To: lab.SiteB.Host, From: lab.SiteA.Host, Count: 3}} {
		if err := d.ping(ctx, d.HostA, p); err != nil {
			return err
		}
	}
	if err := d.mustNotPing(ctx, aliceAddr); err != nil {
		return err
	}
	return d.mustNotLogin(ctx)
}

// mustNotPing demands that nothing from an address crosses.
func (d *demo) mustNotPing(ctx context.Context, from netip.Addr) error {
	pong, err := d.HostA.Ping(ctx, netlab.Ping{To: lab.SiteB.Host, From: from, Count: 2, Wait: 300 * time.Millisecond})
	if pong.Received != 0 {
		return fmt.Errorf("packets from %s cross without a call", from)
	}
	if !errors.Is(err, netlab.ErrNoAnswer) {
		return err
	}
	d.show("nothing from %s crosses without a call", from)
	return nil
}

// survived demands that bob's call and the site link are the same ones as before, not new ones that took their place.
func survived(before, after lab.Status) error {
	bobBefore, _ := before.UserCall("bob")
	bobAfter, ok := after.UserCall("bob")
	if !ok || bobAfter.ID != bobBefore.ID {
		return fmt.Errorf("bob's call did not survive: %+v", after.Calls)
	}
	siteBefore, _ := before.SiteCall()
	siteAfter, ok := after.SiteCall()
	if !ok || siteAfter.ID != siteBefore.ID {
		return fmt.Errorf("the site link did not survive: %+v", after.Calls)
	}
	return nil
}

func (d *demo) mustNotLogin(ctx context.Context) error {
	if err := d.Login(ctx, lab.SiteA, "alice", aliceAddr, lab.SiteB.Name); err == nil {
		return errors.New("alice could log in again with her revoked certificate")
	}
	d.show("alice may not log in again")
	return nil
}

// keep copies the WAN's capture and the logs to a directory that outlives the laboratory.
func (d *demo) keep(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keeping the logs: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(d.Dir, "*.log"))
	if err != nil {
		return fmt.Errorf("keeping the logs: %w", err)
	}
	for _, f := range append(files, d.captures.wanFile) {
		b, err := os.ReadFile(f) //nolint:gosec // our own files
		if err != nil {
			return fmt.Errorf("keeping %s: %w", f, err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600); err != nil {
			return fmt.Errorf("keeping %s: %w", f, err)
		}
	}
	d.show("logs and the capture of the WAN are in %s", dir)
	return nil
}
