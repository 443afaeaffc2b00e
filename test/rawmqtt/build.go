package rawmqtt

// Will is the last will of a CONNECT.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties []Property
}

// Connect is a CONNECT packet. The zero value of Version means 4 (MQTT 3.1.1).
type Connect struct {
	Version    byte
	ClientID   string
	CleanStart bool
	KeepAlive  uint16
	Properties []Property
	Will       *Will
	// Username and Password are left out when nil.
	Username, Password *string
}

// Packet returns c as bytes.
func (c Connect) Packet() []byte {
	if c.Version == 0 {
		c.Version = 4
	}
	name := "MQTT"
	if c.Version == 3 {
		name = "MQIsdp"
	}
	body := AppendString(nil, name)
	body = append(body, c.Version, c.flags())
	body = AppendUint16(body, c.KeepAlive)
	if c.Version >= 5 {
		body = AppendProperties(body, c.Properties)
	}
	body = AppendString(body, c.ClientID)
	if w := c.Will; w != nil {
		if c.Version >= 5 {
			body = AppendProperties(body, w.Properties)
		}
		body = AppendString(AppendString(body, w.Topic), string(w.Payload))
	}
	if c.Username != nil {
		body = AppendString(body, *c.Username)
	}
	if c.Password != nil {
		body = AppendString(body, *c.Password)
	}
	return Frame(CONNECT<<4, body)
}

func (c Connect) flags() (f byte) {
	if c.CleanStart {
		f |= 2
	}
	if w := c.Will; w != nil {
		f |= 4 | w.QoS<<3
		if w.Retain {
			f |= 32
		}
	}
	if c.Password != nil {
		f |= 64
	}
	if c.Username != nil {
		f |= 128
	}
	return f
}

func parseConnect(r *reader) *Connect {
	c := &Connect{}
	r.string("protocol name")
	c.Version = r.byte("protocol version")
	flags := r.byte("flags")
	c.CleanStart = flags&2 != 0
	c.KeepAlive = r.uint16("keep alive")
	if c.Version >= 5 {
		c.Properties = r.properties()
	}
	c.ClientID = r.string("client id")
	if flags&4 != 0 {
		w := &Will{QoS: flags >> 3 & 3, Retain: flags&32 != 0}
		if c.Version >= 5 {
			w.Properties = r.properties()
		}
		w.Topic = r.string("will topic")
		w.Payload = r.bytes("will payload")
		c.Will = w
	}
	if flags&128 != 0 {
		s := r.string("user name")
		c.Username = &s
	}
	if flags&64 != 0 {
		s := r.string("password")
		c.Password = &s
	}
	return c
}

// Publish is a PUBLISH packet. ID is written only with a QoS above 0.
type Publish struct {
	Topic       string
	Payload     []byte
	QoS         byte
	ID          uint16
	Dup, Retain bool
	Properties  []Property
}

// Packet returns p as bytes of the protocol version.
func (p Publish) Packet(version byte) []byte {
	first := PUBLISH<<4 | p.QoS<<1
	if p.Dup {
		first |= 8
	}
	if p.Retain {
		first |= 1
	}
	body := AppendString(make([]byte, 0, len(p.Topic)+len(p.Payload)+8), p.Topic)
	if p.QoS > 0 {
		body = AppendUint16(body, p.ID)
	}
	if version >= 5 {
		body = AppendProperties(body, p.Properties)
	}
	return Frame(first, append(body, p.Payload...))
}

// AckPacket returns a PUBACK, PUBREC, PUBREL or PUBCOMP, with the flags the
// standard wants of its type. A reason of 0 is left out.
func AckPacket(version, kind byte, id uint16, reason byte) []byte {
	first := kind << 4
	if kind == PUBREL {
		first |= 2
	}
	body := AppendUint16(nil, id)
	if version >= 5 && reason != 0 {
		body = append(body, reason)
	}
	return Frame(first, body)
}

// SubscribePacket returns a SUBSCRIBE.
func SubscribePacket(version byte, id uint16, props []Property, subs ...Subscription) []byte {
	body := AppendUint16(nil, id)
	if version >= 5 {
		body = AppendProperties(body, props)
	}
	for _, s := range subs {
		body = append(AppendString(body, s.Filter), s.Options)
	}
	return Frame(SUBSCRIBE<<4|2, body)
}

// UnsubscribePacket returns an UNSUBSCRIBE.
func UnsubscribePacket(version byte, id uint16, filters ...string) []byte {
	body := AppendUint16(nil, id)
	if version >= 5 {
		body = AppendProperties(body, nil)
	}
	for _, f := range filters {
		body = AppendString(body, f)
	}
	return Frame(UNSUBSCRIBE<<4|2, body)
}

// ConnackPacket returns a CONNACK, for servers in tests.
func ConnackPacket(version byte, present bool, reason byte, props ...Property) []byte {
	body := []byte{0, reason}
	if present {
		body[0] = 1
	}
	if version >= 5 {
		body = AppendProperties(body, props)
	}
	return Frame(CONNACK<<4, body)
}

// SubackPacket returns a SUBACK (or, as kind, an UNSUBACK), for servers in tests.
func SubackPacket(version, kind byte, id uint16, reasons ...byte) []byte {
	body := AppendUint16(nil, id)
	if version >= 5 {
		body = AppendProperties(body, nil)
	}
	if kind == SUBACK || version >= 5 {
		body = append(body, reasons...)
	}
	return Frame(kind<<4, body)
}

// DisconnectPacket returns a DISCONNECT; before MQTT 5 it has no reason.
func DisconnectPacket(version, reason byte, props ...Property) []byte {
	if version < 5 || reason == 0 && len(props) == 0 {
		return []byte{DISCONNECT << 4, 0}
	}
	body := []byte{reason}
	if len(props) > 0 {
		body = AppendProperties(body, props)
	}
	return Frame(DISCONNECT<<4, body)
}
