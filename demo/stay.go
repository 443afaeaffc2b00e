package demo

import (
	"context"
	"time"
)

const (
	guardEvery = 100 * time.Millisecond
	// restartAfter is how long a node that the user has killed stays dead.
	restartAfter = 3 * time.Second
	// overdue is how long a subscriber that is connected may wait for a message
	// that was acknowledged before the message counts as lost.
	overdue = 20 * time.Second
)

// stay keeps the demo up until ctx ends, starts nodes again that somebody has
// killed, and goes on counting. The error is that of verdict.
func (d *stage) stay(ctx context.Context) error {
	s := d.story
	s.now("try these, or kill -9 a PID; Ctrl-C ends it")
	s.say(plainMark, "it stays up until Ctrl-C: kill -9 any node, it is started again")
	g := guard{story: s, died: map[*node]time.Time{}, back: map[*node]time.Time{}}
	if !d.live {
		for _, command := range s.cluster.tryLines(d.endpoint) {
			s.say(plainMark, "try: %s", command)
		}
	}
	every(ctx, guardEvery, func() { g.look() })
	return d.traffic.Load().verdict()
}

// guard sees to it that the nodes run.
type guard struct {
	*story
	leader string
	died   map[*node]time.Time
	back   map[*node]time.Time // started again and not ready yet
}

func (g *guard) look() {
	for _, n := range g.cluster.nodes {
		g.tend(n)
	}
	for _, n := range g.probe.view() {
		if n.leader && n.pid != 0 && n.name != g.leader {
			if g.leader != "" {
				g.say(plainMark, "%s leads", n.name)
			}
			g.leader = n.name
		}
	}
	for _, sub := range []*subscriber{g.traffic.control, g.traffic.laptop} {
		if state := sub.state(); state.up && time.Since(state.since) > overdue {
			sub.ledger.writeOff(time.Now().Add(-overdue))
		}
	}
}

// tend starts a node again that is dead.
func (g *guard) tend(n *node) {
	if since, ok := g.back[n]; ok && n.ready.Load() && n.running() {
		g.say(goodMark, "%s is ready again after %s", n.name, milliseconds(time.Since(since)))
		delete(g.back, n)
	}
	if n.running() {
		return
	}
	since, known := g.died[n]
	switch {
	case !known:
		g.died[n] = time.Now()
		cmd, _ := n.process()
		g.say(badMark, "%s has ended (%s)", n.name, cmd.ProcessState)
	case time.Since(since) > restartAfter:
		delete(g.died, n)
		if err := n.start(); err != nil {
			g.say(badMark, "%v", err)
			return
		}
		g.back[n] = time.Now()
		g.say(plainMark, "%s is started again", n.name)
	}
}
