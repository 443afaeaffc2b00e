package rawmqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The control packet types [MQTT-2.1.2].
const (
	CONNECT     byte = 1
	CONNACK     byte = 2
	PUBLISH     byte = 3
	PUBACK      byte = 4
	PUBREC      byte = 5
	PUBREL      byte = 6
	PUBCOMP     byte = 7
	SUBSCRIBE   byte = 8
	SUBACK      byte = 9
	UNSUBSCRIBE byte = 10
	UNSUBACK    byte = 11
	PINGREQ     byte = 12
	PINGRESP    byte = 13
	DISCONNECT  byte = 14
	AUTH        byte = 15
)

// TypeName returns the name of a control packet type as the standard writes it.
func TypeName(t byte) string {
	names := [...]string{"RESERVED", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
		"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("TYPE(%d)", t)
}

// ErrMalformed is wrapped by every error of a parser.
var ErrMalformed = errors.New("malformed packet")

// AppendVarint appends v as a variable byte integer of as few bytes as possible.
func AppendVarint(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// AppendUint16 appends v in network order.
func AppendUint16(dst []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(dst, v) }

// AppendString appends s with its two-byte length. It does not check that s is
// UTF-8; what is longer than 65,535 bytes gets a length that lies.
func AppendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// Frame returns a packet with the given first byte and body and the right
// remaining length.
func Frame(first byte, body []byte) []byte { return FrameLen(first, len(body), body) }

// FrameLen returns a packet whose remaining length says length, whatever the
// body has.
func FrameLen(first byte, length int, body []byte) []byte {
	dst := AppendVarint([]byte{first}, uint32(length))
	return append(dst, body...)
}

// SplitFrame returns the first whole frame of data, or nil if more bytes are
// needed.
func SplitFrame(data []byte) (frame []byte, err error) {
	length, n, err := varint(data, 1)
	if err != nil || n == 0 {
		return nil, err
	}
	if total := 1 + n + length; total <= len(data) {
		return data[:total], nil
	}
	return nil, nil
}

// varint reads a variable byte integer at data[at:]; n is 0 if it is cut short.
func varint(data []byte, at int) (v, n int, err error) {
	for shift := 0; at+n < len(data); shift += 7 {
		if n == 4 {
			return 0, 0, fmt.Errorf("variable byte integer of more than four bytes: %w", ErrMalformed)
		}
		b := data[at+n]
		n++
		v |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			return v, n, nil
		}
	}
	if n == 4 {
		return 0, 0, fmt.Errorf("variable byte integer of more than four bytes: %w", ErrMalformed)
	}
	return 0, 0, nil
}

// reader takes a body apart and remembers the first failure.
type reader struct {
	data []byte
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s is cut short: %w", what, ErrMalformed)
	}
	r.data = nil
}

func (r *reader) byte(what string) byte {
	if len(r.data) < 1 {
		r.fail(what)
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *reader) uint16(what string) uint16 {
	if len(r.data) < 2 {
		r.fail(what)
		return 0
	}
	v := binary.BigEndian.Uint16(r.data)
	r.data = r.data[2:]
	return v
}

func (r *reader) uint32(what string) uint32 {
	if len(r.data) < 4 {
		r.fail(what)
		return 0
	}
	v := binary.BigEndian.Uint32(r.data)
	r.data = r.data[4:]
	return v
}

func (r *reader) varint(what string) uint32 {
	v, n, err := varint(r.data, 0)
	if err != nil || n == 0 {
		r.fail(what)
		return 0
	}
	r.data = r.data[n:]
	return uint32(v)
}

func (r *reader) bytes(what string) []byte {
	n := int(r.uint16(what))
	if len(r.data) < n {
		r.fail(what)
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) string(what string) string { return string(r.bytes(what)) }
