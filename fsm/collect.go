package fsm

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/session"
)

// collectBatch bounds the postings of one batch; from rangeAbove on they go by
// one range delete. Many small range deletes would slow every read until they are
// compacted.
const (
	collectBatch = 4096
	rangeAbove   = 256
)

// collectLoose deletes messages whose last posting went out of turn.
func (c *collector) collectLoose(db *pebble.DB, loose []session.Pos) error {
	if len(loose) == 0 {
		return nil
	}
	b := db.NewBatch()
	var gone collected
	for _, p := range loose {
		if err := gone.message(db, b, 0, p); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	err := b.Commit(pebble.NoSync)
	gone.subtract(c.adopted.stored)
	return errors.Join(err, b.Close())
}

// collected counts what a batch deletes.
type collected struct {
	messages int64
	bytes    uint64
	seen     map[session.Pos]struct{} // of loose messages, which may be told twice
}

func (g *collected) subtract(count *stored) {
	count.messages.Add(-g.messages)
	count.bytes.Add(-int64(g.bytes))
}

// collect deletes the dead postings of f that only the store knows, in bounded
// batches.
func (c *collector) collect(db *pebble.DB, f *filter) error {
	for f.spilled > f.swept && f.low > f.swept {
		n, err := c.collectSome(db, f)
		if err != nil || n == collectBatch && c.stopping() {
			return err
		}
		if n < collectBatch {
			break
		}
	}
	f.swept = max(f.swept, f.low)
	return nil
}

// collectSome deletes some of them. A search that began at the first would walk
// over the tombstones of all that were deleted before, until Pebble drops those;
// so it begins behind them.
func (c *collector) collectSome(db *pebble.DB, f *filter) (int, error) {
	low := min(f.low, f.spilled)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: postingKey(f.id, f.swept+1), UpperBound: postingKey(f.id, low+1)})
	if err != nil {
		return 0, err
	}
	var dead []session.Pos
	var alone []uint64
	for ok := it.First(); ok && len(dead) < collectBatch; ok = it.Next() {
		_, p, err := parsePosting(it.Key())
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		dead, alone = append(dead, p), append(alone, aloneIn(it.Value()))
	}
	if err := it.Close(); err != nil || len(dead) == 0 {
		return 0, err
	}
	b := db.NewBatch()
	// Many small range deletes would slow every read until they are compacted.
	ranged := len(dead) >= rangeAbove
	if ranged {
		err = b.DeleteRange(postingKey(f.id, dead[0]), postingKey(f.id, dead[len(dead)-1]+1), nil)
	}
	var gone collected
	for i, p := range dead {
		if err == nil && !ranged {
			err = b.SingleDelete(postingKey(f.id, p), nil)
		}
		switch {
		case err != nil:
		case alone[i] > 0:
			err = gone.drop(b, p, alone[i])
		default:
			err = gone.message(db, b, f.id, p)
		}
	}
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err == nil {
		gone.subtract(c.adopted.stored)
		f.swept = dead[len(dead)-1]
	}
	return len(dead), err
}

// message deletes the message at p unless a filter but this one still has a
// posting of it.
func (g *collected) message(db *pebble.DB, b *pebble.Batch, filter uint64, p session.Pos) error {
	m, err := readMessage(db, p)
	if errors.Is(err, errNoMessage) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range m.Filters {
		if id == filter {
			continue
		}
		_, closer, err := db.Get(postingKey(id, p))
		if err == nil {
			return closer.Close()
		}
		if !errors.Is(err, pebble.ErrNotFound) {
			return err
		}
	}
	if _, twice := g.seen[p]; twice {
		return nil
	}
	if filter == 0 {
		if g.seen == nil {
			g.seen = map[session.Pos]struct{}{}
		}
		g.seen[p] = struct{}{}
	}
	return g.drop(b, p, recordSize(m))
}

func (g *collected) drop(b *pebble.Batch, p session.Pos, size uint64) error {
	g.messages++
	g.bytes += size
	return b.SingleDelete(messageKey(p), nil)
}
