package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// comparing goes over what all nodes have in common.
type comparing struct {
	snap  *pebble.Snapshot
	queue map[uint64]waited
	step  func() error
	yield func(k, v []byte) error

	faults []string
	// Of the postings: the filter at hand and its last tally.
	filter         uint64
	numbers, bytes uint64
	it             *pebble.Iterator // postings, for messages of shared subscriptions
}

// waited is a filter whose postings after a position somebody is owed.
type waited struct {
	after  session.Pos
	shared bool
}

// compared calls yield for every record that all nodes have at this log index, in
// the order of the keys; of a posting only its key: its tally is each node's own, and
// so is what is dead and not collected yet.
func (c *Copy) compared(step func() error, yield func(k, v []byte) error) (faults []string, err error) {
	x := comparing{snap: c.snap, queue: map[uint64]waited{}, step: step, yield: yield}
	if err := x.waiting(); err != nil {
		return nil, fmt.Errorf("read the subscriptions: %w", err)
	}
	it, err := c.snap.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	defer func() {
		err = errors.Join(err, it.Close())
		if x.it != nil {
			err = errors.Join(err, x.it.Close())
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		if err := x.step(); err != nil {
			return nil, err
		}
		if err := x.record(it.Key(), it.Value()); err != nil {
			return nil, err
		}
	}
	return x.faults, it.Error()
}

func (x *comparing) record(k, v []byte) error {
	switch k[0] {
	case keyPosting:
		live, err := x.posting(k, v)
		if err != nil || !live {
			return err
		}
		v = nil
	case keyMessage:
		live, err := x.message(k, v)
		if err != nil || !live {
			return err
		}
	}
	return x.yield(k, v)
}

// waiting finds from which position on the postings of each filter are owed: what
// every cursor has passed, and what was there before every subscription, is not.
func (x *comparing) waiting() error {
	var client string
	var cursor uint64
	return each(x.snap, keySubscription, func(k, v []byte) error {
		if err := x.step(); err != nil {
			return err
		}
		rec := new(logpb.SessionSubscription)
		if err := proto.Unmarshal(v, rec); err != nil {
			return err
		}
		if rec.Subscription.GetQos() == 0 && !rec.Waits {
			return nil
		}
		of, filter, _ := cutClient(string(k))
		if of != client {
			client, cursor = of, 0
			if err := readUint64(x.snap, string(appendString(keyCursor, client)), &cursor); err != nil {
				return err
			}
		}
		w := waited{after: session.Pos(max(cursor, rec.Since)), shared: strings.HasPrefix(filter, "$share/")}
		if old, ok := x.queue[rec.FilterId]; ok {
			w.after = min(w.after, old.after)
		}
		x.queue[rec.FilterId] = w
		return nil
	})
}

// posting tells whether a posting is owed to anybody. The tallies of a filter, which
// are this node's own, must grow, by the size of a message that nobody else is owed;
// what is wrong with the first of them, nobody can tell.
func (x *comparing) posting(k, v []byte) (live bool, err error) {
	id, p, err := parsePosting(k)
	if err != nil {
		return false, err
	}
	w, ok := x.queue[id]
	if !ok || p <= w.after {
		return false, nil
	}
	numbers, bytes, err := parseTally(v)
	alone := aloneIn(v)
	same := x.filter == id
	switch {
	case err != nil:
		x.fault(k, err.Error())
	case same && (numbers <= x.numbers || bytes <= x.bytes):
		x.fault(k, "its count is not above that of the one before it")
	case same && numbers == x.numbers+1 && alone != 0 && bytes != x.bytes+alone:
		x.fault(k, "its sum of bytes is not that of the one before it and its own")
	}
	x.filter, x.numbers, x.bytes = id, numbers, bytes
	return true, nil
}

func (x *comparing) fault(k []byte, what string) {
	if len(x.faults) < maxFaults {
		kind, name := DescribeKey(k)
		x.faults = append(x.faults, fmt.Sprintf("%s %s: %s", kind, name, what))
	}
}

// message tells whether a stored message is owed to anybody. Of a shared
// subscription its posting must be looked up: it may have gone to another member.
func (x *comparing) message(k, v []byte) (live bool, err error) {
	if len(k) != 9 {
		return false, fmt.Errorf("a message's key of %d bytes", len(k))
	}
	p := session.Pos(binary.BigEndian.Uint64(k[1:]))
	err = eachFilter(v, func(id uint64) error {
		w, ok := x.queue[id]
		if live || !ok || p <= w.after {
			return nil
		}
		if !w.shared {
			live = true
			return nil
		}
		if x.it == nil {
			x.it, err = x.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosting}, UpperBound: []byte{keyPosting + 1}})
			if err != nil {
				return err
			}
		}
		at := postingKey(id, p)
		live = x.it.SeekGE(at) && bytes.Equal(x.it.Key(), at)
		return x.it.Error()
	})
	if err != nil {
		// What cannot be read is no message that another node has: it is compared.
		x.fault(k, "it cannot be read: "+err.Error())
		return true, nil
	}
	return live, nil
}

// eachFilter calls f with the ids in a message's record.
func eachFilter(v []byte, f func(uint64) error) error {
	for len(v) > 0 {
		field, kind, n := protowire.ConsumeTag(v)
		if n < 0 {
			return protowire.ParseError(n)
		}
		v = v[n:]
		n = protowire.ConsumeFieldValue(field, kind, v)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if field == fieldFilters {
			if err := eachID(kind, v[:n], f); err != nil {
				return err
			}
		}
		v = v[n:]
	}
	return nil
}

func eachID(kind protowire.Type, v []byte, f func(uint64) error) error {
	if kind == protowire.BytesType {
		v, _ = protowire.ConsumeBytes(v) // was consumed before
	}
	for len(v) > 0 {
		id, n := protowire.ConsumeVarint(v)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(id); err != nil {
			return err
		}
		v = v[n:]
	}
	return nil
}
