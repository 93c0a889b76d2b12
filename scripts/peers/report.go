//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// figure is a column of the report.
type figure struct {
	name, title, format string
	less                bool // is better
}

var (
	tcp1    = figure{"tcp1", "TCP 1 stream, Gbit/s", "%.2f", false}
	tcp4    = figure{"tcp4", "TCP 4, Gbit/s", "%.2f", false}
	udp1300 = figure{"udp1300", "UDP 1300 B, Mbit/s", "%.0f", false}
	udp64   = figure{"udp64", "UDP 64 B, 1,000 packets/s", "%.0f", false}
	strays  = figure{astray, "lost or out of order at 0.8 of that, of a million", "%.0f", true}
	rtt     = figure{"rtt", "round trip, us", "%.0f", true}
	added   = figure{"added", "added to the round trip, us", "%.0f", true}
	cpu     = figure{"cpu", "CPU s/GB, both routers", "%.2f", true}
	rss     = figure{"rss", "memory of a router, MiB", "%.1f", true}
	use     = figure{"use", "utilization, %", "%.2f", false}
)

// table is what is printed of a scenario.
type table struct {
	scenario, title string
	columns         []figure
}

var tables = []table{
	{"on", "WAN offload on", []figure{
		tcp1, {"rev1", "the other way", "%.2f", false}, tcp4, {"rev4", "the other way", "%.2f", false}, udp1300,
		strays, udp64,
		rtt, added, {"rtt99", "99th percentile, us", "%.0f", true}, cpu, rss,
	}},
	{"off", "WAN offload off", []figure{tcp1, tcp4, udp1300, cpu, rss}},
	{"100M", "WAN shaped to 100 Mbit/s", []figure{use, tcp4, rss}},
}

// aim is a ratio that was set before anything was measured.
type aim struct {
	what     string
	scenario string
	figure   figure
	of       string // candidate
	against  string // candidate; bestPeer; or empty: the value itself
	least    bool   // or most
	value    float64
}

const bestPeer = "best peer"

// aims are the ratios that the project has set itself.
func aims() []aim {
	as := []aim{
		{"TCP, one stream", "on", tcp1, oursBest, wireGuard, true, 2},
		{"TCP, one stream, WAN offload off", "off", tcp1, oursBest, wireGuard, true, 1.5},
		{"CPU seconds per GB", "on", cpu, oursBest, wireGuard, false, 0.5},
		{"memory of a router at full load, MiB", "on", rss, oursBest, "", false, 64},
		{"added to the round trip, us", "on", added, oursBest, openVPN, false, 1},
		{"added to the round trip, us", "on", added, oursBest, wireGuard, false, 0.5},
		{"UDP 64 B, 1,000 packets/s", "on", udp64, oursBest, bestPeer, true, 2},
		{"UDP 1300 B, Mbit/s", "on", udp1300, oursBest, bestPeer, true, 2},
		{"lost or out of order at 0.8 of the most, of a million", "on", strays, oursBest, "", false, 0},
		{"TCP, one stream, 3DES", "on", tcp1, ours3DES, openVPN3DES, true, 2},
	}
	for _, c := range candidates() {
		if strings.HasPrefix(c.name, ours) && c.name != ours3DES {
			as = append(as, aim{"100 Mbit/s, utilization, " + strings.TrimPrefix(c.name, ours), "100M", use, c.name, bestPeer, true, 1})
		}
	}
	return as
}

// outcome is what became of an aim.
type outcome struct {
	is, against float64
	peer        string
	ratio       float64
	measured    bool
	reached     bool
}

func (a aim) outcome(r *results) (o outcome) {
	s, ok := r.spread(a.scenario, a.figure.name, a.of)
	if !ok {
		return o
	}
	o.is, o.peer = s.mid, a.against
	switch a.against {
	case "":
		o.ratio, o.measured = o.is, true
	case bestPeer:
		o.peer, o.against = r.best(a.scenario, a.figure)
		o.measured = o.peer != ""
	default:
		s, o.measured = r.spread(a.scenario, a.figure.name, a.against)
		o.against = s.mid
	}
	if a.against != "" {
		// What is not more than nothing at the other side is no yardstick: one below the noise.
		if o.measured = o.measured && o.against > 0; !o.measured {
			return o
		}
		o.ratio = o.is / o.against
	}
	o.reached = a.least && o.ratio >= a.value || !a.least && o.ratio <= a.value
	return o
}

// report writes the Markdown and the chart to where they are wanted.
func (o *options) report(r *results, out io.Writer) error {
	md := r.markdown()
	if o.to == "" {
		_, err := io.WriteString(out, md)
		return err
	}
	for name, text := range map[string]string{"peers.md": md, "peers.svg": r.chart()} {
		if err := os.WriteFile(filepath.Join(o.to, name), []byte(text), 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
	}
	return nil
}

func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Beside the peers\n\nWritten by `make bench-peers` on %s: %s, which both routers and both hosts share. "+
		"Rounds of all candidates in turn: %d; seconds a stream: %d. Medians, and in small the least and the most. "+
		"Compare within one run. What each figure is and how each candidate is set up: `scripts/peers`.\n\n![the main figures as bars](peers.svg)\n", r.Date, r.Machine, r.Rounds, r.Seconds)
	r.writeAims(&b)
	for _, t := range tables {
		r.writeTable(&b, t)
	}
	r.writeBest(&b)
	for _, list := range []struct {
		title string
		lines []string
	}{{"Left out", r.Absent}, {"What failed", r.Failed}} {
		if len(list.lines) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n", list.title)
		}
		for _, l := range list.lines {
			fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(l, "\n", "\n    "))
		}
	}
	return b.String()
}

func (r *results) writeAims(b *strings.Builder) {
	fmt.Fprintf(b, "\n## What is aimed at\n\nTwinkey with AES-256-GCM unless another suite is named. Ratios are of medians of this run.\n\n"+
		"| | twinkey | against | | ratio | aim | reached |\n|---|---|---|---|---|---|---|\n")
	for _, a := range aims() {
		o := a.outcome(r)
		sign := map[bool]string{true: "≥", false: "≤"}[a.least]
		if !o.measured {
			fmt.Fprintf(b, "| %s | | | | | %s %.3g | not measured |\n", a.what, sign, a.value)
			continue
		}
		against, ratio := "", fmt.Sprintf("%.4g", o.ratio)
		if a.against == "" {
			ratio = ""
		} else {
			against = fmt.Sprintf(a.figure.format, o.against)
		}
		fmt.Fprintf(b, "| %s | "+a.figure.format+" | %s | %s | %s | %s %.3g | %s |\n",
			a.what, o.is, o.peer, against, ratio, sign, a.value, map[bool]string{true: "yes", false: "**no**"}[o.reached])
	}
}

func (r *results) writeTable(b *strings.Builder, t table) {
	var used []figure
	for _, f := range t.columns {
		for _, c := range r.Candidates {
			if _, ok := r.spread(t.scenario, f.name, c); ok {
				used = append(used, f)
				break
			}
		}
	}
	if len(used) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n|", t.title)
	for _, f := range used {
		fmt.Fprintf(b, " | %s", f.title)
	}
	fmt.Fprintf(b, " |\n|---%s|\n", strings.Repeat("|---", len(used)))
	for _, c := range r.Candidates {
		fmt.Fprintf(b, "| %s", c)
		for _, f := range used {
			if s, ok := r.spread(t.scenario, f.name, c); ok {
				fmt.Fprintf(b, " | "+f.format+" <sub>"+f.format+"–"+f.format+"</sub>", s.mid, s.low, s.high)
			} else {
				fmt.Fprint(b, " |")
			}
		}
		fmt.Fprintln(b, " |")
	}
}

// writeBest sets every suite beside the best peer of each figure.
func (r *results) writeBest(b *strings.Builder) {
	var suites []string
	for _, c := range r.Candidates {
		if strings.HasPrefix(c, ours) {
			suites = append(suites, c)
		}
	}
	if len(suites) == 0 || len(r.peers()) == 0 {
		return
	}
	fmt.Fprint(b, "\n## Ratios to the best peer\n\nOf each figure by itself; more is better, but where it says ↓.\n\n| | best peer |")
	for _, s := range suites {
		fmt.Fprintf(b, " %s |", strings.TrimPrefix(s, ours))
	}
	fmt.Fprintf(b, "\n|---|---%s|\n", strings.Repeat("|---", len(suites)))
	for _, t := range tables {
		for _, f := range t.columns {
			name, value := r.best(t.scenario, f)
			if name == "" || value <= 0 {
				continue
			}
			fmt.Fprintf(b, "| %s%s, %s | %s "+f.format+" |", map[bool]string{true: "↓ "}[f.less], f.title, t.scenario, name, value)
			for _, c := range suites {
				if s, ok := r.spread(t.scenario, f.name, c); ok {
					fmt.Fprintf(b, " %.2f |", s.mid/value)
				} else {
					fmt.Fprint(b, " |")
				}
			}
			fmt.Fprintln(b)
		}
	}
}
