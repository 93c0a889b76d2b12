//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The chart is a column of panels, each of them bars of one figure over one axis:
//
//	title, unit
//	   none |##########-+-----   median, and a line from the least to the most
//	twinkey |########-+-
//	        +----+----+----+--   axis
//
// Colours are of middle brightness, and the text takes that of the page, so that it can be read on light and dark.
const (
	chartWidth           = 760
	barsLeft, barsRight  = 190, 690
	barHeight, barStep   = 14, 20
	titleHeight          = 34
	axisHeight           = 40
	mostTicks, leastFrac = 6, 0.1
)

var panels = []struct {
	scenario string
	figure   figure
	title    string
}{
	{"on", tcp1, "TCP, one stream, Gbit/s"},
	{"off", tcp1, "TCP, one stream, WAN offload off, Gbit/s"},
	{"on", udp1300, "UDP, 1300 B, received, Mbit/s"},
	{"on", udp64, "UDP, 64 B, received, 1,000 packets/s"},
	{"on", added, "Added to the round trip, us (less is better)"},
	{"on", cpu, "CPU seconds per GB, both routers (less is better)"},
	{"100M", use, "Utilization of a WAN of 100 Mbit/s, %"},
}

// chart draws the main figures as SVG.
func (r *results) chart() string {
	var b strings.Builder
	y := 0
	for _, p := range panels {
		y = r.panel(&b, y, p.scenario, p.figure, p.title)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<style>text{fill:#333}.t{font-size:15px}.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#888;stroke-opacity:.35}.r{stroke:#888;stroke-width:1.5}
.u{fill:#3b82c4}.p{fill:#a9845c}.n{fill:#8a9a5b}@media (prefers-color-scheme: dark){text{fill:#ddd}}</style>
<text x="%d" y="%d">Blue: twinkey. Brown: peers. Green: no VPN. Lines: least to most of the rounds.</text>
%s</svg>
`, chartWidth, y+30, barsLeft, y+18, b.String())
}

// panel draws one figure from y on and returns where it ends.
func (r *results) panel(b *strings.Builder, y int, scenario string, f figure, title string) int {
	type bar struct {
		name string
		spread
	}
	var bars []bar
	top := 0.0
	for _, c := range r.Candidates {
		if s, ok := r.spread(scenario, f.name, c); ok {
			bars = append(bars, bar{c, s})
			top = max(top, s.high)
		}
	}
	if len(bars) == 0 || top <= 0 {
		return y
	}
	step := tick(top)
	top = math.Ceil(top/step) * step
	x := func(v float64) float64 { return barsLeft + (barsRight-barsLeft)*max(v, 0)/top }

	fmt.Fprintf(b, `<text class="t" x="%d" y="%d">%s</text>`+"\n", barsLeft, y+titleHeight-10, html.EscapeString(title))
	y += titleHeight
	bottom := y + len(bars)*barStep
	for v := 0.0; v <= top+step/2; v += step {
		fmt.Fprintf(b, `<line class="g" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text class="m" x="%.1f" y="%d">%.4g</text>`+"\n", x(v), y-4, x(v), bottom+2, x(v), bottom+16, v)
	}
	for _, s := range bars {
		class := "p"
		switch {
		case s.name == none:
			class = "n"
		case strings.HasPrefix(s.name, ours):
			class = "u"
		}
		middle := y + barHeight/2
		fmt.Fprintf(b, `<text class="e" x="%d" y="%d">%s</text><rect class="%s" x="%d" y="%d" width="%.1f" height="%d"><title>%s: `+f.format+` (`+f.format+` to `+f.format+`)</title></rect>`,
			barsLeft-8, y+barHeight-3, html.EscapeString(s.name), class, barsLeft, y, x(s.mid)-barsLeft, barHeight, html.EscapeString(s.name), s.mid, s.low, s.high)
		fmt.Fprintf(b, `<line class="r" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/><text x="%.1f" y="%d">`+f.format+"</text>\n",
			x(s.low), middle, x(s.high), middle, max(x(s.high), x(s.mid))+6, y+barHeight-3, s.mid)
		y += barStep
	}
	return bottom + axisHeight
}

// tick is a round number that goes into top a few times.
func tick(top float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(top)))
	for _, f := range []float64{leastFrac, 0.2, 0.5, 1} {
		if top/(f*unit) <= mostTicks {
			return f * unit
		}
	}
	return 2 * unit
}
