package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/session"
)

// Retained messages that expire are in an index by the moment at which they do,
// and are deleted when the log's time reaches it. Readers leave out what has
// expired anyway, so that it does not matter when exactly that happens, and a
// million that expire together do not stall an entry.

// expireBatch bounds what one entry deletes.
const expireBatch = 256

// expiryKey is the index's key of a retained message, by the key of the latter.
func expiryKey(at int64, retained []byte) []byte {
	k := make([]byte, 0, 9+len(retained))
	k = binary.BigEndian.AppendUint64(append(k, keyExpiry), uint64(at))
	return append(k, retained[1:]...)
}

// expires tells whether retained messages are due at a log time.
func (st *state) expires(stamp int64) bool { return st.expiry != 0 && st.expiry <= stamp }

// reindex changes the index for a retained message that is to take the place of
// the one at k.
func (a *applier) reindex(k []byte, m *session.Message) {
	at := m.ExpiresAt
	if len(m.Payload) == 0 {
		at = 0
	}
	if a.expiry == 0 && at == 0 {
		return // nothing expires: nothing to read
	}
	old, known := a.expiries[string(k)]
	if !known {
		var err error
		if old, err = readExpiry(a.db, k); err != nil && a.err == nil {
			a.err = err
		}
	}
	if a.expiries == nil {
		a.expiries = map[string]int64{}
	}
	a.expiries[string(k)] = at
	if old != 0 && old != at {
		a.del(expiryKey(old, k))
	}
	if at == 0 {
		return
	}
	a.set(expiryKey(at, k), nil)
	if a.expiry == 0 || at < a.expiry {
		a.expiry = at
	}
}

// readExpiry returns when the retained message at k expires, 0 for never or if
// there is none.
func readExpiry(db pebble.Reader, k []byte) (int64, error) {
	v, closer, err := db.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(v) < 8 {
		return 0, errors.New("a retained message is cut short")
	}
	o, err := outlineOf(v[8:])
	return o.expiresAt, err
}

// expireRetained deletes retained messages that are due, a bounded number of
// them. What it reads is what earlier entries wrote: see boundary.
func (a *applier) expireRetained() {
	if !a.expires(a.stamp) || a.err != nil {
		return
	}
	next, err := a.expireSome()
	if err != nil && a.err == nil {
		a.err = fmt.Errorf("expire retained messages: %w", err)
	}
	a.expiry = next
}

// expireSome returns the earliest moment that is left.
func (a *applier) expireSome() (next int64, err error) {
	it, err := a.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyExpiry}, UpperBound: []byte{keyExpiry + 1}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) < 9 {
			return 0, fmt.Errorf("an expiry key of %d bytes", len(k))
		}
		at := int64(binary.BigEndian.Uint64(k[1:]))
		if at > a.stamp || n == expireBatch {
			return at, nil
		}
		n++
		r := append([]byte{keyRetained}, k[9:]...)
		old, err := readExpiry(a.db, r)
		if err != nil {
			return 0, err
		}
		a.del(k)
		if old != at {
			continue // replaced by one that expires at another time, or cleared
		}
		a.del(r)
		if a.expiries == nil {
			a.expiries = map[string]int64{}
		}
		a.expiries[string(r)] = 0
	}
	return 0, nil
}

// nextExpiry reads the earliest moment from the index.
func nextExpiry(db pebble.Reader) (int64, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyExpiry}, UpperBound: []byte{keyExpiry + 1}})
	if err != nil {
		return 0, err
	}
	var at int64
	if it.First() && len(it.Key()) >= 9 {
		at = int64(binary.BigEndian.Uint64(it.Key()[1:]))
	}
	return at, it.Close()
}
