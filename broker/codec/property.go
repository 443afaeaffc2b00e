package codec

// Property identifiers that this package looks at (MQTT 5, section 2.2.2.2).
const (
	propPayloadFormat   = 1
	propMessageExpiry   = 2
	propContentType     = 3
	propResponseTopic   = 8
	propCorrelationData = 9
	propSubscriptionID  = 11
	propSessionExpiry   = 17
	propAssignedID      = 18
	propServerKeepAlive = 19
	propAuthMethod      = 21
	propAuthData        = 22
	propRequestProblem  = 23
	propWillDelay       = 24
	propRequestResponse = 25
	propResponseInfo    = 26
	propServerReference = 28
	propReasonString    = 31
	propReceiveMaximum  = 33
	propAliasMaximum    = 34
	propTopicAlias      = 35
	propMaximumQoS      = 36
	propRetainAvailable = 37
	propUser            = 38
	propMaximumPacket   = 39
	propWildcardSub     = 40
	propSubIDAvailable  = 41
	propSharedSub       = 42
)

// place is a set of packet types, one bit each, in which a property may be.
type place uint32

// inWill stands for the will properties of CONNECT.
const inWill place = 1 << 16

const (
	inConnect     place = 1 << TypeConnect
	inConnack     place = 1 << TypeConnack
	inPublish     place = 1 << TypePublish
	inSubscribe   place = 1 << TypeSubscribe
	inUnsubscribe place = 1 << TypeUnsubscribe
	inDisconnect  place = 1 << TypeDisconnect
	inAuth        place = 1 << TypeAuth
	inReply       place = 1<<TypeConnack | 1<<TypePuback | 1<<TypePubrec | 1<<TypePubrel | 1<<TypePubcomp |
		1<<TypeSuback | 1<<TypeUnsuback | 1<<TypeDisconnect | 1<<TypeAuth
	inMessage  = inPublish | inWill
	everywhere = inMessage | inReply | inConnect | inSubscribe | inUnsubscribe
)

// kind is the data type of a property.
type kind byte

const (
	kindNone kind = iota // no such property
	kindBit              // a byte that is 0 or 1; MQTT has no other
	kindTwo
	kindFour
	kindVarint
	kindText
	kindBinary
	kindPair
)

// propertyOf returns what the standard says of property id.
func propertyOf(id byte) (kind, place) {
	switch id {
	case propPayloadFormat:
		return kindBit, inMessage
	case propMessageExpiry:
		return kindFour, inMessage
	case propContentType, propResponseTopic:
		return kindText, inMessage
	case propCorrelationData:
		return kindBinary, inMessage
	case propSubscriptionID:
		return kindVarint, inPublish | inSubscribe
	case propSessionExpiry:
		return kindFour, inConnect | inConnack | inDisconnect
	case propAssignedID, propResponseInfo:
		return kindText, inConnack
	case propServerKeepAlive:
		return kindTwo, inConnack
	case propAuthMethod:
		return kindText, inConnect | inConnack | inAuth
	case propAuthData:
		return kindBinary, inConnect | inConnack | inAuth
	case propRequestProblem, propRequestResponse:
		return kindBit, inConnect
	case propWillDelay:
		return kindFour, inWill
	case propServerReference:
		return kindText, inConnack | inDisconnect
	case propReasonString:
		return kindText, inReply
	case propReceiveMaximum, propAliasMaximum:
		return kindTwo, inConnect | inConnack
	case propTopicAlias:
		return kindTwo, inPublish
	case propMaximumQoS, propRetainAvailable, propWildcardSub, propSubIDAvailable, propSharedSub:
		return kindBit, inConnack
	case propUser:
		return kindPair, everywhere
	case propMaximumPacket:
		return kindFour, inConnect | inConnack
	}
	return kindNone, 0
}

// properties walks over the properties of one packet.
type properties struct {
	reader
	where place
	// repeat allows several subscription identifiers, which only a server's
	// PUBLISH may have.
	repeat bool
	seen   uint64
	users  int
}

// maxItems is how many filters or user properties a packet may have that is
// decoded into structures, which take many times the room.
const maxItems = 16_384

// properties reads the property length and returns the properties that follow.
func (r *reader) properties(where place) properties {
	n := int(r.varint())
	p := properties{where: where}
	p.b = r.take(n)
	p.err = r.err
	return p
}

// next reads and checks one property. Its value is v for the integers and data
// for the rest; the value of a user property is not returned.
func (p *properties) next() (id byte, v uint32, data []byte) {
	id = p.byte()
	if p.err != nil {
		return 0, 0, nil
	}
	k, places := propertyOf(id)
	if places&p.where == 0 {
		p.fail(malformed("property that is unknown or not for this packet"))
		return 0, 0, nil
	}
	if id != propUser && !(id == propSubscriptionID && p.repeat) {
		if p.seen&(1<<id) != 0 {
			p.fail(protocolError("property that may be there once is there twice"))
			return 0, 0, nil
		}
		p.seen |= 1 << id
	}
	switch k {
	case kindBit:
		v = uint32(p.byte())
	case kindTwo:
		v = uint32(p.uint16())
	case kindFour:
		v = p.uint32()
	case kindVarint:
		v = p.varint()
	case kindText:
		data = p.text()
	case kindBinary:
		data = p.bytes()
	case kindPair:
		p.text()
		p.text()
		p.users++
	}
	if p.err == nil {
		if err := checkValue(id, k, v, data); err != nil {
			p.fail(err)
		}
	}
	return id, v, data
}

// checkValue checks that a property is in its range.
func checkValue(id byte, k kind, v uint32, data []byte) error {
	switch {
	case k == kindBit && v > 1:
		return protocolError("property that must be 0 or 1 is neither")
	case v > 0 || k > kindVarint:
		if id == propResponseTopic && hasWildcard(data) {
			return protocolError("response topic has a wildcard in it") // [MQTT-3.3.2-14]
		}
		if id == propAuthMethod && len(data) == 0 {
			// mochi's structures cannot tell it from none, and nobody knows it.
			return &Error{ReasonBadAuthMethod, "authentication method is empty"}
		}
	case id == propReceiveMaximum:
		return protocolError("receive maximum is 0") // MQTT 5, section 3.1.2.11.3
	case id == propMaximumPacket:
		return protocolError("maximum packet size is 0") // section 3.1.2.11.4
	case id == propSubscriptionID:
		return protocolError("subscription identifier is 0") // section 3.8.2.1.2
	case id == propTopicAlias:
		return &Error{ReasonTopicAliasInvalid, "topic alias is 0"} // [MQTT-3.3.2-8]
	}
	return nil
}

// has tells whether the property was met.
func (p *properties) has(id byte) bool { return p.seen&(1<<id) != 0 }

// check reads all properties of a packet that is then decoded into structures.
func (r *reader) check(where place) properties {
	p := r.properties(where)
	p.rest()
	if p.err != nil {
		r.fail(p.err)
	}
	return p
}

func (p *properties) rest() {
	for len(p.b) > 0 {
		p.next()
	}
	if p.users > maxItems && p.err == nil {
		p.err = &Error{ReasonQuotaExceeded, "packet has too many user properties"}
	}
}
