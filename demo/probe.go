package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
)

const (
	probeEvery   = 250 * time.Millisecond
	probeTimeout = time.Second
	// rateOver is the time over which messages per second are taken.
	rateOver = 2 * time.Second
)

// The metrics that the demo reads.
const (
	metricLeader   = "mqcluster_consensus_leader"
	metricLease    = "mqcluster_consensus_lease_remaining_seconds"
	metricApplied  = "mqcluster_consensus_applied_index"
	metricClients  = "mqcluster_broker_connections"
	metricReceived = "mqcluster_broker_received_messages_total"
	metricSent     = "mqcluster_broker_sent_messages_total"
)

// scrape reads the node's metrics, summed over their labels.
func (n *node) scrape(ctx context.Context, c *http.Client) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.health+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", n.name, err)
	}
	response, err := c.Do(request)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", n.name, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: %s", n.name, response.Status)
	}
	return parseMetrics(response.Body)
}

// parseMetrics reads the text format of Prometheus and adds up what differs in
// labels only.
func parseMetrics(r io.Reader) (map[string]float64, error) {
	out := map[string]float64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		end := strings.IndexAny(line, "{ ")
		at := strings.LastIndexByte(line, ' ')
		if end < 0 || at < 0 {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			out[line[:end]] += v
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return out, nil
}

// sample is what one scrape told.
type sample struct {
	at             time.Time
	received, sent float64
}

// probe keeps watch over what each node does.
type probe struct {
	cluster *cluster
	client  *http.Client

	mu      sync.Mutex
	nodes   map[string]nodeView
	samples map[string][]sample
	roles   map[string]string
	applied map[string]uint64

	cancel context.CancelFunc
	work   sync.WaitGroup
}

func openProbe(c *cluster) *probe {
	p := &probe{
		cluster: c, client: &http.Client{Timeout: probeTimeout},
		nodes: map[string]nodeView{}, samples: map[string][]sample{}, roles: map[string]string{}, applied: map[string]uint64{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	for _, n := range c.nodes {
		p.work.Go(func() { every(ctx, probeEvery, func() { p.look(ctx, n) }) })
	}
	p.work.Go(func() { every(ctx, 2*probeEvery, func() { p.lookAtRoles(ctx) }) })
	return p
}

// Close ends the watch. It is idempotent.
func (p *probe) Close() error {
	p.cancel()
	p.work.Wait()
	p.client.CloseIdleConnections()
	return nil
}

// every calls f again and again until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *probe) look(ctx context.Context, n *node) {
	view := nodeView{name: n.name, pid: n.pid(), ready: n.ready.Load()}
	metrics, err := map[string]float64(nil), error(nil)
	if view.pid != 0 {
		metrics, err = n.scrape(ctx, p.client)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if metrics == nil || err != nil {
		delete(p.samples, n.name)
		p.nodes[n.name] = view
		return
	}
	now := sample{time.Now(), metrics[metricReceived], metrics[metricSent]}
	list := append(p.samples[n.name], now)
	for now.at.Sub(list[0].at) > rateOver {
		list = list[1:]
	}
	p.samples[n.name] = list
	if span := now.at.Sub(list[0].at).Seconds(); span > 0 {
		view.in = (now.received - list[0].received) / span
		view.out = (now.sent - list[0].sent) / span
	}
	view.answers = true
	view.leader = metrics[metricLeader] == 1
	view.lease = time.Duration(max(0, metrics[metricLease]) * float64(time.Second))
	view.applied = uint64(metrics[metricApplied])
	p.applied[n.name] = view.applied
	view.clients = int(metrics[metricClients])
	p.nodes[n.name] = view
}

func (p *probe) lookAtRoles(ctx context.Context) {
	s, err := p.cluster.status(ctx)
	if err != nil {
		return // the roles stay as they were; the screen shows who is not ready
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range s.Members {
		p.roles[m.Node] = m.Role
	}
}

// lastApplied is the applied index that a node told last, also if it is dead.
func (p *probe) lastApplied(name string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applied[name]
}

// view returns the nodes in their order.
func (p *probe) view() []nodeView {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []nodeView
	for _, n := range p.cluster.nodes {
		view := p.nodes[n.name]
		view.name = n.name
		view.role = p.roles[n.name]
		// The metrics are newer than the roles.
		if view.leader {
			view.role = admin.RoleLeader
		} else if view.role == admin.RoleLeader {
			view.role = admin.RoleVoter
		}
		out = append(out, view)
	}
	return out
}

// leader returns the node that leads by its own word, or nil.
func (c *cluster) leader(ctx context.Context, h *http.Client, not *node) *node {
	for _, n := range c.nodes {
		if n == not || !n.running() {
			continue
		}
		if m, err := n.scrape(ctx, h); err == nil && m[metricLeader] == 1 {
			return n
		}
	}
	return nil
}
