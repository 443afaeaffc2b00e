package main

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// The plots are small SVG pictures without a background. They bring their colours for
// light and dark surroundings with them.
const (
	plotWidth = 720
	plotLeft  = 150 // where bars and lines begin
	plotRight = 70  // what is kept free for their last label
	barHeight = 13
	plotTop   = 52
)

const plotStyle = `<style>
text{font:12px system-ui,sans-serif;fill:#3d444d}
.title{font-weight:600;font-size:14px}
.value{font-size:11px}
.grid{stroke:#8b949e;stroke-opacity:.35}
@media(prefers-color-scheme:dark){text{fill:#c9d1d9}}
</style>
`

// colours are those of the targets; others take turns.
var colours = map[string]string{"mosquitto": "#e0803a", "nats": "#2a9d8f", "one": "#3b82f6", "three": "#9b6bf2", "null": "#8b949e"}

func colour(name string) string {
	if c := colours[name]; c != "" {
		return c
	}
	more := []string{"#d6569c", "#7a9a2e", "#b8902b"}
	n := 0
	for _, r := range name {
		n += int(r)
	}
	return more[n%len(more)]
}

// bar is one value of a group of bars.
type bar struct {
	name  string
	value float64
}

type barGroup struct {
	name string
	bars []bar
}

// svg collects a picture.
type svg struct{ strings.Builder }

func (s *svg) text(x, y float64, class, anchor, text string) {
	fmt.Fprintf(s, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class, anchor, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64) {
	fmt.Fprintf(s, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>\n", x1, y1, x2, y2)
}

// begin writes the title and what the colours mean.
func (s *svg) begin(height int, title string, names []string) {
	fmt.Fprintf(s, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\">\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(s, "<title>%s</title>\n%s", html.EscapeString(title), plotStyle)
	s.text(8, 18, "title", "start", title)
	x := 8.0
	for _, name := range names {
		fmt.Fprintf(s, "<rect x=\"%.1f\" y=\"28\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", x, colour(name))
		s.text(x+14, 37, "", "start", name)
		x += 30 + 7*float64(len(name))
	}
}

func (s *svg) end() string {
	s.WriteString("</svg>\n")
	return s.String()
}

// axis maps values to 0…1.
type axis struct {
	low, high float64
	log       bool
}

// newAxis fits the values; a linear axis begins at 0, a logarithmic one at a power
// of ten.
func newAxis(values []float64, log bool) axis {
	values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return v <= 0 })
	if len(values) == 0 {
		return axis{high: 1}
	}
	a := axis{high: slices.Max(values), log: log}
	if log {
		a.low = math.Pow(10, math.Floor(math.Log10(slices.Min(values)))-.3)
	}
	return a
}

func (a axis) at(v float64) float64 {
	if !a.log {
		return max(0, v/a.high)
	}
	if v <= a.low {
		return 0
	}
	return math.Log(v/a.low) / math.Log(a.high/a.low)
}

// ticks are round values on the axis.
func (a axis) ticks() (all []float64) {
	if a.log {
		for v := math.Pow(10, math.Ceil(math.Log10(a.low))); v <= a.high; v *= 10 {
			all = append(all, v)
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10(a.high)))
	for a.high/step < 3 {
		step /= 2
	}
	for v := 0.0; v <= a.high; v += step {
		all = append(all, v)
	}
	return all
}

// number writes a value with as many digits as say something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

// barPlot draws groups of bars, one below the other. Bars without a value are left
// out.
func barPlot(title string, log bool, groups []barGroup) string {
	var names []string
	var values []float64
	height := plotTop
	for i := range groups {
		g := &groups[i]
		g.bars = slices.DeleteFunc(g.bars, func(b bar) bool { return b.value <= 0 })
		for _, b := range g.bars {
			values = append(values, b.value)
			if !slices.Contains(names, b.name) {
				names = append(names, b.name)
			}
		}
		height += len(g.bars)*barHeight + 12
	}
	a := newAxis(values, log)
	s := &svg{}
	s.begin(height+20, title, names)
	x := func(v float64) float64 { return plotLeft + a.at(v)*(plotWidth-plotLeft-plotRight) }
	for _, v := range a.ticks() {
		s.line(x(v), plotTop-4, x(v), float64(height))
		s.text(x(v), float64(height+14), "value", "middle", number(v))
	}
	y := float64(plotTop)
	for _, g := range groups {
		s.text(plotLeft-8, y+float64(len(g.bars)*barHeight)/2+4, "", "end", g.name)
		for _, b := range g.bars {
			fmt.Fprintf(s, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", plotLeft, y, max(1, x(b.value)-plotLeft), barHeight-2, colour(b.name))
			s.text(x(b.value)+4, y+barHeight-3, "value", "start", number(b.value))
			y += barHeight
		}
		y += 12
	}
	return s.end()
}

// curve is a target's values at the points of a line plot.
type curve struct {
	name string
	y    []float64
}

// linePlot draws the targets' values at equal distances: the points are powers of
// ten. The vertical axis begins at 0.
func linePlot(title string, points []string, curves []curve) string {
	const bottom, height = 250, 280
	var names []string
	var values []float64
	for _, c := range curves {
		names, values = append(names, c.name), append(values, c.y...)
	}
	a := newAxis(values, false)
	s := &svg{}
	s.begin(height, title, names)
	x := func(i int) float64 {
		return 60 + float64(i)*(plotWidth-60-plotRight-20)/float64(max(1, len(points)-1))
	}
	y := func(v float64) float64 { return bottom - a.at(v)*(bottom-plotTop-10) }
	for _, v := range a.ticks() {
		s.line(50, y(v), plotWidth-20, y(v))
		s.text(44, y(v)+4, "value", "end", number(v))
	}
	for i, p := range points {
		s.text(x(i), bottom+18, "", "middle", p)
	}
	for _, c := range curves {
		var line []string
		for i, v := range c.y {
			if v > 0 {
				line = append(line, fmt.Sprintf("%.1f,%.1f", x(i), y(v)))
				fmt.Fprintf(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", x(i), y(v), colour(c.name))
			}
		}
		fmt.Fprintf(s, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", strings.Join(line, " "), colour(c.name))
		if n := len(c.y); n > 0 && c.y[n-1] > 0 {
			s.text(x(n-1)+8, y(c.y[n-1])+4, "value", "start", number(c.y[n-1]))
		}
	}
	return s.end()
}
