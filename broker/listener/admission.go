package listener

import (
	"errors"
	"runtime"
	"sync/atomic"
)

// Admission keeps new connections from taking what those that are there need, of
// all listeners of a node together. It refuses a connection when it is accepted,
// before it has cost a handshake: the client gets no answer, because there is no
// way to give one without the handshake.
type Admission struct {
	maxOpen int64
	short   func() bool
	open    atomic.Int64
	waiting atomic.Int64
	turns   chan struct{}
	begins  *pace // of connections, before their handshakes
	ends    *pace
}

// AdmissionConfig bounds an Admission. The zero value bounds handshakes only.
type AdmissionConfig struct {
	// MaxConnections is how many connections may be open at once; 0: no limit.
	MaxConnections int
	// Handshakes is how many TLS handshakes may compute at the same time; 0: half
	// of the cores, at least one. Those that wait for their client do not count.
	Handshakes int
	// Short tells that memory is short and nobody new is to be let in; nil: never.
	// It is asked for every connection.
	Short func() bool
	// Messages counts those of the sessions that are there: while it grows, handshakes
	// begin at a pace that does not hold them up; nil: as they come.
	Messages func() int64
}

// NewAdmission returns an Admission with nobody in it.
func NewAdmission(c AdmissionConfig) *Admission {
	n := c.Handshakes
	if n <= 0 {
		n = max(1, runtime.GOMAXPROCS(0)/2)
	}
	return &Admission{maxOpen: int64(c.MaxConnections), short: c.Short, turns: make(chan struct{}, n),
		begins: newPace(c.Messages, 1), ends: newPace(c.Messages, endsForOne)}
}

// Open is how many connections there are, handshakes included.
func (a *Admission) Open() int { return int(a.open.Load()) }

// Waiting is how many handshakes wait for a core.
func (a *Admission) Waiting() int { return int(a.waiting.Load()) }

// enter counts a connection, or says why it may not be.
func (a *Admission) enter() (reason string) {
	switch {
	case a.short != nil && a.short():
		return reasonMemory
	case a.open.Add(1) > a.maxOpen && a.maxOpen > 0:
		a.open.Add(-1)
		return reasonNodeMax
	}
	return ""
}

func (a *Admission) leave() { a.open.Add(-1) }

var errGone = errors.New("connection was closed while its handshake waited for a core")

// turn is a connection's right to compute its handshake. It is given back while
// the handshake waits for its client, so that a slow one holds up nobody, and so
// that a storm of handshakes leaves the other cores to the sessions that are
// there. Only the goroutine of the handshake uses it.
type turn struct {
	a    *Admission
	slot *slot
	gone func() bool
	// begin waits until the handshake may begin, before the first turn; nil afterwards.
	begin func()
	has   bool
}

// take waits for a turn. The connection counts as one that waits for us, not for
// its client.
func (t *turn) take() error {
	t.slot.busy(true)
	t.a.waiting.Add(1)
	if t.begin != nil {
		t.begin()
		t.begin = nil
	}
	t.a.turns <- struct{}{}
	t.a.waiting.Add(-1)
	t.has = true
	if t.gone() {
		return errGone
	}
	return nil
}

func (t *turn) giveBack() {
	if t.has {
		t.has = false
		t.slot.busy(false)
		<-t.a.turns
	}
}
