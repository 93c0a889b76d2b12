//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"twinkey/scripts/lab"
)

// maxRevoked is how many users are revoked at the end of a set.
const maxRevoked = 100

// revoke withdraws the last n users' certificates, one after another, and returns how long each took from the start of the
// operator's command until the call was down at both routers and the last packet had arrived at hostb, in ms: the users send all the
// time, and go on. It is an error if that does anything to another call.
func (s *set) revoke(ctx context.Context, n int) (_ []float64, err error) {
	talking, stop := context.WithCancel(ctx)
	c, err := s.hear()
	if err != nil {
		stop()
		return nil, err
	}
	defer func() {
		stop()
		err = errors.Join(err, c.close())
	}()
	sites := []lab.Site{s.siteA, s.siteB}
	before := make([]map[string]pair, len(sites))
	for i, site := range sites {
		st, err := s.status(ctx, site)
		if err != nil {
			return nil, err
		}
		before[i] = st.users()
	}
	began, address := map[string]time.Time{}, map[string]netip.Addr{}
	for i := range n {
		at := s.users - 1 - i
		user := userName(at)
		sending, enough := context.WithCancel(talking)
		defer enough()
		address[user] = s.addresses[at]
		if err := c.talk(sending, address[user]); err != nil {
			return nil, err
		}
		began[user] = time.Now()
		if _, err := s.CACommand(ctx, "user", "revoke", user); err != nil {
			return nil, err
		}
		time.AfterFunc(goesOn, enough)
	}
	took := map[string]float64{}
	for _, site := range sites {
		err := lab.Until(ctx, "the end of the revoked calls", checkTime, func(context.Context) error {
			down, err := callEnds(filepath.Join(s.Dir, site.Name+".log"), began)
			if err != nil {
				return err
			}
			for user, end := range down {
				took[user] = max(took[user], float64(end.Sub(began[user]))/float64(time.Millisecond))
			}
			return nil
		}, s.Routers[site.Name])
		if err != nil {
			return nil, err
		}
	}
	if err := rest(ctx, goesOn); err != nil { // what is sent after the end of a call must not arrive either
		return nil, err
	}
	for user, start := range began {
		took[user] = max(took[user], float64(c.heard(address[user]).Sub(start))/float64(time.Millisecond))
	}
	for i, site := range sites {
		st, err := s.status(ctx, site)
		if err != nil {
			return nil, err
		}
		for user := range began {
			delete(before[i], user)
		}
		if after := st.users(); !maps.Equal(before[i], after) {
			return nil, fmt.Errorf("%s: %d calls of others before, %d after, or not the same", site.Name, len(before[i]), len(after))
		}
	}
	all := make([]float64, 0, n)
	for _, ms := range took {
		all = append(all, ms)
	}
	return all, nil
}

// users are the users' calls that are up.
func (st status) users() map[string]pair {
	of := map[string]pair{}
	for _, c := range st.Calls {
		if c.Kind == "user" && c.State == "up" {
			of[c.User] = pair{c.SPIIn, c.SPIOut}
		}
	}
	return of
}

var errStillUp = errors.New("not all calls have ended")

// callEnds are the times at which the log says that the calls of these users ended.
func callEnds(file string, users map[string]time.Time) (map[string]time.Time, error) {
	f, err := os.Open(file) //nolint:gosec // our own log
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	at := map[string]time.Time{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if !strings.Contains(line, `msg="call down"`) {
			continue
		}
		when, err := time.Parse(time.RFC3339Nano, value(line, "time"))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		if began, ok := users[value(line, "user")]; ok && when.After(began) {
			at[value(line, "user")] = when
		}
	}
	if len(at) != len(users) {
		return nil, fmt.Errorf("%w: %d of %d", errStillUp, len(at), len(users))
	}
	return at, nil
}

// value is that of a key in a line of the log, if it has no spaces in it.
func value(line, key string) string {
	_, v, _ := strings.Cut(" "+line, " "+key+"=")
	v, _, _ = strings.Cut(v, " ")
	return v
}
