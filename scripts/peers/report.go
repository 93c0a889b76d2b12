//go:build linux

package main

import (
	"bufio"
	"fmt"
	"html"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ours is what the targets are about.
const ours = "twinkey aes256-gcm"

// column is a figure in a scenario.
type column struct{ scenario, figure, title, format string }

var columns = []column{
	{"on", "tcp1", "TCP 1, Gbit/s", "%.2f"}, {"on", "rev", "other way", "%.2f"}, {"on", "tcp4", "TCP 4", "%.2f"},
	{"on", "udp1300", "UDP 1300 B, Mbit/s", "%.0f"}, {"on", "udp64", "UDP 64 B, kpps", "%.0f"}, {"on", "rtt", "round trip, us", "%.0f"},
	{"on", "cpu", "CPU s/GB, both", "%.2f"}, {"on", "rss", "memory, MiB", "%.0f"},
	{"off", "tcp1", "offload off: TCP 1", "%.2f"}, {"off", "tcp4", "TCP 4", "%.2f"}, {"off", "cpu", "CPU s/GB", "%.2f"},
	{"100M", "tcp1", "100 Mbit/s: utilization, %", "%.1f"},
}

// value is the median of a column for a candidate, in the column's unit.
func (r *results) value(col column, candidate string) (mid, low, high float64, ok bool) {
	v := r.values[key{col.scenario, candidate, col.figure}]
	if len(v) == 0 {
		return 0, 0, 0, false
	}
	scale := 1.0
	if col.scenario == "100M" && col.figure == "tcp1" {
		scale = 1e9 / shaped * 100
	}
	return median(v) * scale, slices.Min(v) * scale, slices.Max(v) * scale, true
}

func (r *results) markdown(o options, cs []candidate) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Beside the peers\n\nWritten by `make bench-peers` (see `scripts/peers`) on %s: %s, %d cores, Linux %s, %s; two routers, two hosts and, for twinkey, CA and directory on them. ",
		time.Now().Format(time.DateOnly), processor(), runtime.NumCPU(), release(), runtime.Version())
	fmt.Fprintf(&b, "%d rounds of all candidates in turn, streams of %d s; medians, in small the least and the most. UDP is sent as fast as the sender can and counted by the receiver. Memory is the larger router's peak.\n\n![chart](peers.svg)\n\n", o.rounds, o.seconds)
	used := slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
		return !slices.ContainsFunc(cs, func(x candidate) bool { _, _, _, ok := r.value(c, x.name); return ok })
	})
	fmt.Fprint(&b, "| |")
	for _, c := range used {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	fmt.Fprintf(&b, "\n|---|%s\n", strings.Repeat("---|", len(used)))
	for _, x := range cs {
		fmt.Fprintf(&b, "| %s |", x.name)
		for _, c := range used {
			mid, low, high, ok := r.value(c, x.name)
			if !ok {
				fmt.Fprint(&b, " |")
				continue
			}
			fmt.Fprintf(&b, " "+c.format+" <sub>"+c.format+"–"+c.format+"</sub> |", mid, low, high)
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "\n## What was aimed at\n\n%s with AES-256-GCM, unless another suite is named. A ratio is of medians of this run.\n\n| | is | aim | reached |\n|---|---|---|---|\n", "twinkey")
	for _, t := range r.targets(cs) {
		fmt.Fprintf(&b, "| %s | %.2f | %s %.2f | %s |\n", t.what, t.is, t.rel, t.aim, map[bool]string{true: "yes", false: "**no**"}[t.reached()])
	}
	for n, why := range r.absent {
		fmt.Fprintf(&b, "\nLeft out: %s, %s.\n", n, why)
	}
	for _, f := range r.failed {
		fmt.Fprintf(&b, "\nFailed: %s\n", strings.SplitN(f, "\n", 2)[0])
	}
	return b.String()
}

// target is a figure that was set before anything was measured.
type target struct {
	what string
	is   float64
	rel  string // "≥" or "≤"
	aim  float64
}

func (t target) reached() bool {
	return t.rel == "≥" && t.is >= t.aim || t.rel == "≤" && t.is <= t.aim
}

// peers are the candidates that are neither ours nor nothing.
func peers(cs []candidate) (names []string) {
	for _, c := range cs {
		if c.name != "none" && !strings.HasPrefix(c.name, "twinkey") {
			names = append(names, c.name)
		}
	}
	return names
}

func (r *results) targets(cs []candidate) (ts []target) {
	get := func(scenario, figure, candidate string) float64 {
		v, _, _, _ := r.value(column{scenario: scenario, figure: figure}, candidate)
		return v
	}
	add := func(what string, a, b float64, rel string, aim float64) {
		if a > 0 && b > 0 {
			ts = append(ts, target{what, a / b, rel, aim})
		}
	}
	best := func(scenario, figure string) (v float64) {
		for _, p := range peers(cs) {
			v = max(v, get(scenario, figure, p))
		}
		return v
	}
	const wg, ovpn, ovpn3 = "wireguard-go", "openvpn aes-256-gcm", "openvpn 3des-sha1"
	add("TCP, one stream, of wireguard-go's", get("on", "tcp1", ours), get("on", "tcp1", wg), "≥", 2)
	add("the same, WAN offload off", get("off", "tcp1", ours), get("off", "tcp1", wg), "≥", 1.5)
	add("CPU seconds per GB, of wireguard-go's", get("on", "cpu", ours), get("on", "cpu", wg), "≤", 0.5)
	add("memory of a router at full load, MiB", get("on", "rss", ours), 1, "≤", 64)
	none := get("on", "rtt", "none")
	add("round trip added, of OpenVPN's", get("on", "rtt", ours)-none, get("on", "rtt", ovpn)-none, "≤", 1)
	add("round trip added, of wireguard-go's", get("on", "rtt", ours)-none, get("on", "rtt", wg)-none, "≤", 0.5)
	add("UDP 64 B, of the best peer's", get("on", "udp64", ours), best("on", "udp64"), "≥", 2)
	add("UDP 1300 B, of the best peer's", get("on", "udp1300", ours), best("on", "udp1300"), "≥", 2)
	add("3DES, of OpenVPN's with 3DES", get("on", "tcp1", "twinkey 3des-cbc-sha1"), get("on", "tcp1", ovpn3), "≥", 2)
	for _, c := range cs {
		if s, ok := strings.CutPrefix(c.name, "twinkey "); ok && !strings.HasPrefix(s, "3des") {
			add("100 Mbit/s: utilization of the best peer's, "+s, get("100M", "tcp1", c.name), best("100M", "tcp1"), "≥", 1)
		}
	}
	return ts
}

// chart draws the main figures as bars.
func (r *results) chart(cs []candidate) string {
	const (
		left, right, bar, gap, head = 190, 560, 16, 5, 44
	)
	panels := []column{columns[0], columns[8], columns[3], columns[4], columns[5], columns[6], columns[11]}
	var body strings.Builder
	y := 10
	for _, p := range panels {
		most := 0.0
		for _, c := range cs {
			v, _, _, _ := r.value(p, c.name)
			most = max(most, v)
		}
		if most == 0 {
			continue
		}
		title := p.title
		if p.scenario == "off" {
			title = "TCP 1, Gbit/s, WAN offload off"
		}
		fmt.Fprintf(&body, "<text x='%d' y='%d' class='t'>%s</text>\n", left, y+24, html.EscapeString(title))
		y += head
		for _, c := range cs {
			v, low, high, ok := r.value(p, c.name)
			if !ok {
				continue
			}
			x := func(v float64) float64 { return left + v/most*(right-left) }
			class := "p"
			switch {
			case strings.HasPrefix(c.name, "twinkey"):
				class = "u"
			case c.name == "none":
				class = "n"
			}
			fmt.Fprintf(&body, "<text x='%d' y='%d' class='l'>%s</text><rect x='%d' y='%d' width='%.1f' height='%d' class='%s'/><path d='M%.1f %dH%.1f' class='w'/><text x='%.1f' y='%d' class='v'>"+p.format+"</text>\n",
				left-8, y+bar-3, html.EscapeString(c.name), left, y, x(v)-left, bar, class, x(low), y+bar/2, x(high), max(x(high), x(v))+6, y+bar-3, v)
			y += bar + gap
		}
		y += 14
	}
	return fmt.Sprintf(`<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='system-ui, sans-serif' font-size='12'>
<style>
text{fill:#222} .t{font-size:14px;font-weight:600} .l{text-anchor:end} .u{fill:#1f77b4} .p{fill:#b0b0b0} .n{fill:#e0e0e0} .w{stroke:#444;stroke-width:1.5}
@media (prefers-color-scheme: dark){text{fill:#ddd} .p{fill:#707070} .n{fill:#444} .w{stroke:#ccc}}
</style>
%s</svg>
`, right+90, y, body.String())
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close() //nolint:errcheck // read only
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
