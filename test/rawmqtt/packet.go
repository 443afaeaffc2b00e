package rawmqtt

import (
	"fmt"
	"strings"
)

// Subscription is one filter of a SUBSCRIBE.
type Subscription struct {
	Filter string
	// Options is the whole options byte: QoS in bits 0-1, and in MQTT 5 No Local
	// (4), Retain As Published (8) and Retain Handling (16, 32).
	Options byte
}

// Sub is short for a subscription with nothing but a QoS.
func Sub(filter string, qos byte) Subscription { return Subscription{Filter: filter, Options: qos} }

// Packet is a parsed control packet; which fields are set depends on Type.
type Packet struct {
	Type  byte
	Flags byte // low nibble of the first byte, as it was
	Raw   []byte

	ID         uint16
	Reason     byte // return or reason code of CONNACK, acks, DISCONNECT, AUTH
	Properties []Property

	Dup, Retain bool // of PUBLISH
	QoS         byte
	Topic       string
	Payload     []byte

	SessionPresent bool           // of CONNACK
	Reasons        []byte         // of SUBACK and UNSUBACK
	Subscriptions  []Subscription // of SUBSCRIBE, UNSUBSCRIBE
	Connect        *Connect       // of CONNECT
}

// Int returns the value of a numeric property and whether it is there.
func (p *Packet) Int(id byte) (uint32, bool) {
	q, ok := Find(p.Properties, id)
	return q.Int, ok
}

// Text returns the value of a string or binary property and whether it is there.
func (p *Packet) Text(id byte) (string, bool) {
	q, ok := Find(p.Properties, id)
	return q.Text, ok
}

// String describes the packet in one line, for the messages of tests.
func (p *Packet) String() string {
	if p == nil {
		return "no packet"
	}
	var b strings.Builder
	b.WriteString(TypeName(p.Type))
	switch p.Type {
	case PUBLISH:
		payload := p.Payload
		if len(payload) > 64 {
			payload = payload[:64]
		}
		fmt.Fprintf(&b, "(topic %q, QoS %d, id %d, dup %t, retain %t, %d bytes %q)",
			p.Topic, p.QoS, p.ID, p.Dup, p.Retain, len(p.Payload), payload)
	case CONNACK:
		fmt.Fprintf(&b, "(0x%02x, session present %t)", p.Reason, p.SessionPresent)
	case SUBACK, UNSUBACK:
		fmt.Fprintf(&b, "(id %d, % x)", p.ID, p.Reasons)
	case SUBSCRIBE, UNSUBSCRIBE:
		fmt.Fprintf(&b, "(id %d, %v)", p.ID, p.Subscriptions)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		fmt.Fprintf(&b, "(id %d, 0x%02x)", p.ID, p.Reason)
	case DISCONNECT, AUTH:
		fmt.Fprintf(&b, "(0x%02x)", p.Reason)
	}
	return b.String()
}

// Parse takes one whole frame apart by the rules of the protocol version. It is
// lenient where a test may want to look (flags, reserved bits, UTF-8), strict
// where a length does not fit. The result refers to frame.
func Parse(frame []byte, version byte) (*Packet, error) {
	length, n, err := varint(frame, 1)
	if err != nil {
		return nil, err
	}
	if n == 0 || 1+n+length != len(frame) {
		return nil, fmt.Errorf("the remaining length is not that of the frame: %w", ErrMalformed)
	}
	p := &Packet{Type: frame[0] >> 4, Flags: frame[0] & 15, Raw: frame}
	r := &reader{data: frame[1+n:]}
	p.parse(r, version)
	if r.err != nil {
		return nil, fmt.Errorf("%s: %w", TypeName(p.Type), r.err)
	}
	if len(r.data) > 0 {
		return nil, fmt.Errorf("%s: %d bytes too many: %w", TypeName(p.Type), len(r.data), ErrMalformed)
	}
	return p, nil
}

func (p *Packet) parse(r *reader, version byte) {
	v5 := version >= 5
	switch p.Type {
	case CONNECT:
		p.Connect = parseConnect(r)
	case CONNACK:
		p.SessionPresent = r.byte("flags")&1 != 0
		p.Reason = r.byte("return code")
		if v5 {
			p.Properties = r.properties()
		}
	case PUBLISH:
		p.parsePublish(r, v5)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		p.ID = r.uint16("packet id")
		p.parseReason(r, v5)
	case SUBSCRIBE, UNSUBSCRIBE:
		p.parseFilters(r, v5)
	case SUBACK, UNSUBACK:
		p.ID = r.uint16("packet id")
		if v5 {
			p.Properties = r.properties()
		}
		p.Reasons, r.data = r.data, nil
	case DISCONNECT, AUTH:
		p.parseReason(r, v5)
	}
}

func (p *Packet) parsePublish(r *reader, v5 bool) {
	p.Dup, p.QoS, p.Retain = p.Flags&8 != 0, p.Flags>>1&3, p.Flags&1 != 0
	p.Topic = r.string("topic")
	if p.QoS > 0 {
		p.ID = r.uint16("packet id")
	}
	if v5 {
		p.Properties = r.properties()
	}
	p.Payload, r.data = r.data, nil
}

// parseReason reads what MQTT 5 may leave out at the end: the reason code and,
// after it, the properties.
func (p *Packet) parseReason(r *reader, v5 bool) {
	if !v5 || len(r.data) == 0 {
		return
	}
	p.Reason = r.byte("reason code")
	if len(r.data) > 0 {
		p.Properties = r.properties()
	}
}

func (p *Packet) parseFilters(r *reader, v5 bool) {
	p.ID = r.uint16("packet id")
	if v5 {
		p.Properties = r.properties()
	}
	for len(r.data) > 0 && r.err == nil {
		s := Subscription{Filter: r.string("filter")}
		if p.Type == SUBSCRIBE {
			s.Options = r.byte("options")
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
}
