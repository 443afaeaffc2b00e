//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"
)

// chaos is a cluster under a plan.
type chaos struct {
	*Cluster
	run    *Run
	random *rand.Rand
	// mayEnd are nodes that may have ended by themselves, as they should when
	// their disk fails: whoever runs them starts them again.
	mayEnd map[*Node]bool
	// The present fault: its name in the history, whether the history knows of
	// it yet, and what it did, for the log.
	name  string
	begun bool
	said  []string
}

// lease is how long a node may serve without hearing from a majority; toll adds
// what a busy machine and the draining of clients take until /readyz says so.
const (
	lease = 5 * time.Second
	toll  = 1500 * time.Millisecond
)

func (x *chaos) say(format string, args ...any) {
	x.said = append(x.said, fmt.Sprintf(format, args...))
}

// begin tells the history, just before the present fault, which nodes it hits.
func (x *chaos) begin(victims ...*Node) {
	var at []string
	for _, n := range victims {
		at = append(at, n.TLS)
		x.say("%s", n.ID)
	}
	x.run.FaultBegin(x.name, at...)
	x.begun = true
}

// start starts a node that does not run, and tells the history.
func (x *chaos) start(n *Node) {
	x.run.Restart(n.TLS)
	n.Start()
}

// last lets a fault last; how long it does is the test.
func (x *chaos) last(f fault) { time.Sleep(f.lasts) }

// follower is one of the followers.
func (x *chaos) follower(f fault) *Node {
	all := x.Followers()
	return all[f.pick%len(all)]
}

// pair is the leader and a follower, as of one moment.
func (x *chaos) pair(f fault) []*Node {
	leader := x.Leader()
	followers := x.others(leader)
	return []*Node{leader, followers[f.pick%len(followers)]}
}

// anyone is the leader in one of three cases and a follower else.
func (x *chaos) anyone(f fault) *Node {
	if f.pick%3 == 0 {
		return x.Leader()
	}
	return x.follower(f)
}

// kill is kill -9; a dead process takes effect by itself.
func (x *chaos) kill(f fault, victims ...*Node) {
	x.begin(victims...)
	for _, n := range victims {
		x.run.KillNode(n)
	}
	x.last(f)
	for _, n := range victims {
		x.start(n)
	}
}

// killAgain kills a node while it starts.
func (x *chaos) killAgain(f fault) {
	n := x.anyone(f)
	x.begin(n)
	for range 3 {
		x.run.KillNode(n)
		x.start(n)
		time.Sleep(time.Duration(x.random.Int64N(int64(f.lasts / 2))))
	}
}

func (x *chaos) pause(f fault, n *Node) {
	x.begin(n)
	x.hang(n)
	x.last(f)
	n.Resume()
}

// hang stops the process and shows that it answers nobody.
func (x *chaos) hang(n *Node) {
	n.Pause()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID()))
	if err != nil || !strings.Contains(string(stat), ") T ") {
		await(x.t, time.Second, func() bool {
			stat, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID()))
			return err == nil && strings.Contains(string(stat), ") T ")
		}, func() string { return fmt.Sprintf("%s does not hang: %s %v", n.ID, stat, err) })
	}
}

func (x *chaos) killWhileHung(f fault) {
	all := x.Followers()
	hung, dead := all[f.pick%2], all[1-f.pick%2]
	x.begin(hung, dead)
	x.hang(hung)
	x.run.KillNode(dead)
	x.last(f)
	x.start(dead)
	hung.Resume()
}

func (x *chaos) stop(f fault) {
	n := x.anyone(f)
	x.begin(n)
	x.end(n)
	x.last(f)
	x.start(n)
}

// end is SIGTERM.
func (x *chaos) end(n *Node) {
	x.run.Drain(n.TLS)
	n.Stop()
}

func (x *chaos) rolling(fault) {
	x.begin(x.Running()...)
	for _, n := range x.Running() {
		start := time.Now()
		x.end(n)
		x.start(n)
		n.WaitReady(patience)
		x.WaitWhole()
		x.say("%s in %.1f s", n.ID, time.Since(start).Seconds())
	}
}

// isolate cuts nodes from all others.
func (x *chaos) isolate(f fault, victims ...*Node) {
	x.begin(victims...)
	for _, n := range victims {
		x.Net.Isolate(n)
	}
	x.apart(f, victims...)
}

func (x *chaos) oneWay(f fault, deaf bool) {
	n := x.anyone(f)
	x.begin(n)
	for _, other := range x.Running() {
		switch {
		case other == n:
		case deaf:
			x.Net.Mute(other, n)
		default:
			x.Net.Mute(n, other)
		}
	}
	x.apart(f, n)
}

func (x *chaos) oneLink(f fault) {
	all := x.Running()
	from, to := f.pick%3, (f.pick+1+f.pick/3%2)%3
	x.begin(all[from], all[to])
	x.Net.Mute(all[from], all[to])
	x.apart(f)
}

func (x *chaos) bridge(f fault, ends ...*Node) {
	x.begin(ends[:2]...)
	x.Net.Cut(ends[0], ends[1])
	x.apart(f)
}

// apart lets cut links last, shows that they carried nothing and, if it lasted
// longer than a lease, that the nodes which are cut off said so; then it heals.
func (x *chaos) apart(f fault, off ...*Node) {
	const settle = 100 * time.Millisecond // what was on its way may still arrive
	time.Sleep(settle)
	before, cut := x.Net.Carried()
	links := 0
	time.Sleep(f.lasts - settle)
	for _, n := range off {
		code, body := n.Ready()
		x.say("%s says %d", n.ID, code)
		if f.lasts > lease+toll && code != 503 {
			x.t.Errorf("%v: %s is cut off for longer than a lease and /readyz says %d (%s)", f, n.ID, code, body)
		}
	}
	after, _ := x.Net.Carried()
	for l, is := range cut {
		if !is {
			continue
		}
		links++
		if after[l] != before[l] {
			x.t.Errorf("%v took no effect: the link from %s to %s carried %d bytes", f, l.from, l.to, after[l]-before[l])
		}
	}
	carried := false
	for l := range after {
		carried = carried || before[l] > 0
	}
	if links == 0 || !carried {
		x.t.Errorf("%v took no effect: %d links are cut, of %d that carried something", f, links, len(before))
	}
	x.Net.Heal()
}

// stepClocks shifts wall clocks by an hour and later back.
func (x *chaos) stepClocks(f fault, victims ...*Node) {
	step := time.Hour
	if f.pick%2 == 0 {
		step = -step
	}
	x.begin(victims...)
	shift := func(d time.Duration) {
		for _, n := range victims {
			n.ShiftWall(d)
			if got := n.WallShift(); got != d {
				x.t.Errorf("%v took no effect: the clock of %s is %v beside the machine's, not %v", f, n.ID, got, d)
			}
			x.say("%s %v", n.ID, d)
		}
	}
	shift(step)
	x.last(f)
	for _, n := range victims {
		if code, body := n.Ready(); code != 200 {
			x.t.Errorf("%v: /readyz of %s says %d (%s); nobody needs the wall clock to serve", f, n.ID, code, body)
		}
	}
	shift(0)
}
