package rawmqtt

import (
	"encoding/binary"
	"fmt"
)

// The MQTT 5 properties [MQTT-2.2.2.2].
const (
	PayloadFormat          byte = 0x01
	MessageExpiry          byte = 0x02
	ContentType            byte = 0x03
	ResponseTopic          byte = 0x08
	CorrelationData        byte = 0x09
	SubscriptionIdentifier byte = 0x0b
	SessionExpiry          byte = 0x11
	AssignedClientID       byte = 0x12
	ServerKeepAlive        byte = 0x13
	AuthMethod             byte = 0x15
	AuthData               byte = 0x16
	RequestProblemInfo     byte = 0x17
	WillDelay              byte = 0x18
	RequestResponseInfo    byte = 0x19
	ResponseInfo           byte = 0x1a
	ServerReference        byte = 0x1c
	ReasonString           byte = 0x1f
	ReceiveMaximum         byte = 0x21
	TopicAliasMaximum      byte = 0x22
	TopicAlias             byte = 0x23
	MaximumQoS             byte = 0x24
	RetainAvailable        byte = 0x25
	UserProperty           byte = 0x26
	MaximumPacketSize      byte = 0x27
	WildcardAvailable      byte = 0x28
	SubscriptionIDs        byte = 0x29
	SharedAvailable        byte = 0x2a
)

// Property is one MQTT 5 property. Which fields count depends on its ID; for an
// ID that the standard does not know, Text follows it as it is.
type Property struct {
	ID   byte
	Int  uint32 // of every numeric property
	Key  string // of a user property
	Text string // of strings, binary data and user properties
}

// Int returns a numeric property.
func Int(id byte, v uint32) Property { return Property{ID: id, Int: v} }

// Text returns a string or binary property.
func Text(id byte, s string) Property { return Property{ID: id, Text: s} }

// User returns a user property.
func User(key, value string) Property { return Property{ID: UserProperty, Key: key, Text: value} }

type propertyKind byte

const (
	kindUnknown propertyKind = iota
	kindByte
	kindUint16
	kindUint32
	kindVarint
	kindText
	kindPair
)

func kindOf(id byte) propertyKind {
	switch id {
	case PayloadFormat, RequestProblemInfo, RequestResponseInfo, MaximumQoS, RetainAvailable,
		WildcardAvailable, SubscriptionIDs, SharedAvailable:
		return kindByte
	case ServerKeepAlive, ReceiveMaximum, TopicAliasMaximum, TopicAlias:
		return kindUint16
	case MessageExpiry, SessionExpiry, WillDelay, MaximumPacketSize:
		return kindUint32
	case SubscriptionIdentifier:
		return kindVarint
	case ContentType, ResponseTopic, CorrelationData, AssignedClientID, AuthMethod, AuthData,
		ResponseInfo, ServerReference, ReasonString:
		return kindText
	case UserProperty:
		return kindPair
	}
	return kindUnknown
}

// AppendProperties appends the properties with their length in front. It checks
// nothing: what may not be repeated or does not belong here is written as given.
func AppendProperties(dst []byte, props []Property) []byte {
	var body []byte
	for _, p := range props {
		body = append(body, p.ID)
		switch kindOf(p.ID) {
		case kindByte:
			body = append(body, byte(p.Int))
		case kindUint16:
			body = binary.BigEndian.AppendUint16(body, uint16(p.Int))
		case kindUint32:
			body = binary.BigEndian.AppendUint32(body, p.Int)
		case kindVarint:
			body = AppendVarint(body, p.Int)
		case kindText:
			body = AppendString(body, p.Text)
		case kindPair:
			body = AppendString(AppendString(body, p.Key), p.Text)
		default:
			body = append(body, p.Text...)
		}
	}
	return append(AppendVarint(dst, uint32(len(body))), body...)
}

func (r *reader) properties() []Property {
	n := int(r.varint("property length"))
	if len(r.data) < n {
		r.fail("properties")
		return nil
	}
	in := reader{data: r.data[:n:n], err: r.err}
	r.data = r.data[n:]
	var props []Property
	for len(in.data) > 0 && in.err == nil {
		p := Property{ID: in.byte("property")}
		switch kindOf(p.ID) {
		case kindByte:
			p.Int = uint32(in.byte("property"))
		case kindUint16:
			p.Int = uint32(in.uint16("property"))
		case kindUint32:
			p.Int = in.uint32("property")
		case kindVarint:
			p.Int = in.varint("property")
		case kindText:
			p.Text = in.string("property")
		case kindPair:
			p.Key = in.string("property")
			p.Text = in.string("property")
		default:
			in.err = fmt.Errorf("unknown property 0x%02x: %w", p.ID, ErrMalformed)
		}
		props = append(props, p)
	}
	r.err = in.err
	return props
}

// Find returns the first property with the id.
func Find(props []Property, id byte) (Property, bool) {
	for _, p := range props {
		if p.ID == id {
			return p, true
		}
	}
	return Property{}, false
}
