package history

import (
	"cmp"
	"slices"
)

// judgeSameOrder judges that all who see the values of a topic change see them in
// one order.
func (c *check) judgeSameOrder(t *topic) {
	written := map[string]bool{}
	for _, m := range t.writes {
		// What was sent twice may have been written twice.
		if len(m.sent) == 1 || m.first().QoS == 2 {
			written[m.id] = true
		}
	}
	after := map[string][]edge{} // by message
	for _, s := range c.sessions {
		if s.shares {
			continue
		}
		var last *Event
		seen := map[string]bool{}
		for _, e := range t.came[s] {
			if e.QoS == 0 || !written[e.Message] || seen[e.Message] {
				continue
			}
			seen[e.Message] = true
			if last != nil {
				after[last.Message] = append(after[last.Message], edge{*last, *e})
			}
			last = e
		}
	}
	if shows := circle(t.writes, after); shows != nil {
		c.violate(RuleRetained, shows, "the values of %s came in different orders", t.name)
	}
}

// edge is one value and the next one that somebody saw.
type edge struct{ from, to Event }

// circle finds values that came after each other, and returns the events that
// show it.
func circle(writes []*message, after map[string][]edge) []Event {
	before := map[string]int{} // how many edges lead to it
	for _, m := range writes {
		for _, e := range after[m.id] {
			before[e.to.Message]++
		}
	}
	var free []string
	for _, m := range writes {
		if before[m.id] == 0 {
			free = append(free, m.id)
		}
	}
	for len(free) > 0 {
		id := free[len(free)-1]
		free = free[:len(free)-1]
		for _, e := range after[id] {
			if before[e.to.Message]--; before[e.to.Message] == 0 {
				free = append(free, e.to.Message)
			}
		}
	}
	// Whoever still has somebody before it is in a circle, or behind one: go back.
	var at string
	for _, m := range writes {
		if before[m.id] > 0 {
			at = m.id
			break
		}
	}
	if at == "" {
		return nil
	}
	into := map[string]edge{} // from one that is in or behind a circle, too
	for _, m := range writes {
		for _, e := range after[m.id] {
			if before[m.id] > 0 {
				into[e.to.Message] = e
			}
		}
	}
	seen := map[string]bool{}
	for !seen[at] {
		seen[at] = true
		at = into[at].from.Message
	}
	var shows []Event
	for first := at; ; {
		e := into[at]
		shows = append(shows, e.from, e.to)
		if at = e.from.Message; at == first {
			break
		}
	}
	slices.SortStableFunc(shows, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	return shows
}
