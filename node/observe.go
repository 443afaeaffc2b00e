package node

import (
	"context"
	"strings"
	"sync"

	"github.com/mqcluster/mqcluster/auth"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// gate holds back events until the parts that they are for exist.
type gate struct {
	mu      sync.Mutex
	pass    func([]fsm.Event)
	waiting []fsm.Event
}

// observe is called on the goroutine that applies.
func (g *gate) observe(events []fsm.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pass == nil {
		g.waiting = append(g.waiting, events...)
		return
	}
	g.pass(events)
}

// open passes on what has waited, in order, and from now on everything.
func (g *gate) open(pass func([]fsm.Event)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pass = pass
	if len(g.waiting) > 0 {
		pass(g.waiting)
		g.waiting = nil
	}
}

// observe hands the events of applied entries to the parts, in log order, on the
// goroutine that applies.
func (n *Node) observe(events []fsm.Event) {
	for _, e := range events {
		switch e.Kind {
		case fsm.EventResult, fsm.EventPackGap, fsm.EventNode:
			n.consensus.Applied(e)
		case fsm.EventMembers:
			n.membersChanged()
		case fsm.EventPolicy:
			n.broker.Apply(e)
			n.policyChanged()
		case fsm.EventRestored:
			n.broker.Apply(e)
			n.consensus.Applied(e)
		case fsm.EventMessage:
			if n.tracing.active.Load() != nil {
				n.traceMessage(e)
			}
			n.broker.Apply(e)
		default:
			n.broker.Apply(e)
		}
	}
	// Only now are messages of the mesh that wait for this index to follow.
	index := n.store.AppliedIndex()
	n.broker.Applied(index)
	n.delivered.Store(index)
	n.routes.Advance(index)
}

// brokerLog is the log as the broker uses it.
type brokerLog struct{ n *Node }

var _ broker.Log = brokerLog{}

func (l brokerLog) Submit(item *logpb.Item, done func(fsm.Result)) {
	l.n.consensus.Submit(planted(item, done))
}

func (l brokerLog) View() fsm.View                 { return l.n.store.View() }
func (l brokerLog) Leased() bool                   { return l.n.consensus.Leased() }
func (l brokerLog) Shared(topic string) []fsm.Pick { return l.n.store.Shared(topic) }
func (l brokerLog) Queues(topic string) bool       { return l.n.store.Queues(topic) }
func (l brokerLog) Locked(f func(at session.Pos, view func() fsm.View)) {
	l.n.store.Locked(f)
}

// authenticator decides who a client is by the users in the log.
type authenticator struct{ n *Node }

var _ broker.Authenticator = authenticator{}

// Authenticate returns the user that the credentials prove: the name in the
// certificate where the listener says so, else that in a token in the place of the
// password, else user name and password. Where several are there they must agree.
func (a authenticator) Authenticate(ctx context.Context, c broker.Credentials) (string, error) {
	return a.n.authenticate(ctx, c)
}

func (a authenticator) Rights(c broker.Credentials, user string) broker.Rights {
	return a.n.rightsOf(c, user)
}

func (a authenticator) Quota(user string) auth.Quota {
	u, _ := a.n.store.Policy().User(user)
	return u.Quota
}

func (a authenticator) Version() uint64 { return a.n.store.Policy().Version() }

// trimRefused takes the sentinel's own word off an error for an operator.
func trimRefused(err error) string {
	return strings.TrimPrefix(err.Error(), fsm.ErrRefused.Error()+": ")
}
