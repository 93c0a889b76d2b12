//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/scripts/lab"
)

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2) // the flag package has said why
	}
	if o.from == "" {
		if err := prepare(); err != nil {
			fail(err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	err = o.run(ctx, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peers:", err)
	os.Exit(1)
}

// prepare enters a laboratory. Peers that make bench-peers-deps has built are found also without a PATH that has them.
// The programs are copied, so that whoever builds new ones meanwhile does not change what is measured.
func prepare() error {
	if err := lab.Prepare(); err != nil {
		return err
	}
	from := os.Getenv(lab.BinEnv)
	to, err := os.MkdirTemp("/run", "peers-") // which goes with the laboratory
	if err != nil {
		return err
	}
	for _, name := range []string{lab.CA, lab.Directory, lab.Router} {
		program, err := os.ReadFile(filepath.Join(from, name)) //nolint:gosec // the operator says where
		if err != nil {
			return fmt.Errorf("copying the programs: %w (hint: make build)", err)
		}
		if err := os.WriteFile(filepath.Join(to, name), program, 0o755); err != nil { //nolint:gosec // a program
			return fmt.Errorf("copying the programs: %w", err)
		}
	}
	return errors.Join(os.Setenv(lab.BinEnv, to), os.Setenv("PATH", filepath.Join(from, "peers")+":"+os.Getenv("PATH")))
}

type options struct {
	rounds, seconds       int
	only, where, what     []string
	quick                 bool
	point, json, from, to string
	flame                 string
}

func parse(args []string) (o options, err error) {
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	list := func(to *[]string) func(string) error {
		return func(s string) error {
			*to = slices.DeleteFunc(strings.Split(s, ","), func(x string) bool { return x == "" })
			return nil
		}
	}
	fs.IntVar(&o.rounds, "rounds", 5, "rounds; figures are medians over them")
	fs.IntVar(&o.seconds, "seconds", 4, "length of each stream, at most 30")
	fs.Func("only", "candidates, by the beginning of their names, between commas (default all)", list(&o.only))
	fs.Func("scenarios", "on, off, 100M, between commas (default all)", list(&o.where))
	fs.Func("figures", "tcp1, rev1, tcp4, rev4, udp1300, astray, udp64, use, rtt, between commas (default all)", list(&o.what))
	fs.BoolVar(&o.quick, "quick", false, "a small matrix: four candidates, one round of 2 s, offloads on; what else is given counts")
	fs.StringVar(&o.point, "point", "", "repeat this one figure on one set-up of each candidate, with what it costs each router")
	fs.StringVar(&o.flame, "flame", "", "with -point: have perf look where the routers' time goes, and draw that into this file (SVG)")
	fs.StringVar(&o.json, "json", "", "write all values to this file, after each round")
	fs.StringVar(&o.from, "from", "", "measure nothing: read the values from this file, which -json wrote")
	fs.StringVar(&o.to, "out", "", "directory for peers.md and peers.svg; without it the report goes to standard output")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	given := map[string]bool{}
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.quick {
		for name, value := range map[string]string{
			"rounds": "1", "seconds": "2", "scenarios": "on", "only": strings.Join([]string{none, oursBest, wireGuard, openVPN}, ","),
		} {
			if !given[name] {
				_ = fs.Set(name, value) // they are what these flags take
			}
		}
	}
	if err := o.check(); err != nil {
		fmt.Fprintln(fs.Output(), "peers:", err)
		return o, err
	}
	return o, nil
}

func (o *options) check() error {
	if o.rounds < 1 || o.seconds < 1 || o.seconds > 30 {
		return errors.New("-rounds must be at least 1, -seconds from 1 to 30")
	}
	for _, n := range o.only {
		if len(chosen([]string{n})) == 0 {
			return fmt.Errorf("-only: there is no candidate %q", n)
		}
	}
	for _, n := range o.where {
		if !slices.ContainsFunc(scenarios(), func(s scenario) bool { return s.name == n }) {
			return fmt.Errorf("-scenarios: there is no %q", n)
		}
	}
	for _, n := range o.what {
		if _, ok := streams[n]; !ok && n != "rtt" && n != astray {
			return fmt.Errorf("-figures: there is no %q", n)
		}
	}
	if _, ok := streams[o.point]; !ok && o.point != "" && o.point != "rtt" {
		return fmt.Errorf("-point: there is no %q", o.point)
	}
	if o.flame != "" && (o.point == "" || len(chosen(o.only)) != 1) {
		return errors.New("-flame draws one figure of one candidate: it needs -point and -only")
	}
	return nil
}

// plan are the scenarios that are wanted, with the figures that are wanted there.
func (o *options) plan() (ss []scenario) {
	for _, s := range scenarios() {
		if len(o.where) > 0 && !slices.Contains(o.where, s.name) {
			continue
		}
		if len(o.what) > 0 {
			s.what = slices.DeleteFunc(s.what, func(w string) bool { return !slices.Contains(o.what, w) })
		}
		if len(s.what) > 0 {
			ss = append(ss, s)
		}
	}
	return ss
}

// present are the candidates that are wanted and whose programs are installed.
func (o *options) present() (cs []candidate, absent []string) {
	for _, c := range chosen(o.only) {
		if m := c.missing(); m != "" {
			absent = append(absent, fmt.Sprintf("%s: %s is not installed (make bench-peers-deps)", c.name, m))
			continue
		}
		cs = append(cs, c)
	}
	return cs, absent
}

func (o *options) run(ctx context.Context, out, progress io.Writer) error {
	if o.from != "" {
		r, err := load(o.from)
		if err != nil {
			return err
		}
		return o.report(r, out)
	}
	cs, absent := o.present()
	for _, a := range absent {
		fmt.Fprintln(progress, "left out:", a)
	}
	ss := o.plan()
	if len(cs) == 0 || len(ss) == 0 {
		return errors.New("nothing to measure: the candidates are not installed, or the scenarios do not have these figures")
	}
	warnIfBusy(ctx, progress)
	if o.point != "" {
		return o.repeat(ctx, cs, ss[0], out)
	}
	r := newResults(o, cs, absent)
	if err := o.measureAll(ctx, r, cs, ss, progress); err != nil {
		return err
	}
	return o.report(r, out)
}

// measureAll goes through the rounds.
func (o *options) measureAll(ctx context.Context, r *results, cs []candidate, ss []scenario, progress io.Writer) error {
	for round := range o.rounds {
		for _, sc := range ss {
			for i := range cs {
				c := cs[(i+round)%len(cs)]
				f, err := measure(ctx, c, sc, o.seconds)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				fmt.Fprintf(progress, "%d/%d %-4s %-26s %s\n", round+1, o.rounds, sc.name, c.name, f)
				if err != nil {
					fmt.Fprintln(progress, "    failed:", err)
					r.fail(round, sc.name, c.name, err)
				}
				r.add(sc.name, c.name, f)
			}
		}
		r.Rounds = round + 1
		if o.json != "" {
			if err := r.save(o.json); err != nil {
				return err
			}
		}
	}
	return nil
}

// warnIfBusy looks whether others use the machine: with two cores that spoils everything.
func warnIfBusy(ctx context.Context, progress io.Writer) {
	const most = 0.05
	before, err := os.ReadFile("/proc/stat")
	if err != nil {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Second):
	}
	after, err := os.ReadFile("/proc/stat")
	if err != nil {
		return
	}
	if b := busy(string(before), string(after)); b > most {
		fmt.Fprintf(progress, "the machine is %.0f %% busy with other things: figures will be lower and wilder\n", b*100)
	}
}
