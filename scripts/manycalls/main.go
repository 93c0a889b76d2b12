//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/scripts/lab"
)

func main() {
	if err := lab.Prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "manycalls:", err)
		os.Exit(1)
	}
	var o options
	flag.Func("calls", "numbers of calls in one tunnel (default 1,100,1000)", numbers(&o.calls))
	flag.Func("tunnels", "numbers of tunnels with one call each (default 100)", numbers(&o.tunnels))
	flag.IntVar(&o.setup, "setup", 1000, "number of users whose logins are measured; 0: none")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each is measured")
	flag.DurationVar(&o.time, "time", 3*time.Second, "how long each is measured in a round: one stream, TCP and UDP")
	flag.DurationVar(&o.settle, "settle", 20*time.Second, "how long the routers are left alone after the logins")
	flag.StringVar(&o.json, "json", "", "write all samples to this file")
	flag.StringVar(&o.out, "out", "", "write calls.md and calls.svg into this directory")
	flag.Parse()
	if o.calls == nil && o.tunnels == nil {
		o.calls, o.tunnels = []int{1, 100, 1000}, []int{100}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "manycalls:", err)
		os.Exit(1)
	}
}

// numbers is a flag with a list of them.
func numbers(to *[]int) func(string) error {
	return func(s string) error {
		*to = []int{}
		for f := range strings.SplitSeq(s, ",") {
			if f == "" {
				continue
			}
			n, err := strconv.Atoi(f)
			if err != nil || n < 1 || n > maxUsers {
				return fmt.Errorf("%q is no number from 1 to %d", f, maxUsers)
			}
			*to = append(*to, n)
		}
		return nil
	}
}

type options struct {
	calls, tunnels []int
	rounds, setup  int
	time, settle   time.Duration
	json, out      string
}

func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }
	r := report{Machine: machine(), Rounds: o.rounds, Seconds: o.time.Seconds()}
	if o.setup > 0 { // by itself: the other sets' routers need the cores too
		if r.Setup, err = measureSetup(ctx, o.setup, o.rounds, say); err != nil {
			return fmt.Errorf("measuring the set-up of %d calls: %w", o.setup, err)
		}
	}
	var sets []*set
	defer func() {
		for _, s := range sets {
			err = errors.Join(err, s.Close())
		}
	}()
	build := func(users, groups int) error {
		s, err := newSet(ctx, users, groups, say)
		if s != nil {
			sets = append(sets, s)
		}
		return err
	}
	for _, n := range o.calls {
		if err := build(n, 1); err != nil {
			return err
		}
	}
	for _, n := range o.tunnels {
		if err := build(n, n); err != nil {
			return err
		}
	}
	for _, s := range sets {
		r.Flows = max(r.Flows, s.users)
		r.Rows = append(r.Rows, &row{Calls: s.users, Tunnels: s.groups})
	}
	say("%v for the routers to settle", o.settle)
	if err := rest(ctx, o.settle); err != nil {
		return err
	}
	for round := range o.rounds {
		for i := range sets { // a different one begins each round
			at := (i + round) % len(sets)
			say("round %d of %d: %s", round+1, o.rounds, r.Rows[at].name())
			sample, err := sets[at].measure(ctx, o.time, r.Flows)
			if err != nil {
				return fmt.Errorf("measuring %s: %w", r.Rows[at].name(), err)
			}
			r.Rows[at].Samples = append(r.Rows[at].Samples, sample)
		}
	}
	for i, s := range sets {
		n := min(s.users-1, maxRevoked)
		if n == 0 || s.groups > 1 {
			continue
		}
		say("%d revocations: %s", n, r.Rows[i].name())
		if r.Rows[i].Revoked, err = s.revoke(ctx, n); err != nil {
			return fmt.Errorf("revoking with %s: %w", r.Rows[i].name(), err)
		}
	}
	return errors.Join(r.write(o, out), r.late())
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write puts the report where the options say.
func (r report) write(o options, out io.Writer) error {
	files := map[string]func() ([]byte, error){}
	if o.json != "" {
		files[o.json] = func() ([]byte, error) { return json.MarshalIndent(r, "", "  ") }
	}
	if o.out != "" {
		files[filepath.Join(o.out, "calls.md")] = func() ([]byte, error) { return []byte(r.markdown()), nil }
		files[filepath.Join(o.out, "calls.svg")] = func() ([]byte, error) { return []byte(r.chart()), nil }
	}
	for name, content := range files {
		b, err := content()
		if err == nil {
			err = os.WriteFile(name, b, 0o644)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	_, err := io.WriteString(out, r.table())
	return err
}
