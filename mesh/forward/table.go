package forward

import (
	"fmt"
	"math/bits"
	"sync"

	"github.com/mqcluster/mqcluster/routing"
)

// maxPeers is how many peers a table tells apart: the value of a filter is a
// set of them in one word.
const maxPeers = 64

// table holds what the peers want: filter → set of slots, one slot a peer.
type table struct {
	trie    *routing.Trie[uint64]
	metrics *metrics
	mu      sync.Mutex // orders the edits of one slot with its end
}

// remote is what the table has of one peer.
type remote struct {
	bit   uint64
	gone  bool // nothing is taken any more
	count int
	// Of the peer's route log.
	incarnation, version, hash uint64
}

func newTable(met *metrics) *table { return &table{trie: routing.NewTrie[uint64](), metrics: met} }

// edit runs f with t.mu held.
func (t *table) edit(f func(tx *routing.Tx[uint64])) {
	t.trie.Update(f)
	t.metrics.remote.Set(float64(t.trie.Load().Len()))
}

// replace makes all the whole of what r wants; readers see the old or the new.
func (t *table) replace(r *remote, all []string, incarnation, version, hash uint64) error {
	var sum uint64
	for _, f := range all {
		sum ^= hash64(f)
	}
	if sum != hash {
		return fmt.Errorf("%w: the filters of a snapshot do not have its hash", errMalformed)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.gone {
		return nil
	}
	t.edit(func(tx *routing.Tx[uint64]) {
		t.clear(tx, r)
		for _, f := range all {
			set(tx, f, r.bit)
		}
	})
	r.count, r.incarnation, r.version, r.hash = len(all), incarnation, version, hash
	return nil
}

// apply takes the changes that follow r's version.
func (t *table) apply(r *remote, from uint64, changes []change, limit int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.gone {
		return nil
	}
	if from != r.version {
		return fmt.Errorf("%w: changes after version %d, this node has %d", errMalformed, from, r.version)
	}
	net := 0
	for _, ch := range changes {
		if ch.add {
			net++
		} else {
			net--
		}
	}
	if r.count+net > limit {
		return fmt.Errorf("the peer wants more than %d filters", limit)
	}
	t.edit(func(tx *routing.Tx[uint64]) {
		for _, ch := range changes {
			switch {
			case ch.add && set(tx, ch.filter, r.bit):
				r.count++
				r.hash ^= hash64(ch.filter)
			case !ch.add && unset(tx, ch.filter, r.bit):
				r.count--
				r.hash ^= hash64(ch.filter)
			}
		}
	})
	r.version += uint64(len(changes))
	return nil
}

// drop forgets what r wants; if final, for good.
func (t *table) drop(r *remote, final bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.gone = r.gone || final
	t.edit(func(tx *routing.Tx[uint64]) { t.clear(tx, r) })
	r.count, r.incarnation, r.version, r.hash = 0, 0, 0, 0
}

// state returns what the table has of r.
func (t *table) state(r *remote) (incarnation, version, hash uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.incarnation, r.version, r.hash
}

func (t *table) clear(tx *routing.Tx[uint64], r *remote) {
	if r.count == 0 {
		return
	}
	// tx starts from the snapshot that is loaded here: t.mu excludes others.
	for f, mask := range t.trie.Load().All() {
		if mask&r.bit != 0 {
			unset(tx, f, r.bit)
		}
	}
}

func set(tx *routing.Tx[uint64], filter string, bit uint64) (changed bool) {
	mask, _ := tx.Get(filter)
	if mask&bit != 0 {
		return false
	}
	tx.Set(filter, mask|bit)
	return true
}

func unset(tx *routing.Tx[uint64], filter string, bit uint64) (changed bool) {
	mask, _ := tx.Get(filter)
	if mask&bit == 0 {
		return false
	}
	if mask &^= bit; mask == 0 {
		tx.Delete(filter)
	} else {
		tx.Set(filter, mask)
	}
	return true
}

// slotOf returns the number of the one bit in bit.
func slotOf(bit uint64) int { return bits.TrailingZeros64(bit) }
