package codec

import (
	"bytes"
	"fmt"
	"math"

	"github.com/mochi-mqtt/server/v2/packets"
)

// AppendPacket appends any packet to dst; AppendPublish and AppendAck are
// better for what they do. Flags of the fixed header other than those of
// PUBLISH are set to what they must be, reasons are turned into return codes
// for versions before 5, and whatever property is set is written.
//
// Where p.Mods.MaxSize is set and the packet is larger, it is written without
// reason string and user properties [MQTT-3.2.2-19] [MQTT-3.2.2-20]; where that
// does not help, the error's reason is ReasonPacketTooLarge and dst is returned
// as it was.
func AppendPacket(dst []byte, p *packets.Packet) ([]byte, error) {
	if err := checkLengths(p); err != nil {
		return dst, err
	}
	q := *p
	normalize(&q)
	most := int(q.Mods.MaxSize)
	q.Mods.MaxSize = 0 // mochi's own arithmetic leaves out most of the packet
	q.Mods.AllowResponseInfo = true
	buf := bytes.NewBuffer(dst)
	if err := encodeBody(&q, buf); err != nil {
		return dst, fmt.Errorf("encode packet of type %d: %w", q.FixedHeader.Type, err)
	}
	if most > 0 && buf.Len()-len(dst) > most && !q.Mods.DisallowProblemInfo {
		buf.Truncate(len(dst))
		q.Mods.DisallowProblemInfo = true
		if err := encodeBody(&q, buf); err != nil {
			return dst, fmt.Errorf("encode packet of type %d: %w", q.FixedHeader.Type, err)
		}
	}
	size := buf.Len() - len(dst)
	if size > MaxPacket || most > 0 && size > most {
		return dst, &Error{ReasonPacketTooLarge, "packet is larger than the client takes"}
	}
	return buf.Bytes(), nil
}

// normalize sets what the type and the version leave no choice about.
func normalize(p *packets.Packet) {
	h := &p.FixedHeader
	switch h.Type {
	case TypePublish:
	case TypePubrel, TypeSubscribe, TypeUnsubscribe:
		h.Qos, h.Dup, h.Retain = 1, false, false
	default:
		h.Qos, h.Dup, h.Retain = 0, false, false
	}
	h.Remaining = 0
	if p.ProtocolVersion == Version5 {
		if h.Type == TypeConnack && p.ReasonCode != 0 {
			p.SessionPresent = false // [MQTT-3.2.2-6]
		}
		return
	}
	switch h.Type {
	case TypeConnack:
		p.ReasonCode = ConnackCode(p.ReasonCode)
		if p.ReasonCode != 0 || p.ProtocolVersion == Version31 {
			p.SessionPresent = false // 3.1 has no such flag
		}
	case TypeSuback:
		p.ReasonCodes = bytes.Clone(p.ReasonCodes)
		for i, c := range p.ReasonCodes {
			if c >= 0x80 {
				p.ReasonCodes[i] = 0x80
			}
		}
	}
}

func encodeBody(p *packets.Packet, buf *bytes.Buffer) error {
	switch p.FixedHeader.Type {
	case TypeConnect:
		return p.ConnectEncode(buf)
	case TypeConnack:
		return p.ConnackEncode(buf)
	case TypePublish:
		return p.PublishEncode(buf)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		return encodeAck(p, buf)
	case TypeSubscribe:
		return p.SubscribeEncode(buf)
	case TypeSuback:
		return p.SubackEncode(buf)
	case TypeUnsubscribe:
		return p.UnsubscribeEncode(buf)
	case TypeUnsuback:
		return p.UnsubackEncode(buf)
	case TypePingreq, TypePingresp:
		p.FixedHeader.Encode(buf)
		return nil
	case TypeDisconnect:
		return p.DisconnectEncode(buf)
	case TypeAuth:
		if p.ReasonCode == 0 && p.Properties.AuthenticationMethod == "" {
			p.FixedHeader.Encode(buf) // section 3.15.2.1
			return nil
		}
		return p.AuthEncode(buf)
	}
	return &Error{ReasonMalformed, "no such packet type"}
}

// encodeAck encodes an acknowledgement with its properties, which AppendAck
// has not.
func encodeAck(p *packets.Packet, buf *bytes.Buffer) error {
	b := []byte{byte(p.PacketID >> 8), byte(p.PacketID)}
	if p.ProtocolVersion == Version5 {
		props := new(bytes.Buffer)
		p.Properties.Encode(p.FixedHeader.Type, p.Mods, props, 0)
		if p.ReasonCode != 0 || props.Len() > 1 {
			b = append(b, p.ReasonCode)
		}
		if props.Len() > 1 {
			b = append(b, props.Bytes()...)
		}
	}
	p.FixedHeader.Remaining = len(b)
	p.FixedHeader.Encode(buf)
	buf.Write(b)
	return nil
}

// checkLengths refuses what has no room in its two length bytes; mochi would
// write the length cut off and the whole text.
func checkLengths(p *packets.Packet) error {
	c, most := &p.Connect, 0
	see := func(n ...int) {
		for _, v := range n {
			most = max(most, v)
		}
	}
	see(len(c.ProtocolName), len(c.ClientIdentifier), len(c.WillTopic), len(c.WillPayload), len(c.Username), len(c.Password))
	see(len(p.TopicName))
	for i := range p.Filters {
		see(len(p.Filters[i].Filter))
	}
	for _, s := range []*packets.Properties{&p.Properties, &c.WillProperties} {
		see(len(s.ContentType), len(s.ResponseTopic), len(s.AssignedClientID), len(s.AuthenticationMethod),
			len(s.ResponseInfo), len(s.ServerReference), len(s.ReasonString), len(s.CorrelationData), len(s.AuthenticationData))
		for i := range s.User {
			see(len(s.User[i].Key), len(s.User[i].Val))
		}
	}
	if most > math.MaxUint16 {
		return &Error{ReasonMalformed, "packet has a string of more than 65535 bytes"}
	}
	return nil
}
