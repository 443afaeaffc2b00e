package history

import (
	"time"

	"github.com/anishathalye/porcupine"
)

// outcome is what porcupine says of a history.
type outcome = porcupine.CheckResult

const (
	ordered    = porcupine.Ok
	disordered = porcupine.Illegal
	undecided  = porcupine.Unknown
)

// linearize has porcupine look, for at most a time, for an order of operations in
// which each took effect while it was under way.
func linearize(r register, ops []*operation, limit time.Duration) outcome {
	history := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		history[i] = porcupine.Operation{ClientId: i, Input: o, Call: int64(o.call), Return: int64(max(o.call, o.done))}
	}
	return porcupine.CheckOperationsTimeout(r.model(), history, limit)
}

// model is the register as porcupine knows it. Operations are its inputs; what a
// read saw is part of it, so there are no outputs.
func (r register) model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{r.initial} },
		Step: func(state, input, _ any) []any {
			o := input.(*operation)
			next := r.step(state, o.input)
			if o.maybe && o.done < forever {
				// One that may be done at any time is at the end of the order if it never was.
				next = append(next, state)
			}
			return next
		},
	}
	return m.ToModel()
}
