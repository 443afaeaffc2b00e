package history

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// Endpoint is where and how a recorded client connects.
type Endpoint struct {
	// Addresses are tried in turn, from the first, after every failure from the
	// next.
	Addresses []string
	// Roam chooses an address anew for every connection, by the name of the client.
	Roam    bool
	TLS     *tls.Config
	Version byte // 3, 4 or 5; 0 means 5
	// Username and Password are not sent when empty.
	Username, Password string
	// Timeout is how long a broker may take to answer a CONNECT, SUBSCRIBE or
	// PINGREQ before the connection counts as lost; 0 means 5 s.
	Timeout time.Duration
	// ReceiveMaximum is the client's, of MQTT 5; 0 leaves it out.
	ReceiveMaximum uint16
	// Dial replaces TCP and TLS where the brokers are in this process.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// dial opens a connection to address.
func (e Endpoint) dial(ctx context.Context, address string) (*rawmqtt.Client, error) {
	if e.Dial == nil {
		return rawmqtt.Dial(ctx, address, e.TLS, e.Version)
	}
	conn, err := e.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return rawmqtt.New(conn, e.Version), nil
}

// pingEvery is how often recorded clients look whether the broker is there.
const pingEvery = time.Second

// client is what Publisher and Subscriber share: connections, one after the
// other, and the events of their beginnings and ends.
type client struct {
	rec      *Recorder
	at       Endpoint
	name, id string // of the history, and of MQTT
	expiry   uint32
	clean    bool  // ask for a clean start the next time
	will     *will // of the next connection; nil for none

	// unanswered: a CONNECT of its own got no answer. It may be carried out later
	// and take over the connection that came after it.
	unanswered bool

	conn    int
	attempt int
	joined  bool // connected before
	raw     *rawmqtt.Client
	packets chan *rawmqtt.Packet // closed at the connection's end
	stop    chan struct{}        // ends the reader
	reader  sync.WaitGroup
	pinged  time.Time // PINGREQ without an answer yet; zero if none
	window  int       // the broker's Receive Maximum
	readErr error     // why packets was closed
}

func newClient(rec *Recorder, at Endpoint, name, id string, expiry uint32) *client {
	if at.Version == 0 {
		at.Version = 5
	}
	if at.Timeout == 0 {
		at.Timeout = 5 * time.Second
	}
	if id == "" {
		id = name
	}
	if at.Version < 5 && expiry > 0 {
		expiry = Never // before MQTT 5 a session has no other end
	}
	return &client{rec: rec, at: at, name: name, id: id, expiry: expiry, clean: expiry == 0}
}

// add records e of the current connection.
func (c *client) add(e Event) Event {
	e.History, e.Client, e.Conn = c.name, c.id, c.conn
	return c.rec.Add(e)
}

// connect tries the addresses in turn until one accepts, and tells whether it
// has the session.
func (c *client) connect(ctx context.Context) (present bool, err error) {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		present, err = c.try(ctx)
		if err == nil {
			return present, nil
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("%s cannot connect: %w", c.name, errors.Join(context.Cause(ctx), err))
		case <-time.After(pause):
		}
	}
}

// will is the will of every connection of a client, but for its name.
type will struct {
	topic  string
	qos    byte
	retain bool
	delay  uint32
}

// willName names the will of the connection, or the attempt at one.
func (c *client) willName() string { return fmt.Sprintf("%s/will-%d", c.name, c.conn) }

// address is where to connect next.
func (c *client) address() string {
	n := c.attempt
	c.attempt++
	if c.at.Roam {
		n = int(crc32.ChecksumIEEE(fmt.Appendf(nil, "%s %d", c.name, n)) >> 1)
	}
	return c.at.Addresses[n%len(c.at.Addresses)]
}

// asks is the event of a CONNECT.
func (c *client) asks(addr string) Event {
	e := Event{Kind: ConnectSent, Node: addr, Version: c.at.Version, Clean: c.clean, Expiry: c.expiry}
	if c.at.Version >= 5 {
		e.Quota = c.at.ReceiveMaximum
	}
	if w := c.will; w != nil {
		e.Message, e.Topic, e.QoS, e.Retain, e.Delay = c.willName(), w.topic, w.qos, w.retain, w.delay
		e.Sum = sum(payload(e.Message, 0))
	}
	return e
}

func (c *client) try(ctx context.Context) (present bool, err error) {
	addr := c.address()
	ctx, cancel := context.WithTimeout(ctx, c.at.Timeout)
	defer cancel()
	raw, err := c.at.dial(ctx, addr)
	if err != nil {
		return false, err
	}
	raw.Timeout = c.at.Timeout
	c.conn++
	c.add(c.asks(addr))
	ack, err := raw.Connect(c.connectPacket())
	if err != nil {
		raw.Close()
		c.unanswered = true
		return false, err
	}
	if ack.Reason != 0 {
		c.add(Event{Kind: Refused, Node: addr, Reason: ack.Reason})
		raw.Close()
		return false, fmt.Errorf("%s refused %s with 0x%02x", addr, c.name, ack.Reason)
	}
	present = ack.SessionPresent
	if c.at.Version == 3 && !c.clean {
		present = present || c.joined // a CONNACK of MQTT 3.1 does not tell
	}
	c.joined = true
	c.add(Event{Kind: Connected, Node: addr, Present: present})
	c.window = 65535
	if v, ok := ack.Int(rawmqtt.ReceiveMaximum); ok {
		c.window = int(v)
	}
	c.raw, c.pinged = raw, time.Time{}
	c.packets, c.stop = make(chan *rawmqtt.Packet, 1024), make(chan struct{})
	c.reader.Go(c.read)
	return present, nil
}

func (c *client) connectPacket() rawmqtt.Connect {
	o := rawmqtt.Connect{ClientID: c.id, KeepAlive: 30, CleanStart: c.clean}
	if c.at.Version == 5 && c.expiry > 0 {
		o.Properties = append(o.Properties, rawmqtt.Int(rawmqtt.SessionExpiry, c.expiry))
	}
	if c.at.Version == 5 && c.at.ReceiveMaximum > 0 {
		o.Properties = append(o.Properties, rawmqtt.Int(rawmqtt.ReceiveMaximum, uint32(c.at.ReceiveMaximum)))
	}
	if w := c.will; w != nil {
		o.Will = &rawmqtt.Will{Topic: w.topic, Payload: payload(c.willName(), 0), QoS: w.qos, Retain: w.retain}
		if c.at.Version == 5 && w.delay > 0 {
			o.Will.Properties = []rawmqtt.Property{rawmqtt.Int(rawmqtt.WillDelay, w.delay)}
		}
	}
	if c.at.Username != "" {
		o.Username = &c.at.Username
		if c.at.Password != "" {
			o.Password = &c.at.Password
		}
	}
	return o
}

// read hands packets over until the connection ends.
func (c *client) read() {
	defer close(c.packets)
	for {
		p, err := c.raw.Read(time.Hour)
		if err != nil {
			c.readErr = err
			return
		}
		select {
		case c.packets <- p:
		case <-c.stop:
			return
		}
	}
}

// ping keeps the connection honest: a broker that hangs is lost as one that died.
func (c *client) ping() error {
	switch {
	case c.pinged.IsZero():
		c.pinged = time.Now()
		return c.raw.Send([]byte{rawmqtt.PINGREQ << 4, 0})
	case time.Since(c.pinged) > c.at.Timeout:
		return fmt.Errorf("no answer to a ping for %v", c.at.Timeout)
	}
	return nil
}

// hangUp ends the connection and records why it is lost; reason is that of a
// DISCONNECT, 0 if none came so far. A write often fails before the DISCONNECT
// that explains it is read.
func (c *client) hangUp(reason byte, err error) byte {
	if reason == 0 {
		reason = c.lastWords()
	}
	c.drop()
	e := Event{Kind: Lost, Reason: reason}
	if err != nil {
		e.Note = err.Error()
	}
	c.add(e)
	return reason
}

// lastWordsTimeout is how long a failed connection may take to say why.
const lastWordsTimeout = 200 * time.Millisecond

// lastWords passes over what is not handled yet and returns the reason of a
// DISCONNECT, 0 if there is none. What is passed over was neither recorded nor
// acknowledged, so the broker still owes it.
func (c *client) lastWords() byte {
	limit := time.NewTimer(lastWordsTimeout)
	defer limit.Stop()
	for {
		select {
		case p, ok := <-c.packets:
			if !ok {
				return 0
			}
			if p.Type == rawmqtt.DISCONNECT {
				return p.Reason
			}
		case <-limit.C:
			return 0
		}
	}
}

// leave ends the connection in good order.
func (c *client) leave() { c.leaveWith(0) }

// withWill is the reason of a DISCONNECT after which the will is to fire.
const withWill byte = 0x04

func (c *client) leaveWith(reason byte) {
	c.add(Event{Kind: Disconnected, Expiry: c.expiry, Reason: reason})
	c.raw.Send(rawmqtt.DisconnectPacket(c.at.Version, reason)) // an error changes nothing
	c.drop()
}

// cut closes the socket and says nothing.
func (c *client) cut() {
	c.add(Event{Kind: Cut})
	c.drop()
}

func (c *client) drop() {
	close(c.stop)
	c.raw.Close()
	c.reader.Wait()
}
