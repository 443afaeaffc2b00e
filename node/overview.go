package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/fsm"
)

// Overview implements admin.Observer.
func (b backend) Overview(ctx context.Context) (admin.Overview, error) {
	n := b.n
	status, told := n.survey(ctx)
	counts, ends := n.glance.look(n)
	o := admin.Overview{Status: status, At: time.Now(), Nodes: make([]admin.NodeReport, len(told))}
	o.Counts = admin.Counts{Sessions: counts.Sessions, Connected: counts.Connected, Subscriptions: counts.Subscriptions}
	o.Counts.Stored, o.Counts.StoredBytes, _ = n.store.Stored()
	most := uint64(0)
	for _, m := range status.Members {
		most = max(most, m.Applied)
	}
	for i, m := range status.Members {
		t := told[i]
		r := admin.NodeReport{
			Member: m, Draining: t.Draining, Ready: t.Ready, Uptime: t.Uptime, CertUntil: t.CertUntil, Counters: t.Counters,
		}
		if m.Up {
			r.Lag = most - m.Applied
		}
		o.Nodes[i] = r
	}
	o.Alarms = alarms(&o, ends)
	return o, nil
}

// glance remembers for the overview what takes a walk over all sessions or
// certificates between two entries of the log.
type glance struct {
	mu        sync.Mutex
	counted   time.Time
	counts    fsm.Counts
	certified time.Time
	ends      []certEnd
}

// How old what is remembered may be.
const (
	countsAge = 5 * time.Second
	certsAge  = time.Minute
)

func (g *glance) look(n *Node) (fsm.Counts, []certEnd) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.counted) > countsAge {
		g.counts, g.counted = n.store.Counts(), time.Now()
	}
	if time.Since(g.certified) > certsAge {
		g.ends, g.certified = n.certEnds(), time.Now()
	}
	return g.counts, g.ends
}

// certEnd is a client certificate that ends soon.
type certEnd struct {
	subject string
	at      time.Time
}

// clientCertSoon is how long before its end a client certificate is an alarm, and
// nodeCertSoon is that of a node's, which renews itself long before.
const (
	clientCertSoon = 14 * 24 * time.Hour
	nodeCertSoon   = 3 * 24 * time.Hour
)

// certEnds are the client certificates that are in force, end soon and have no
// successor.
func (n *Node) certEnds() []certEnd {
	last := map[string]int64{}
	for _, c := range n.store.Certs() {
		if c.Kind == "client" && !c.Revoked {
			last[c.Subject] = max(last[c.Subject], c.NotAfter)
		}
	}
	var ends []certEnd
	for subject, at := range last {
		// One that has ended long ago is of a device that is gone.
		if left := time.Until(time.Unix(at, 0)); left < clientCertSoon && left > -clientCertSoon {
			ends = append(ends, certEnd{subject, time.Unix(at, 0)})
		}
	}
	slices.SortFunc(ends, func(a, b certEnd) int { return a.at.Compare(b.at) })
	return ends
}

// alarms says what an operator should know of o, the worst first.
func alarms(o *admin.Overview, ends []certEnd) []admin.Alarm {
	all := []admin.Alarm{}
	add := func(level, kind, node, format string, args ...any) {
		all = append(all, admin.Alarm{Level: level, Kind: kind, Node: node, Text: fmt.Sprintf(format, args...)})
	}
	up, voters := countVoters(o)
	switch {
	case o.Leader == "" && up > voters/2:
		add(admin.AlarmWarning, "electing", "", "No leader is known although a majority of the voters answers: an election is under way, and nothing is acknowledged until it ends.")
	case o.Leader == "":
		add(admin.AlarmCritical, "no_leader", "", "No leader is known: nothing is acknowledged. Bring back a majority of the voters.")
	case !o.Quorum:
		add(admin.AlarmCritical, "no_quorum", "", "A majority of the voters is not up: nothing is acknowledged. Bring one of them back.")
	}
	if o.Refusing {
		add(admin.AlarmCritical, "refusing_publishes", "", "Durable publishes are refused, because disks are nearly full: make room on the nodes that say so.")
	}
	for _, r := range o.Nodes {
		nodeAlarms(add, o, &r)
	}
	clusterAlarms(add, o)
	certAlarms(add, o.At, ends)
	rank := map[string]int{admin.AlarmCritical: 0, admin.AlarmWarning: 1, admin.AlarmNotice: 2}
	slices.SortStableFunc(all, func(a, b admin.Alarm) int { return rank[a.Level] - rank[b.Level] })
	return all
}

type addAlarm func(level, kind, node, format string, args ...any)

func nodeAlarms(add addAlarm, o *admin.Overview, r *admin.NodeReport) {
	if !r.Up {
		add(admin.AlarmCritical, "node_down", r.Node, "Node %s does not answer: see whether its machine and process run.", r.Node)
		return
	}
	switch r.Disk {
	case "", "ok":
	case "low":
		add(admin.AlarmWarning, "disk_low", r.Node, "The disk of %s is nearly full: make room there.", r.Node)
	default:
		add(admin.AlarmCritical, "disk_full", r.Node, "The disk of %s is %s, and it serves nobody: make room there.", r.Node, r.Disk)
	}
	switch {
	case r.Draining:
		add(admin.AlarmNotice, "draining", r.Node, "Node %s is drained: new clients go elsewhere until it serves again.", r.Node)
	case r.Lag > readyLag:
		add(admin.AlarmWarning, "lagging", r.Node, "Node %s has %d log entries still to apply: it takes no clients until it has caught up.", r.Node, r.Lag)
	case r.Lease == 0:
		add(admin.AlarmWarning, "no_lease", r.Node, "Node %s has no lease and acknowledges nothing: see whether it reaches the leader.", r.Node)
	case !r.Ready:
		add(admin.AlarmWarning, "not_ready", r.Node, "Node %s is not ready: it is starting, or look into its log.", r.Node)
	}
	if left := r.CertUntil.Sub(o.At); !r.CertUntil.IsZero() && left < nodeCertSoon {
		add(admin.AlarmCritical, "node_certificate", r.Node, "The certificate of %s ends in %s and was not renewed: see whether it reaches the leader, and its clock.", r.Node, days(left))
	}
}

// countVoters counts the voters that answer, and all of them.
func countVoters(o *admin.Overview) (up, all int) {
	for _, r := range o.Nodes {
		if r.Votes() {
			all++
			if r.Up {
				up++
			}
		}
	}
	return up, all
}

func clusterAlarms(add addAlarm, o *admin.Overview) {
	_, voters := countVoters(o)
	versions := map[string]bool{}
	for _, r := range o.Nodes {
		if r.Version != "" {
			versions[r.Version] = true
		}
	}
	if voters < 3 {
		add(admin.AlarmWarning, "few_voters", "", "%s, so that none may fail: add nodes until three vote.", plural(voters, "node votes", "nodes vote"))
	}
	if len(versions) > 1 {
		add(admin.AlarmNotice, "mixed_versions", "", "The nodes run %d versions: finish the upgrade.", len(versions))
	}
}

func certAlarms(add addAlarm, now time.Time, ends []certEnd) {
	if len(ends) == 0 {
		return
	}
	first := ends[0]
	if left := first.at.Sub(now); left <= 0 {
		add(admin.AlarmWarning, "client_certificates", "", "The certificate of %q has ended, and %s end within 14 days: issue new ones.", first.subject, plural(len(ends)-1, "other", "others"))
		return
	}
	add(admin.AlarmWarning, "client_certificates", "", "%s end within 14 days, that of %q in %s: issue new ones.",
		plural(len(ends), "client certificate", "client certificates"), first.subject, days(first.at.Sub(now)))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// days is a duration for people.
func days(d time.Duration) string {
	switch {
	case d <= 0:
		return "no time"
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour", "hours")
	}
	return plural(int(d.Hours()/24), "day", "days")
}
