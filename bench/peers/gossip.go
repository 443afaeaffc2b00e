package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mqcluster/mqcluster/bench"
)

// atRest is how long gossip is watched while nothing happens.
const atRest = 8 * time.Second

// gossipMetric counts what gossip sends.
const gossipMetric = "mqcluster_gossip_sent_bytes_total"

// spreading makes the case of many filters ask every node but the subscribers', and
// measure what the nodes of a cluster gossip at rest, before and after.
func spreading(k bench.Case) bench.Case {
	k.Own = func(ctx context.Context, t bench.Target, c bench.Config) (bench.Report, error) {
		others := slices.DeleteFunc(slices.Clone(t.Addrs), func(a string) bool { return slices.Contains(c.SubAddrs, a) })
		if len(others) > 0 {
			c.PubAddrs = others
		}
		if len(t.Metrics) < 2 {
			return bench.Run(ctx, c)
		}
		if err := acquainted(ctx, t.Metrics); err != nil {
			return bench.Report{}, err
		}
		before, err := gossipRate(ctx, t.Metrics)
		if err != nil {
			return bench.Report{}, err
		}
		var after float64
		c.Between = func(ctx context.Context) (err error) {
			after, err = gossipRate(ctx, t.Metrics)
			return err
		}
		report, err := bench.Run(ctx, c)
		report.Figures = append(report.Figures,
			bench.Figure{Name: "gossip at rest", Unit: "bytes/s", Value: after},
			bench.Figure{Name: "gossip after", Unit: "of before", Value: after / max(before, 1)})
		return report, err
	}
	return k
}

// acquainted waits until the nodes of a cluster that was just started all know one
// another: until then they gossip less than at rest.
func acquainted(ctx context.Context, nodes []string) error {
	return poll(ctx, nil, func(ctx context.Context) error {
		for _, addr := range nodes {
			alive, err := metric(ctx, addr, "mqcluster_gossip_alive_peers")
			if err != nil {
				return err
			}
			if int(alive) != len(nodes)-1 {
				return fmt.Errorf("gossip of %s has %d of %d peers", addr, int(alive), len(nodes)-1)
			}
		}
		return nil
	})
}

// gossipRate is what all nodes together gossip in a second. It takes atRest.
func gossipRate(ctx context.Context, nodes []string) (float64, error) {
	from, err := total(ctx, nodes, gossipMetric)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(atRest):
	}
	to, err := total(ctx, nodes, gossipMetric)
	return (to - from) / time.Since(start).Seconds(), err
}

var errNoMetric = errors.New("a node does not have the metric")

// total adds up a metric without labels of all nodes.
func total(ctx context.Context, nodes []string, name string) (sum float64, err error) {
	for _, addr := range nodes {
		v, err := metric(ctx, addr, name)
		if err != nil {
			return 0, fmt.Errorf("metric %s of %s: %w", name, addr, err)
		}
		sum += v
	}
	return sum, nil
}

func metric(ctx context.Context, addr, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(lines.Err(), errNoMetric)
}
