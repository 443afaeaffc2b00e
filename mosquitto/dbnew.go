package mosquitto

import (
	"errors"
	"math"
)

// newLayout is that of versions 5 and 6: the numbers of a record come first, with
// the gaps that C leaves between them, then its texts.
type newLayout struct {
	version int
	user    *lastUser
}

func (newLayout) config(c *cursor) int {
	c.id()
	c.u8()
	return int(c.u8())
}

func (newLayout) message(c *cursor) (uint64, *Message) {
	id, expires := c.id(), c.when()
	payload := int(c.u32())
	c.u16() // packet id of the publisher
	source, user, topic := int(c.u16()), int(c.u16()), int(c.u16())
	c.u16() // port
	m := &Message{Expires: expires, QoS: c.u8(), Retain: c.u8() != 0}
	m.Source = c.text(source)
	c.take(user) // not needed, and maybe not the publisher's (lastUser)
	m.Topic = c.text(topic)
	m.Payload = c.take(payload)
	m.Properties = properties(c)
	if c.err == nil && m.QoS > 2 {
		c.err = errQoS
	}
	return id, m
}

func (l newLayout) client(c *cursor) *Client {
	out := &Client{Expires: c.when(), Expiry: c.u32()}
	c.u16() // the last packet id
	id, user := int(c.u16()), 0
	if l.version >= 6 {
		c.u16() // port
		user = int(c.u16())
		c.take(4)
	}
	out.ID = c.text(id)
	out.User, out.Unsure = l.user.next(c.take(user))
	return out
}

func (newLayout) clientMessage(c *cursor) (string, uint64, bool, Queued, byte) {
	id := c.id()
	q := Queued{PacketID: c.u16()}
	client := int(c.u16())
	q.QoS = c.u8()
	state := c.u8()
	q.Retain = c.u8()>>4 != 0
	direction := c.u8()
	name := c.text(client)
	q.SubscriptionID = subscriptionID(properties(c))
	if c.err == nil && q.QoS > 2 {
		c.err = errQoS
	}
	return name, id, direction == 0, q, state
}

func (newLayout) subscription(c *cursor) (string, Subscription) {
	s := Subscription{ID: c.u32()}
	client, topic := int(c.u16()), int(c.u16())
	s.QoS = c.u8()
	options := c.u8()
	c.take(2)
	name := c.text(client)
	s.Filter = c.text(topic)
	s.NoLocal, s.RetainAsPublished, s.RetainHandling = options&4 != 0, options&8 != 0, options>>4&3
	if c.err == nil && (s.QoS > 2 || s.RetainHandling > 2) {
		c.err = errQoS
	}
	return name, s
}

var errQoS = errors.New("a QoS or an option is out of range")

// properties takes the properties at the end of a record, if there are any.
func properties(c *cursor) []byte {
	if c.err != nil || len(c.b) == 0 {
		return nil
	}
	n, ok := varint(&c.b)
	if !ok || int(n) > len(c.b) {
		c.err = errShort
		return nil
	}
	return c.take(int(n))
}

// varint takes a number of up to four bytes as in MQTT.
func varint(b *[]byte) (n uint32, ok bool) {
	for i := 0; i < 4 && i < len(*b); i++ {
		n |= uint32((*b)[i]&0x7f) << (7 * i)
		if (*b)[i] < 0x80 {
			*b = (*b)[i+1:]
			return n, true
		}
	}
	return 0, false
}

// propSubscriptionID is the identifier of that property.
const propSubscriptionID = 0x0b

// subscriptionID returns the number of the only property that these records have.
func subscriptionID(p []byte) uint32 {
	if len(p) < 2 || p[0] != propSubscriptionID {
		return 0
	}
	p = p[1:]
	id, _ := varint(&p)
	return id
}

// never is the expiry of clients that know none.
const never = math.MaxUint32
