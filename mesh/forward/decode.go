package forward

import (
	"unicode/utf8"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// Delivery is a message that a peer forwarded to this node.
type Delivery struct {
	Message *session.Message
	// Index is the log index that had to be applied first.
	Index uint64
	// AsOf is the log index that the sender had applied, all ones if it did not say; 0
	// with Client.
	AsOf uint64
	// Client is set for a message that is for one client only: the member of a
	// shared subscription that the publisher's node chose. Subscription is then
	// that member's.
	Client       string
	Subscription session.Subscription
	// Aside is a place of Deps.Deliver's beside what the stream remembers of Message's
	// topic. What Deliver puts there is there with a later message of the topic, or nil.
	Aside *any
}

// decoder decodes the messages of one stream. What it returns shares no memory
// with the frame; small payloads share blocks of a few KiB, so that a message
// that is kept keeps no more than that alive.
type decoder struct {
	names  map[string]string // client ids seen, bounded
	topics routing.Topics[remembered]
	slab   []session.Message
	block  []byte
}

// remembered is kept with a topic.
type remembered struct {
	valid bool // it is UTF-8
	aside any
}

const (
	// topicPlaces are those of the topics of one stream: of 196,608 topics, which take
	// about 45 MB with what is kept beside them.
	topicPlaces = 1 << 18

	maxNames   = 2048
	slabSize   = 32
	blockSize  = 4 << 10
	blockShare = 512 // larger ones get memory of their own
)

// messages appends the deliveries of a body of kindMessages or kindLater to dst.
func (d *decoder) messages(dst []Delivery, k kind, body []byte) ([]Delivery, error) {
	c := cursor{b: body}
	at := place{index: c.uvarint(), asOf: ^uint64(0)}
	if k == kindLater {
		at.asOf = c.uvarint()
	}
	for c.more() {
		var ok bool
		if dst, ok = d.message(dst, &c, at); !ok {
			return dst, errMalformed
		}
	}
	return dst, c.end()
}

func (d *decoder) message(dst []Delivery, c *cursor, at place) ([]Delivery, bool) {
	flags := c.byte()
	topic, ok1 := d.topic(c.bytes(maxName))
	publisher, ok2 := d.name(c.bytes(maxName))
	stamp := c.varint()
	var expires int64
	if flags&flagExpires != 0 {
		expires = c.varint()
	}
	var properties []byte
	if flags&flagProperties != 0 {
		properties = c.bytes(len(c.b))
	}
	payload := c.bytes(len(c.b))
	del := Delivery{Index: at.index, AsOf: at.asOf}
	if flags&flagTargeted != 0 {
		del.AsOf = 0 // chosen where it was sent: nobody else got it
		client, ok := d.name(c.bytes(maxName))
		sub, subOK := d.subscription(c)
		if !ok || !subOK || client == "" {
			return dst, false
		}
		del.Client, del.Subscription = client, sub
	}
	qos := flags & flagQoS >> 1
	if c.bad || !ok1 || !ok2 || topic.Name == "" || flags&^flagsKnown != 0 || qos > 2 {
		return dst, false
	}
	m := d.alloc()
	*m = session.Message{
		Topic: topic.Name, Payload: d.keep(payload), Properties: d.keep(properties),
		QoS: qos, Retain: flags&flagRetain != 0,
		Publisher: publisher, Stamp: stamp, ExpiresAt: expires,
	}
	del.Message, del.Aside = m, &topic.Value.aside
	return append(dst, del), true
}

func (d *decoder) subscription(c *cursor) (session.Subscription, bool) {
	filter, ok := d.name(c.bytes(maxName))
	opts := c.byte()
	id := c.uvarint()
	sub := session.Subscription{
		Filter: filter, QoS: opts & optQoS,
		NoLocal: opts&optNoLocal != 0, RetainAsPublished: opts&optAsPublished != 0,
		RetainHandling: opts & optHandling >> optHandlingShift, ID: uint32(id),
	}
	const maxID = 268435455 // [MQTT-3.8.2.1.2]
	return sub, ok && !c.bad && opts&^optKnown == 0 && sub.QoS <= 2 && sub.RetainHandling <= 2 && id <= maxID
}

// topic returns what is remembered of the topic b; ok is false where it is no UTF-8.
func (d *decoder) topic(b []byte) (t *routing.Topic[remembered], ok bool) {
	d.topics.Places = topicPlaces
	t = d.topics.GetBytes(b)
	t.Value.valid = t.Value.valid || utf8.Valid(b)
	return t, t.Value.valid
}

// name returns b as a string, the same memory for names that come again.
func (d *decoder) name(b []byte) (string, bool) {
	if len(b) == 0 {
		return "", true
	}
	if s, ok := d.names[string(b)]; ok {
		return s, true
	}
	if !utf8.Valid(b) {
		return "", false
	}
	s := string(b)
	if len(b) > blockShare {
		return s, true
	}
	if d.names == nil || len(d.names) >= maxNames {
		d.names = make(map[string]string, 64)
	}
	d.names[s] = s
	return s, true
}

func (d *decoder) alloc() *session.Message {
	if len(d.slab) == 0 {
		d.slab = make([]session.Message, slabSize)
	}
	m := &d.slab[0]
	d.slab = d.slab[1:]
	return m
}

func (d *decoder) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(b) > blockShare {
		return append([]byte(nil), b...)
	}
	if len(d.block) < len(b) {
		d.block = make([]byte, blockSize)
	}
	out := d.block[:len(b):len(b)]
	d.block = d.block[len(b):]
	copy(out, b)
	return out
}

// change is one step of a route log.
type change struct {
	filter string
	add    bool
}

const (
	opRemove = 0
	opAdd    = 1
)

func appendChange(dst []byte, ch change) []byte {
	op := byte(opRemove)
	if ch.add {
		op = opAdd
	}
	return appendString(append(dst, op), ch.filter)
}

// delta decodes a body of kindDelta.
func delta(body []byte) (from uint64, changes []change, err error) {
	c := cursor{b: body}
	from = c.number()
	own := string(body) // one allocation for all the filters
	for c.more() {
		op := c.byte()
		f := c.filter(own)
		if c.bad || op > opAdd {
			return 0, nil, errMalformed
		}
		changes = append(changes, change{f, op == opAdd})
	}
	return from, changes, c.end()
}

// filters appends the filters of a body of kindSnapChunk to dst.
func filters(dst []string, body []byte) ([]string, error) {
	c := cursor{b: body}
	own := string(body)
	for c.more() {
		if f := c.filter(own); !c.bad {
			dst = append(dst, f)
		}
	}
	return dst, c.end()
}

// filter reads a filter and returns it as a part of own, which has the same
// end as the body.
func (c *cursor) filter(own string) string {
	n := len(c.bytes(maxName))
	end := len(own) - len(c.b)
	if c.bad {
		return ""
	}
	f := own[end-n : end]
	if _, _, shared := routing.SplitShared(f); shared || routing.ValidFilter(f) != nil {
		c.fail()
		return ""
	}
	return f
}

// hash64 is the hash of one filter; the hash of a set is the exclusive or of
// its filters'. It is the same on every node (FNV-1a, then mixed so that
// similar filters do not cancel out).
func hash64(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
