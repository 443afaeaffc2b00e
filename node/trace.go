package node

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// Bounds of the traces of a node.
const (
	maxTraces = 8
	// traceRoom is how many steps wait to be read; more are lost, and that is said.
	traceRoom = 10_000
	// traceRate is how many steps a second are told at most: more than anybody reads,
	// and what a trace of something busy may cost.
	traceRate = 5000
	// traceKnown bounds the messages that a trace remembers, to name what is
	// acknowledged or given up later.
	traceKnown = 50_000
	traceIdle  = 20 * time.Second // without being read
)

// tracing are the traces that this node takes part in. While there is none, nothing
// but the look at a pointer is done for any message.
type tracing struct {
	mu     sync.Mutex
	traces map[string]*trace
	active atomic.Pointer[[]*trace] // nil: none
}

// trace is one of them.
type trace struct {
	node string
	q    admin.TraceRequest
	idle *time.Timer

	mu     sync.Mutex
	steps  []admin.TraceStep
	lost   int
	second time.Time // in which told are told
	told   int
	ready  chan struct{} // closed when there is something; made anew by take
	sent   map[flightKey]known
	queued map[queuedKey]known
}

type flightKey struct {
	client string
	id     uint16
}

type queuedKey struct {
	client string
	pos    session.Pos
}

// known is what a later step of a message does not tell again.
type known struct {
	topic, publisher string
	qos              byte
}

// matches tells whether a step that is about a client, of a message of publisher to
// topic, is traced.
func (t *trace) matches(client, publisher, topic string) bool {
	if t.q.Client != "" && client != t.q.Client && publisher != t.q.Client {
		return false
	}
	return t.q.Filter == "" || topic != "" && routing.Match(t.q.Filter, topic)
}

// add takes a step in. It does not block.
func (t *trace) add(s admin.TraceStep, pos session.Pos) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := flightKey{s.Client, s.PacketID}
	if s.Topic == "" && s.PacketID != 0 {
		k, ok := t.sent[key]
		if !ok {
			return // it was sent before the trace began, or is none of its business
		}
		s.Topic, s.Publisher, s.QoS = k.topic, k.publisher, k.qos
		if s.Step == string(broker.StepAcked) {
			delete(t.sent, key)
		}
	}
	if !t.matches(s.Client, s.Publisher, s.Topic) {
		return
	}
	switch broker.StepKind(s.Step) {
	case broker.StepDelivered:
		delete(t.queued, queuedKey{s.Client, pos})
		if s.PacketID != 0 && len(t.sent) < traceKnown {
			t.sent[key] = known{s.Topic, s.Publisher, s.QoS}
		}
	case broker.StepWaits:
		if len(t.queued) < traceKnown {
			t.queued[queuedKey{s.Client, pos}] = known{s.Topic, s.Publisher, s.QoS}
		}
	}
	t.push(s)
}

// push is add with mu held and nothing to be found out.
func (t *trace) push(s admin.TraceStep) {
	if since := s.At.Sub(t.second); since >= time.Second || since < 0 {
		t.second, t.told = s.At, 0
	}
	t.told++
	if len(t.steps) >= traceRoom || t.told > traceRate {
		t.lost++
		return
	}
	t.steps = append(t.steps, s)
	if len(t.steps) == 1 {
		close(t.ready)
	}
}

// trimmed tells of the messages of a session, or of all for "", that a limit gave up.
func (t *trace) trimmed(client string, to session.Pos, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, m := range t.queued {
		if client != "" && k.client != client || k.pos > to {
			continue
		}
		delete(t.queued, k)
		t.push(admin.TraceStep{
			At: time.Now(), Node: t.node, Step: string(broker.StepDropped), Client: k.client, Publisher: m.publisher,
			Topic: m.topic, QoS: m.qos, Index: k.pos.Index(), Item: k.pos.Item(), Why: "limit of the queue: " + why,
		})
	}
}

// take returns what has come.
func (t *trace) take() []admin.TraceStep {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.steps
	if t.lost > 0 {
		out = append(out, admin.TraceStep{At: time.Now(), Node: t.node, Step: "note", Why: "steps were lost, because they came faster than a trace tells them: trace less"})
	}
	if len(out) > 0 {
		t.steps, t.lost = nil, 0
		t.ready = make(chan struct{})
	}
	return out
}

func (t *trace) waiting() chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready
}

// wantsStep tells whether some trace is about a step.
func (n *Node) wantsStep(client, publisher, topic string) bool {
	if active := n.tracing.active.Load(); active != nil {
		for _, t := range *active {
			if t.matches(client, publisher, topic) {
				return true
			}
		}
	}
	return false
}

// step has a step of the broker taken in by all traces.
func (n *Node) step(s *broker.Step) {
	active := n.tracing.active.Load()
	if active == nil {
		return
	}
	pos := s.Pos.Message()
	out := admin.TraceStep{
		At: time.Now(), Node: n.cfg.Node.ID, Step: string(s.Kind), Client: s.Client, Publisher: s.Publisher, Topic: s.Topic,
		QoS: s.QoS, Index: pos.Index(), Item: pos.Item(), PacketID: s.PacketID, Why: s.Why,
	}
	for _, t := range *active {
		t.add(out, pos)
	}
}

// lostOnTheWay has a message that a peer does not get taken in.
func (n *Node) lostOnTheWay(peer, why string, m *session.Message) {
	if !n.wantsStep(m.Publisher, m.Publisher, m.Topic) {
		return
	}
	n.step(&broker.Step{
		Kind: broker.StepDropped, Client: m.Publisher, Publisher: m.Publisher, Topic: m.Topic, QoS: m.QoS,
		Why: "not forwarded to node " + peer + ": " + why,
	})
}

// traceMessage tells which sessions without a connection wait for a message. The
// leader alone does, because all nodes know it. It runs on the goroutine that applies.
func (n *Node) traceMessage(e fsm.Event) {
	if !n.consensus.IsLeader() || !n.mayWaitFor(e.Message.Topic) {
		return
	}
	n.store.Absent(e, func(client string, qos byte) {
		if !n.wantsStep(client, e.Message.Publisher, e.Message.Topic) {
			return
		}
		n.step(&broker.Step{
			Kind: broker.StepWaits, Client: client, Publisher: e.Message.Publisher, Topic: e.Message.Topic, QoS: qos, Pos: e.Pos,
			Why: "the client is away",
		})
	})
}

// mayWaitFor tells whether some trace may be about somebody who waits for a message to
// topic.
func (n *Node) mayWaitFor(topic string) bool {
	if active := n.tracing.active.Load(); active != nil {
		for _, t := range *active {
			if t.q.Filter == "" || routing.Match(t.q.Filter, topic) {
				return true
			}
		}
	}
	return false
}

// traceTrim tells of what a limit gave up.
func (n *Node) traceTrim(t *logpb.Trim) {
	active := n.tracing.active.Load()
	if active == nil {
		return
	}
	why := trimReasons[t.Reason]
	for _, tr := range *active {
		if t.All != 0 {
			tr.trimmed("", session.Pos(t.All), why)
		}
		for _, s := range t.Sessions {
			tr.trimmed(s.Client, session.Pos(s.To), why)
		}
	}
}

// The calls between nodes.
const (
	pathTraceBegin = "/v1/trace/begin"
	pathTraceRead  = "/v1/trace/read"
	pathTraceEnd   = "/v1/trace/end"
)

type traceCall struct {
	ID string `json:"id"`
	admin.TraceRequest
}

var errNoTrace = &fault{http.StatusNotFound, "the trace is over: begin another one with mqcluster trace"}

func (n *Node) traceBegin(_ context.Context, r traceCall) (none, error) {
	g := &n.tracing
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.traces) >= maxTraces {
		return none{}, faultf(http.StatusConflict, "node %s has %d traces already: end one", n.cfg.Node.ID, maxTraces)
	}
	t := &trace{
		node: n.cfg.Node.ID, q: r.TraceRequest, ready: make(chan struct{}),
		sent: map[flightKey]known{}, queued: map[queuedKey]known{},
	}
	// A trace whose operator has gone must not cost for ever.
	t.idle = time.AfterFunc(traceIdle, func() { n.dropTrace(r.ID) })
	if g.traces == nil {
		g.traces = map[string]*trace{}
	}
	g.traces[r.ID] = t
	n.publishTraces()
	return none{}, nil
}

func (n *Node) dropTrace(id string) {
	g := &n.tracing
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.traces[id]; t != nil {
		t.idle.Stop()
		delete(g.traces, id)
		n.publishTraces()
	}
}

// publishTraces switches the parts on or off. The caller holds the traces' mu.
func (n *Node) publishTraces() {
	g := &n.tracing
	if len(g.traces) == 0 {
		n.broker.Trace(nil)
		n.routes.Trace(nil)
		g.active.Store(nil)
		return
	}
	all := make([]*trace, 0, len(g.traces))
	for _, t := range g.traces {
		all = append(all, t)
	}
	g.active.Store(&all)
	n.broker.Trace(&broker.Tracer{Wants: n.wantsStep, Tell: n.step})
	n.routes.Trace(n.lostOnTheWay)
}

// traceRead returns the steps that have come, or none after a while.
func (n *Node) traceRead(ctx context.Context, r traceCall) ([]admin.TraceStep, error) {
	n.tracing.mu.Lock()
	t := n.tracing.traces[r.ID]
	n.tracing.mu.Unlock()
	if t == nil {
		return nil, errNoTrace
	}
	t.idle.Reset(traceIdle)
	wait := time.NewTimer(pollFor)
	defer wait.Stop()
	select {
	case <-t.waiting():
	case <-wait.C:
	case <-n.ctx.Done():
	case <-ctx.Done():
	}
	return t.take(), nil
}

func (n *Node) traceEnd(_ context.Context, r traceCall) (none, error) {
	n.dropTrace(r.ID)
	return none{}, nil
}

// serveTrace registers the calls of traces.
func (n *Node) serveTrace(control *http.ServeMux) {
	serve(control, pathTraceBegin, func(ctx context.Context, _ string, r traceCall) (none, error) { return n.traceBegin(ctx, r) })
	serve(control, pathTraceRead, func(ctx context.Context, _ string, r traceCall) ([]admin.TraceStep, error) {
		return n.traceRead(ctx, r)
	})
	serve(control, pathTraceEnd, func(ctx context.Context, _ string, r traceCall) (none, error) { return n.traceEnd(ctx, r) })
}

// Trace implements admin.Tracer.
func (b backend) Trace(ctx context.Context, r admin.TraceRequest, emit func([]admin.TraceStep) error) error {
	if r.Client == "" && r.Filter == "" {
		return invalid(errors.New("say whose messages are to be traced: a client, a filter, or both"))
	}
	if r.Filter != "" {
		if err := routing.ValidFilter(r.Filter); err != nil {
			return invalid(err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.n.ctx, func() { cancel(errNoTrace) })()
	call := traceCall{ID: randomID(), TraceRequest: r}
	steps := make(chan []admin.TraceStep)
	var all sync.WaitGroup
	for _, m := range b.n.store.Members() {
		all.Go(func() { b.n.traceMember(ctx, m.Node, call, steps) })
	}
	go func() {
		all.Wait()
		close(steps)
	}()
	for s := range steps {
		if ctx.Err() == nil {
			if err := emit(s); err != nil {
				cancel(err)
			}
		}
	}
	return nil
}

// traceMember reads the steps of a member until ctx ends; one that is away is tried
// again.
func (n *Node) traceMember(ctx context.Context, member string, call traceCall, out chan<- []admin.TraceStep) {
	note := func(why string) {
		select {
		case out <- []admin.TraceStep{{At: time.Now(), Node: member, Step: "note", Why: why}}:
		case <-ctx.Done():
		}
	}
	begun, told := false, false
	for ctx.Err() == nil {
		err := error(nil)
		var got []admin.TraceStep
		if !begun {
			err = callMember(ctx, n, member, pathTraceBegin, call, &none{}, n.traceBegin)
			if err == nil {
				begun = true
				note("is traced")
			}
		} else {
			err = callMember(ctx, n, member, pathTraceRead, call, &got, n.traceRead)
		}
		if err != nil && ctx.Err() == nil {
			if !told || begun {
				note("is not traced: " + err.Error())
			}
			begun, told = false, true
			again := time.NewTimer(2 * time.Second)
			select {
			case <-again.C:
			case <-ctx.Done():
			}
			again.Stop()
			continue
		}
		if len(got) > 0 {
			select {
			case out <- got:
			case <-ctx.Done():
			}
		}
	}
	if begun {
		// One that does not answer forgets the trace by itself.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlTimeout)
		defer cancel()
		_ = callMember(end, n, member, pathTraceEnd, call, &none{}, n.traceEnd)
	}
}
