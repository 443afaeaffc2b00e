package history

import (
	"cmp"
	"slices"
	"time"
)

// operation is a read or a write of one register, which took effect at one moment
// from call to done.
type operation struct {
	call, done time.Duration
	// maybe: it need not have taken effect at all.
	maybe bool
	input any
	shows []Event
	// read: it changes nothing.
	read bool
}

// register is what a register does: the states that an operation may lead to from
// a state, none if it cannot have happened there. States are comparable.
type register struct {
	initial any
	step    func(state, input any) []any
}

// judgeRegister judges that the operations of one register have an order in which
// each took effect while it was under way.
func (c *check) judgeRegister(rule, what string, r register, ops []*operation) {
	slices.SortFunc(ops, func(a, b *operation) int { return cmp.Compare(a.call, b.call) })
	switch c.linearizable(r, ops) {
	case ordered:
	case undecided:
		c.violate(RuleUndecided, lastShows(ops), "whether %s has an order was not decided in %v, of %d operations", what, c.options.JudgeTime, len(ops))
	case disordered:
		ops, sure := c.shortest(r, ops)
		hint := ""
		if !sure {
			hint = " (the search for the first was cut short)"
		}
		c.violate(rule, lastShows(ops), "no order of the reads and writes explains what was read of %s%s", what, hint)
	}
}

func (c *check) linearizable(r register, ops []*operation) outcome {
	return linearize(r, ops, c.options.JudgeTime)
}

// shortest returns the shortest beginning of a history without an order: any
// beginning of one that has an order has one too.
func (c *check) shortest(r register, ops []*operation) (shortest []*operation, sure bool) {
	var reads []time.Duration
	for _, o := range ops {
		if o.done < forever {
			reads = append(reads, o.done)
		}
	}
	slices.Sort(reads)
	limit := time.Now().Add(c.options.JudgeTime)
	sure = true
	low, high := 0, len(reads)-1 // the end of the shortest is in between
	for low < high {
		mid := (low + high) / 2
		if time.Now().After(limit) {
			sure = false
			break
		}
		switch c.linearizable(r, upTo(ops, reads[mid])) {
		case disordered:
			high = mid
		case ordered:
			low = mid + 1
		case undecided:
			sure = false
			low = mid + 1
		}
	}
	if len(reads) == 0 {
		return ops, false
	}
	return upTo(ops, reads[high]), sure
}

// upTo is what had happened by a time: reads that were done, and writes that had
// begun, which may have taken effect or not if they were not done.
func upTo(ops []*operation, by time.Duration) (out []*operation) {
	for _, o := range ops {
		switch {
		case o.done <= by:
			out = append(out, o)
		case o.call <= by && !o.read:
			open := *o
			open.done, open.maybe = forever, true
			out = append(out, &open)
		}
	}
	return out
}

// shownOperations is how many of the last operations explain a violation.
const shownOperations = 8

// lastShows are the events of the operations that were done last.
func lastShows(ops []*operation) (out []Event) {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *operation) int { return cmp.Compare(last(a), last(b)) })
	for _, o := range ops[max(0, len(ops)-shownOperations):] {
		out = append(out, o.shows...)
	}
	return out
}

// last is when an operation was done, or began if that is not known.
func last(o *operation) time.Duration {
	if o.done == forever {
		return o.call
	}
	return o.done
}
