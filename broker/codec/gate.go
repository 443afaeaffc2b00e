package codec

import "bytes"

// gate checks every byte of a packet that mochi's decoder is to see: after it,
// all lengths, strings, flags and properties are known to be right. b is the
// body, first the packet's first byte. server tells that a server sent it. It
// returns the version of the packet, which for CONNECT is that of the packet.
func gate(first byte, b []byte, version byte, server bool) (byte, error) {
	if err := checkFlags(first); err != nil {
		return 0, err
	}
	if err := checkDup(first, version); err != nil {
		return 0, err
	}
	r := &reader{b: b}
	var err error
	switch first >> 4 {
	case TypeConnect:
		return gateConnect(r)
	case TypeConnack:
		err = gateConnack(r, version)
	case TypeSubscribe:
		err = gateSubscribe(r, version)
	case TypeSuback:
		err = gateSuback(r, version)
	case TypeUnsubscribe:
		err = gateUnsubscribe(r, version)
	case TypeUnsuback:
		err = gateUnsuback(r, version)
	case TypePingreq, TypePingresp:
		err = r.end()
	case TypeDisconnect:
		err = gateDisconnect(r, version, server)
	case TypeAuth:
		err = gateAuth(r, version, server)
	default:
		err = protocolError("packet of a type that is not expected here")
	}
	return version, err
}

func gateConnack(r *reader, version byte) error {
	flags, reason := r.byte(), r.byte()
	switch {
	case r.err != nil:
	case flags > 1:
		r.fail(malformed("reserved acknowledge flags of CONNACK are not 0")) // [MQTT-3.2.2-1]
	case !connackReason(version, reason):
		r.fail(protocolError("reason code that is not for this packet"))
	case flags == 1 && reason != 0:
		r.fail(protocolError("session present in a CONNACK that refuses")) // [MQTT-3.2.2-6]
	}
	if version == Version5 {
		ps := r.check(inConnack)
		if ps.has(propAuthData) && !ps.has(propAuthMethod) {
			r.fail(protocolError("authentication data without a method"))
		}
	}
	return r.end()
}

func gateSubscribe(r *reader, version byte) error {
	r.packetID()
	if version == Version5 {
		r.check(inSubscribe)
	}
	n := 0
	for ; len(r.b) > 0; n++ {
		filter := r.text()
		o := r.byte()
		if r.err != nil {
			break
		}
		if err := checkOptions(filter, o, version); err != nil {
			r.fail(err)
		}
	}
	return filterCount(r, n)
}

// filterCount checks how many filters there were.
func filterCount(r *reader, n int) error {
	switch {
	case r.err != nil:
	case n == 0:
		r.fail(protocolError("packet without a topic filter")) // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
	case n > maxItems:
		r.fail(&Error{ReasonQuotaExceeded, "packet has too many topic filters"})
	}
	return r.end()
}

// checkOptions checks the options byte of a filter [MQTT-3.8.3-5].
func checkOptions(filter []byte, o, version byte) error {
	if version != Version5 {
		if o > 2 {
			return malformed("requested QoS is not 0, 1 or 2")
		}
		return nil
	}
	switch {
	case o&0xC0 != 0:
		return malformed("reserved bits of the subscription options are not 0")
	case o&0x03 == 3:
		return protocolError("maximum QoS is 3")
	case o&0x30 == 0x30:
		return protocolError("retain handling is 3")
	case o&0x04 != 0 && bytes.HasPrefix(filter, []byte("$share/")):
		return protocolError("no local on a shared subscription") // [MQTT-3.8.3-4]
	}
	return nil
}

func gateSuback(r *reader, version byte) error {
	r.packetID()
	if version == Version5 {
		r.check(1 << TypeSuback)
	}
	if r.err == nil && len(r.b) == 0 {
		r.fail(protocolError("SUBACK without a reason code"))
	}
	for _, c := range r.b {
		if !subackReason(version, c) {
			r.fail(protocolError("reason code that is not for this packet"))
		}
	}
	return r.err
}

func gateUnsubscribe(r *reader, version byte) error {
	r.packetID()
	if version == Version5 {
		r.check(inUnsubscribe)
	}
	n := 0
	for ; len(r.b) > 0; n++ {
		r.text()
	}
	return filterCount(r, n)
}

func gateUnsuback(r *reader, version byte) error {
	r.packetID()
	if version != Version5 {
		return r.end()
	}
	r.check(1 << TypeUnsuback)
	if r.err == nil && len(r.b) == 0 {
		r.fail(protocolError("UNSUBACK without a reason code"))
	}
	for _, c := range r.b {
		if !unsubackReason(c) {
			r.fail(protocolError("reason code that is not for this packet"))
		}
	}
	return r.err
}

func gateDisconnect(r *reader, version byte, server bool) error {
	if version != Version5 {
		if server {
			return protocolError("DISCONNECT of a server before version 5")
		}
		return r.end()
	}
	// Reason and properties may be left out (section 3.14.2).
	if len(r.b) == 0 {
		return nil
	}
	if !disconnectReason(server, r.byte()) {
		return protocolError("reason code that is not for this packet")
	}
	if len(r.b) == 0 {
		return nil
	}
	ps := r.check(inDisconnect)
	switch {
	case server && ps.has(propSessionExpiry):
		r.fail(protocolError("session expiry interval from a server")) // [MQTT-3.14.2-2]
	case !server && ps.has(propServerReference):
		r.fail(protocolError("server reference from a client"))
	}
	return r.end()
}

func gateAuth(r *reader, version byte, server bool) error {
	if version != Version5 {
		return protocolError("AUTH before version 5")
	}
	var reason byte
	bare := len(r.b) == 0 // stands for success without properties
	if !bare {
		reason = r.byte()
	}
	if !authReason(server, reason) {
		return protocolError("reason code that is not for this packet") // [MQTT-3.15.2-1]
	}
	if bare {
		return nil
	}
	ps := r.check(inAuth)
	if r.err == nil && !ps.has(propAuthMethod) {
		r.fail(protocolError("AUTH without an authentication method")) // section 3.15.2.2.2
	}
	return r.end()
}
