package forward

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/mqcluster/mqcluster/session"
)

// A stream is a sequence of frames: length of what follows (4 bytes, big
// endian), kind (1 byte), body. Strings are length (uvarint) and bytes. The
// version of the format is in the ALPN name of the protocol.
const (
	headerSize = 5
	// frameTarget is the size at which a frame of messages or routes is ended.
	frameTarget = 48 << 10
	// readBuffer holds a frame of usual size whole, so that it is decoded in
	// place.
	readBuffer = 64 << 10
	// maxName bounds topics, filters and client ids [MQTT-1.5.4].
	maxName = 65535
)

// kind of a frame.
type kind byte

// From the node whose routes and messages these are.
const (
	kindHello     kind = 1 // incarnation, version of the route log
	kindSnapBegin kind = 2 // incarnation, version, count of filters
	kindSnapChunk kind = 3 // filters
	kindSnapEnd   kind = 4 // hash of all filters
	kindDelta     kind = 5 // version before, then per change: op, filter
	kindMessages  kind = 6 // log index, then messages
	kindKeepalive kind = 7
	kindLater     kind = 8 // log index, index that the sender had applied, then messages
)

// From the node that takes them.
const (
	kindWelcome kind = 16 // incarnation and version that it has
	kindAck     kind = 17 // version that it has applied
	kindResync  kind = 18 // send a snapshot
	kindAlive   kind = 19 // an answer while there is nothing to acknowledge
)

var errMalformed = errors.New("the peer sent a malformed frame")

// appendHeader starts a frame; endFrame sets its length.
func appendHeader(dst []byte, k kind) []byte {
	return append(dst, 0, 0, 0, 0, byte(k))
}

func endFrame(buf []byte, start int) {
	binary.BigEndian.PutUint32(buf[start:], uint32(len(buf)-start-4))
}

// appendNumbers is a whole frame of fixed numbers.
func appendNumbers(dst []byte, k kind, numbers ...uint64) []byte {
	start := len(dst)
	dst = appendHeader(dst, k)
	for _, n := range numbers {
		dst = binary.BigEndian.AppendUint64(dst, n)
	}
	endFrame(dst, start)
	return dst
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// The flags of a message.
const (
	flagRetain     = 1 << 0
	flagQoS        = 3 << 1
	flagTargeted   = 1 << 3
	flagExpires    = 1 << 4
	flagProperties = 1 << 5
	flagsKnown     = flagRetain | flagQoS | flagTargeted | flagExpires | flagProperties
)

// The options of a targeted message's subscription.
const (
	optQoS           = 3
	optNoLocal       = 1 << 2
	optAsPublished   = 1 << 3
	optHandling      = 3 << 4
	optKnown         = optQoS | optNoLocal | optAsPublished | optHandling
	optHandlingShift = 4
)

// appendMessage encodes m for all that match it.
func appendMessage(dst []byte, m *session.Message) []byte {
	return appendBody(append(dst, messageFlags(m)), m)
}

// appendTargeted encodes m for one client.
func appendTargeted(dst []byte, m *session.Message, client string, sub session.Subscription) []byte {
	dst = appendBody(append(dst, messageFlags(m)|flagTargeted), m)
	dst = appendString(dst, client)
	dst = appendString(dst, sub.Filter)
	opts := sub.QoS&optQoS | sub.RetainHandling<<optHandlingShift&optHandling
	if sub.NoLocal {
		opts |= optNoLocal
	}
	if sub.RetainAsPublished {
		opts |= optAsPublished
	}
	return binary.AppendUvarint(append(dst, opts), uint64(sub.ID))
}

func messageFlags(m *session.Message) byte {
	flags := m.QoS << 1 & flagQoS
	if m.Retain {
		flags |= flagRetain
	}
	if m.ExpiresAt != 0 {
		flags |= flagExpires
	}
	if len(m.Properties) > 0 {
		flags |= flagProperties
	}
	return flags
}

func appendBody(dst []byte, m *session.Message) []byte {
	dst = appendString(dst, m.Topic)
	dst = appendString(dst, m.Publisher)
	dst = binary.AppendVarint(dst, m.Stamp)
	if m.ExpiresAt != 0 {
		dst = binary.AppendVarint(dst, m.ExpiresAt)
	}
	if len(m.Properties) > 0 {
		dst = appendBytes(dst, m.Properties)
	}
	return appendBytes(dst, m.Payload)
}

// cursor reads a body. After the first error it yields zero values.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) more() bool { return !c.bad && len(c.b) > 0 }

// end returns an error unless all was read and well formed.
func (c *cursor) end() error {
	if c.bad || len(c.b) > 0 {
		return errMalformed
	}
	return nil
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) number() uint64 {
	if len(c.b) < 8 {
		c.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(c.b)
	c.b = c.b[8:]
	return v
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

// bytes returns a slice of the frame.
func (c *cursor) bytes(limit int) []byte {
	n := c.uvarint()
	if n > uint64(len(c.b)) || n > uint64(limit) {
		c.fail()
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) fail() {
	c.b, c.bad = nil, true
}

// numbers decodes a frame of fixed numbers.
func numbers(body []byte, out ...*uint64) error {
	c := cursor{b: body}
	for _, p := range out {
		*p = c.number()
	}
	return c.end()
}

// frames reads frames from a stream.
type frames struct {
	r   *bufio.Reader
	max int
	big []byte // of frames that do not fit the reader's buffer
	due int    // bytes of the last frame that are still in the reader's buffer
}

func newFrames(r io.Reader, limit int) *frames {
	return &frames{r: bufio.NewReaderSize(r, readBuffer), max: limit}
}

// next returns the next frame; the body is valid until the next call.
func (f *frames) next() (kind, []byte, error) {
	if err := f.skip(); err != nil {
		return 0, nil, err
	}
	head, err := f.r.Peek(headerSize)
	if err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(head)) - 1
	k := kind(head[4])
	if n < 0 || n > f.max {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes, at most %d are taken", errMalformed, n, f.max)
	}
	if n+headerSize <= f.r.Size() {
		whole, err := f.r.Peek(n + headerSize)
		if err != nil {
			return 0, nil, noEOF(err)
		}
		f.due = len(whole)
		return k, whole[headerSize:], nil
	}
	if _, err := f.r.Discard(headerSize); err != nil {
		return 0, nil, noEOF(err)
	}
	if err := f.readBig(n); err != nil {
		return 0, nil, noEOF(err)
	}
	return k, f.big, nil
}

// readBig grows the buffer with what arrives, not with what was announced.
func (f *frames) readBig(n int) error {
	const step = 256 << 10
	f.big = f.big[:0]
	for len(f.big) < n {
		have := len(f.big)
		want := min(n, have+step)
		if cap(f.big) < want {
			grown := make([]byte, have, max(want, min(n, 2*have)))
			copy(grown, f.big)
			f.big = grown
		}
		f.big = f.big[:want]
		if _, err := io.ReadFull(f.r, f.big[have:]); err != nil {
			return err
		}
	}
	return nil
}

func (f *frames) skip() error {
	if f.due > 0 {
		if _, err := f.r.Discard(f.due); err != nil {
			return err
		}
		f.due = 0
	}
	if cap(f.big) > 1<<20 {
		f.big = nil
	}
	return nil
}

// ready tells whether the next frame is a whole one of messages that needs no
// reading, so that it can join the batch.
func (f *frames) ready() bool {
	have := f.r.Buffered() - f.due
	if have < headerSize {
		return false
	}
	all, err := f.r.Peek(f.due + headerSize)
	if err != nil {
		return false
	}
	head := all[f.due:]
	return (kind(head[4]) == kindMessages || kind(head[4]) == kindLater) && have-4 >= int(binary.BigEndian.Uint32(head))
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
