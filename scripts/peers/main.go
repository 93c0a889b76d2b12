//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"twinkey/scripts/lab"
)

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "rounds; figures are medians over them")
	flag.IntVar(&o.seconds, "seconds", 3, "length of each stream")
	only := flag.String("only", "", "candidates, by the beginning of their names, between commas; empty: all")
	where := flag.String("scenarios", "on,off,100M", "scenarios, between commas")
	flag.StringVar(&o.out, "out", "", "directory for peers.md, peers.svg and peers.json; empty: the table goes to standard output alone")
	flag.Parse()
	o.only, o.where = split(*only), split(*where)
	if err := lab.Prepare(); err != nil {
		fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		stop()
		fail(err)
	}
}

type options struct {
	rounds, seconds int
	only, where     []string
	out             string
}

func split(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(x string) bool { return x == "" })
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peers:", err)
	os.Exit(1)
}

// key is where a series of values belongs.
type key struct{ Scenario, Candidate, Figure string }

// results are all values, and why candidates are not there.
type results struct {
	values map[key][]float64
	absent map[string]string
	failed []string
}

func run(ctx context.Context, o options) error {
	r := &results{values: map[key][]float64{}, absent: map[string]string{}}
	var cs []candidate
	for _, c := range candidates() {
		if len(o.only) > 0 && !slices.ContainsFunc(o.only, func(p string) bool { return strings.HasPrefix(c.name, p) }) {
			continue
		}
		if m := c.missing(); m != "" {
			r.absent[c.name] = m + " is not installed (make bench-peers-deps)"
			fmt.Fprintf(os.Stderr, "%s is left out: %s\n", c.name, r.absent[c.name])
			continue
		}
		cs = append(cs, c)
	}
	scs := slices.DeleteFunc(scenarios(), func(s scenario) bool { return !slices.Contains(o.where, s.name) })
	if len(cs) == 0 || len(scs) == 0 {
		return errors.New("nothing to measure: no candidate or no scenario of that name")
	}
	for round := range o.rounds {
		for _, sc := range scs {
			for i := range cs {
				c := cs[(i+round)%len(cs)]
				f, err := measure(ctx, c, sc, o.seconds)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					r.failed = append(r.failed, fmt.Sprintf("round %d, %s, %s: %v", round+1, sc.name, c.name, err))
					fmt.Fprintln(os.Stderr, r.failed[len(r.failed)-1])
				}
				fmt.Fprintf(os.Stderr, "%d/%d %-4s %-26s %s\n", round+1, o.rounds, sc.name, c.name, f)
				for name, v := range f {
					k := key{sc.name, c.name, name}
					r.values[k] = append(r.values[k], v)
				}
			}
		}
	}
	return r.write(o, cs)
}

func (f figures) String() string {
	var parts []string
	for _, n := range []string{"tcp1", "rev", "tcp4", "udp1300", "udp64", "rtt", "cpu", "rss"} {
		if v, ok := f[n]; ok {
			parts = append(parts, fmt.Sprintf("%s %.4g", n, v))
		}
	}
	return strings.Join(parts, "  ")
}

// write puts table, chart and raw values where they are wanted.
func (r *results) write(o options, cs []candidate) error {
	md := r.markdown(o, cs)
	fmt.Print(md)
	if o.out == "" {
		return nil
	}
	type series struct {
		key
		Values []float64
	}
	var all []series
	for k, v := range r.values {
		all = append(all, series{k, v})
	}
	slices.SortFunc(all, func(a, b series) int { return strings.Compare(fmt.Sprint(a.key), fmt.Sprint(b.key)) })
	raw, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(o.out, "peers.md"), []byte(md), 0o644),           //nolint:gosec // documentation
		os.WriteFile(filepath.Join(o.out, "peers.svg"), []byte(r.chart(cs)), 0o644), //nolint:gosec // documentation
		os.WriteFile(filepath.Join(o.out, "peers.json"), append(raw, '\n'), 0o644))  //nolint:gosec // documentation
}
