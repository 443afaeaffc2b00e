package fsm

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// A posting's value is its tally: the running number of the filter's postings
// and the running sum of their messages' sizes, itself included, so that how much
// lies behind a position is the difference of two of them. They are each node's
// own: one that started when a filter had no postings left begins at nothing.
// Behind it is the size of the message if no other filter was owed it when it was
// posted: then it goes with this posting, and need not be read to know that.

func appendTally(dst []byte, number, bytes, alone uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(dst, number), bytes), alone)
}

// aloneIn is the size of the message of a posting's value, 0 if it has to be
// looked up who else is owed it.
func aloneIn(v []byte) (size uint64) {
	for range 3 {
		var n int
		if size, n = binary.Uvarint(v); n <= 0 {
			return 0
		}
		v = v[n:]
	}
	return size
}

func parseTally(v []byte) (number, bytes uint64, err error) {
	number, n := binary.Uvarint(v)
	if n <= 0 {
		return 0, 0, errors.New("a posting's tally is cut short")
	}
	bytes, m := binary.Uvarint(v[n:])
	if m <= 0 {
		return 0, 0, errors.New("a posting's tally is cut short")
	}
	return number, bytes, nil
}

// recordSize is session.Message.Size of a record.
func recordSize(m *logpb.Message) uint64 {
	return uint64(len(m.Topic) + len(m.Payload) + len(m.Properties) + 64)
}

// outline is what limits need to know of a stored message.
type outline struct {
	size             uint64
	stamp, expiresAt int64
}

// outlineOf reads a message's record without making anything of it: a scan reads
// millions.
func outlineOf(v []byte) (outline, error) {
	o := outline{size: 64}
	for len(v) > 0 {
		field, kind, n := protowire.ConsumeTag(v)
		if n < 0 {
			return o, protowire.ParseError(n)
		}
		v = v[n:]
		n = protowire.ConsumeFieldValue(field, kind, v)
		if n < 0 {
			return o, protowire.ParseError(n)
		}
		switch field {
		case fieldTopic, fieldPayload, fieldProperties:
			b, _ := protowire.ConsumeBytes(v)
			o.size += uint64(len(b))
		case fieldStamp:
			x, _ := protowire.ConsumeVarint(v)
			o.stamp = int64(x)
		case fieldExpiresAt:
			x, _ := protowire.ConsumeVarint(v)
			o.expiresAt = int64(x)
		}
		v = v[n:]
	}
	return o, nil
}

// stored counts the messages that wait in the store of this node, each once. What
// was there at the start is counted by the collector, in the background; until
// then the figures are not known.
type stored struct {
	messages, bytes atomic.Int64
	known           atomic.Bool
	// posted and postedBytes count postings since the start and never fall.
	posted, postedBytes atomic.Uint64
}

func (c *stored) post(size uint64, filters int) {
	c.messages.Add(1)
	c.bytes.Add(int64(size))
	c.posted.Add(uint64(filters))
	c.postedBytes.Add(size * uint64(filters))
}

func (c *stored) drop(size uint64) {
	c.messages.Add(-1)
	c.bytes.Add(-int64(size))
}

// Stored tells how many messages, and bytes of them, wait in the store of this
// node, each once however many sessions are owed it; ok is false while what was
// there at the start is still being counted. It does not block.
func (s *Store) Stored() (messages, bytes int64, ok bool) {
	c := s.table.Load().stored
	return c.messages.Load(), c.bytes.Load(), c.known.Load()
}
