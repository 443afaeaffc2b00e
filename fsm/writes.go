package fsm

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/session"
)

// writes are what a batch of entries puts into the store, all at once. Messages
// and postings are most of it; each kind is written in the order of its keys,
// because Pebble's memtable then finds the place of a key beside that of the one
// before it, and does not search for it. They go first, so that a deletion of one
// that the batch itself made follows it.
type writes struct {
	messages *pebble.Batch // in order as they come: positions grow
	postings []newPosting
	tallies  []byte
	other    *pebble.Batch
}

type newPosting struct {
	posting
	from, to int // the value, in tallies
}

// begin prepares for a batch; what the last one allocated is used again.
func (w *writes) begin(db *pebble.DB) {
	w.messages, w.other = db.NewBatch(), db.NewBatch()
	w.postings, w.tallies = w.postings[:0], w.tallies[:0]
}

func (w *writes) empty() bool {
	return w.messages.Empty() && w.other.Empty() && len(w.postings) == 0
}

// message stores a message whose record takes size bytes, which write appends.
// Positions must grow.
func (w *writes) message(p session.Pos, size int, write func(dst []byte) []byte) {
	op := w.messages.SetDeferred(9, size)
	op.Key[0] = keyMessage
	binary.BigEndian.PutUint64(op.Key[1:], uint64(p))
	write(op.Value[:0])
	_ = op.Finish() // it fails for batches with an index only
}

func (w *writes) posting(filter uint64, p session.Pos, number, bytes, alone uint64) {
	from := len(w.tallies)
	w.tallies = appendTally(w.tallies, number, bytes, alone)
	w.postings = append(w.postings, newPosting{posting{filter, p}, from, len(w.tallies)})
}

// commit puts everything into the store.
func (w *writes) commit() error {
	slices.SortFunc(w.postings, func(x, y newPosting) int {
		return cmp.Or(cmp.Compare(x.filter, y.filter), cmp.Compare(x.pos, y.pos))
	})
	b := w.messages
	for _, n := range w.postings {
		op := b.SetDeferred(17, n.to-n.from)
		putPostingKey(op.Key, n.filter, n.pos)
		copy(op.Value, w.tallies[n.from:n.to])
		_ = op.Finish() // as above
	}
	err := b.Apply(w.other, nil)
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	return errors.Join(err, w.other.Close(), b.Close())
}
