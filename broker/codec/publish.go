package codec

import (
	"encoding/binary"
	"slices"

	"github.com/mqcluster/mqcluster/session"
)

// PublishPacket is a PUBLISH as ParsePublish found it. Its slices alias the
// frame.
type PublishPacket struct {
	Dup, Retain bool
	QoS         byte
	PacketID    uint16
	Topic       []byte
	Payload     []byte
	Alias       uint16
	HasAlias    bool
	// Expiry is the message expiry interval in seconds.
	Expiry    uint32
	HasExpiry bool
	// Properties are those that travel with the message, as
	// session.Message.Properties has them. They alias the frame where they are
	// contiguous and are copied where not.
	Properties []byte
}

// ParsePublish parses frame, one whole PUBLISH of a client. Whether an alias is
// known is the caller's to check; with one the topic may be empty.
func ParsePublish(frame []byte, version byte, p *PublishPacket) error {
	*p = PublishPacket{}
	b, err := body(frame)
	if err != nil {
		return err
	}
	if frame[0]>>4 != TypePublish {
		return malformed("packet is not a PUBLISH")
	}
	if err := checkFlags(frame[0]); err != nil {
		return err
	}
	p.Dup, p.Retain = frame[0]&0x08 != 0, frame[0]&0x01 != 0
	p.QoS = frame[0] >> 1 & 0x03

	r := reader{b: b}
	p.Topic = r.bytes()
	valid, wildcard := checkTopic(p.Topic)
	if !valid {
		return malformed("topic name is not UTF-8 or has U+0000 in it")
	}
	if p.QoS > 0 {
		p.PacketID = r.packetID()
	}
	if version == Version5 {
		p.readProperties(&r)
	}
	if r.err != nil {
		return r.err
	}
	if wildcard {
		return &Error{ReasonTopicNameInvalid, "topic name has a wildcard in it"} // [MQTT-3.3.2-2]
	}
	if len(p.Topic) == 0 && !p.HasAlias {
		return protocolError("PUBLISH without topic and without alias") // section 3.3.2.3.4
	}
	p.Payload = r.b
	return nil
}

// readProperties checks the properties and gathers those that travel with the
// message.
func (p *PublishPacket) readProperties(r *reader) {
	if len(r.b) > 0 && r.b[0] == 0 {
		r.b = r.b[1:] // none, as in most packets
		return
	}
	ps := r.properties(inPublish)
	whole := ps.b
	start, end := 0, 0 // the forwardable ones so far, as long as nothing is between them
	for len(ps.b) > 0 {
		at := len(whole) - len(ps.b)
		id, v, _ := ps.next()
		if ps.err != nil {
			break
		}
		switch id {
		case propSubscriptionID:
			ps.fail(protocolError("client sent a subscription identifier in PUBLISH")) // [MQTT-3.3.4-6]
		case propTopicAlias:
			p.Alias, p.HasAlias = uint16(v), true
		case propMessageExpiry:
			p.Expiry, p.HasExpiry = v, true
		default:
			now := len(whole) - len(ps.b)
			switch {
			case p.Properties != nil:
				p.Properties = append(p.Properties, whole[at:now]...)
			case end == 0:
				start, end = at, now
			case end == at:
				end = now
			default:
				p.Properties = append(append([]byte(nil), whole[start:end]...), whole[at:now]...)
			}
		}
	}
	if ps.err != nil {
		r.fail(ps.err)
		return
	}
	if p.Properties == nil && end > 0 {
		p.Properties = whole[start:end:end]
	}
}

// PublishOptions is what differs between the receivers of one message.
type PublishOptions struct {
	QoS         byte
	Dup, Retain bool
	PacketID    uint16
	// Expiry is what remains of the message expiry interval, in seconds.
	Expiry    uint32
	HasExpiry bool
	// SubscriptionIDs, Alias, OmitTopic and the expiry are for version 5 only
	// and ignored for others. Alias 0 means none.
	SubscriptionIDs []uint32
	Alias           uint16
	OmitTopic       bool
}

// AppendPublish appends m as a PUBLISH to dst. m's own QoS, Retain and expiry
// are not looked at.
func AppendPublish(dst []byte, version byte, m *session.Message, o PublishOptions) []byte {
	topic := m.Topic
	if version == Version5 && o.OmitTopic {
		topic = ""
	}
	props, rest := publishSizes(version, m, o)
	first := TypePublish<<4 | o.QoS<<1
	if o.Dup {
		first |= 0x08
	}
	if o.Retain {
		first |= 0x01
	}
	dst = slices.Grow(dst, 1+varintSize(uint32(rest))+rest)
	dst = append(dst, first)
	dst = appendVarint(dst, uint32(rest))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic)))
	dst = append(dst, topic...)
	if o.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, o.PacketID)
	}
	if version == Version5 {
		dst = appendVarint(dst, uint32(props))
		if o.HasExpiry {
			dst = append(dst, propMessageExpiry)
			dst = binary.BigEndian.AppendUint32(dst, o.Expiry)
		}
		if o.Alias != 0 {
			dst = append(dst, propTopicAlias)
			dst = binary.BigEndian.AppendUint16(dst, o.Alias)
		}
		for _, id := range o.SubscriptionIDs {
			dst = append(dst, propSubscriptionID)
			dst = appendVarint(dst, id)
		}
		dst = append(dst, m.Properties...)
	}
	return append(dst, m.Payload...)
}

// publishSizes returns the property length, without the length of itself, and
// the remaining length.
func publishSizes(version byte, m *session.Message, o PublishOptions) (props, rest int) {
	rest = 2 + len(m.Topic) + len(m.Payload)
	if o.QoS > 0 {
		rest += 2
	}
	if version != Version5 {
		return 0, rest
	}
	if o.OmitTopic {
		rest -= len(m.Topic)
	}
	props = len(m.Properties)
	if o.HasExpiry {
		props += 5
	}
	if o.Alias != 0 {
		props += 3
	}
	for _, id := range o.SubscriptionIDs {
		props += 1 + varintSize(id)
	}
	return props, rest + varintSize(uint32(props)) + props
}

// PublishSize returns the bytes that AppendPublish would append, for the
// receiver's Maximum Packet Size.
func PublishSize(version byte, m *session.Message, o PublishOptions) int {
	_, rest := publishSizes(version, m, o)
	return 1 + varintSize(uint32(rest)) + rest
}

// IDOffset returns the offset of the two bytes of the packet id in a PUBLISH
// that AppendPublish made at QoS 1 or 2, so that a shared encoding can be
// patched; 0 at QoS 0.
func IDOffset(frame []byte) int {
	if frame[0]&0x06 == 0 {
		return 0
	}
	i := 1
	for frame[i] >= 0x80 {
		i++
	}
	i++
	return i + 2 + int(binary.BigEndian.Uint16(frame[i:]))
}
