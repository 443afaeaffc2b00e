package codec

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Decode decodes frame, one whole packet as Scan found it, other than PUBLISH
// and its acknowledgements. Where client and server send the same type, it must
// be what a client may send. For CONNECT version is ignored and taken from the
// packet. The packet does not alias frame.
//
// mochi's structures lose some things: whether a will's expiry interval is 0 or
// not there, and the order of properties. Will has them.
func Decode(frame []byte, version byte) (*packets.Packet, error) {
	return decode(frame, version, false)
}

// DecodeServer is Decode for clients: it takes what a server may send, PUBLISH
// and its acknowledgements included.
func DecodeServer(frame []byte, version byte) (*packets.Packet, error) {
	return decode(frame, version, true)
}

func decode(frame []byte, version byte, server bool) (*packets.Packet, error) {
	b, err := body(frame)
	if err != nil {
		return nil, err
	}
	switch typ := frame[0] >> 4; {
	case server && typ == TypePublish:
		err = gatePublish(frame[0], b, version)
	case server && typ >= TypePuback && typ <= TypePubcomp:
		err = ParseAck(frame, version, &AckPacket{})
	default:
		version, err = gate(frame[0], b, version, server)
	}
	if err != nil {
		return nil, err
	}
	// mochi's strings alias what it decodes.
	b = bytes.Clone(b)
	p := &packets.Packet{ProtocolVersion: version}
	p.FixedHeader = packets.FixedHeader{Type: frame[0] >> 4, Remaining: len(b)}
	switch p.FixedHeader.Type {
	case TypePublish:
		p.FixedHeader.Dup, p.FixedHeader.Retain = frame[0]&0x08 != 0, frame[0]&0x01 != 0
		p.FixedHeader.Qos = frame[0] >> 1 & 0x03
	case TypePubrel, TypeSubscribe, TypeUnsubscribe:
		p.FixedHeader.Qos = 1
	}
	if err := decodeBody(p, b); err != nil {
		return nil, &Error{ReasonMalformed, fmt.Sprintf("packet cannot be decoded: %v", err)}
	}
	return p, nil
}

// decodeBody has mochi decode what the gate let through, and makes good what
// mochi gets wrong of it.
func decodeBody(p *packets.Packet, b []byte) error {
	switch p.FixedHeader.Type {
	case TypeConnect:
		clearAbsent(b)
		return p.ConnectDecode(b)
	case TypeConnack:
		return p.ConnackDecode(b)
	case TypePublish:
		return p.PublishDecode(b)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		return decodeAck(p, b)
	case TypeSubscribe:
		return p.SubscribeDecode(b)
	case TypeSuback:
		return p.SubackDecode(b)
	case TypeUnsubscribe:
		return p.UnsubscribeDecode(b)
	case TypeUnsuback:
		return p.UnsubackDecode(b)
	case TypeDisconnect:
		if len(b) == 1 { // mochi takes a reason without properties for none
			p.ReasonCode = b[0]
			return nil
		}
		return p.DisconnectDecode(b)
	case TypeAuth:
		if len(b) == 0 { // mochi knows no AUTH without a reason
			return nil
		}
		return p.AuthDecode(b)
	case TypePingreq, TypePingresp:
		return nil
	}
	return errors.New("no such packet type")
}

// decodeAck decodes an acknowledgement; mochi reads neither reason nor
// properties the way the standard has them optional.
func decodeAck(p *packets.Packet, b []byte) error {
	r := &reader{b: b}
	p.PacketID = r.uint16()
	if p.ProtocolVersion != Version5 || len(r.b) == 0 {
		return r.err
	}
	p.ReasonCode = r.byte()
	if len(r.b) > 0 {
		_, err := p.Properties.Decode(p.FixedHeader.Type, bytes.NewBuffer(r.b))
		return err
	}
	return r.err
}

// clearAbsent clears the flags of a 3.1 user name or password that is not
// there, which mochi would take for an error.
func clearAbsent(b []byte) {
	r := &reader{b: b}
	if _, version := readVersion(r); version != Version31 {
		return
	}
	at := flagsOffset(b)
	flags := r.byte()
	r.uint16()
	r.bytes()
	if flags&flagWill != 0 {
		r.bytes()
		r.bytes()
	}
	if flags&flagUsername != 0 {
		if len(r.b) == 0 {
			b[at] &^= flagUsername | flagPassword
			return
		}
		r.bytes()
	}
	if flags&flagPassword != 0 && len(r.b) == 0 {
		b[at] &^= flagPassword
	}
}

// gatePublish checks a server's PUBLISH, which unlike a client's may have
// subscription identifiers, several of them.
func gatePublish(first byte, b []byte, version byte) error {
	if err := checkFlags(first); err != nil {
		return err
	}
	r := &reader{b: b}
	topic := r.text()
	if first&0x06 != 0 {
		r.packetID()
	}
	alias := false
	if version == Version5 {
		ps := r.properties(inPublish)
		ps.repeat = true
		ps.rest()
		if ps.err != nil {
			r.fail(ps.err)
		}
		alias = ps.has(propTopicAlias)
	}
	switch {
	case r.err != nil:
		return r.err
	case hasWildcard(topic):
		return &Error{ReasonTopicNameInvalid, "topic name has a wildcard in it"}
	case len(topic) == 0 && !alias:
		return protocolError("PUBLISH without topic and without alias")
	}
	return nil
}
