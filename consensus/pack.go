package consensus

import (
	"errors"
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// A pack travels as the wire form of logpb.Pack. It is marshalled once: items as
// they are submitted, the head when the pack gets its number; the leader puts
// the entry around it without looking at the items.
const (
	maxPackItems = 64
	maxPackBytes = 64 << 10
	// maxFrame bounds what a peer may announce: a single large message.
	maxFrame = 32 << 20
	// entryHead is the room that the entry around a pack needs at most: two tags,
	// a stamp, a length.
	entryHead = 1 + 10 + 1 + 5
)

// Field numbers of logpb.Entry and logpb.Pack; a test compares them with the
// generated code.
const (
	fieldStamp       = 1
	fieldPack        = 2
	fieldNode        = 1
	fieldIncarnation = 2
	fieldNumber      = 3
	fieldItem        = 4
)

// pack is what was gathered, first without a number in the queue, then with one
// in the window until its last item was applied here.
type pack struct {
	number   uint64
	items    []byte // while gathering
	frame    []byte // once numbered: entryHead bytes, the last of them the length, and the pack
	kept     bool   // raft has frame: it is not written to any more
	dones    []func(fsm.Result)
	reported int // items whose done has run
	born     time.Time
	// queuedBytes is its share of what the queue counts.
	queuedBytes int
	sent        bool
}

func (p *pack) add(item *logpb.Item, done func(fsm.Result)) error {
	before := len(p.items)
	b := protowire.AppendTag(p.items, fieldItem, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(fsm.ItemSize(item)))
	b, err := fsm.AppendItem(b, item)
	if err != nil {
		p.items = p.items[:before]
		return fmt.Errorf("marshal a command: %w", err)
	}
	p.items = b
	p.dones = append(p.dones, done)
	return nil
}

// full tells whether no item is to be added any more.
func (p *pack) full() bool { return len(p.dones) >= maxPackItems || len(p.items) >= maxPackBytes }

// fits tells whether an item of n bytes may join what is there.
func (p *pack) fits(n int) bool {
	return !p.full() && (len(p.dones) == 0 || len(p.items)+n <= maxPackBytes)
}

// seal gives the pack its place. The items move into the frame; what they were
// gathered in is returned, for others.
func (p *pack) seal(node string, incarnation, number uint64) (spare []byte) {
	head := make([]byte, 0, 64)
	head = protowire.AppendTag(head, fieldNode, protowire.BytesType)
	head = protowire.AppendString(head, node)
	head = protowire.AppendTag(head, fieldIncarnation, protowire.VarintType)
	head = protowire.AppendVarint(head, incarnation)
	head = protowire.AppendTag(head, fieldNumber, protowire.VarintType)
	head = protowire.AppendVarint(head, number)
	p.number = number
	n := len(head) + len(p.items)
	p.frame = make([]byte, entryHead-4, entryHead+n)
	p.frame = append(append(appendLength(p.frame, n), head...), p.items...)
	spare, p.items = p.items[:0], nil
	return spare
}

func (p *pack) body() []byte { return p.frame[entryHead:] }

// wire is the pack behind its length, as a peer reads it.
func (p *pack) wire() []byte {
	if !p.kept {
		return p.frame[entryHead-4:]
	}
	b := appendLength(make([]byte, 0, 4+len(p.body())), len(p.body()))
	return append(b, p.body()...)
}

// give returns the pack behind room for the head of an entry, for raft to keep.
func (p *pack) give() []byte {
	if p.kept { // with a head
		return append(make([]byte, entryHead, len(p.frame)), p.body()...)
	}
	p.kept = true
	return p.frame
}

func appendLength(b []byte, n int) []byte {
	return append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// wrap puts an entry around the pack in buf[entryHead:] and returns it, a part
// of buf.
func wrap(buf []byte, stamp int64) []byte {
	var head [entryHead]byte
	h := protowire.AppendTag(head[:0], fieldStamp, protowire.VarintType)
	h = protowire.AppendVarint(h, uint64(stamp))
	h = protowire.AppendTag(h, fieldPack, protowire.BytesType)
	h = protowire.AppendVarint(h, uint64(len(buf)-entryHead))
	start := entryHead - len(h)
	copy(buf[start:], h)
	return buf[start:]
}

var errPackForm = errors.New("a pack is malformed")

// peek reads who made a pack and which one it is, and checks that it is made of
// fields that a pack has. Of a field that is there twice the last one counts, as
// it does for apply. The items are not looked into.
func peek(b []byte) (node string, incarnation, number uint64, err error) {
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", 0, 0, errPackForm
		}
		b = b[n:]
		switch {
		case typ == protowire.BytesType && (field == fieldNode || field == fieldItem):
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 && field == fieldNode {
				node = string(v)
			}
		case typ == protowire.VarintType && field == fieldIncarnation:
			incarnation, n = protowire.ConsumeVarint(b)
		case typ == protowire.VarintType && field == fieldNumber:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = -1
		}
		if n < 0 {
			return "", 0, 0, errPackForm
		}
		b = b[n:]
	}
	if node == "" || incarnation == 0 || number == 0 {
		return "", 0, 0, errPackForm
	}
	return node, incarnation, number, nil
}
