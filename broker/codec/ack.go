package codec

// AckPacket is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type AckPacket struct {
	Type     byte
	PacketID uint16
	// Reason is 0 for versions before 5.
	Reason byte
}

// ParseAck parses frame, one whole PUBACK, PUBREC, PUBREL or PUBCOMP of a
// client. Properties are checked and left.
func ParseAck(frame []byte, version byte, a *AckPacket) error { panic("soon") }

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP to dst. The reason is
// left out for versions before 5 and where it is 0; there are no properties.
func AppendAck(dst []byte, version, typ byte, id uint16, reason byte) []byte { panic("soon") }

// AppendPingresp appends a PINGRESP to dst.
func AppendPingresp(dst []byte) []byte { return append(dst, TypePingresp<<4, 0) }
