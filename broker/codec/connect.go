package codec

import (
	"github.com/mqcluster/mqcluster/session"
)

// Connect flags [MQTT-3.1.2].
const (
	flagReserved   = 0x01
	flagClean      = 0x02
	flagWill       = 0x04
	flagWillQoS    = 0x18
	flagWillRetain = 0x20
	flagPassword   = 0x40
	flagUsername   = 0x80
)

// flagsOffset returns where the connect flags are in the body of a CONNECT
// whose protocol name has been checked.
func flagsOffset(b []byte) int { return 2 + int(b[1]) + 1 }

// readVersion reads protocol name and level. version is 0 if the name is not
// known.
func readVersion(r *reader) (level, version byte) {
	name := string(r.bytes())
	level = r.byte()
	if r.err != nil {
		return 0, 0
	}
	switch name {
	case "MQIsdp":
		version = Version31
	case "MQTT":
		version = Version311
		if level >= Version5 {
			version = Version5
		}
	}
	return level, version
}

// ConnectVersion returns in which version a CONNACK that refuses the CONNECT in
// frame is to be written: 3, 4 or 5, the nearest one where the level is not
// known, and 0 where the protocol name is not and the connection is to be
// closed without an answer [MQTT-3.1.2-1].
func ConnectVersion(frame []byte) byte {
	b, err := body(frame)
	if err != nil || frame[0]>>4 != TypeConnect {
		return 0
	}
	_, v := readVersion(&reader{b: b})
	return v
}

func gateConnect(r *reader) (byte, error) {
	level, version := readVersion(r)
	switch {
	case r.err != nil:
		return 0, r.err
	case version == 0:
		return 0, &Error{ReasonUnsupportedVersion, "protocol name is neither MQTT nor MQIsdp"} // [MQTT-3.1.2-1]
	case level != version:
		return 0, &Error{ReasonUnsupportedVersion, "protocol version is none of 3.1, 3.1.1 and 5"} // [MQTT-3.1.2-2]
	}
	flags := r.byte()
	if r.err == nil {
		if err := checkConnectFlags(flags, version); err != nil {
			return 0, err
		}
	}
	r.uint16() // keep alive
	if version == Version5 {
		ps := r.check(inConnect)
		if ps.has(propAuthData) && !ps.has(propAuthMethod) {
			r.fail(protocolError("authentication data without a method")) // section 3.1.2.11.10
		}
	}
	id := r.text()
	if r.err == nil && len(id) == 0 && version != Version5 && (version == Version31 || flags&flagClean == 0) {
		// [MQTT-3.1.3-8] of 3.1.1; 3.1 knows no empty client id.
		return 0, &Error{ReasonClientIDNotValid, "client id is empty without clean session"}
	}
	if flags&flagWill != 0 {
		gateWill(r, version)
	}
	if flags&flagUsername != 0 && !absent(r, version) {
		r.text()
	}
	if flags&flagPassword != 0 && !absent(r, version) {
		r.bytes()
	}
	return version, r.end()
}

// absent tells that a user name or password which the flags announce is not
// there: 3.1 says that the remaining length takes precedence over the flags.
func absent(r *reader, version byte) bool {
	return version == Version31 && r.err == nil && len(r.b) == 0
}

func checkConnectFlags(flags, version byte) error {
	switch {
	case flags&flagReserved != 0:
		return malformed("reserved connect flag is set") // [MQTT-3.1.2-3]
	case flags&flagWillQoS == flagWillQoS:
		return malformed("will QoS is 3") // [MQTT-3.1.2-12]
	case flags&flagWill == 0 && flags&(flagWillQoS|flagWillRetain) != 0:
		return malformed("will QoS or will retain without a will") // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
	case version != Version5 && flags&flagPassword != 0 && flags&flagUsername == 0:
		return malformed("password without a user name") // [MQTT-3.1.2-22] of 3.1.1
	}
	return nil
}

func gateWill(r *reader, version byte) {
	if version == Version5 {
		r.check(inWill)
	}
	topic := r.text()
	if r.err == nil && (len(topic) == 0 || hasWildcard(topic)) {
		r.fail(&Error{ReasonTopicNameInvalid, "will topic is empty or has a wildcard in it"})
	}
	r.bytes()
}

// Will returns the will in a CONNECT that Decode has accepted, nil if it has
// none. Unlike those of Decode's packet, its properties are in wire form and
// order, and an expiry interval of 0 is told from none. It does not alias frame.
// Message.Publisher, Stamp and ExpiresAt are left to the caller.
func Will(frame []byte) *session.Will {
	b, err := body(frame)
	if err != nil {
		return nil
	}
	r := &reader{b: b}
	_, version := readVersion(r)
	flags := r.byte()
	if flags&flagWill == 0 {
		return nil
	}
	r.uint16()
	if version == Version5 {
		r.take(int(r.varint()))
	}
	r.bytes()
	w := &session.Will{}
	if version == Version5 {
		readWillProperties(r, w)
	}
	w.Message.Topic = string(r.bytes())
	w.Message.Payload = append([]byte(nil), r.bytes()...)
	w.Message.QoS = flags & flagWillQoS >> 3
	w.Message.Retain = flags&flagWillRetain != 0
	if r.err != nil {
		return nil
	}
	return w
}

func readWillProperties(r *reader, w *session.Will) {
	ps := r.properties(inWill)
	for len(ps.b) > 0 {
		rest := ps.b
		id, v, _ := ps.next()
		switch {
		case ps.err != nil:
			r.fail(ps.err)
		case id == propWillDelay:
			w.Delay = v
		case id == propMessageExpiry:
			w.Expiry, w.HasExpiry = v, true
		default:
			w.Message.Properties = append(w.Message.Properties, rest[:len(rest)-len(ps.b)]...)
		}
	}
}
