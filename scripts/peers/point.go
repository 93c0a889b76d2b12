//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"twinkey/scripts/lab"
)

// repeat measures one figure of each candidate on one set-up, o.rounds times, and says what it cost each router.
func (o *options) repeat(ctx context.Context, cs []candidate, sc scenario, out io.Writer) error {
	for _, c := range cs {
		if err := o.repeatOne(ctx, c, sc, out); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fmt.Fprintln(out, "failed:", err)
		}
	}
	return nil
}

func (o *options) repeatOne(ctx context.Context, c candidate, sc scenario, out io.Writer) (err error) {
	s, err := setUp(ctx, c, sc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	fmt.Fprintf(out, "%s, %s, %s; routers %d, %d\n", c.name, sc.name, o.point, s.pids[0], s.pids[1])
	if o.flame != "" {
		p, err := sample(ctx, s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.draw(ctx, p, c, sc, out)) }()
	}
	var all, cost []float64
	for range o.rounds {
		value, t, err := o.pointOnce(ctx, s)
		if err != nil {
			return s.explain(err)
		}
		gb := t.bytes / 1e9
		all, cost = append(all, value), append(cost, t.ends[0].plus(t.ends[1]).cpu()/gb)
		fmt.Fprintf(out, "%10.4g", value)
		for i, name := range []string{lab.SiteA.Name, lab.SiteB.Name} {
			if s.pids[i] != 0 && o.point != "rtt" {
				e := t.ends[i]
				fmt.Fprintf(out, "   %s %.2f s/GB (user %.2f, system %.2f), %.0f switches/s", name, e.cpu()/gb, e.user/gb, e.system/gb, e.switches/t.took.Seconds())
			}
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "%10.4g median, %.4g to %.4g", median(all), quantile(all, 0), quantile(all, 1))
	if s.pids[0] != 0 {
		if o.point != "rtt" {
			fmt.Fprintf(out, "; %.2f s/GB", median(cost))
		}
		fmt.Fprintf(out, "; peak memory %.1f, %.1f MiB", peakMiB(s.pids[0]), peakMiB(s.pids[1]))
	}
	fmt.Fprintln(out)
	return nil
}

// draw writes the picture, and the largest shares as text.
func (o *options) draw(ctx context.Context, p *sampling, c candidate, sc scenario, out io.Writer) error {
	root, err := p.stop(ctx)
	if err != nil {
		return err
	}
	names, share := root.inclusive()
	for _, n := range names[:min(len(names), 80)] {
		fmt.Fprintf(out, "%6.1f %%  %s\n", 100*share[n], n)
	}
	svg := root.flame(fmt.Sprintf("%s, %s, WAN offload %s: where the CPU time of both routers goes", c.name, o.point, sc.name))
	return os.WriteFile(o.flame, []byte(svg), 0o644) //nolint:gosec // documentation
}

func (o *options) pointOnce(ctx context.Context, s *site) (float64, transferred, error) {
	if o.point == "rtt" {
		f := figures{}
		err := f.pings(ctx, s)
		return f["rtt"], transferred{}, err
	}
	t, err := transfer(ctx, s, streams[o.point].args, o.seconds)
	return t.rate * streams[o.point].scale, t, err
}
