package fsm

import (
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of logpb.Message.
const (
	fieldTopic      protowire.Number = 1
	fieldPayload    protowire.Number = 2
	fieldProperties protowire.Number = 3
	fieldQoS        protowire.Number = 4
	fieldRetain     protowire.Number = 5
	fieldPublisher  protowire.Number = 6
	fieldStamp      protowire.Number = 7
	fieldExpiresAt  protowire.Number = 8
	fieldFilters    protowire.Number = 9
)

// appendRecord appends the record of m, posted to filters: the bytes of
// logpb.Message, which is on the path of every message.
func appendRecord(dst []byte, m *session.Message, filters []*filter) []byte {
	dst = appendBytesField(dst, fieldTopic, m.Topic)
	dst = appendBytesField(dst, fieldPayload, m.Payload)
	dst = appendBytesField(dst, fieldProperties, m.Properties)
	dst = appendNumberField(dst, fieldQoS, uint64(m.QoS))
	if m.Retain {
		dst = appendNumberField(dst, fieldRetain, 1)
	}
	dst = appendBytesField(dst, fieldPublisher, m.Publisher)
	dst = appendNumberField(dst, fieldStamp, uint64(m.Stamp))
	dst = appendNumberField(dst, fieldExpiresAt, uint64(m.ExpiresAt))
	if len(filters) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, fieldFilters, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeFilters(filters)))
	for _, f := range filters {
		dst = protowire.AppendVarint(dst, f.id)
	}
	return dst
}

// sizeRecord is how many bytes appendRecord appends.
func sizeRecord(m *session.Message, filters []*filter) int {
	n := sizeBytesField(len(m.Topic)) + sizeBytesField(len(m.Payload)) + sizeBytesField(len(m.Properties)) +
		sizeNumberField(uint64(m.QoS)) + sizeBytesField(len(m.Publisher)) +
		sizeNumberField(uint64(m.Stamp)) + sizeNumberField(uint64(m.ExpiresAt))
	if m.Retain {
		n += sizeNumberField(1)
	}
	return n + sizeBytesField(sizeFilters(filters))
}

func sizeFilters(filters []*filter) (n int) {
	for _, f := range filters {
		n += protowire.SizeVarint(f.id)
	}
	return n
}

// A field that has its zero value is left out. All numbers of the fields are
// below 16: a tag is one byte.

func appendBytesField[T string | []byte](dst []byte, field protowire.Number, v T) []byte {
	if len(v) == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(v)))
	return append(dst, v...)
}

func appendNumberField(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func sizeBytesField(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func sizeNumberField(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}
