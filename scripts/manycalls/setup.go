//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"twinkey/pkg/keybundle"
	"twinkey/scripts/lab"
)

// atOnce is how many users log in at a time when set-up is measured: fewer than a router lets wait for their turn.
const atOnce = 32

// rush is a company whose users' passwords cost as little as keybundle lets them, so that what else a login takes
// can be told from Argon2id.
type rush struct {
	*set
	password []byte
	params   keybundle.Params
	ca, ra   *http.Client // the control sockets
}

// cheap is the least that keybundle lets a password cost.
func cheap() (keybundle.Params, error) {
	p, err := keybundle.DefaultParams(rand.Reader)
	p.Time, p.MemoryKiB = 1, 8<<10
	return p, err
}

// measureSetup has users log in at one router, all at once, to calls in one tunnel, and measures until the last is up; then they
// are logged out, and again.
func measureSetup(ctx context.Context, users, rounds int, say func(string, ...any)) (_ *setup, err error) {
	s, err := newSite(ctx, users, 1)
	if s != nil {
		defer func() {
			if e := s.Close(); err == nil {
				err = e
			}
		}()
	}
	if err != nil {
		return nil, err
	}
	r := &rush{set: s, password: []byte(rand.Text()), ca: dial(filepath.Join(s.Dir, "ca", "admin.sock")), ra: dial(filepath.Join(s.Dir, s.siteA.Name, "control.sock"))}
	if r.params, err = cheap(); err != nil {
		return nil, err
	}
	say("set-up of %d calls: users", users)
	if err := r.addUsers(ctx); err != nil {
		return nil, fmt.Errorf("adding users: %w", err)
	}
	out := &setup{Users: users}
	for round := range rounds {
		say("set-up of %d calls: round %d of %d", users, round+1, rounds)
		whole, err := r.logIn(ctx)
		if err != nil {
			return nil, fmt.Errorf("logging in: %w", err)
		}
		if round == rounds-1 {
			if err := s.checkCalls(ctx); err != nil {
				return nil, err
			}
		}
		if err := r.logOut(ctx); err != nil {
			return nil, fmt.Errorf("logging out: %w", err)
		}
		argon, err := r.stretch(ctx)
		if err != nil {
			return nil, err
		}
		out.Whole, out.Argon = append(out.Whole, whole.Seconds()), append(out.Argon, argon.Seconds())
	}
	return out, nil
}

// addUsers makes the users as twinkey-ca does, at another cost.
func (r *rush) addUsers(ctx context.Context) error {
	proof, err := keybundle.Derive(r.password, r.params)
	if err != nil {
		return err
	}
	defer proof.Wipe()
	verifier := keybundle.Verifier(proof.Auth.Bytes())
	return parallel(ctx, runtime.NumCPU(), r.users, func(ctx context.Context, i int) error {
		return post(ctx, r.ca, "/v1/users", map[string]any{"uid": userName(i), "group": groupName(0), "params": r.params, "verifier": verifier, "seal": proof.Seal.Bytes()})
	})
}

// logIn logs everybody in.
func (r *rush) logIn(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	err := parallel(ctx, atOnce, r.users, func(ctx context.Context, i int) error {
		return post(ctx, r.ra, "/login", map[string]any{"user": userName(i), "password": r.password, "address": r.addresses[i], "peer": r.siteB.Name})
	})
	return time.Since(begin), err
}

// logOut ends all calls, and waits until the far router knows.
func (r *rush) logOut(ctx context.Context) error {
	err := parallel(ctx, atOnce, r.users, func(ctx context.Context, i int) error {
		return post(ctx, r.ra, "/hangup", map[string]any{"user": userName(i)})
	})
	if err != nil {
		return err
	}
	return lab.Until(ctx, "the end of all calls", checkTime, func(ctx context.Context) error {
		st, err := r.status(ctx, r.siteB)
		if left := len(st.users()); err == nil && left > 0 {
			err = fmt.Errorf("%d users have calls", left)
		}
		return err
	}, r.Routers[r.siteB.Name])
}

// stretch is what Argon2id takes for as many passwords, done as a router does it.
func (r *rush) stretch(ctx context.Context) (time.Duration, error) {
	gate := keybundle.NewGate()
	begin := time.Now()
	err := parallel(ctx, atOnce, r.users, func(ctx context.Context, _ int) error {
		proof, err := gate.Derive(ctx, r.password, r.params)
		proof.Wipe()
		return err
	})
	return time.Since(begin), err
}

// dial speaks HTTP over a Unix socket.
func dial(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: atOnce, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
}

// post has something done that a control socket offers.
func post(ctx context.Context, c *http.Client, path string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, res.Status, answer)
	}
	return err
}

// parallel does something for 0 to n-1, so many at a time, until there is an error.
func parallel(ctx context.Context, workers, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}
