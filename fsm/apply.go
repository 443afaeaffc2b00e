package fsm

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// Apply implements raft.FSM.
func (s *Store) Apply(l *raft.Log) any { return s.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: the entries go to the store in one
// batch, then their events are observed. Results are nil; what became of an
// item is told by events.
func (s *Store) ApplyBatch(logs []*raft.Log) []any {
	defer s.applying()()
	s.mu.Lock()
	defer s.mu.Unlock()
	gen := s.db.Load()
	a := &applier{state: s.state, db: gen.db, scratch: &s.scratch}
	a.begin(gen.db)
	for _, l := range logs {
		if l.Index <= s.state.applied {
			continue
		}
		if l.Type == raft.LogCommand {
			if err := a.entry(l.Index, l.Data); err != nil {
				s.deps.Halt(fmt.Errorf("apply log entry %d: %w", l.Index, err))
			}
		}
		s.state.applied = l.Index
		if a.cuts != nil {
			s.takeCuts(a)
		}
	}
	a.commit()
	if a.err != nil {
		s.deps.Halt(fmt.Errorf("store log entries up to %d: %w", s.state.applied, a.err))
	}
	s.publish()
	if s.gc != nil {
		s.gc.note(a.news, s.state)
	}
	s.deps.Observe(a.events)
	a.reuse()
	return make([]any, len(logs))
}

// scratch is memory that the next batch of entries uses again.
type scratch struct {
	writes
	news
	decoder
	events []Event
	owed   []*filter // to whom a message is posted
}

// reuse forgets what the batch held, and lets go of what an unusual one needed.
func (s *scratch) reuse() {
	if cap(s.events) > 1<<13 || cap(s.tallies) > 1<<20 {
		*s = scratch{}
		return
	}
	clear(s.touched)
	clear(s.posted)
	s.news = news{touched: s.touched[:0], posted: s.posted[:0], unposted: s.unposted[:0]}
	clear(s.events)
	s.events = s.events[:0]
}

// applier applies entries to the state and collects what they write and tell.
type applier struct {
	*state
	db *pebble.DB
	*scratch
	err error // the first of the batch
	// unread are the shared messages that are in the batch, where reads of the
	// store do not see them yet.
	unread map[*filter][]unreadPosting
	// moved are postings that the batch deletes.
	moved map[posting]struct{}
	// expiries are those of the retained messages that the batch sets, by key, 0
	// for none; kept while any retained message expires.
	expiries map[string]int64
	cuts     []string // whose item the entry at hand holds
	index    uint64
	n        int // of the next item in the entry
}

// commit puts the batch, with how far it goes, into the store.
func (a *applier) commit() {
	a.set([]byte(metaApplied), uint64Value(a.applied))
	a.set([]byte(metaStamp), uint64Value(uint64(a.stamp)))
	if a.err == nil {
		a.err = a.writes.commit()
	}
}

// boundary puts what earlier entries wrote into the store, for an entry that
// reads it: what it finds must not depend on how entries are cut into batches.
// The entry must not have changed anything yet, its stamp included.
func (a *applier) boundary() {
	if a.empty() {
		return
	}
	a.commit()
	a.begin(a.db)
	a.unread, a.moved, a.expiries = nil, nil, nil
}

func (a *applier) set(k, v []byte) {
	if a.err == nil {
		a.err = a.other.Set(k, v, nil)
	}
}

func (a *applier) del(k []byte) {
	if a.err == nil {
		a.err = a.other.Delete(k, nil)
	}
}

// delOnce deletes a message or a posting. Their keys are set once and never again,
// so that the two can meet and vanish at a flush; a plain deletion would have to
// be carried through all levels of the store.
func (a *applier) delOnce(k []byte) {
	if a.err == nil {
		a.err = a.other.SingleDelete(k, nil)
	}
}

func (a *applier) delPrefix(prefix []byte) {
	if a.err == nil {
		a.err = a.other.DeleteRange(prefix, upperBound(prefix), nil)
	}
}

func (a *applier) setProto(k []byte, m proto.Message) {
	// Deterministic, so that the stores of two nodes can be compared.
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.set(k, v)
}

// pos takes the position of the next thing that happens in the entry.
func (a *applier) pos() session.Pos {
	p := session.At(a.index, a.n)
	a.n++
	return p
}

func (a *applier) emit(e Event) { a.events = append(a.events, e) }

// errUnknownCommand halts a node that is older than the log it reads.
var errUnknownCommand = errors.New("it holds a command that this version does not know: install the version that the other nodes run")

func (a *applier) entry(index uint64, data []byte) error {
	e, err := a.decode(data, &a.topics)
	if err != nil {
		return fmt.Errorf("it cannot be decoded: %w", err)
	}
	a.index, a.n = index, 0
	if a.expires(e.Stamp) || trims(e) {
		a.boundary()
	}
	if e.Stamp > a.stamp {
		a.stamp = e.Stamp
	}
	a.expireRetained()
	a.endBans()
	a.fireDue()
	switch c := e.Command.(type) {
	case *logpb.Entry_Pack:
		return a.pack(c.Pack)
	case *logpb.Entry_Tick:
	case *logpb.Entry_NodeUp:
		a.nodeUp(c.NodeUp)
	case *logpb.Entry_NodeDown:
		if m := a.members[c.NodeDown.Node]; m != nil && m.rec.Incarnation == c.NodeDown.Incarnation {
			a.nodeDown(m)
		}
	default:
		return errUnknownCommand
	}
	return nil
}

// pack applies the items of a pack if it is the next one of its node.
func (a *applier) pack(p *logpb.Pack) error {
	m := a.members[p.Node]
	if m == nil || m.rec.Incarnation == 0 || m.rec.Incarnation != p.Incarnation || p.Number < m.nextPack && planted != skipNumber {
		return nil
	}
	if p.Number > m.nextPack {
		if p.Node == a.node {
			a.emit(Event{Kind: EventPackGap, Number: m.nextPack})
		}
		return nil
	}
	m.nextPack = max(m.nextPack, p.Number+1)
	a.set(appendString(keyPack, p.Node), uint64Value(m.nextPack))
	from := owner{node: p.Node, incarnation: p.Incarnation}
	for i, it := range p.Items {
		r, err := a.item(from, it, a.topicOf(i, it))
		if err != nil {
			return err
		}
		if it.By != nil {
			a.journal(r.Pos, it.By, outcomeOf(r.Err))
		}
		if p.Node == a.node {
			a.emit(Event{Kind: EventResult, Pos: r.Pos, Number: p.Number, Item: i, Result: r})
		}
	}
	return nil
}

// item applies one; topic is what is remembered of that of a publish, or nil.
func (a *applier) item(from owner, it *logpb.Item, topic *routing.Topic[matching]) (Result, error) {
	r := Result{Pos: a.pos()}
	switch k := it.Kind.(type) {
	case *logpb.Item_Publish:
		a.publishItem(k.Publish, topic, &r)
	case *logpb.Item_Claim:
		a.claim(from, k.Claim, &r)
	case *logpb.Item_Release:
		a.release(k.Release, &r)
	case *logpb.Item_Subscribe:
		a.subscribe(k.Subscribe, &r)
	case *logpb.Item_Unsubscribe:
		a.unsubscribe(k.Unsubscribe, &r)
	case *logpb.Item_Progress:
		for _, p := range k.Progress.Sessions {
			a.progress(p)
		}
	case *logpb.Item_Rel:
		a.rel(k.Rel, &r)
	case *logpb.Item_Outbound:
		a.outbound(k.Outbound, &r)
	case *logpb.Item_SessionEnd:
		a.sessionEnd(k.SessionEnd, &r)
	case *logpb.Item_SessionPut:
		a.sessionPut(k.SessionPut, &r)
	default:
		return r, a.adminItem(it, &r)
	}
	return r, nil
}

// held returns the session if epoch is the one that has it.
func (a *applier) held(client string, epoch uint64, r *Result) *sess {
	s := a.sessions[client]
	if s == nil || s.rec.Epoch != epoch && planted != loseFence || s.rec.Owner == "" {
		r.Err = ErrStale
		return nil
	}
	return s
}

// nodeUp starts an incarnation. The same nonce again is the same start, asked
// for twice.
func (a *applier) nodeUp(c *logpb.NodeUp) {
	m := a.members[c.Node]
	if m == nil && len(a.members) == 0 {
		// The first node of a new cluster admits itself.
		m = &member{rec: &logpb.Member{Node: c.Node, Store: c.Store, Voter: true, JoinedAt: a.stamp}}
		a.members[c.Node] = m
	}
	if m == nil || m.rec.Store != c.Store {
		return
	}
	if m.rec.Incarnation != 0 && m.rec.Nonce == c.Nonce {
		if c.Node == a.node {
			a.emit(Event{Kind: EventNode, Pos: session.Pos(m.rec.Incarnation)})
		}
		return
	}
	if m.rec.Incarnation != 0 {
		a.nodeDown(m)
	}
	p := a.pos()
	rec := proto.CloneOf(m.rec)
	rec.Incarnation, rec.Nonce, rec.Level, rec.Version = uint64(p), c.Nonce, c.Level, c.Version
	m.nextPack = 1
	a.set(appendString(keyPack, c.Node), uint64Value(1))
	a.putMember(m, rec)
	if c.Node == a.node {
		a.emit(Event{Kind: EventNode, Pos: p})
	}
}

// nodeDown ends an incarnation: the clients of the node have lost their
// connections.
func (a *applier) nodeDown(m *member) {
	inc := m.rec.Incarnation
	var lost []string
	for client, s := range a.sessions {
		if s.rec.Owner == m.rec.Node && s.rec.OwnerIncarnation == inc {
			lost = append(lost, client)
		}
	}
	slices.Sort(lost)
	for _, client := range lost {
		s := a.sessions[client]
		a.ended(s, EndNodeDown)
		s.rec.Horizon = uint64(a.pos())
		a.forgetZero(s)
		a.disconnected(s, disconnect{will: true})
	}
	for _, k := range a.formersOf(m.rec.Node, inc) {
		a.settleFormer(k, true)
	}
	rec := proto.CloneOf(m.rec)
	rec.Incarnation = 0
	a.putMember(m, rec)
	if m.rec.Node == a.node {
		a.emit(Event{Kind: EventNode})
	}
}

// ended tells this node that a connection of its has lost its session.
func (a *applier) ended(s *sess, why EndReason) {
	if s.rec.Owner == a.node {
		a.emit(Event{Kind: EventEnded, Client: s.rec.Client, Epoch: session.Pos(s.rec.Epoch), Reason: why})
	}
}

func (a *applier) putMember(m *member, rec *logpb.Member) {
	m.rec = rec
	a.setProto(appendString(keyMember, rec.Node), rec)
	a.setMembers()
	a.reach()
	a.emit(Event{Kind: EventMembers})
}

// sortedKeys makes map order deterministic.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
