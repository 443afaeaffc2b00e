package forward

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mqcluster/mqcluster/session"
)

// outbox holds the frames that wait for a peer's stream. It is bounded; when it
// is full the newest messages are dropped, so that those in it keep their order
// and their age is bounded by what the stream can carry.
type outbox struct {
	maxBytes, maxMessages int
	maxRecord             int // bytes of a message that the peer takes
	metrics               *metrics
	peer                  string
	tracer                *atomic.Pointer[Traced] // nil: nobody ever traces

	mu       sync.Mutex
	up       bool // there is a stream
	open     bool // there is one, or it is expected soon
	buf      []byte
	messages int
	since    time.Time // when the first of buf came
	spare    []byte    // the buffer that is not being filled
}

// frameRoom is what a frame of messages has besides them, at most.
const frameRoom = 32

// keepBuffer is the size up to which a buffer is used again; an idle stream
// keeps idleBuffer.
const (
	keepBuffer = 4 << 20
	idleBuffer = 64 << 10
)

// batch is the messages of one Forward, each encoded once.
type batch struct {
	buf     []byte
	records []record
	wanted  uint64 // slots that want any
}

type record struct {
	start, end int
	mask       uint64
}

func (b *batch) reset() {
	if cap(b.buf) > keepBuffer {
		b.buf = nil
	}
	b.buf, b.records, b.wanted = b.buf[:0], b.records[:0], 0
}

func (b *batch) add(m *session.Message, mask uint64) {
	start := len(b.buf)
	b.buf = appendMessage(b.buf, m)
	b.records = append(b.records, record{start, len(b.buf), mask})
	b.wanted |= mask
}

// place is where messages stand in the log.
type place struct {
	index uint64 // what the receiver must have applied before it delivers them
	asOf  uint64 // what the sender had applied
	later bool   // peers can read asOf
}

func (p place) append(dst []byte) []byte {
	if !p.later {
		return binary.AppendUvarint(appendHeader(dst, kindMessages), p.index)
	}
	dst = binary.AppendUvarint(appendHeader(dst, kindLater), p.index)
	return binary.AppendUvarint(dst, p.asOf)
}

// put appends the records for the slots in bit, as frames of messages of that
// place. It tells whether the outbox was empty before.
func (o *outbox) put(b *batch, bit uint64, at place) (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first = len(o.buf) == 0
	var closed, full, sent int
	frame := -1 // start of the frame under way
	for _, r := range b.records {
		switch {
		case r.mask&bit == 0:
			continue
		case !o.open:
			closed++
			o.lose(whyDown, b.buf[r.start:r.end])
			continue
		case o.messages >= o.maxMessages || len(o.buf)+r.end-r.start > o.maxBytes || r.end-r.start > o.maxRecord:
			full++
			o.lose(whyFull, b.buf[r.start:r.end])
			continue
		}
		if frame >= 0 && len(o.buf)-frame+r.end-r.start > frameTarget {
			endFrame(o.buf, frame)
			frame = -1
		}
		if frame < 0 {
			frame = len(o.buf)
			o.buf = at.append(o.buf)
		}
		o.buf = append(o.buf, b.buf[r.start:r.end]...)
		o.messages++
		sent++
	}
	if frame >= 0 {
		endFrame(o.buf, frame)
	}
	o.metrics.queued(sent, full, closed)
	if first && sent > 0 {
		o.since = time.Now()
	}
	return first && sent > 0
}

// take returns all that waits, and since when; it is the caller's until the next take.
func (o *outbox) take() ([]byte, time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cap(o.spare) > keepBuffer || len(o.buf) == 0 && cap(o.spare) > idleBuffer {
		o.spare = nil
	}
	full := o.buf
	o.buf, o.spare, o.messages = o.spare[:0], full, 0
	return full, o.since
}

// connected, lost and shut follow the stream. What waits in an outbox that was
// lost is dropped by expire, unless the stream is up again.
func (o *outbox) connected() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up, o.open = true, true
}

func (o *outbox) lost() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.up = false
}

func (o *outbox) expire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.up {
		o.drop()
	}
}

func (o *outbox) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
}

func (o *outbox) drop() {
	o.metrics.queued(0, 0, o.messages)
	o.loseFrames(whyDown, o.buf)
	o.buf, o.spare, o.messages = nil, nil, 0
	o.up, o.open = false, false
}
