package history

import (
	"cmp"
	"slices"
	"time"
)

// window is a time in which something was wrong with a node.
type window struct {
	node     string // empty: all
	from, to time.Duration
	killed   bool // by Killed, which excuses no outage
}

// collectWindows finds the windows of faults. A node that was killed counts as
// disturbed until it was started again, but only a FaultBegin excuses an outage.
func (c *check) collectWindows() {
	open := map[string][]*window{} // by name, or by node that was killed
	begin := func(key string, w window) { open[key] = append(open[key], &w) }
	end := func(key string, at time.Duration) {
		for _, w := range open[key] {
			w.to = at + c.options.FaultGrace
			c.windows = append(c.windows, *w)
		}
		delete(open, key)
	}
	for _, e := range c.events {
		switch e.Kind {
		case FaultBegin:
			begin("fault "+e.Note, window{node: e.Node, from: e.At, to: forever})
		case FaultEnd:
			end("fault "+e.Note, e.At)
		case Killed:
			begin("killed "+e.Node, window{node: e.Node, from: e.At, to: forever, killed: true})
		case Restarted:
			end("killed "+e.Node, e.At)
		case Draining:
			c.drains[e.Node] = append(c.drains[e.Node], e.At)
		case Reset:
			c.resets[e.Node] = append(c.resets[e.Node], e.At)
		}
	}
	for _, all := range open {
		for _, w := range all {
			c.windows = append(c.windows, *w)
		}
	}
	c.windows = append(c.windows, c.minorities()...)
	slices.SortFunc(c.windows, func(a, b window) int { return cmp.Compare(a.from, b.from) })
}

// minorities are the times in which so many nodes were disturbed that the others
// may have been without a majority: windows of all nodes.
func (c *check) minorities() (out []window) {
	all := map[string]bool{}
	for _, e := range c.events {
		if e.Kind == ConnectSent {
			all[e.Node] = true
		}
	}
	var at []time.Duration // when something begins or ends
	for _, w := range c.windows {
		at = append(at, w.from, w.to)
	}
	slices.Sort(at)
	for i := 1; i < len(at); i++ {
		hit := map[string]bool{}
		for _, w := range c.windows {
			if w.node != "" && w.from <= at[i-1] && w.to >= at[i] {
				hit[w.node] = true
			}
		}
		if len(all) > 1 && 2*len(hit) >= len(all) {
			out = append(out, window{from: at[i-1], to: at[i], killed: true})
		}
	}
	return out
}

// disturbed returns when the first fault of a node that overlaps a time began,
// and whether there was one.
func (c *check) disturbed(node string, from, to time.Duration) (since time.Duration, is bool) {
	for _, w := range c.windows {
		if (w.node == "" || w.node == node) && w.from <= to && w.to >= from {
			return w.from, true
		}
	}
	return 0, false
}

// overlap is how much of a time lies in windows of faults of whatever node.
func (c *check) overlap(from, to time.Duration) (sum time.Duration) {
	for _, w := range c.windows {
		if f, t := max(from, w.from), min(to, w.to); f < t {
			sum += t - f
			from = t // windows are in order: no time counts twice
		}
	}
	return sum
}

// excused tells whether an outage at a time has a fault for its reason.
func (c *check) excused(at time.Duration) bool {
	for _, w := range c.windows {
		if !w.killed && w.from <= at && at <= w.to {
			return true
		}
	}
	return false
}

// longestOutside is the longest part of a time without a fault.
func (c *check) longestOutside(from, to time.Duration) (longest time.Duration) {
	for _, w := range c.windows {
		if w.killed || w.to <= from || w.from >= to {
			continue
		}
		longest = max(longest, w.from-from)
		from = w.to
		if from >= to {
			return longest
		}
	}
	return max(longest, to-from)
}

// judgeOutage judges whether the run did what it was to do.
func (c *check) judgeOutage() {
	c.countOffered()
	c.countSilence()
	o, s := c.options, c.report.Stats
	if s.Acked < o.MinAcked {
		c.violate(RuleOutage, nil, "only %d publishes were acknowledged, the run needs %d", s.Acked, o.MinAcked)
	}
	if s.Owed < o.MinOwed {
		c.violate(RuleOutage, nil, "only %d deliveries could be judged, the run needs %d", s.Owed, o.MinOwed)
	}
	if o.MaxSilence > 0 && s.Silence > o.MaxSilence {
		c.violate(RuleOutage, nil, "nothing was acknowledged for %v, at most %v is allowed", s.Silence, o.MaxSilence)
	}
	if o.MinShare > 0 && s.Share() < o.MinShare {
		c.violate(RuleOutage, nil, "of %d messages that were to be sent while nothing was broken %d were acknowledged, the run needs %.0f%%",
			s.Offered, s.OfferedAcked, 100*o.MinShare)
	}
}

func (c *check) countSilence() {
	var acks []time.Duration
	for _, m := range c.order {
		if m.acked != nil {
			acks = append(acks, m.acked.At)
		}
	}
	slices.Sort(acks)
	for i := 1; i < len(acks); i++ {
		c.report.Stats.Silence = max(c.report.Stats.Silence, c.longestOutside(acks[i-1], acks[i]))
	}
}

// countOffered counts what was to be sent while nothing was broken: by the time
// when it was due, not by that when a broker that stood still let it through.
func (c *check) countOffered() {
	st := &c.report.Stats
	for _, m := range c.order {
		sent := m.first()
		due := sent.Due
		if due == 0 {
			due = sent.At
		}
		if m.will || sent.QoS == 0 || c.excused(due) {
			continue
		}
		st.Offered++
		if m.acked != nil {
			st.OfferedAcked++
		}
	}
	for _, e := range c.events {
		if e.Kind != Missed || e.QoS == 0 {
			continue
		}
		for i := range e.Count {
			if !c.excused(e.Due + time.Duration(i)*(e.At-e.Due)/time.Duration(e.Count)) {
				st.Offered++
			}
		}
	}
}
