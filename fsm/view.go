package fsm

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// view is a snapshot of the store. The subscriptions that Queue goes by are
// those of the moment it is called: what was unsubscribed since is not owed any
// more, and what was subscribed since has nothing in the snapshot.
type view struct {
	gen      *generation
	snap     *pebble.Snapshot
	table    *table
	pos      session.Pos
	stamp    int64
	postings []owedPosting
}

// View returns the state as it is now. It does not block.
func (s *Store) View() View { return s.view() }

func (s *Store) view() *view {
	for {
		// In this order, so that pos is never beyond what the snapshot holds.
		at, stamp, table := s.applied.Load(), s.stamp.Load(), s.table.Load()
		gen := s.db.Load()
		if !gen.acquire() {
			continue // replaced by a restored snapshot just now
		}
		return &view{gen: gen, snap: gen.db.NewSnapshot(), table: table, pos: session.At(at+1, 0) - 1, stamp: stamp}
	}
}

func (v *view) Pos() session.Pos { return v.pos }

// Close is not idempotent.
func (v *view) Close() error {
	err := v.snap.Close()
	v.gen.release()
	return err
}

type owedPosting struct {
	pos session.Pos
	sub *sub
}

// Queue implements View. A chunk costs one seek for each filter of the session
// that has anything after the position.
func (v *view) Queue(dst []Queued, client string, after session.Pos, limit int) ([]Queued, error) {
	found, ok := v.table.sessions.Load(client)
	if !ok {
		return dst, nil
	}
	s := found.(*sess)
	v.postings = v.postings[:0]
	var zero []*sub // that postings may not be kept for
	for _, n := range s.list() {
		from := max(after, n.since, s.at())
		if n.QoS == 0 && n.filter.group == nil {
			zero = append(zero, n)
		}
		if !n.waits() || session.Pos(n.filter.last.Load()) <= from {
			continue
		}
		count := 0
		err := eachPosting(v.snap, n.filter.id, from, func(p session.Pos) (bool, error) {
			v.postings = append(v.postings, owedPosting{p, n})
			count++
			// One more than the limit can come from each filter and no more.
			return count < limit, nil
		})
		if err != nil {
			return dst, err
		}
	}
	slices.SortStableFunc(v.postings, func(a, b owedPosting) int {
		switch {
		case a.pos < b.pos:
			return -1
		case a.pos > b.pos:
			return 1
		}
		return 0
	})
	have := len(dst)
	dst, err := v.readQueue(dst, limit)
	for i := have; len(zero) > 0 && i < len(dst); i++ {
		// One copy names all subscriptions that match [MQTT-3.3.4-3].
		for _, n := range zero {
			if n.since < dst[i].Pos && !dst[i].names(n.Filter) && routing.Match(n.Filter, dst[i].Message.Topic) {
				dst[i].Subscriptions = append(dst[i].Subscriptions, n.Subscription)
			}
		}
	}
	return dst, err
}

// names tells whether q has the subscription of a filter.
func (q *Queued) names(filter string) bool {
	return slices.ContainsFunc(q.Subscriptions, func(s session.Subscription) bool { return s.Filter == filter })
}

// readQueue reads the messages of v.postings, which is in order. One iterator
// keeps the block that it reads; a look-up for each would search it anew, and
// fetch it when the cache holds less than what lies in between.
func (v *view) readQueue(dst []Queued, limit int) (_ []Queued, err error) {
	if len(v.postings) == 0 {
		return dst, nil
	}
	last := v.postings[len(v.postings)-1].pos
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: messageKey(v.postings[0].pos), UpperBound: messageKey(last + 1)})
	if err != nil {
		return dst, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for i := 0; i < len(v.postings) && limit > 0; {
		q := Queued{Pos: v.postings[i].pos}
		for ; i < len(v.postings) && v.postings[i].pos == q.Pos; i++ {
			q.Subscriptions = append(q.Subscriptions, v.postings[i].sub.Subscription)
		}
		if k := messageKey(q.Pos); !it.SeekGE(k) || !bytes.Equal(it.Key(), k) {
			if err := it.Error(); err != nil {
				return dst, err
			}
			continue // collected since: the cursor has passed it
		}
		m := new(logpb.Message)
		if err := proto.Unmarshal(it.Value(), m); err != nil {
			return dst, err
		}
		q.Message = messageOf(m)
		dst = append(dst, q)
		limit--
	}
	return dst, nil
}

// Retained implements View, by seeks and not by a scan.
func (v *view) Retained(filter string, after []byte, upTo session.Pos, yield func(session.Pos, *session.Message) bool) error {
	if !strings.ContainsAny(filter, "+#") {
		return v.retainedOf(filter, after, upTo, yield)
	}
	it, err := v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyRetained}, UpperBound: []byte{keyRetained + 1}})
	if err != nil {
		return err
	}
	scan := routing.NewTopicScan(filter)
	seek := append([]byte{keyRetained}, scan.Start()...)
	if len(after) > 0 && bytes.Compare(after, seek[1:]) >= 0 {
		seek = append(append(seek[:1], after...), 0) // the next possible key
	}
	for ok := it.SeekGE(seek); ok; {
		match, next, done := scan.Next(it.Key()[1:])
		if match {
			more, err := v.yieldRetained(it.Value(), upTo, yield)
			if err != nil {
				return errors.Join(err, it.Close())
			}
			if !more {
				break
			}
		}
		if done {
			break
		}
		if next == nil {
			ok = it.Next()
		} else {
			seek = append(append(seek[:0], keyRetained), next...)
			ok = it.SeekGE(seek)
		}
	}
	return it.Close()
}

// retainedOf is Retained for a filter without wildcards, which matches one topic: most
// are such.
func (v *view) retainedOf(topic string, after []byte, upTo session.Pos, yield func(session.Pos, *session.Message) bool) error {
	k := retainedKey(topic)
	if len(after) > 0 && bytes.Compare(after, k[1:]) >= 0 {
		return nil
	}
	value, closer, err := v.snap.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = v.yieldRetained(value, upTo, yield)
	return errors.Join(err, closer.Close())
}

// yieldRetained gives yield the retained message in value, if it is due, and returns
// whether there may be more.
func (v *view) yieldRetained(value []byte, upTo session.Pos, yield func(session.Pos, *session.Message) bool) (more bool, err error) {
	p, m, err := parseRetained(value)
	if err != nil {
		return false, err
	}
	expired := m.ExpiresAt != 0 && m.ExpiresAt <= v.stamp
	return p > upTo || expired || yield(p, m), nil
}

func parseRetained(v []byte) (session.Pos, *session.Message, error) {
	if len(v) < 8 {
		return 0, nil, errors.New("a retained message is cut short")
	}
	p, err := parseUint64(v[:8])
	if err != nil {
		return 0, nil, err
	}
	rec := new(logpb.Message)
	if err := proto.Unmarshal(v[8:], rec); err != nil {
		return 0, nil, err
	}
	return session.Pos(p), messageOf(rec), nil
}
