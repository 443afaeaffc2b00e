package history

import (
	"hash/crc32"
	"strings"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// payload returns a message's payload of at least its own length.
func payload(id string, size int) []byte {
	if pad := size - len(id) - 1; pad > 0 {
		return []byte(id + " " + strings.Repeat("x", pad))
	}
	return []byte(id)
}

// messageID takes it out of a payload.
func messageID(payload []byte) string {
	id, _, _ := strings.Cut(string(payload), " ")
	return id
}

// nameKey is the user property that names a message without a payload, in MQTT 5.
const nameKey = "message"

// received is the event of a PUBLISH.
func received(p *rawmqtt.Packet) Event {
	return Event{Kind: Received, Message: nameOf(p), Topic: p.Topic, QoS: p.QoS, PacketID: p.ID, Dup: p.Dup,
		Retain: p.Retain, Sum: sum(p.Payload), Clear: len(p.Payload) == 0}
}

func nameOf(p *rawmqtt.Packet) string {
	if len(p.Payload) > 0 {
		return messageID(p.Payload)
	}
	for _, q := range p.Properties {
		if q.ID == rawmqtt.UserProperty && q.Key == nameKey {
			return q.Text
		}
	}
	return ""
}

func sum(b []byte) uint32 { return crc32.ChecksumIEEE(b) }
