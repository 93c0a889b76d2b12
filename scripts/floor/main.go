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
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"twinkey/pkg/netlab"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == boxRole {
		exit(box(os.Args[2:], os.Stdin, os.Stdout))
	}
	if err := errors.Join(netlab.EnsurePrivileges(), netlab.CheckTUN()); err != nil {
		exit(err)
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each row is measured")
	flag.DurationVar(&o.time, "time", 400*time.Millisecond, "how long a row is measured in a round; those of TCP take eight times that")
	flag.StringVar(&o.json, "json", "", "write all samples to this file, - for standard output instead of the table")
	flag.StringVar(&o.markdown, "markdown", "", "write the table to this file as well")
	only := flag.String("only", "", "measure these groups alone: copies,ciphers,udp,tun,forwarding")
	flag.Parse()
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	exit(run(ctx, o, os.Stdout, os.Stderr))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

type options struct {
	rounds         int
	time           time.Duration
	json, markdown string
	only           []string
}

func (o options) wants(group string) bool { return o.only == nil || slices.Contains(o.only, group) }

func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	lab, err := netlab.New(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	tables, end, err := prepare(ctx, o, lab)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	r := report{Machine: machine(), Rounds: o.rounds, Seconds: o.time.Seconds(), Tables: tables}
	if err := measure(ctx, tables, o.rounds, o.time, func(s string) { fmt.Fprintln(progress, s) }); err != nil {
		return err
	}
	return r.write(o, out)
}

// prepare makes what the wanted groups need. end ends what they have started, also after an error.
func prepare(ctx context.Context, o options, lab *netlab.Lab) (tables []*table, end func() error, err error) {
	end = func() error { return nil }
	for _, g := range []struct {
		name string
		make func() (*table, error)
	}{
		{"copies", func() (*table, error) { return copies(), nil }},
		{"ciphers", ciphers},
		{"udp", func() (*table, error) { return overCable(lab) }},
		{"tun", func() (*table, error) { return acrossTUN(ctx, lab) }},
		{"forwarding", func() (t *table, err error) {
			t, end, err = forwarding(ctx, lab)
			return t, err
		}},
	} {
		if !o.wants(g.name) {
			continue
		}
		t, err := g.make()
		if err != nil {
			return nil, end, fmt.Errorf("preparing %s: %w", g.name, err)
		}
		tables = append(tables, t)
	}
	if len(tables) == 0 {
		return nil, end, fmt.Errorf("no group is called %s", strings.Join(o.only, ","))
	}
	return tables, end, nil
}
