package bench

import (
	"encoding/binary"
	"errors"
)

// headerSize is what the accounting takes of each payload: publisher, number,
// nanoseconds since the start of the run.
const headerSize = 16

const (
	packetConnack    = 2
	packetPublish    = 3
	packetPuback     = 4
	packetPubrec     = 5
	packetPubrel     = 6
	packetPubcomp    = 7
	packetSubscribe  = 8
	packetSuback     = 9
	packetPingreq    = 12
	packetPingresp   = 13
	packetDisconnect = 14
)

var errMalformed = errors.New("the broker sent a malformed packet")

func appendVarint(b []byte, v int) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendFrame(b []byte, first byte, body []byte) []byte {
	return append(appendVarint(append(b, first), len(body)), body...)
}

// connectPacket returns a CONNECT. A session of a persistent client ends an hour
// after its connection.
func connectPacket(c *Config, id string, clean, persistent bool) []byte {
	name, flags := "MQTT", byte(0)
	if c.Version == 3 {
		name = "MQIsdp"
	}
	if clean {
		flags |= 2
	}
	if c.Username != "" {
		flags |= 128
		if c.Password != "" {
			flags |= 64
		}
	}
	body := append(appendString(nil, name), c.Version, flags)
	body = binary.BigEndian.AppendUint16(body, keepAlive)
	if c.Version == 5 {
		if persistent {
			body = append(body, 5, 0x11)
			body = binary.BigEndian.AppendUint32(body, 3600)
		} else {
			body = append(body, 0)
		}
	}
	body = appendString(body, id)
	if c.Username != "" {
		body = appendString(body, c.Username)
		if c.Password != "" {
			body = appendString(body, c.Password)
		}
	}
	return appendFrame(nil, 0x10, body)
}

func subscribePacket(version byte, filters []string, qos byte) []byte {
	body := []byte{0, 1}
	if version == 5 {
		body = append(body, 0)
	}
	for _, f := range filters {
		body = append(appendString(body, f), qos)
	}
	return appendFrame(nil, packetSubscribe<<4|2, body)
}

// frames is a run of equal PUBLISH packets in one buffer; only id and payload
// header of each are patched before a write.
type frames struct {
	buf         []byte
	size        int // of one packet
	id, payload int // their offsets in a packet; id is 0 at QoS 0
	digits      int // where the number ends that makes each topic another one; 0: none
	topics      int // which that number is below; 0: no limit
}

// topicDigits is the place of a number in the topic of a publisher that has many.
const topicDigits = "00000000"

// maxTopics is how many topics of a publisher it can tell apart.
const maxTopics = 100_000_000

// maxBatchBytes bounds the buffer of one publisher.
const maxBatchBytes = 256 << 10

func newFrames(c *Config, topic string, publisher uint32) *frames {
	body := appendString(nil, topic)
	var idAt int
	if c.QoS > 0 {
		idAt = len(body)
		body = append(body, 0, 0)
	}
	if c.Version == 5 {
		body = append(body, 0)
	}
	payloadAt := len(body)
	body = append(body, make([]byte, c.Size)...)
	if c.Size > 0 {
		binary.BigEndian.PutUint32(body[payloadAt:], publisher)
	}
	first := byte(packetPublish<<4) | c.QoS<<1
	if c.Scenario == Retained {
		first |= 1
	}
	one := appendFrame(nil, first, body)
	head := len(one) - len(body)
	n := max(1, min(c.Batch, maxBatchBytes/len(one)))
	f := &frames{size: len(one), payload: head + payloadAt, buf: make([]byte, 0, n*len(one))}
	if idAt > 0 {
		f.id = head + idAt
	}
	if c.Scenario == Retained || c.Topics > 1 {
		f.digits = head + 2 + len(topic)
		f.topics = c.Topics
	}
	for range n {
		f.buf = append(f.buf, one...)
	}
	return f
}

// capacity is how many packets the buffer has.
func (f *frames) capacity() int { return len(f.buf) / f.size }

// set patches packet i.
func (f *frames) set(i int, id uint16, seq uint32, at int64) {
	b := f.buf[i*f.size : (i+1)*f.size]
	if f.id > 0 {
		binary.BigEndian.PutUint16(b[f.id:], id)
	}
	if f.payload < f.size {
		binary.BigEndian.PutUint32(b[f.payload+4:], seq)
		binary.BigEndian.PutUint64(b[f.payload+8:], uint64(at))
	}
	n := seq
	if f.topics > 0 {
		n %= uint32(f.topics)
	}
	for k := f.digits; k > 0 && k > f.digits-len(topicDigits); k, n = k-1, n/10 {
		b[k-1] = '0' + byte(n%10)
	}
}

// header is a payload's first bytes.
type header struct {
	publisher, seq uint32
	at             int64
}

func parseHeader(payload []byte) (header, bool) {
	if len(payload) < headerSize {
		return header{}, false
	}
	return header{
		publisher: binary.BigEndian.Uint32(payload),
		seq:       binary.BigEndian.Uint32(payload[4:]),
		at:        int64(binary.BigEndian.Uint64(payload[8:])),
	}, true
}

// split finds the packet at the start of b: its body lies at b[head:end]. end is
// 0 if more bytes are needed and -1 if the length is malformed.
func split(b []byte) (head, end int) {
	if len(b) < 2 {
		return 0, 0
	}
	if b[1] < 0x80 {
		end = 2 + int(b[1])
		if end > len(b) {
			return 0, 0
		}
		return 2, end
	}
	n, shift := int(b[1]&0x7f), 7
	for head = 2; head < 5; head++ {
		if head >= len(b) {
			return 0, 0
		}
		n |= int(b[head]&0x7f) << shift
		shift += 7
		if b[head] < 0x80 {
			if head++; head+n > len(b) {
				return 0, 0
			}
			return head, head + n
		}
	}
	return 0, -1
}

// publishParts returns packet id and payload of a PUBLISH body.
func publishParts(first byte, body []byte, v5 bool) (id uint16, payload []byte, ok bool) {
	if len(body) < 2 {
		return 0, nil, false
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if first&6 != 0 {
		if at+2 > len(body) {
			return 0, nil, false
		}
		id = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if v5 {
		n, shift := 0, 0
		for {
			if at >= len(body) || shift > 21 {
				return 0, nil, false
			}
			b := body[at]
			at++
			n |= int(b&0x7f) << shift
			if b < 0x80 {
				break
			}
			shift += 7
		}
		at += n
	}
	if at > len(body) {
		return 0, nil, false
	}
	return id, body[at:], true
}

// appendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func appendAck(b []byte, kind byte, id uint16) []byte {
	first := kind << 4
	if kind == packetPubrel {
		first |= 2
	}
	return append(b, first, 2, byte(id>>8), byte(id))
}
