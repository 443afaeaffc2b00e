package fsm

import (
	"unicode/utf8"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The fields of logpb.Publish.
const (
	fieldPubClient     protowire.Number = 1
	fieldPubEpoch      protowire.Number = 2
	fieldPubTopic      protowire.Number = 3
	fieldPubPayload    protowire.Number = 4
	fieldPubQoS        protowire.Number = 5
	fieldPubRetain     protowire.Number = 6
	fieldPubPacketID   protowire.Number = 7
	fieldPubProperties protowire.Number = 8
	fieldPubExpiry     protowire.Number = 9
)

// ItemSize is how many bytes AppendItem appends for it.
func ItemSize(it *logpb.Item) int {
	if p, ok := it.Kind.(*logpb.Item_Publish); ok && p.Publish != nil {
		n := sizePublish(p.Publish)
		return 1 + protowire.SizeBytes(n)
	}
	return proto.Size(it)
}

// AppendItem appends the bytes of it as the protobuf library makes them. Publishes,
// of which a log is full, do without the library. A name that is not UTF-8 is an
// error: no node could read it back.
func AppendItem(dst []byte, it *logpb.Item) ([]byte, error) {
	k, ok := it.Kind.(*logpb.Item_Publish)
	if !ok || k.Publish == nil || !utf8.ValidString(k.Publish.Topic) || !utf8.ValidString(k.Publish.Client) {
		return proto.MarshalOptions{}.MarshalAppend(dst, it)
	}
	p := k.Publish
	dst = protowire.AppendTag(dst, fieldItemPublish, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizePublish(p)))
	dst = appendBytesField(dst, fieldPubClient, p.Client)
	dst = appendNumberField(dst, fieldPubEpoch, p.Epoch)
	dst = appendBytesField(dst, fieldPubTopic, p.Topic)
	dst = appendBytesField(dst, fieldPubPayload, p.Payload)
	dst = appendNumberField(dst, fieldPubQoS, uint64(p.Qos))
	if p.Retain {
		dst = appendNumberField(dst, fieldPubRetain, 1)
	}
	dst = appendNumberField(dst, fieldPubPacketID, uint64(p.PacketId))
	dst = appendBytesField(dst, fieldPubProperties, p.Properties)
	if p.Expiry != nil { // 0 is not the same as none
		dst = protowire.AppendTag(dst, fieldPubExpiry, protowire.VarintType)
		dst = protowire.AppendVarint(dst, uint64(*p.Expiry))
	}
	return dst, nil
}

func sizePublish(p *logpb.Publish) int {
	n := sizeBytesField(len(p.Client)) + sizeNumberField(p.Epoch) + sizeBytesField(len(p.Topic)) + sizeBytesField(len(p.Payload)) +
		sizeNumberField(uint64(p.Qos)) + sizeNumberField(uint64(p.PacketId)) + sizeBytesField(len(p.Properties))
	if p.Retain {
		n += sizeNumberField(1)
	}
	if p.Expiry != nil {
		n += 1 + protowire.SizeVarint(uint64(*p.Expiry))
	}
	return n
}
