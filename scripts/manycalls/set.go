//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"twinkey/pkg/netlab"
	"twinkey/scripts/lab"
)

// maxUsers is what there are addresses for.
const maxUsers = 10000

// usersPrefix has the users' addresses. It lies behind hosta, by which ra reaches it: on the cable itself each
// address would take one of the 1,024 neighbours that a kernel keeps for all its namespaces together.
var usersPrefix = netip.MustParsePrefix("10.3.0.0/16")

// checkTime is how long calls and tunnels may take to be what they should be.
const checkTime = 30 * time.Second

// set is a company with a number of users who are logged in, in so many groups.
type set struct {
	*lab.Company
	siteA, siteB  lab.Site
	users, groups int
	addresses     []netip.Addr
	idle, login   memory // before anything was sent, and the most until then
}

func userName(i int) string  { return fmt.Sprintf("u%05d", i) }
func groupName(i int) string { return fmt.Sprintf("g%05d", i) }

// newSite is a company with two routers and addresses for users, who are still to come. It is to be closed also if there is an error,
// unless it is nil.
func newSite(ctx context.Context, users, groups int) (*set, error) {
	c, err := lab.New(ctx)
	if err != nil {
		return nil, err
	}
	s := &set{Company: c, siteA: lab.SiteA, siteB: lab.SiteB, users: users, groups: groups}
	s.siteA.Users, s.siteA.Scope, s.siteB.Scope = usersPrefix, "*", "*"
	if err := s.address(); err != nil {
		return s, err
	}
	return s, s.UpWith(ctx, s.siteA, s.siteB, "", "")
}

// newSet brings all of it up. The set is to be closed also if there is an error, unless it is nil.
func newSet(ctx context.Context, users, groups int, say func(string, ...any)) (*set, error) {
	begin := time.Now()
	at := func(what string) {
		say("%6.1fs  %d users in %d groups: %s", time.Since(begin).Seconds(), users, groups, what)
	}
	at("CA, directory, routers")
	s, err := newSite(ctx, users, groups)
	if err != nil {
		return s, err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"users", s.addUsers},
		{"logins", s.logIn},
		{"every call has an SA pair of its own", s.checkCalls},
	} {
		at(step.what)
		if err := step.do(ctx); err != nil {
			return s, fmt.Errorf("%d users in %d groups: %s: %w", users, groups, step.what, err)
		}
	}
	return s, nil
}

// address gives hosta the users' addresses, and ra the way there.
func (s *set) address() error {
	const perNet = 250 // of the last byte
	first := usersPrefix.Addr().As4()
	for i := range s.users {
		a := first
		a[2], a[3] = byte(1+i/perNet), byte(1+i%perNet)
		s.addresses = append(s.addresses, netip.AddrFrom4(a))
		if err := s.HostA.AddAddress("lo", netip.PrefixFrom(s.addresses[i], 32)); err != nil {
			return err
		}
	}
	return s.RA.DefaultRoute(s.siteA.Host)
}

// each does something for all users, as many at a time as there are cores: Argon2id is what takes the time.
func (s *set) each(ctx context.Context, do func(context.Context, int) error) error {
	return parallel(ctx, runtime.NumCPU(), s.users, do)
}

func (s *set) passwordFile() string { return filepath.Join(s.Dir, "password") }

// addUsers makes the users. One password for all is as good as many.
func (s *set) addUsers(ctx context.Context) error {
	if err := os.WriteFile(s.passwordFile(), []byte(rand.Text()), 0o600); err != nil {
		return err
	}
	return s.each(ctx, func(ctx context.Context, i int) error {
		_, err := s.CACommand(ctx, "user", "add", userName(i), "--group", groupName(i%s.groups), "--password-file", s.passwordFile())
		return err
	})
}

func (s *set) logIn(ctx context.Context) error {
	return s.each(ctx, func(ctx context.Context, i int) error {
		_, err := s.Router(ctx, s.siteA, "login", userName(i), "--address", s.addresses[i].String(), "--peer", s.siteB.Name, "--password-file", s.passwordFile())
		return err
	})
}

// status is what the check reads of `twinkey-router status --json`.
type status struct {
	Tunnels []struct {
		Group string `json:"group"`
		State string `json:"state"`
		Calls int    `json:"calls"`
	} `json:"tunnels"`
	Calls []struct {
		Kind      string `json:"kind"`
		User      string `json:"user"`
		State     string `json:"state"`
		SPIIn     string `json:"spi_in"`
		SPIOut    string `json:"spi_out"`
		RxPackets uint64 `json:"rx_packets"`
		TxPackets uint64 `json:"tx_packets"`
	} `json:"calls"`
}

func (s *set) status(ctx context.Context, site lab.Site) (st status, err error) {
	out, err := s.Router(ctx, site, "status", "--json")
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		return st, fmt.Errorf("reading the status of %s: %w", site.Name, err)
	}
	return st, nil
}

// checkCalls sends a packet from each user and then waits until both routers show what they should.
func (s *set) checkCalls(ctx context.Context) error {
	for _, a := range s.addresses {
		if _, err := s.HostA.Ping(ctx, netlab.Ping{To: s.siteB.Host, From: a, Count: 3}); err != nil {
			return err
		}
	}
	return lab.Until(ctx, "calls with SA pairs of their own", checkTime, func(ctx context.Context) error {
		a, err := s.status(ctx, s.siteA)
		if err != nil {
			return err
		}
		b, err := s.status(ctx, s.siteB)
		if err != nil {
			return err
		}
		return checkPairs(a, b, s.users, s.groups)
	}, s.Routers[s.siteA.Name], s.Routers[s.siteB.Name])
}

// pair are the SPIs of a call, seen from one end.
type pair struct{ in, out string }

// checkPairs holds two routers' calls against each other.
func checkPairs(a, b status, users, groups int) error {
	far, err := b.pairs(users, groups)
	if err != nil {
		return fmt.Errorf("the far router: %w", err)
	}
	near, err := a.pairs(users, groups)
	if err != nil {
		return fmt.Errorf("the near router: %w", err)
	}
	for user, p := range near {
		if q := far[user]; p.in != q.out || p.out != q.in {
			return fmt.Errorf("%s has the SPIs %v at one end and %v at the other", user, p, q)
		}
	}
	return nil
}

// pairs are the SPIs by user. It is an error if a user has none, or one that another call has as well, or if no packet went
// through; or if the tunnels are not as many as the groups.
func (st status) pairs(users, groups int) (map[string]pair, error) {
	tunnels := 0
	for _, t := range st.Tunnels {
		if t.Group != "" && t.State == "up" && t.Calls > 0 {
			tunnels++
		}
	}
	if tunnels != groups {
		return nil, fmt.Errorf("%d tunnels of groups, not %d", tunnels, groups)
	}
	of := map[string]pair{}
	owner := map[string]string{} // by SPI and direction
	for _, c := range st.Calls {
		for _, spi := range []string{"in " + c.SPIIn, "out " + c.SPIOut} {
			if o, ok := owner[spi]; ok {
				return nil, fmt.Errorf("the calls of %q and %q share SPI %s", o, c.User, spi)
			}
			owner[spi] = c.User
		}
		if c.Kind != "user" {
			continue
		}
		if c.State != "up" || c.RxPackets == 0 || c.TxPackets == 0 {
			return nil, fmt.Errorf("the call of %s is %s, has received %d packets and sent %d", c.User, c.State, c.RxPackets, c.TxPackets)
		}
		of[c.User] = pair{c.SPIIn, c.SPIOut}
	}
	if len(of) != users {
		return nil, fmt.Errorf("%d users have calls, not %d", len(of), users)
	}
	return of, nil
}
