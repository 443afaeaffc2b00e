package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// kind is a kind of fault: weight is how often it is drawn.
type kind struct {
	weight int
	draw   func(r *rand.Rand) step
}

func kinds() []kind {
	return []kind{
		{4, staleLeader}, {3, killOne}, {1, killMany}, {1, restart}, {2, isolate}, {2, mute}, {2, split}, {1, bridge},
		{1, resets}, {1, slowWires}, {1, transfer}, {1, snapshot}, {2, cutClients},
	}
}

func drawFault(r *rand.Rand) step {
	sum := 0
	for _, k := range kinds() {
		sum += k.weight
	}
	n := r.IntN(sum)
	for _, k := range kinds() {
		if n < k.weight {
			return k.draw(r)
		}
		n -= k.weight
	}
	return step{}
}

// between draws a time.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return (low + time.Duration(r.Int64N(int64(high-low)))).Round(time.Millisecond)
}

// victim draws the leader, half of the time, or a node.
func victim(r *rand.Rand) (name string, pick func(*cluster) string) {
	if r.IntN(2) == 0 {
		return "the leader", (*cluster).leader
	}
	n := nodes()[r.IntN(5)]
	return n, func(*cluster) string { return n }
}

func power(r *rand.Rand) (bool, string) {
	if r.IntN(3) == 0 {
		return true, "cut the power of"
	}
	return false, "kill"
}

func killOne(r *rand.Rand) step {
	name, pick := victim(r)
	hard, verb := power(r)
	away := between(r, 5*time.Millisecond, 2500*time.Millisecond)
	return step{text: fmt.Sprintf("%s %s for %v", verb, name, away), do: func(c *cluster) {
		if n := pick(c); c.kill(n, hard) {
			c.later(away, func() { c.bring(n) })
		}
	}}
}

// killMany takes a majority, or all, at about the same moment.
func killMany(r *rand.Rand) step {
	hard, verb := power(r)
	order := r.Perm(5)[:3+r.IntN(3)]
	gap := between(r, 0, 20*time.Millisecond)
	var away []time.Duration
	for range order {
		away = append(away, between(r, 5*time.Millisecond, 1500*time.Millisecond))
	}
	return step{text: fmt.Sprintf("%s %d nodes, %v apart, for %v", verb, len(order), gap, away), do: func(c *cluster) {
		for i, k := range order {
			n := nodes()[k]
			c.later(time.Duration(i)*gap, func() {
				if c.kill(n, hard) {
					c.later(away[i], func() { c.bring(n) })
				}
			})
		}
	}}
}

// staleLeader lets the leader store entries that nobody else gets, and then
// leave: the others elect, write others in their place, and it comes back, after a
// while or just when another one has begun to lead.
func staleLeader(r *rand.Rand) step {
	hard, verb := power(r)
	alone := between(r, 10*time.Millisecond, 190*time.Millisecond)
	away := between(r, 5*time.Millisecond, 1800*time.Millisecond)
	dies, soon := r.IntN(5) > 0, r.IntN(2) == 0
	text := fmt.Sprintf("nobody hears the leader for %v, then %s it for %v", alone, verb, away)
	switch {
	case !dies:
		text = fmt.Sprintf("nobody hears the leader for %v", alone+away)
	case soon:
		hard, verb = false, "kill"
		away = between(r, 0, 25*time.Millisecond)
		text = fmt.Sprintf("nobody hears the leader for %v, then %s it until %v after another one leads", alone, verb, away)
	}
	return step{text: text, do: func(c *cluster) {
		n := c.leader()
		if n == "" {
			return
		}
		d := alone
		if !dies {
			d += away
		}
		c.during(d, "nobody hears "+n, []string{n}, func(cut bool) {
			if !cut && dies && c.kill(n, hard) {
				c.later(0, func() {
					if soon {
						_ = await(time.Second, c.elected) // it comes back anyway
					}
					time.Sleep(away)
					c.bring(n)
				})
			}
			c.oneWay(n, cut)
		})
	}}
}

// oneWay cuts or mends what a node says to the others.
func (c *cluster) oneWay(from string, cut bool) {
	for _, n := range nodes() {
		if n != from {
			c.net.cut(from, n, cut)
		}
	}
}

// apart cuts or mends every wire between two groups.
func (c *cluster) apart(a, b []string, cut bool) {
	for _, x := range a {
		for _, y := range b {
			c.net.cut(x, y, cut)
			c.net.cut(y, x, cut)
		}
	}
}

// during breaks something that touches some nodes, mends it after a while, and
// tells the history of both.
func (c *cluster) during(d time.Duration, what string, touched []string, set func(broken bool)) {
	c.note("%s", what)
	c.mu.Lock()
	c.count++
	name := fmt.Sprintf("%s (%d)", what, c.count)
	c.mu.Unlock()
	c.rec.FaultBegin(name, touched...)
	set(true)
	c.later(d, func() {
		set(false)
		c.rec.FaultEnd(name)
	})
}

func others(but string) []string {
	var all []string
	for _, n := range nodes() {
		if n != but {
			all = append(all, n)
		}
	}
	return all
}

func isolate(r *rand.Rand) step {
	name, pick := victim(r)
	d := between(r, 20*time.Millisecond, 3*time.Second)
	return step{text: fmt.Sprintf("isolate %s for %v", name, d), do: func(c *cluster) {
		n := pick(c)
		if n == "" {
			return
		}
		c.during(d, n+" is isolated", []string{n}, func(cut bool) { c.apart([]string{n}, others(n), cut) })
	}}
}

// mute cuts one direction between a node and some others.
func mute(r *rand.Rand) step {
	name, pick := victim(r)
	d := between(r, 20*time.Millisecond, 2*time.Second)
	some := r.Perm(4)[:1+r.IntN(4)]
	hears := r.IntN(2) == 0
	return step{text: fmt.Sprintf("one direction between %s and %d others is dead for %v", name, len(some), d), do: func(c *cluster) {
		n := pick(c)
		if n == "" {
			return
		}
		set := func(cut bool) {
			for _, k := range some {
				if o := others(n)[k]; hears {
					c.net.cut(n, o, cut)
				} else {
					c.net.cut(o, n, cut)
				}
			}
		}
		what := fmt.Sprintf("%s does not hear %d others", n, len(some))
		if hears {
			what = fmt.Sprintf("%s is not heard by %d others", n, len(some))
		}
		c.during(d, what, nodes(), set)
	}}
}

func split(r *rand.Rand) step {
	d := between(r, 50*time.Millisecond, 2500*time.Millisecond)
	order := r.Perm(5)
	k := 1 + r.IntN(3)
	a, b := pickNodes(order[:k]), pickNodes(order[k:])
	return step{text: fmt.Sprintf("%v and %v are apart for %v", a, b, d), do: func(c *cluster) {
		c.during(d, fmt.Sprintf("%v and %v are apart", a, b), nodes(), func(cut bool) { c.apart(a, b, cut) })
	}}
}

// bridge leaves two pairs that do not see each other and one node that sees all.
func bridge(r *rand.Rand) step {
	d := between(r, 50*time.Millisecond, 2500*time.Millisecond)
	order := r.Perm(5)
	a, b := pickNodes(order[:2]), pickNodes(order[2:4])
	return step{text: fmt.Sprintf("%v and %v are apart for %v, with one between", a, b, d), do: func(c *cluster) {
		c.during(d, fmt.Sprintf("%v and %v are apart, with one between", a, b), nodes(), func(cut bool) { c.apart(a, b, cut) })
	}}
}

func pickNodes(order []int) []string {
	var all []string
	for _, k := range order {
		all = append(all, nodes()[k])
	}
	return all
}

func resets(r *rand.Rand) step {
	name, pick := victim(r)
	return step{text: "every connection of " + name + " is reset", do: func(c *cluster) {
		if n := pick(c); n != "" {
			c.note("the connections of %s are reset", n)
			c.rec.Reset(n)
			c.net.reset(n, "")
		}
	}}
}

func slowWires(r *rand.Rand) step {
	name, pick := victim(r)
	delay := between(r, time.Millisecond, 60*time.Millisecond)
	d := between(r, 100*time.Millisecond, 2*time.Second)
	return step{text: fmt.Sprintf("the wires of %s take %v for %v", name, delay, d), do: func(c *cluster) {
		n := pick(c)
		if n == "" {
			return
		}
		c.during(d, fmt.Sprintf("the wires of %s take %v", n, delay), []string{n}, func(slow bool) {
			delay, jitter := delay, delay/2
			if !slow {
				delay, jitter = usualDelay, usualJitter
			}
			for _, o := range others(n) {
				c.net.wire(n, o).slow(delay, jitter)
				c.net.wire(o, n).slow(delay, jitter)
			}
		})
	}}
}

func restart(r *rand.Rand) step {
	name, pick := victim(r)
	d := between(r, time.Millisecond, time.Second)
	return step{text: fmt.Sprintf("stop %s in good order for %v", name, d), do: func(c *cluster) {
		n := pick(c)
		c.later(0, func() {
			if c.stop(n) {
				c.later(d, func() { c.bring(n) })
			}
		})
	}}
}

func transfer(*rand.Rand) step {
	return step{text: "hand over leadership", do: func(c *cluster) {
		if p := c.node(c.leader()); p != nil {
			c.note("%s hands over leadership", p.name)
			c.later(0, func() { _ = p.consensus.TransferLeadership() }) // it may fail
		}
	}}
}

func snapshot(r *rand.Rand) step {
	name, pick := victim(r)
	return step{text: "snapshot on " + name, do: func(c *cluster) {
		if p := c.node(pick(c)); p != nil {
			c.later(0, func() {
				if err := p.consensus.Snapshot(); err == nil {
					c.note("%s has taken a snapshot", p.name)
				}
			})
		}
	}}
}

// cutClients breaks the clients' connections to a node, silently or not.
func cutClients(r *rand.Rand) step {
	name, pick := victim(r)
	d := between(r, 20*time.Millisecond, 3*time.Second)
	silent := r.IntN(2) == 0
	return step{text: fmt.Sprintf("the clients lose %s (silently %v) for %v", name, silent, d), do: func(c *cluster) {
		n := pick(c)
		if n == "" {
			return
		}
		if !silent {
			c.note("the clients' connections to %s are reset", n)
			c.rec.Reset(n)
			c.net.reset(n, clientHost)
			return
		}
		c.during(d, "the clients lose "+n, []string{n}, func(cut bool) { c.apart([]string{n}, []string{clientHost}, cut) })
	}}
}
