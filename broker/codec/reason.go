package codec

// ackReason tells whether reason may be in an acknowledgement of type typ
// (MQTT 5, tables 3-4 to 3-7).
func ackReason(typ, reason byte) bool {
	if typ == TypePubrel || typ == TypePubcomp {
		return reason == 0x00 || reason == 0x92
	}
	switch reason {
	case 0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99:
		return true
	}
	return false
}

// subackReason: MQTT 5, table 3-8; 3.1.1, section 3.9.3.
func subackReason(version, reason byte) bool {
	switch reason {
	case 0x00, 0x01, 0x02, 0x80:
		return true
	case 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2:
		return version == Version5
	}
	return false
}

// unsubackReason: MQTT 5, table 3-9.
func unsubackReason(reason byte) bool {
	switch reason {
	case 0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91:
		return true
	}
	return false
}

// connackReason: MQTT 5, table 3-1; 3.1.1, table 3.1.
func connackReason(version, reason byte) bool {
	if version != Version5 {
		return reason <= 5
	}
	switch reason {
	case 0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C,
		0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F:
		return true
	}
	return false
}

// disconnectReason: MQTT 5, table 3-10. Normal disconnection is taken from a
// server too, as servers send it.
func disconnectReason(server bool, reason byte) bool {
	switch reason {
	case 0x00, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99:
		return true
	case 0x04:
		return !server
	case 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2:
		return server
	}
	return false
}

// authReason: MQTT 5, table 3-11.
func authReason(server bool, reason byte) bool {
	switch reason {
	case 0x18:
		return true
	case 0x00:
		return server
	case 0x19:
		return !server
	}
	return false
}

// ConnackCode returns the return code of 3.1 and 3.1.1 that comes nearest to a
// reason code of version 5; return codes are returned as they are.
func ConnackCode(reason byte) byte {
	if reason < 0x80 {
		return reason
	}
	switch reason {
	case 0x84:
		return 1 // unacceptable protocol version
	case 0x85:
		return 2 // identifier rejected
	case 0x86, 0x8C:
		return 4 // bad user name or password
	case 0x80, 0x83, 0x88, 0x89, 0x97, 0x9C, 0x9D, 0x9F:
		return 3 // server unavailable
	}
	return 5 // not authorized
}
