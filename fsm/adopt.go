package fsm

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/session"
)

// adopt looks after what an earlier process, or the maker of a snapshot, left:
// it counts what is stored, collects for filters whose last subscription went
// shortly before the end, and has the others looked at.
func (c *collector) adopt() error {
	var fresh *state
	var snap *pebble.Snapshot
	var last uint64
	var at session.Pos
	known := map[uint64]struct{}{}
	var live []*filter
	gen := c.acquire(func(st *state) {
		if st == c.adopted {
			return
		}
		fresh, last, at = st, st.lastFilter, session.At(st.applied+1, 0)-1
		c.forget()
		for _, o := range st.sessions {
			for _, n := range o.list() {
				if _, twice := known[n.filter.id]; !twice {
					live = append(live, n.filter)
					n.filter.spilled = at
				}
				known[n.filter.id] = struct{}{}
			}
		}
		// What is posted from now on counts by itself.
		snap = c.store.db.Load().db.NewSnapshot()
		st.stored.messages.Store(0)
		st.stored.bytes.Store(0)
	})
	if gen == nil {
		return nil
	}
	defer gen.release()
	if fresh == nil {
		return nil
	}
	messages, bytes, err := c.count(snap)
	if err = errors.Join(err, snap.Close()); err != nil || c.stopping() {
		return err
	}
	fresh.stored.messages.Add(messages)
	fresh.stored.bytes.Add(bytes)
	fresh.stored.known.Store(true)
	c.adopted = fresh
	c.note(news{touched: live}, fresh)
	ids, err := orphans(gen.db, known)
	for _, id := range ids {
		if err == nil && id <= last {
			err = c.collect(gen.db, &filter{id: id, low: at, spilled: at})
		}
	}
	return err
}

// count scans the messages of a snapshot.
func (c *collector) count(snap *pebble.Snapshot) (messages, bytes int64, err error) {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyMessage}, UpperBound: []byte{keyMessage + 1}})
	if err != nil {
		return 0, 0, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		if messages%4096 == 0 && c.stopping() {
			break
		}
		o, err := outlineOf(it.Value())
		if err != nil {
			return 0, 0, errors.Join(err, it.Close())
		}
		messages++
		bytes += int64(o.size)
	}
	return messages, bytes, it.Close()
}

// orphans returns the ids of filters that have postings and no subscription any
// more: removed shortly before the process ended.
func orphans(db *pebble.DB, known map[uint64]struct{}) ([]uint64, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosting}, UpperBound: []byte{keyPosting + 1}})
	if err != nil {
		return nil, err
	}
	var out []uint64
	for ok := it.First(); ok; {
		id := binary.BigEndian.Uint64(it.Key()[1:])
		if _, live := known[id]; !live {
			out = append(out, id)
		}
		ok = it.SeekGE(postingKey(id+1, 0))
	}
	return out, it.Close()
}
