package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/mqcluster/mqcluster/bench"
)

// labels say what a case is, where its name does not.
var labels = map[string]string{"S1": "S1 fan-in QoS 0", "S2": "S2 fan-out QoS 0", "S3": "S3 pairs QoS 1", "S4": "S4 pairs QoS 2",
	"S8": "S8 pairs QoS 1", "R3": "R3 pairs QoS 1", "R4": "R4 pairs QoS 2", "handshake": "TLS 1.3, mutual", "plain": "TCP",
	"idle": "TCP", "idleTLS": "TLS 1.3, mutual"}

// plotsOf returns the pictures that the rows of a section make, by name.
func plotsOf(rows []bench.Row) map[string]string {
	plots := map[string]string{}
	bars := func(name, title string, log bool, cases []string, value func(bench.Row) float64) {
		var groups []barGroup
		for _, c := range cases {
			g := barGroup{name: cmp.Or(labels[c], c)}
			for _, r := range rows {
				if r.Case == c {
					g.bars = append(g.bars, bar{r.Target, value(r)})
				}
			}
			if slices.ContainsFunc(g.bars, func(b bar) bool { return b.value > 0 }) {
				groups = append(groups, g)
			}
		}
		if len(groups) > 0 {
			plots[name] = barPlot(title, log, groups)
		}
	}
	cpu := func(r bench.Row) float64 { return r.CPU }
	bars("cpu", "CPU µs of a delivered message, logarithmic", true, []string{"S1", "S2", "S3", "S4"}, cpu)
	bars("latency", "99th percentile of the latency at 5,000/s, ms, logarithmic", true, []string{"S8"}, func(r bench.Row) float64 { return r.P99 })
	bars("durable", "CPU µs of a message for a persistent session", false, []string{"R3", "R4", "replay/queue", "replay/replay"}, cpu)
	bars("connections", "CPU µs of a connection", false, []string{"handshake", "plain"}, cpu)
	bars("idle", "KiB of an idle connection", false, []string{"idle", "idleTLS"}, func(r bench.Row) float64 { return figure(r, "memory") })
	for _, name := range []string{"growth", "growth1"} {
		for _, kind := range []string{"clients", "topics"} {
			points, curves := curvesOf(rows, name, kind)
			if len(curves) > 0 {
				qos := map[string]string{"growth": "QoS 0", "growth1": "QoS 1"}[name]
				plots[name+"-"+kind] = linePlot("CPU µs of a message by "+kind+", "+qos, points, curves)
			}
		}
	}
	return plots
}

// curvesOf are the phases of a case that differ in how many of a kind there are.
func curvesOf(rows []bench.Row, name, kind string) (points []string, curves []curve) {
	for _, r := range rows {
		point, ok := strings.CutPrefix(r.Case, name+"/")
		if !ok || !strings.HasSuffix(point, " "+kind) {
			continue
		}
		if !slices.Contains(points, point) {
			points = append(points, point)
		}
		i := slices.IndexFunc(curves, func(c curve) bool { return c.name == r.Target })
		if i < 0 {
			i, curves = len(curves), append(curves, curve{name: r.Target})
		}
		curves[i].y = append(curves[i].y, r.CPU)
	}
	return points, curves
}

func figure(r bench.Row, name string) float64 {
	i := slices.IndexFunc(r.Figures, func(f bench.Figure) bool { return f.Name == name })
	if i < 0 {
		return 0
	}
	return r.Figures[i].Value
}
