package main

import (
	"fmt"
	"math"
	"strings"
)

// The chart has two panels over the number of calls, on a logarithmic axis:
//
//	+-- throughput --+  +-- memory ------+
//	|  lines: 1 tunnel, dots: as many tunnels as calls
//	+----------------+  +----------------+
//
// Colours are of middle brightness, and the text takes that of the page, so that it can be read on light and dark.
const (
	chartWidth, chartHeight  = 900, 400
	panelTop, panelBottom    = 50, 300
	panelWidth               = 340
	firstPanel, secondPanel  = 70, 520
	legendTop, legendSpacing = 345, 18
)

// line is one figure in a panel.
type line struct {
	name   string
	colour string
	of     func(sample) float64
}

// panel is a pair of axes.
type panel struct {
	title, unit string
	left        float64
	lines       []line
}

var panels = []panel{
	{"Throughput through all calls", "Gbit/s", firstPanel, []line{
		{"TCP, one stream", "#7fb2de", func(s sample) float64 { return s.TCP1 }},
		{"TCP, all streams", "#3b82c4", func(s sample) float64 { return s.TCP }},
		{"UDP 1,300 B", "#d07a1f", func(s sample) float64 { return s.UDP }},
	}},
	{"Resident memory of a router", "MiB", secondPanel, []line{
		{"ra loaded", "#c44e52", func(s sample) float64 { return s.NearLoaded }},
		{"ra idle", "#b08fc7", func(s sample) float64 { return s.NearIdle }},
		{"rb loaded", "#2f9e6e", func(s sample) float64 { return s.FarLoaded }},
		{"rb idle", "#8a9a5b", func(s sample) float64 { return s.FarIdle }},
	}},
}

// chart draws the report as SVG.
func (r report) chart() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n"+
		"<style>text{fill:#333}.axis{stroke:#888}@media (prefers-color-scheme: dark){text{fill:#ddd}}</style>\n", chartWidth, chartHeight)
	for _, p := range panels {
		p.draw(&b, r.Rows)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">Filled: all calls in one tunnel. Rings: a tunnel for each call. Bars: minimum to maximum of the rounds.</text>`+"\n", firstPanel, chartHeight-8)
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder, rows []*row) {
	top, calls := 0.0, 1
	for _, r := range rows {
		calls = max(calls, r.Calls)
		for _, l := range p.lines {
			top = max(top, r.spread(l.of).max)
		}
	}
	step := tick(top)
	top = math.Ceil(top/step) * step
	x := func(n int) float64 {
		if calls == 1 {
			return p.left
		}
		return p.left + panelWidth*math.Log(float64(n))/math.Log(float64(calls))
	}
	y := func(v float64) float64 { return panelBottom - (panelBottom-panelTop)*v/top }

	fmt.Fprintf(b, `<text x="%g" y="24" font-size="15">%s, %s</text>`+"\n", p.left, p.title, p.unit)
	for v := 0.0; v <= top+step/2; v += step {
		fmt.Fprintf(b, `<line class="axis" x1="%g" y1="%.1f" x2="%g" y2="%.1f" stroke-opacity="0.35"/><text x="%g" y="%.1f" text-anchor="end">%.4g</text>`+"\n",
			p.left, y(v), p.left+panelWidth, y(v), p.left-8, y(v)+4, v)
	}
	for n := 1; n <= calls; n *= 10 {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(n), panelBottom+18, n)
	}
	fmt.Fprintf(b, `<text x="%g" y="%d" text-anchor="end">calls</text>`+"\n", p.left+panelWidth, panelBottom+34)
	for i, l := range p.lines {
		p.plot(b, rows, l, x, y)
		at := p.left + float64(i%2)*panelWidth/2
		down := legendTop + 8 + i/2*legendSpacing
		fmt.Fprintf(b, `<rect x="%g" y="%d" width="14" height="4" fill="%s"/><text x="%g" y="%d">%s</text>`+"\n", at, down-6, l.colour, at+20, down, l.name)
	}
}

// plot draws one figure: the rows of one tunnel as a line with dots, the others as rings. Bars are from minimum to maximum.
func (p panel) plot(b *strings.Builder, rows []*row, l line, x func(int) float64, y func(float64) float64) {
	var points []string
	for _, r := range rows {
		s := r.spread(l.of)
		fill, label := l.colour, ""
		if r.Tunnels == 1 {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(r.Calls), y(s.median)))
		} else {
			fill, label = "none", fmt.Sprintf(" in %d tunnels", r.Tunnels)
		}
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`, x(r.Calls), y(s.min), x(r.Calls), y(s.max), l.colour)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s" stroke="%s" stroke-width="2"><title>%s, %d calls%s: %.3g %s</title></circle>`+"\n",
			x(r.Calls), y(s.median), fill, l.colour, l.name, r.Calls, label, s.median, p.unit)
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), l.colour)
}

// tick is a round number that goes into top four to nine times.
func tick(top float64) float64 {
	if !(top > 0) {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(top)))
	for _, f := range []float64{0.1, 0.2, 0.5, 1} {
		if top/(f*unit) <= 9 {
			return f * unit
		}
	}
	return 2 * unit
}
