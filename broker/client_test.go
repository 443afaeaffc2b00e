package broker

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/session"
)

// patience is how long a test waits for what must come.
const patience = 5 * time.Second

// peer is an MQTT client that shows every packet.
type peer struct {
	t       testing.TB
	conn    net.Conn
	version byte
	in      chan *packets.Packet // closed at the end of the stream
	pending []*packets.Packet    // looked at and passed over
	connack *packets.Packet
}

// option changes a CONNECT.
type option func(p *packets.Packet)

func persistent(p *packets.Packet) {
	p.Connect.Clean = false
	if p.ProtocolVersion == 5 {
		p.Properties.SessionExpiryInterval, p.Properties.SessionExpiryIntervalFlag = 3600, true
	}
}

func withWill(topic, payload string, qos byte, retain bool) option {
	return func(p *packets.Packet) {
		c := &p.Connect
		c.WillFlag, c.WillTopic, c.WillPayload, c.WillQos, c.WillRetain = true, topic, []byte(payload), qos, retain
	}
}

func receiveMaximum(n uint16) option {
	return func(p *packets.Packet) { p.Properties.ReceiveMaximum = n }
}

// dial opens a connection without a word.
func dial(t testing.TB, n *node, version byte) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", n.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := &peer{t: t, conn: conn, version: version, in: make(chan *packets.Packet, 100_000)}
	t.Cleanup(func() { conn.Close() })
	go c.read()
	return c
}

// connectRaw sends CONNECT and waits for no answer.
func connectRaw(t testing.TB, n *node, version byte, id string, opts ...option) *peer {
	t.Helper()
	c := dial(t, n, version)
	p := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version}
	p.Connect.ProtocolName = []byte("MQTT")
	if version == 3 {
		p.Connect.ProtocolName = []byte("MQIsdp")
	}
	p.Connect.ClientIdentifier = id
	p.Connect.Clean = true
	for _, o := range opts {
		o(p)
	}
	c.send(p)
	return c
}

// connect expects to be accepted.
func connect(t testing.TB, n *node, version byte, id string, opts ...option) *peer {
	t.Helper()
	c := connectRaw(t, n, version, id, opts...)
	c.connack = c.expect(packets.Connack)
	if c.connack.ReasonCode != 0 {
		t.Fatalf("%s: CONNACK 0x%02X", id, c.connack.ReasonCode)
	}
	return c
}

func (c *peer) read() {
	defer close(c.in)
	buf := make([]byte, 0, 4096)
	for {
		for {
			n, _, err := codec.Scan(buf, codec.MaxPacket)
			if err != nil || n == 0 {
				break
			}
			p, err := codec.DecodeServer(buf[:n], c.version)
			if err != nil {
				c.t.Errorf("the broker sent %x: %v", buf[:n], err)
				return
			}
			c.in <- p
			buf = buf[n:]
		}
		if cap(buf)-len(buf) < 1024 {
			buf = append(make([]byte, 0, 2*cap(buf)+4096), buf...)
		}
		n, err := c.conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return
		}
		buf = buf[:len(buf)+n]
	}
}

func (c *peer) send(p *packets.Packet) {
	c.t.Helper()
	p.ProtocolVersion = c.version
	b, err := codec.AppendPacket(nil, p)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(b)
}

func (c *peer) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil && !errors.Is(err, net.ErrClosed) {
		c.t.Logf("write: %v", err)
	}
}

// next returns the next packet, nil at the end of the stream.
func (c *peer) next() *packets.Packet {
	c.t.Helper()
	if len(c.pending) > 0 {
		p := c.pending[0]
		c.pending = c.pending[1:]
		return p
	}
	select {
	case p := <-c.in:
		return p
	case <-time.After(patience):
		c.t.Fatal("nothing came")
		return nil
	}
}

// expect returns the next packet, which must be of a type; of others it
// complains.
func (c *peer) expect(typ byte) *packets.Packet {
	c.t.Helper()
	p := c.next()
	if p == nil {
		c.t.Fatalf("the connection was closed; want %s", packets.PacketNames[typ])
	}
	if p.FixedHeader.Type != typ {
		c.t.Fatalf("got %s (0x%02X, topic %q), want %s", packets.PacketNames[p.FixedHeader.Type], p.ReasonCode, p.TopicName, packets.PacketNames[typ])
	}
	return p
}

// skipTo returns the next packet of a type; what comes before stays for later.
func (c *peer) skipTo(typ byte) *packets.Packet {
	c.t.Helper()
	for i, p := range c.pending {
		if p.FixedHeader.Type == typ {
			c.pending = append(c.pending[:i:i], c.pending[i+1:]...)
			return p
		}
	}
	var passed []*packets.Packet
	for {
		select {
		case p := <-c.in:
			if p == nil {
				c.t.Fatalf("the connection was closed; want %s", packets.PacketNames[typ])
			}
			if p.FixedHeader.Type == typ {
				c.pending = append(c.pending, passed...)
				return p
			}
			passed = append(passed, p)
		case <-time.After(patience):
			c.t.Fatalf("no %s came", packets.PacketNames[typ])
		}
	}
}

// message expects a PUBLISH and answers it as its QoS asks.
func (c *peer) message() *packets.Packet {
	c.t.Helper()
	p := c.skipTo(packets.Publish)
	switch p.FixedHeader.Qos {
	case 1:
		c.ack(codec.TypePuback, p.PacketID, 0)
	case 2:
		c.ack(codec.TypePubrec, p.PacketID, 0)
		c.skipTo(packets.Pubrel)
		c.ack(codec.TypePubcomp, p.PacketID, 0)
	}
	return p
}

func (c *peer) wantMessages(topic string, payloads ...string) {
	c.t.Helper()
	for _, want := range payloads {
		p := c.message()
		if p.TopicName != topic || string(p.Payload) != want {
			c.t.Fatalf("got %q on %q, want %q on %q", p.Payload, p.TopicName, want, topic)
		}
	}
}

func (c *peer) ack(typ byte, id uint16, reason byte) {
	c.t.Helper()
	c.write(codec.AppendAck(nil, c.version, typ, id, reason))
}

// quiet checks that nothing more comes: a PING is answered by nothing else.
func (c *peer) quiet() {
	c.t.Helper()
	c.write([]byte{0xC0, 0})
	if p := c.next(); p == nil || p.FixedHeader.Type != packets.Pingresp {
		c.t.Fatalf("got %v, want nothing", p)
	}
}

// closed expects the end of the stream, after a DISCONNECT with the reason for
// version 5.
func (c *peer) closed(reason byte) {
	c.t.Helper()
	for {
		p := c.next()
		if p == nil {
			if c.version == 5 && reason != 0 {
				c.t.Fatalf("closed without DISCONNECT 0x%02X", reason)
			}
			return
		}
		if p.FixedHeader.Type == packets.Disconnect {
			if c.version < 5 || p.ReasonCode != reason {
				c.t.Fatalf("DISCONNECT 0x%02X, want 0x%02X", p.ReasonCode, reason)
			}
			reason = 0
		}
	}
}

func (c *peer) disconnect() {
	c.t.Helper()
	c.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	c.closed(0)
	c.conn.Close()
}

func sub(filter string, qos byte) packets.Subscription {
	return packets.Subscription{Filter: filter, Qos: qos}
}

// subscribe expects to be granted what it asks for.
func (c *peer) subscribe(subs ...packets.Subscription) *packets.Packet {
	c.t.Helper()
	p := c.subscribeRaw(0, subs...)
	for i, s := range subs {
		if p.ReasonCodes[i] != s.Qos {
			c.t.Fatalf("SUBACK of %q: 0x%02X", s.Filter, p.ReasonCodes[i])
		}
	}
	return p
}

func (c *peer) subscribeRaw(id int, subs ...packets.Subscription) *packets.Packet {
	c.t.Helper()
	p := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 99, Filters: subs}
	if id != 0 {
		p.Properties.SubscriptionIdentifier = []int{id}
		for i := range p.Filters {
			p.Filters[i].Identifier = id
		}
	}
	c.send(p)
	return c.skipTo(packets.Suback)
}

func (c *peer) unsubscribe(filters ...string) *packets.Packet {
	c.t.Helper()
	p := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe}, PacketID: 98}
	for _, f := range filters {
		p.Filters = append(p.Filters, packets.Subscription{Filter: f})
	}
	c.send(p)
	return c.skipTo(packets.Unsuback)
}

// frame is a PUBLISH.
func (c *peer) frame(topic, payload string, o codec.PublishOptions) []byte {
	return codec.AppendPublish(nil, c.version, &session.Message{Topic: topic, Payload: []byte(payload)}, o)
}

// publish sends and expects every acknowledgement.
func (c *peer) publish(topic, payload string, qos byte, retain bool) {
	c.t.Helper()
	c.write(c.frame(topic, payload, codec.PublishOptions{QoS: qos, Retain: retain, PacketID: 7}))
	switch qos {
	case 1:
		if p := c.skipTo(packets.Puback); p.ReasonCode >= 0x80 {
			c.t.Fatalf("PUBACK 0x%02X", p.ReasonCode)
		}
	case 2:
		if p := c.skipTo(packets.Pubrec); p.ReasonCode >= 0x80 {
			c.t.Fatalf("PUBREC 0x%02X", p.ReasonCode)
		}
		c.ack(codec.TypePubrel, 7, 0)
		if p := c.skipTo(packets.Pubcomp); p.ReasonCode != 0 {
			c.t.Fatalf("PUBCOMP 0x%02X", p.ReasonCode)
		}
	}
}

// dialRaw connects and subscribes to its own client id, and reads no more.
func dialRaw(t testing.TB, n *node, id string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", n.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(streamOf(4, id)); err != nil {
		t.Fatal(err)
	}
	for n.broker.n.subscriptions.Load() == 0 {
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// streamOf is what a client may send: CONNECT, SUBSCRIBE, PUBLISHes and so on.
func streamOf(version byte, id string) []byte {
	c := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version}
	c.Connect.ProtocolName = []byte("MQTT")
	if version == 3 {
		c.Connect.ProtocolName = []byte("MQIsdp")
	}
	c.Connect.ClientIdentifier, c.Connect.Clean = id, true
	s := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, ProtocolVersion: version, PacketID: 1, Filters: packets.Subscriptions{sub(id, 1)}}
	var b []byte
	for _, p := range []*packets.Packet{c, s} {
		var err error
		if b, err = codec.AppendPacket(b, p); err != nil {
			panic(err)
		}
	}
	for qos := range byte(3) {
		b = codec.AppendPublish(b, version, &session.Message{Topic: id + "/x", Payload: []byte("payload")}, codec.PublishOptions{QoS: qos, PacketID: 3})
	}
	b = codec.AppendAck(b, version, codec.TypePubrel, 3, 0)
	return append(b, 0xC0, 0)
}

// quietT does not mind what a mutated stream is answered.
type quietT struct{ testing.TB }

func (quietT) Errorf(string, ...any) {}
