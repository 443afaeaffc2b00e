package codec

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// maxVarint is the largest variable byte integer [MQTT-1.5.5].
const maxVarint = 268_435_455

func malformed(text string) error     { return &Error{ReasonMalformed, text} }
func protocolError(text string) error { return &Error{ReasonProtocolError, text} }

// reader takes a packet apart. The first failure sticks: what is read after it
// is zero, so that a parser may read on and ask once.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.fail(malformed("packet ends before a byte that it must have"))
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint16() uint16 {
	if len(r.b) < 2 {
		r.fail(malformed("packet ends within a two byte integer"))
		return 0
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return v
}

func (r *reader) uint32() uint32 {
	if len(r.b) < 4 {
		r.fail(malformed("packet ends within a four byte integer"))
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

// varint reads a variable byte integer, which must be as short as it can be
// [MQTT-1.5.5-1].
func (r *reader) varint() uint32 {
	v, n := varint(r.b)
	switch {
	case n > 0:
		r.b = r.b[n:]
	case n == 0:
		r.fail(malformed("packet ends within a variable byte integer"))
	default:
		r.fail(malformed("variable byte integer is too long"))
	}
	return v
}

// take reads the next n bytes.
func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail(malformed("a length goes beyond the end of the packet"))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// bytes reads binary data.
func (r *reader) bytes() []byte { return r.take(int(r.uint16())) }

// text reads an UTF-8 string [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func (r *reader) text() []byte {
	v := r.take(int(r.uint16()))
	if !validText(v) {
		r.fail(malformed("string is not UTF-8 or has U+0000 in it"))
		return nil
	}
	return v
}

// packetID reads a packet identifier, which is never 0 [MQTT-2.2.1-3].
func (r *reader) packetID() uint16 {
	v := r.uint16()
	if v == 0 {
		r.fail(malformed("packet identifier is 0"))
	}
	return v
}

// end fails if anything is left.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = malformed("packet goes on after its last field")
	}
	return r.err
}

// validText tells whether v may be an UTF-8 string of MQTT. utf8.Valid refuses
// surrogates and overlong forms.
func validText(v []byte) bool {
	return utf8.Valid(v) && bytes.IndexByte(v, 0) < 0
}

// hasWildcard tells whether v, taken as a topic name, has a wildcard in it.
func hasWildcard(v []byte) bool {
	return bytes.IndexByte(v, '+') >= 0 || bytes.IndexByte(v, '#') >= 0
}

// checkTopic is validText and hasWildcard in one pass over what most topic names
// are: short and ASCII.
func checkTopic(v []byte) (valid, wildcard bool) {
	for i, c := range v {
		switch {
		case c >= utf8.RuneSelf || c == 0:
			return validText(v[i:]), wildcard || hasWildcard(v[i:])
		case c == '+' || c == '#':
			wildcard = true
		}
	}
	return true, wildcard
}

// varint decodes the variable byte integer at the start of b. n is its length,
// 0 if b ends within it, -1 if it is too long or longer than it must be.
func varint(b []byte) (v uint32, n int) {
	for i := range min(len(b), 4) {
		c := b[i]
		v |= uint32(c&0x7F) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, -1
			}
			return v, i + 1
		}
	}
	if len(b) >= 4 {
		return 0, -1
	}
	return 0, 0
}

func appendVarint(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// varintSize returns how many bytes appendVarint appends.
func varintSize(v uint32) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}

// body returns what follows the fixed header of frame, and checks that frame is
// one whole packet, so that a parser may be given any bytes.
func body(frame []byte) ([]byte, error) {
	if len(frame) < 2 {
		return nil, malformed("packet ends within its fixed header")
	}
	v, n := varint(frame[1:])
	if n <= 0 || len(frame)-1-n != int(v) {
		return nil, malformed("remaining length is not that of the packet")
	}
	return frame[1+n:], nil
}
