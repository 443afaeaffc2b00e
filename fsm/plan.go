package fsm

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// The reasons of a Trim.
const (
	TrimMessages      = 1 // of a session
	TrimBytes         = 2 // of a session
	TrimAge           = 3 // age limit, or message expiry
	TrimTotalMessages = 4
	TrimTotalBytes    = 5
)

// Bounds of one Plan, so that it, and what it proposes, stays small whatever the
// state is. What is over goes on in the next.
const (
	planSeeks    = 50_000
	planSessions = 4096 // that give up something
	planItem     = 512  // sessions in one Trim
	planWalk     = 1 << 20
	// planPatience is for how many Plans the collector may be busy with what was
	// given up before more is.
	planPatience = 20
	// minExpired is how many expired messages are worth a Trim.
	minExpired = 1024
)

// Trimmer tells the leader which queues are over a limit and what they are to
// give up. It only reads, off the apply lock; its proposals are commands in the
// log. It belongs to one goroutine.
type Trimmer struct {
	store *Store

	// What the last look at all sessions found: none can be over its limit before
	// so many postings, or bytes of them, have come.
	last   Limits
	of     *stored
	posted [2]uint64
	slack  [2]uint64
	more   bool // some were left for later

	all  session.Pos // given up by all sessions
	wait int
}

// NewTrimmer returns a Trimmer of the state.
func (s *Store) NewTrimmer() *Trimmer { return &Trimmer{store: s} }

// mark remembers of a session what the tallies of its filters summed up to where
// its queue begins, or less: queues only begin later with time.
type mark struct {
	subs *[]*sub
	sum  [2]uint64
}

// Plan returns what is to be proposed. Now is log time, which goes on where the
// log is quiet. It may block on the store.
func (t *Trimmer) Plan(now int64) ([]*logpb.Trim, error) {
	v := t.store.view()
	p := planner{t: t, v: v, now: max(now, v.stamp), limits: v.table.limits, seeks: planSeeks}
	out, err := p.plan()
	return out, errors.Join(err, p.close(), v.Close())
}

type planner struct {
	t      *Trimmer
	v      *view
	now    int64
	limits Limits
	it     *pebble.Iterator // postings
	seeks  int              // left
	// cuts are the positions to trim to of sessions with one filter: they are the
	// same for all that are over.
	cuts map[*filter]session.Pos
}

func (p *planner) close() error {
	if p.it == nil {
		return nil
	}
	return p.it.Close()
}

func (p *planner) plan() ([]*logpb.Trim, error) {
	if c := p.v.table.stored; c != p.t.of {
		// Another state: what was known of the old one is void.
		*p.t = Trimmer{store: p.t.store, of: c}
	}
	all, err := p.old()
	if all == nil && err == nil {
		all, err = p.total()
	}
	if all != nil || err != nil {
		if all != nil {
			p.t.all, p.t.wait = session.Pos(all.All), planPatience
		}
		return slices.DeleteFunc([]*logpb.Trim{all}, func(c *logpb.Trim) bool { return c == nil }), err
	}
	return p.sessions()
}

// walk calls f for the stored messages from a position on until it returns
// false.
func (p *planner) walk(from session.Pos, f func(session.Pos, outline) bool) error {
	it, err := p.v.snap.NewIter(&pebble.IterOptions{LowerBound: messageKey(from), UpperBound: []byte{keyMessage + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		at, err := parseUint64(it.Key()[1:])
		var o outline
		if err == nil {
			o, err = outlineOf(it.Value())
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !f(session.Pos(at), o) {
			break
		}
	}
	return it.Close()
}

// old plans for the messages at the head that are too old or have expired.
func (p *planner) old() (*logpb.Trim, error) {
	age := p.limits.MaxAge.Milliseconds()
	now := p.now
	trim := &logpb.Trim{Reason: TrimAge}
	overdue, expired := false, 0
	err := p.walk(p.t.all+1, func(at session.Pos, o outline) bool {
		late := o.expiresAt != 0 && o.expiresAt <= now
		if late {
			expired++
			overdue = overdue || now-o.expiresAt > 60_000
		}
		if old := now - o.stamp; age > 0 && old > age {
			late = true
			// All sessions are looked at for it: not every time one message is old.
			overdue = overdue || old > age+min(max(age/64, 1000), 60_000)
		}
		if late {
			trim.All, trim.Dropped = uint64(at), trim.Dropped+1
		}
		if !overdue && expired < minExpired && trim.Dropped >= minExpired {
			return false // it is not time yet
		}
		return late && trim.Dropped < planWalk
	})
	if err != nil || !overdue && expired < minExpired {
		return nil, err
	}
	return trim, nil
}

// total plans for the limits of all sessions together.
func (p *planner) total() (*logpb.Trim, error) {
	messages, bytes, known := p.t.store.Stored()
	l := p.limits
	trim := &logpb.Trim{Reason: TrimTotalMessages}
	switch {
	case !known:
		return nil, nil
	case uint64(max(messages, 0)) > l.TotalMessages:
	case uint64(max(bytes, 0)) > l.TotalBytes:
		trim.Reason = TrimTotalBytes
	default:
		return nil, nil
	}
	excess := messages - int64(lowered(l.TotalMessages))
	excessBytes := bytes - int64(lowered(l.TotalBytes))
	busy := false
	err := p.walk(0, func(at session.Pos, o outline) bool {
		if at <= p.t.all && p.t.wait > 0 {
			p.t.wait--
			busy = true // the collector is on its way to where that was
			return false
		}
		excess--
		excessBytes -= int64(o.size)
		if at > p.t.all {
			trim.All, trim.Dropped = uint64(at), trim.Dropped+1
		}
		return (excess > 0 || excessBytes > 0) && trim.Dropped < planWalk
	})
	if err != nil || busy || trim.All == 0 {
		return nil, err
	}
	return trim, nil
}

// lowered is what a queue at its limit is trimmed to.
func lowered(limit uint64) uint64 { return limit - limit/64 - 1 }

// over is a session that may be over its limit.
type over struct {
	s    *sess
	by   uint64
	subs []*sub
}

// sessions plans for the limits of each session. A look at all of them reads
// memory only; and is not taken before one can be over.
func (p *planner) sessions() ([]*logpb.Trim, error) {
	t := p.t
	posted := [2]uint64{t.of.posted.Load(), t.of.postedBytes.Load()}
	if t.last == p.limits && !t.more && posted[0]-t.posted[0] < t.slack[0] && posted[1]-t.posted[1] < t.slack[1] {
		return nil, nil
	}
	limit := [2]uint64{p.limits.MaxMessages, p.limits.MaxBytes}
	t.last, t.posted, t.slack, t.more = p.limits, posted, limit, false
	var found []over
	p.v.table.sessions.Range(func(_, x any) bool {
		s := x.(*sess)
		if o := t.look(s, limit); o.by > 0 {
			found = append(found, o)
		}
		return true
	})
	slices.SortFunc(found, func(a, b over) int {
		return cmp.Or(cmp.Compare(b.by, a.by), cmp.Compare(a.s.client, b.s.client))
	})
	return p.trims(found, limit)
}

// look tells by how much the session may be over its limits, in messages or in
// 64 bytes, and notes how far it is from them otherwise.
func (t *Trimmer) look(s *sess, limit [2]uint64) over {
	list := s.subs.Load()
	if list == nil || len(*list) == 0 {
		return over{}
	}
	if s.mark.subs != list {
		s.mark = mark{subs: list}
	}
	sum := tallies(*list)
	by := uint64(0)
	for i, unit := range []uint64{1, 64} {
		n := sum[i] - min(sum[i], s.mark.sum[i])
		if n > limit[i] {
			by = max(by, (n-limit[i]+unit-1)/unit)
		} else {
			t.slack[i] = min(t.slack[i], limit[i]-n+1)
		}
	}
	return over{s: s, by: by, subs: *list}
}

// tallies sums up the newest tallies of the filters.
func tallies(list []*sub) (sum [2]uint64) {
	for _, n := range list {
		if n.waits() {
			sum[0] += n.filter.posted.Load()
			sum[1] += n.filter.bytes.Load()
		}
	}
	return sum
}

// trims looks closely at the sessions that may be over a limit, the worst first.
func (p *planner) trims(found []over, limit [2]uint64) ([]*logpb.Trim, error) {
	var out []*logpb.Trim
	items := map[uint32]*logpb.Trim{}
	trimmed := 0
	for _, o := range found {
		if p.seeks <= 0 || trimmed == planSessions {
			p.t.more = true
			break
		}
		st, reason, dropped, err := p.cut(o, limit)
		if err != nil {
			return nil, err
		}
		if st == nil {
			continue
		}
		trimmed++
		item := items[reason]
		if item == nil || len(item.Sessions) == planItem {
			item = &logpb.Trim{Reason: reason}
			items[reason] = item
			out = append(out, item)
		}
		item.Sessions = append(item.Sessions, st)
		item.Dropped += dropped
	}
	if trimmed > 0 {
		p.t.more = true // to see that it was done
	}
	return out, nil
}

// cut finds where a session that may be over a limit is to be trimmed to; nil if
// it is not.
func (p *planner) cut(o over, limit [2]uint64) (_ *logpb.SessionTrim, reason uint32, dropped uint64, _ error) {
	from := o.s.at()
	newest := tallies(o.subs)
	begin, err := p.passed(o.subs, from)
	if err != nil {
		return nil, 0, 0, err
	}
	o.s.mark.sum = begin
	switch {
	case newest[0]-min(begin[0], newest[0]) > limit[0]:
		reason = TrimMessages
	case newest[1]-min(begin[1], newest[1]) > limit[1]:
		reason = TrimBytes
	default:
		p.t.look(o.s, limit)
		return nil, 0, 0, nil
	}
	f := onlyFilter(o.subs)
	to, known := p.cuts[f]
	if !known || f == nil {
		enough := func(at session.Pos) (bool, error) {
			sum, err := p.passed(o.subs, at)
			return newest[0]-min(sum[0], newest[0]) <= lowered(limit[0]) && newest[1]-min(sum[1], newest[1]) <= lowered(limit[1]), err
		}
		if to, err = bisect(from, p.v.pos, enough); err != nil {
			return nil, 0, 0, err
		}
		if f != nil {
			if p.cuts == nil {
				p.cuts = map[*filter]session.Pos{}
			}
			p.cuts[f] = to
		}
	}
	if to <= from {
		return nil, 0, 0, nil
	}
	end, err := p.passed(o.subs, to)
	return &logpb.SessionTrim{Client: o.s.client, Incarnation: o.s.incarnation, To: uint64(to)}, reason, end[0] - begin[0], err
}

// onlyFilter returns the filter of a session that waits for one only.
func onlyFilter(subs []*sub) (f *filter) {
	for _, n := range subs {
		if !n.waits() {
			continue
		}
		if f != nil {
			return nil
		}
		f = n.filter
	}
	return f
}

// bisect returns the first position for which enough holds, given that it does
// not at lo, or hi.
func bisect(lo, hi session.Pos, enough func(session.Pos) (bool, error)) (session.Pos, error) {
	for lo+1 < hi {
		mid := lo + (hi-lo)/2
		ok, err := enough(mid)
		if err != nil {
			return 0, err
		}
		if ok {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi, nil
}

// passed sums up, over the filters of subscriptions, the tallies of what lies at
// or before a position, or before the subscription.
func (p *planner) passed(subs []*sub, at session.Pos) (sum [2]uint64, err error) {
	for _, n := range subs {
		if !n.waits() {
			continue
		}
		// In this order: what comes meanwhile is not passed.
		number, bytes := n.filter.posted.Load(), n.filter.bytes.Load()
		if from := max(at, n.since); session.Pos(n.filter.last.Load()) > from {
			number, bytes, err = p.before(n.filter, from, number, bytes)
			if err != nil {
				return sum, err
			}
		}
		sum[0] += number
		sum[1] += bytes
	}
	return sum, nil
}

// before reads the tally that a filter had at a position. It is the newest if the
// view has no posting of the filter: they all came since.
func (p *planner) before(f *filter, at session.Pos, newest, newestBytes uint64) (number, bytes uint64, err error) {
	if p.it == nil {
		p.it, err = p.v.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosting}, UpperBound: []byte{keyPosting + 1}})
		if err != nil {
			return 0, 0, err
		}
	}
	p.seeks--
	if p.it.SeekLT(postingKey(f.id, at+1)) {
		if id, _, err := parsePosting(p.it.Key()); err != nil || id == f.id {
			if err != nil {
				return 0, 0, err
			}
			return parseTally(p.it.Value())
		}
	}
	// What came before was collected: the first that is left tells.
	if !p.it.SeekGE(postingKey(f.id, at+1)) {
		return newest, newestBytes, p.it.Error()
	}
	id, q, err := parsePosting(p.it.Key())
	if err != nil || id != f.id {
		return newest, newestBytes, err
	}
	number, bytes, err = parseTally(p.it.Value())
	if err != nil {
		return 0, 0, err
	}
	m, err := readMessage(p.v.snap, q)
	if err != nil {
		return 0, 0, err
	}
	return number - min(number, 1), bytes - min(bytes, recordSize(m)), nil
}
