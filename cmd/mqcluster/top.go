package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) topCommand() *cobra.Command {
	var interval time.Duration
	var rounds, lines int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "A live screen of nodes, clients and topics",
		Long: `Shows the nodes of the cluster with their rates, and the clients and topics with the
most messages a second, until it is interrupted. Clients and topics are counted from
one message in sixteen, on every node, and only while a top looks: what moves little
may be missing. With -o json each round is a JSON object.`,
		Example: `  mqcluster top
  mqcluster top --interval 5s --rounds 1 -o json`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "time between two looks, 1s to 10s")
	cmd.Flags().IntVar(&rounds, "rounds", 0, "end after so many (default: never)")
	cmd.Flags().IntVar(&lines, "lines", 10, "clients and topics to show")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if interval < time.Second || interval > 10*time.Second {
			return usagef("--interval must be from 1s to 10s")
		}
		var last *admin.Top
		looks := rounds
		if looks > 0 {
			looks++ // the first has no rates
		}
		return a.repeat(cmd, interval, looks, func() error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				now, err := c.Top(ctx)
				if err != nil {
					return err
				}
				defer func() { last = &now }()
				if last == nil {
					return nil
				}
				rates := ratesOf(last, &now, lines)
				if r.out.json() {
					return r.out.value(rates)
				}
				if rounds == 0 {
					fmt.Fprint(a.Out, clearScreen)
				}
				return a.printTop(rates)
			})
		})
	}
	return cmd
}

// clearScreen has a terminal begin anew.
const clearScreen = "\x1b[H\x1b[2J"

// repeat calls look now and after every interval, rounds times (0: until cmd is
// interrupted).
func (a *App) repeat(cmd *cobra.Command, interval time.Duration, rounds int, look func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		if err := look(); err != nil {
			if cmd.Context().Err() != nil {
				return nil // interrupted, which is how it ends
			}
			return err
		}
		if rounds > 0 && n >= rounds {
			return nil
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// topRates are what happened between two looks, a second.
type topRates struct {
	Nodes   []nodeRate `json:"nodes"`
	Clients []topRate  `json:"clients"`
	Topics  []topRate  `json:"topics"`
}

type nodeRate struct {
	Node    string  `json:"node"`
	Role    string  `json:"role"`
	Clients int     `json:"clients"`
	In      float64 `json:"messages_in_per_s"`
	Out     float64 `json:"messages_out_per_s"`
	Dropped float64 `json:"dropped_per_s"`
	Lag     uint64  `json:"lag_entries"`
	Memory  uint64  `json:"memory_bytes"`
	Error   string  `json:"error,omitempty"`
}

type topRate struct {
	Name string  `json:"name"`
	Rate float64 `json:"messages_per_s"`
}

func ratesOf(was, now *admin.Top, lines int) topRates {
	var out topRates
	clients, topics := map[string]float64{}, map[string]float64{}
	newest := uint64(0)
	for _, n := range now.Nodes {
		newest = max(newest, n.Applied)
	}
	for _, n := range now.Nodes {
		r := nodeRate{Node: n.Node, Role: n.Role, Clients: n.Clients, Lag: newest - n.Applied, Memory: n.Memory, Error: n.Error}
		i := slices.IndexFunc(was.Nodes, func(o admin.TopNode) bool { return o.Node == n.Node })
		if i >= 0 && n.Error == "" && was.Nodes[i].Error == "" && n.Started.Equal(was.Nodes[i].Started) {
			o := was.Nodes[i]
			seconds := n.At.Sub(o.At).Seconds()
			per := func(now, was int64) float64 { return float64(now-was) / seconds }
			r.In, r.Out, r.Dropped = per(n.In, o.In), per(n.Out, o.Out), per(n.Dropped, o.Dropped)
			add := func(to map[string]float64, now, was map[string]int64) {
				for name, k := range now {
					to[name] += per(k, was[name])
				}
			}
			add(clients, n.ByClient, o.ByClient)
			add(topics, n.ByTopic, o.ByTopic)
		}
		out.Nodes = append(out.Nodes, r)
	}
	out.Clients, out.Topics = most(clients, lines), most(topics, lines)
	return out
}

// most are the names with the highest rates.
func most(of map[string]float64, lines int) []topRate {
	out := []topRate{}
	for name, rate := range of {
		if rate > 0 {
			out = append(out, topRate{name, rate})
		}
	}
	slices.SortFunc(out, func(a, b topRate) int { return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.Name, b.Name)) })
	return out[:min(len(out), max(lines, 0))]
}

func (a *App) printTop(r topRates) error {
	t := newTable(a.Out, "NODE ROLE CLIENTS IN/S OUT/S DROPPED/S LAG MEMORY")
	for _, n := range r.Nodes {
		if n.Error != "" {
			t.row(n.Node, n.Role, "", "", "", "", "", n.Error)
			continue
		}
		t.row(n.Node, n.Role, n.Clients, fmt.Sprintf("%.0f", n.In), fmt.Sprintf("%.0f", n.Out), fmt.Sprintf("%.0f", n.Dropped), n.Lag, fmt.Sprintf("%d MiB", n.Memory>>20))
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.Out)
	t = newTable(a.Out, "CLIENT IN/S TOPIC IN/S")
	for i := range max(len(r.Clients), len(r.Topics)) {
		cells := []any{"", "", "", ""}
		if i < len(r.Clients) {
			cells[0], cells[1] = r.Clients[i].Name, fmt.Sprintf("%.0f", r.Clients[i].Rate)
		}
		if i < len(r.Topics) {
			cells[2], cells[3] = r.Topics[i].Name, fmt.Sprintf("%.0f", r.Topics[i].Rate)
		}
		t.row(cells...)
	}
	return t.flush()
}
