package codec

// AckPacket is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type AckPacket struct {
	Type     byte
	PacketID uint16
	// Reason is 0 for versions before 5.
	Reason byte
}

// ParseAck parses frame, one whole PUBACK, PUBREC, PUBREL or PUBCOMP. The
// properties are checked and left.
func ParseAck(frame []byte, version byte, a *AckPacket) error {
	*a = AckPacket{}
	b, err := body(frame)
	if err != nil {
		return err
	}
	if err := checkFlags(frame[0]); err != nil {
		return err
	}
	if err := checkDup(frame[0], version); err != nil {
		return err
	}
	typ := frame[0] >> 4
	if typ < TypePuback || typ > TypePubcomp {
		return malformed("packet is not an acknowledgement")
	}
	r := reader{b: b}
	id := r.packetID()
	var reason byte
	// The reason may be left out, and so may the properties after it (section
	// 3.4.2.1).
	if version == Version5 && len(r.b) > 0 {
		reason = r.byte()
		if !ackReason(typ, reason) {
			r.fail(protocolError("reason code that is not for this packet"))
		}
		if len(r.b) > 0 {
			ps := r.properties(1 << typ)
			for len(ps.b) > 0 {
				ps.next()
			}
			if ps.err != nil {
				r.fail(ps.err)
			}
		}
	}
	if err := r.end(); err != nil {
		return err
	}
	*a = AckPacket{Type: typ, PacketID: id, Reason: reason}
	return nil
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP to dst. The reason is
// left out for versions before 5 and where it is 0; there are no properties.
func AppendAck(dst []byte, version, typ byte, id uint16, reason byte) []byte {
	first := typ << 4
	if typ == TypePubrel {
		first |= 0x02
	}
	if version != Version5 || reason == 0 {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	return append(dst, first, 3, byte(id>>8), byte(id), reason)
}

// AppendPingresp appends a PINGRESP to dst.
func AppendPingresp(dst []byte) []byte { return append(dst, TypePingresp<<4, 0) }
