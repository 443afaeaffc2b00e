package mosquitto

// oldLayout is that of versions 3 and 4 (mosquitto 1.0 to 1.5): every text has its
// length before it.
type oldLayout struct{ version int }

func (oldLayout) config(c *cursor) int {
	c.u8()
	n := int(c.u8())
	c.id()
	return n
}

func (c *cursor) string() string { return c.text(int(c.u16())) }

func (l oldLayout) message(c *cursor) (uint64, *Message) {
	id := c.id()
	m := &Message{Source: c.string()}
	if l.version >= 4 {
		c.string() // user
		c.u16()    // port
	}
	c.u16() // packet ids
	c.u16()
	m.Topic = c.string()
	m.QoS, m.Retain = c.u8(), c.u8() != 0
	m.Payload = c.take(int(c.u32()))
	if c.err == nil && m.QoS > 2 {
		c.err = errQoS
	}
	return id, m
}

func (oldLayout) client(c *cursor) *Client {
	out := &Client{ID: c.string(), Expiry: never}
	c.u16() // the last packet id
	c.id()  // when it went away
	return out
}

func (oldLayout) clientMessage(c *cursor) (string, uint64, bool, Queued, byte) {
	name := c.string()
	id := c.id()
	q := Queued{PacketID: c.u16(), QoS: c.u8(), Retain: c.u8() != 0}
	direction, state := c.u8(), c.u8()
	c.u8() // dup
	if c.err == nil && q.QoS > 2 {
		c.err = errQoS
	}
	return name, id, direction == 0, q, state
}

func (oldLayout) subscription(c *cursor) (string, Subscription) {
	name := c.string()
	s := Subscription{Filter: c.string(), QoS: c.u8()}
	if c.err == nil && s.QoS > 2 {
		c.err = errQoS
	}
	return name, s
}
