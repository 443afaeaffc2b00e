package codec

// Scan finds the first packet in buf. n is its whole length, or 0 if more bytes
// are needed; need is then how many bytes buf must have at least, which may
// grow. most is the largest whole packet allowed, in bytes; 0 means MaxPacket.
// Scan fails as soon as the fixed header is wrong, without waiting for the rest.
// It takes packets of both directions; ScanClient refuses those that only
// servers send.
//
// The DUP bit of PUBREL, SUBSCRIBE and UNSUBSCRIBE is legal in 3.1 only: it is
// the parsers' to refuse, because Scan does not know the version.
func Scan(buf []byte, most int) (n, need int, err error) {
	if len(buf) == 0 {
		return 0, 2, nil
	}
	if err := checkFlags(buf[0]); err != nil {
		return 0, 0, err
	}
	v, ln := varint(buf[1:])
	switch {
	case ln < 0:
		return 0, 0, malformed("remaining length has a fifth byte or is longer than it must be")
	case ln == 0:
		return 0, len(buf) + 1, nil
	}
	n = 1 + ln + int(v)
	if most <= 0 {
		most = MaxPacket
	}
	if n > most {
		return 0, 0, &Error{ReasonPacketTooLarge, "packet is larger than the server takes"}
	}
	if int(v) < leastBody(buf[0]) {
		return 0, 0, malformed("remaining length is too short for the packet's type")
	}
	if v > 0 && (buf[0]>>4 == TypePingreq || buf[0]>>4 == TypePingresp) {
		return 0, 0, malformed("PINGREQ or PINGRESP with a remaining length")
	}
	if len(buf) < n {
		return 0, n, nil
	}
	return n, 0, nil
}

// ScanClient is Scan for what a client sends: a packet type that only servers
// send is a protocol error.
func ScanClient(buf []byte, most int) (n, need int, err error) {
	if len(buf) > 0 {
		switch buf[0] >> 4 {
		case TypeConnack, TypeSuback, TypeUnsuback, TypePingresp:
			return 0, 0, protocolError("packet of a type that only servers send")
		}
	}
	return Scan(buf, most)
}

// checkFlags checks the first byte of a packet [MQTT-2.1.3-1].
func checkFlags(b byte) error {
	flags := b & 0x0F
	switch b >> 4 {
	case 0:
		return malformed("packet type 0")
	case TypePublish:
		if flags&0x06 == 0x06 {
			return malformed("PUBLISH with QoS 3") // [MQTT-3.3.1-4]
		}
		if flags&0x0E == 0x08 {
			return malformed("PUBLISH with DUP at QoS 0") // [MQTT-3.3.1-2]
		}
	case TypePubrel, TypeSubscribe, TypeUnsubscribe:
		if flags&^0x08 != 0x02 {
			return malformed("reserved flags of the fixed header are not 0010") // [MQTT-3.8.1-1]
		}
	default:
		if flags != 0 {
			return malformed("reserved flags of the fixed header are not 0000")
		}
	}
	return nil
}

// checkDup refuses the DUP bit of a packet other than PUBLISH, which 3.1 has
// and the versions after it have not.
func checkDup(b, version byte) error {
	if b>>4 != TypePublish && b&0x08 != 0 && version != Version31 {
		return malformed("reserved flags of the fixed header are not 0010")
	}
	return nil
}

// leastBody returns the least remaining length of a packet whose first byte is
// b, of whatever version.
func leastBody(b byte) int {
	switch b >> 4 {
	case TypeConnect:
		return 12 // name, level, flags, keep alive, client id
	case TypeConnack, TypePuback, TypePubrec, TypePubrel, TypePubcomp, TypeUnsuback:
		return 2
	case TypePublish:
		if b&0x06 != 0 {
			return 4
		}
		return 2
	case TypeSuback, TypeSubscribe, TypeUnsubscribe:
		return 3
	}
	return 0
}
