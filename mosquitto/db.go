package mosquitto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// Database is the content of a persistence file. What it holds shares the memory
// of the file's bytes.
type Database struct {
	Version int
	// Retained are the retained messages, in the order of the file.
	Retained []*Message
	Clients  []*Client
}

// Message is a stored message.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	// Source is the client id of the publisher.
	Source string
	// Expires is when it is no longer to be delivered; zero: never.
	Expires time.Time
	// Properties are those of MQTT 5, in wire form without their length.
	Properties []byte
}

// Client is a persistent session.
type Client struct {
	ID string
	// User is empty for a client without a user name, and in files before
	// version 6, which do not have it (Database.Version).
	User string
	// Unsure: version 2.0.11 writes the user of another client for some that have
	// none, and this may be one of them.
	Unsure bool
	// Expiry is in seconds, math.MaxUint32 for never; Expires is when it ends, zero
	// where that is never or the client was connected.
	Expiry        uint32
	Expires       time.Time
	Subscriptions []Subscription
	// Queue is what waits for the client, in order; Incoming are QoS 2 messages
	// from it that wait for its PUBREL.
	Queue    []Queued
	Incoming []Queued
}

// Subscription is one of a client.
type Subscription struct {
	Filter string
	QoS    byte
	ID     uint32
	// Of MQTT 5.
	NoLocal, RetainAsPublished bool
	RetainHandling             byte
}

// State is how far a queued message has come.
type State byte

// The states.
const (
	Waiting  State = iota // the client has seen nothing of it
	Sent                  // PUBLISH was sent under PacketID
	Received              // of QoS 2: PUBREC came
)

// Queued is a message of a session.
type Queued struct {
	Message  *Message
	PacketID uint16
	QoS      byte // of the delivery
	Retain   bool
	State    State
	// SubscriptionID is 0 for none.
	SubscriptionID uint32
}

// ErrDatabase: the file is none of mosquitto's, is cut short or holds what cannot
// be.
var ErrDatabase = errors.New("not a mosquitto database that can be read")

var dbMagic = []byte("\x00\xb5\x00mosquitto db")

// The chunks of a database.
const (
	chunkConfig = iota + 1
	chunkMessage
	chunkClientMessage
	chunkRetained
	chunkSubscription
	chunkClient
)

// ReadDatabase reads a persistence file of version 3 to 6. It allocates a small
// multiple of the file at most. Notes are about single records that were passed
// over.
func ReadDatabase(file string, data []byte) (*Database, []Note, error) {
	r := dbReader{file: file, db: new(Database), messages: map[uint64]*Message{}, clients: map[string]*Client{}}
	if err := r.read(data); err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %w", file, ErrDatabase, err)
	}
	return r.db, r.notes, nil
}

type dbReader struct {
	file     string
	db       *Database
	messages map[uint64]*Message
	clients  map[string]*Client
	notes    []Note
	user     lastUser
	layout   layout
}

// layout is how a version writes its records.
type layout interface {
	config(c *cursor) (idSize int)
	message(c *cursor) (id uint64, m *Message)
	client(c *cursor) *Client
	clientMessage(c *cursor) (client string, id uint64, incoming bool, q Queued, state byte)
	subscription(c *cursor) (client string, s Subscription)
}

func (r *dbReader) read(data []byte) error {
	c := &cursor{b: data}
	if !bytes.Equal(c.take(len(dbMagic)), dbMagic) {
		return errors.New("it does not begin as one")
	}
	c.u32() // a checksum that is always 0
	version := c.u32()
	switch version {
	case 3, 4:
		r.layout = oldLayout{version: int(version)}
	case 5, 6:
		r.layout = newLayout{version: int(version), user: &r.user}
	default:
		return fmt.Errorf("its format is version %d, known are 3 to 6", version)
	}
	r.db.Version = int(version)
	for len(c.b) > 0 && c.err == nil {
		kind := uint32(0)
		if version < 5 {
			kind = uint32(c.u16())
		} else {
			kind = c.u32()
		}
		at := len(data) - len(c.b)
		body := c.take(int(c.u32()))
		if c.err != nil {
			break
		}
		if err := r.chunk(kind, &cursor{b: body}); err != nil {
			return fmt.Errorf("record at byte %d: %w", at, err)
		}
	}
	return c.err
}

func (r *dbReader) chunk(kind uint32, c *cursor) error {
	switch kind {
	case chunkConfig:
		if n := r.layout.config(c); c.err == nil && n != 8 {
			return fmt.Errorf("ids have %d bytes, known are 8", n)
		}
	case chunkMessage:
		id, m := r.layout.message(c)
		if c.err == nil {
			r.messages[id] = m
		}
	case chunkRetained:
		id := c.id()
		if c.err == nil {
			r.retained(id)
		}
	case chunkClient:
		cl := r.layout.client(c)
		if c.err == nil {
			r.client(cl)
		}
	case chunkClientMessage:
		client, id, incoming, q, state := r.layout.clientMessage(c)
		if c.err == nil {
			r.queued(client, id, incoming, q, state)
		}
	case chunkSubscription:
		client, s := r.layout.subscription(c)
		if c.err == nil {
			r.subscription(client, s)
		}
	default:
		r.pass(fmt.Sprintf("record of kind %d", kind), "this kind is not known: whatever it is stays behind")
	}
	return c.err
}

func (r *dbReader) pass(text, why string) {
	r.notes = append(r.notes, noted(r.file, 0, text, NotSupported, why))
}

func (r *dbReader) retained(id uint64) {
	m := r.messages[id]
	if m == nil {
		r.pass(fmt.Sprintf("retained message %d", id), "the file does not hold it: mosquitto has lost it too")
		return
	}
	r.db.Retained = append(r.db.Retained, m)
}

func (r *dbReader) client(c *Client) {
	if r.clients[c.ID] != nil {
		r.pass(fmt.Sprintf("client %q", c.ID), "the file has it twice: the first counts")
		return
	}
	r.clients[c.ID] = c
	r.db.Clients = append(r.db.Clients, c)
}

func (r *dbReader) subscription(client string, s Subscription) {
	c := r.clients[client]
	if c == nil {
		r.pass(fmt.Sprintf("subscription of client %q to %q", client, s.Filter), "there is no such client")
		return
	}
	c.Subscriptions = append(c.Subscriptions, s)
}

// The states that the file has.
const (
	stateWaitPuback  = 3
	stateWaitPubrec  = 5
	stateResendRel   = 6
	stateWaitPubrel  = 7
	stateResendComp  = 8
	stateWaitPubcomp = 9
)

func (r *dbReader) queued(client string, id uint64, incoming bool, q Queued, state byte) {
	c, m := r.clients[client], r.messages[id]
	if c == nil || m == nil {
		r.pass(fmt.Sprintf("message %d of client %q", id, client), "the file does not hold the client or the message: mosquitto has lost it too")
		return
	}
	q.Message = m
	if incoming {
		// One whose PUBREL came already was published.
		if state != stateResendComp {
			c.Incoming = append(c.Incoming, q)
		}
		return
	}
	switch {
	case q.PacketID == 0:
	case state == stateWaitPuback, state == stateWaitPubrec:
		q.State = Sent
	case state == stateResendRel, state == stateWaitPubcomp:
		q.State = Received
	}
	c.Queue = append(c.Queue, q)
}

// lastUser tells apart users that 2.0.11 wrote and what was left in memory. For a
// client without a user it leaves the length of the last one in place, whose bytes
// it has turned round: every second such client is written with as much of the
// memory as that length says, and the others look as if they were the same user's.
type lastUser struct {
	name  string
	stale bool
}

func (l *lastUser) next(raw []byte) (user string, unsure bool) {
	if len(raw) == 0 {
		*l = lastUser{}
		return "", false
	}
	if !utf8.Valid(raw) || bytes.IndexByte(raw, 0) >= 0 || l.turned(len(raw)) {
		l.stale = true
		return "", false
	}
	if s := string(raw); s != l.name {
		*l = lastUser{name: s}
	}
	return l.name, l.stale
}

// turned tells whether n is the length of the last user with its bytes turned.
func (l *lastUser) turned(n int) bool {
	was := len(l.name)
	return was > 0 && was < 1<<16 && n == was>>8|was&0xff<<8 && n != was
}

// cursor takes values off b; after an error it gives zeros.
type cursor struct {
	b   []byte
	err error
}

var errShort = errors.New("it is cut short")

// take returns the next n bytes, which are those of the file.
func (c *cursor) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.b) {
		if c.err == nil {
			c.err = errShort
		}
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// id is a number in the order of bytes of the machine that wrote the file, which
// is taken to be little-endian.
func (c *cursor) id() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// when is a time as id is, in seconds; zero for none.
func (c *cursor) when() time.Time {
	n := int64(c.id())
	if n <= 0 || n > math.MaxInt64/1_000_000_000 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

// text takes a text of n bytes that clients may use.
func (c *cursor) text(n int) string {
	b := c.take(n)
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		if c.err == nil {
			c.err = errors.New("a name or topic is not UTF-8")
		}
		return ""
	}
	return strings.Clone(string(b))
}
