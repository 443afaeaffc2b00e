package history

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// broker is a small broker for the drivers to talk to. It keeps all sessions for
// ever, has one lock, and several addresses, as a cluster has. It knows no shared
// subscriptions.
type broker struct {
	t         *testing.T
	listeners []net.Listener
	wg        sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*brokerSession
	conns    map[*rawmqtt.Client]*brokerSession // nil before CONNECT
	retained map[string]*rawmqtt.Publish
	secrets  map[string]string // by user; who is not there may connect without
	timers   []*time.Timer
}

type brokerSession struct {
	conn     *rawmqtt.Client
	filters  map[string]byte    // QoS by filter
	queue    []*rawmqtt.Publish // not acknowledged by the client, in order
	released map[uint16]bool    // PUBREC came
	incoming map[uint16]bool    // QoS 2 ids of the client
	nextID   uint16
	quota    int
	will     *rawmqtt.Will // of the connection, or of one that was lost
	expires  bool          // with its connection
}

func openBroker(t *testing.T, nodes int) *broker {
	b := &broker{t: t, sessions: map[string]*brokerSession{}, conns: map[*rawmqtt.Client]*brokerSession{},
		retained: map[string]*rawmqtt.Publish{}, secrets: map[string]string{}}
	for range nodes {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		b.listeners = append(b.listeners, ln)
		b.wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				b.wg.Go(func() { b.serve(rawmqtt.New(conn, 5)) })
			}
		})
	}
	t.Cleanup(func() {
		for _, ln := range b.listeners {
			ln.Close()
		}
		b.cut()
		b.wg.Wait()
		for _, timer := range b.timers {
			timer.Stop()
		}
	})
	return b
}

func (b *broker) addresses() (all []string) {
	for _, ln := range b.listeners {
		all = append(all, ln.Addr().String())
	}
	return all
}

// cut ends all connections at once.
func (b *broker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
	}
}

func (b *broker) serve(c *rawmqtt.Client) {
	b.mu.Lock()
	b.conns[c] = nil
	b.mu.Unlock()
	defer func() {
		c.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lost(c, b.conns[c])
		delete(b.conns, c)
	}()
	for {
		p, err := c.Read(time.Minute)
		if err != nil {
			return
		}
		b.mu.Lock()
		if p.Type == rawmqtt.CONNECT {
			b.conns[c] = b.connect(c, p.Connect)
		} else {
			b.packet(b.conns[c], c, p)
		}
		b.mu.Unlock()
	}
}

// lost has the will of a connection fire after its delay, unless its client is
// back then.
func (b *broker) lost(c *rawmqtt.Client, s *brokerSession) {
	if s == nil || s.conn != c {
		return
	}
	s.conn = nil
	w := s.will
	if w == nil {
		return
	}
	if delay, _ := rawmqtt.Find(w.Properties, rawmqtt.WillDelay); delay.Int > 0 && !s.expires {
		b.timers = append(b.timers, time.AfterFunc(time.Duration(delay.Int)*time.Second, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if s.will == w && s.conn == nil {
				b.fire(s)
			}
		}))
		return
	}
	b.fire(s)
}

func (b *broker) fire(s *brokerSession) {
	if w := s.will; w != nil {
		s.will = nil
		b.deliver(&rawmqtt.Packet{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain})
	}
}

func (b *broker) connect(c *rawmqtt.Client, o *rawmqtt.Connect) *brokerSession {
	if o.Username != nil && (o.Password == nil || b.secrets[*o.Username] != *o.Password || *o.Password == "") {
		c.Send(rawmqtt.ConnackPacket(c.Version, false, 0x86))
		return nil
	}
	s := b.sessions[o.ClientID]
	if s != nil && s.conn != nil {
		if c.Version == 5 {
			s.conn.Send(rawmqtt.DisconnectPacket(5, TakenOver))
		}
		s.conn.Close()
		s.conn = nil // what it sent and was not read yet does not count
		if delay, _ := rawmqtt.Find(propertiesOf(s.will), rawmqtt.WillDelay); delay.Int == 0 || o.CleanStart || s.expires {
			b.fire(s)
		}
	}
	present := s != nil && !o.CleanStart && !s.expires
	if !present {
		if s != nil {
			b.fire(s)
		}
		s = &brokerSession{filters: map[string]byte{}, released: map[uint16]bool{}, incoming: map[uint16]bool{}}
		b.sessions[o.ClientID] = s
	}
	expiry, _ := rawmqtt.Find(o.Properties, rawmqtt.SessionExpiry)
	s.expires = o.Version == 5 && expiry.Int == 0 || o.Version < 5 && o.CleanStart
	quota, _ := rawmqtt.Find(o.Properties, rawmqtt.ReceiveMaximum)
	s.conn, s.will, s.quota = c, o.Will, int(quota.Int)
	c.Send(rawmqtt.ConnackPacket(c.Version, present, 0))
	for _, m := range s.queue {
		if s.released[m.ID] {
			c.Send(rawmqtt.AckPacket(5, rawmqtt.PUBREL, m.ID, 0))
			continue
		}
		m.Dup = true
		if s.quota == 0 || s.place(m) < s.quota {
			c.Publish(*m)
		}
	}
	return s
}

func propertiesOf(w *rawmqtt.Will) []rawmqtt.Property {
	if w == nil {
		return nil
	}
	return w.Properties
}

func (s *brokerSession) place(m *rawmqtt.Publish) int { return slices.Index(s.queue, m) }

func (b *broker) packet(s *brokerSession, c *rawmqtt.Client, p *rawmqtt.Packet) {
	if s == nil || s.conn != c {
		return // refused, or taken over
	}
	switch p.Type {
	case rawmqtt.SUBSCRIBE:
		b.subscribe(s, c, p)
	case rawmqtt.PUBLISH:
		if p.QoS < 2 || !s.incoming[p.ID] {
			b.deliver(p)
		}
		if p.QoS == 2 {
			s.incoming[p.ID] = true
		}
		c.Ack(p)
	case rawmqtt.PUBREL:
		delete(s.incoming, p.ID)
		c.Ack(p)
	case rawmqtt.PUBREC:
		s.released[p.ID] = true
		c.Ack(p)
	case rawmqtt.PUBACK, rawmqtt.PUBCOMP:
		delete(s.released, p.ID)
		s.queue = slices.DeleteFunc(s.queue, func(m *rawmqtt.Publish) bool { return m.ID == p.ID })
		if s.quota > 0 && len(s.queue) >= s.quota {
			c.Publish(*s.queue[s.quota-1])
		}
	case rawmqtt.PINGREQ:
		c.Send([]byte{rawmqtt.PINGRESP << 4, 0})
	case rawmqtt.DISCONNECT:
		if p.Reason != withWill {
			s.will = nil
		}
	}
}

func (b *broker) subscribe(s *brokerSession, c *rawmqtt.Client, p *rawmqtt.Packet) {
	var codes []byte
	for _, f := range p.Subscriptions {
		s.filters[f.Filter] = f.Options & 3
		codes = append(codes, f.Options&3)
	}
	c.Send(rawmqtt.SubackPacket(c.Version, rawmqtt.SUBACK, p.ID, codes...))
	for _, f := range p.Subscriptions {
		for topic, m := range b.retained {
			if matches(f.Filter, topic) {
				b.give(s, *m, f.Options&3, true)
			}
		}
	}
}

func (b *broker) deliver(p *rawmqtt.Packet) {
	m := rawmqtt.Publish{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS}
	for _, q := range p.Properties {
		if q.ID == rawmqtt.UserProperty {
			m.Properties = append(m.Properties, q)
		}
	}
	if p.Retain {
		if b.retained[p.Topic] = &m; len(p.Payload) == 0 {
			delete(b.retained, p.Topic)
		}
	}
	for _, s := range b.sessions {
		for filter, qos := range s.filters {
			if matches(filter, p.Topic) {
				b.give(s, m, qos, false)
				break
			}
		}
	}
}

func (b *broker) give(s *brokerSession, m rawmqtt.Publish, qos byte, retain bool) {
	m.Retain = retain
	if m.QoS = min(m.QoS, qos); m.QoS > 0 {
		s.nextID++
		m.ID = s.nextID
		s.queue = append(s.queue, &m)
	}
	if s.conn != nil && (m.QoS == 0 || s.quota == 0 || len(s.queue) <= s.quota) {
		s.conn.Publish(m)
	}
}
