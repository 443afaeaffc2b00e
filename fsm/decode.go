package fsm

import (
	"bytes"
	"unicode/utf8"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// decoder reads entries of the log as the protobuf library does. Packs and what
// they are full of, publishes, it reads by itself, into memory that it uses again
// for the next entry; their payloads are copies, and the names that come again and
// again are made once. All else, and whatever is not as this version writes it,
// it leaves to the library.
type decoder struct {
	entry     logpb.Entry
	inEntry   logpb.Entry_Pack
	pack      logpb.Pack
	items     []*decodedItem
	list      []*logpb.Item
	names     map[string]string
	nameBytes int
	topics    *routing.Topics[matching] // of the state
}

// decodedItem is an item with room for a publish in it.
type decodedItem struct {
	item    logpb.Item
	kind    logpb.Item_Publish
	publish logpb.Publish
	expiry  uint32
	topic   *routing.Topic[matching] // of publish
}

// Bounds of what a decoder keeps.
const (
	keptItems     = 256
	keptNameBytes = 1 << 20
)

// The fields of Entry, Pack and Item that are read here.
const (
	fieldEntryStamp      protowire.Number = 1
	fieldEntryPack       protowire.Number = 2
	fieldPackNode        protowire.Number = 1
	fieldPackIncarnation protowire.Number = 2
	fieldPackNumber      protowire.Number = 3
	fieldPackItems       protowire.Number = 4
	fieldItemPublish     protowire.Number = 1
)

// decode returns the entry in data. It, its pack and its publishes are valid until
// the next call; strings, byte slices and all other commands remain. Topics are
// those that are known, where they are.
func (d *decoder) decode(data []byte, topics *routing.Topics[matching]) (*logpb.Entry, error) {
	d.topics = topics
	if d.readEntry(data) {
		return &d.entry, nil
	}
	e := new(logpb.Entry)
	return e, proto.Unmarshal(data, e)
}

// fields calls f for each field of a message until it returns false; ok is false
// then, and where the message ends early. A field is a number or has bytes.
func fields(data []byte, f func(field protowire.Number, x uint64, v []byte) bool) (ok bool) {
	for len(data) > 0 {
		tag, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		var x uint64
		var v []byte
		switch protowire.Type(tag & 7) {
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(data)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(data)
			if v == nil {
				v = []byte{}
			}
		default:
			return false
		}
		if n < 0 || tag>>3 > uint64(protowire.MaxValidNumber) || !f(protowire.Number(tag>>3), x, v) {
			return false
		}
		data = data[n:]
	}
	return true
}

func (d *decoder) readEntry(data []byte) bool {
	d.entry = logpb.Entry{}
	return fields(data, func(field protowire.Number, x uint64, v []byte) bool {
		switch {
		case field == fieldEntryStamp && v == nil:
			d.entry.Stamp = int64(x)
		case field == fieldEntryPack && v != nil && d.entry.Command == nil:
			d.inEntry.Pack = &d.pack
			d.entry.Command = &d.inEntry
			return d.readPack(v)
		default:
			return false
		}
		return true
	})
}

func (d *decoder) readPack(data []byte) bool {
	d.pack = logpb.Pack{}
	if len(d.list) > keptItems {
		d.items, d.list = nil, nil
	}
	clear(d.list)
	d.list = d.list[:0]
	ok := fields(data, func(field protowire.Number, x uint64, v []byte) (ok bool) {
		switch {
		case field == fieldPackNode && v != nil:
			d.pack.Node, ok = d.name(v)
			return ok
		case field == fieldPackIncarnation && v == nil:
			d.pack.Incarnation = x
		case field == fieldPackNumber && v == nil:
			d.pack.Number = x
		case field == fieldPackItems && v != nil:
			return d.readItem(v)
		default:
			return false
		}
		return true
	})
	if len(d.list) > 0 {
		d.pack.Items = d.list
	}
	return ok
}

func (d *decoder) readItem(data []byte) bool {
	n := len(d.list)
	if n == len(d.items) {
		d.items = append(d.items, new(decodedItem))
	}
	it := d.items[n]
	it.item.Kind, it.topic = nil, nil
	if len(data) > 0 && data[0] == byte(fieldItemPublish)<<3|byte(protowire.BytesType) {
		if v, n := protowire.ConsumeBytes(data[1:]); n == len(data)-1 && d.readPublish(it, v) {
			it.kind.Publish = &it.publish
			it.item.Kind = &it.kind
			d.list = append(d.list, &it.item)
			return true
		}
	}
	other := new(logpb.Item)
	d.list = append(d.list, other)
	return proto.Unmarshal(data, other) == nil
}

func (d *decoder) readPublish(it *decodedItem, data []byte) bool {
	p := &it.publish
	*p = logpb.Publish{}
	return fields(data, func(field protowire.Number, x uint64, v []byte) (ok bool) {
		ok = true
		if v != nil {
			switch field {
			case fieldPubClient:
				p.Client, ok = d.name(v)
			case fieldPubTopic:
				it.topic = d.topics.GetBytes(v)
				p.Topic, ok = it.topic.Name, it.topic.Value.valid || utf8.Valid(v)
				it.topic.Value.valid = ok
			case fieldPubPayload:
				p.Payload = bytes.Clone(v)
			case fieldPubProperties:
				p.Properties = bytes.Clone(v)
			default:
				ok = false
			}
			return ok
		}
		switch field {
		case fieldPubEpoch:
			p.Epoch = x
		case fieldPubQoS:
			p.Qos = uint32(x)
		case fieldPubRetain:
			p.Retain = x != 0
		case fieldPubPacketID:
			p.PacketId = uint32(x)
		case fieldPubExpiry:
			it.expiry = uint32(x)
			p.Expiry = &it.expiry
		default:
			ok = false
		}
		return ok
	})
}

// topicOf returns the topic of an item that decode returned, nil if it is no publish
// or was left to the library.
func (d *decoder) topicOf(i int, it *logpb.Item) *routing.Topic[matching] {
	if i < len(d.items) && it == &d.items[i].item {
		return d.items[i].topic
	}
	return nil
}

// name returns v as a string, one that was made before where it can; ok is false
// where it is no UTF-8.
func (d *decoder) name(v []byte) (s string, ok bool) {
	if s, ok = d.names[string(v)]; ok {
		return s, true
	}
	if !utf8.Valid(v) {
		return "", false
	}
	s = string(v)
	if d.nameBytes += len(s) + 64; d.names == nil || d.nameBytes > keptNameBytes {
		d.names, d.nameBytes = map[string]string{}, len(s)+64
	}
	d.names[s] = s
	return s, true
}
