package history

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// broker is a broker of a hundred lines for the drivers to talk to. It keeps all
// sessions for ever, has one topic ("t") and one lock, and several addresses, as
// a cluster has.
type broker struct {
	t         *testing.T
	listeners []net.Listener
	wg        sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*brokerSession
	conns    map[*rawmqtt.Client]bool
}

type brokerSession struct {
	conn       *rawmqtt.Client
	subscribed bool
	queue      []*rawmqtt.Publish // not acknowledged by the client, in order
	released   map[uint16]bool    // PUBREC came
	incoming   map[uint16]bool    // QoS 2 ids of the client
	nextID     uint16
}

func openBroker(t *testing.T, nodes int) *broker {
	b := &broker{t: t, sessions: map[string]*brokerSession{}, conns: map[*rawmqtt.Client]bool{}}
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
	b.conns[c] = true
	b.mu.Unlock()
	defer func() {
		c.Close()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	var s *brokerSession
	for {
		p, err := c.Read(time.Minute)
		if err != nil {
			return
		}
		b.mu.Lock()
		if p.Type == rawmqtt.CONNECT {
			s = b.connect(c, p.Connect)
		} else {
			b.packet(s, c, p)
		}
		b.mu.Unlock()
	}
}

func (b *broker) connect(c *rawmqtt.Client, o *rawmqtt.Connect) *brokerSession {
	s := b.sessions[o.ClientID]
	if s != nil && s.conn != nil {
		s.conn.Send(rawmqtt.DisconnectPacket(5, TakenOver))
		s.conn.Close()
	}
	present := s != nil && !o.CleanStart
	if !present {
		s = &brokerSession{released: map[uint16]bool{}, incoming: map[uint16]bool{}}
		b.sessions[o.ClientID] = s
	}
	s.conn = c
	c.Send(rawmqtt.ConnackPacket(c.Version, present, 0))
	for _, m := range s.queue {
		if s.released[m.ID] {
			c.Send(rawmqtt.AckPacket(5, rawmqtt.PUBREL, m.ID, 0))
			continue
		}
		m.Dup = true
		c.Publish(*m)
	}
	return s
}

func (b *broker) packet(s *brokerSession, c *rawmqtt.Client, p *rawmqtt.Packet) {
	switch p.Type {
	case rawmqtt.SUBSCRIBE:
		s.subscribed = true
		c.Send(rawmqtt.SubackPacket(c.Version, rawmqtt.SUBACK, p.ID, p.Subscriptions[0].Options&3))
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
	case rawmqtt.PINGREQ:
		c.Send([]byte{rawmqtt.PINGRESP << 4, 0})
	}
}

func (b *broker) deliver(p *rawmqtt.Packet) {
	for _, s := range b.sessions {
		if !s.subscribed {
			continue
		}
		s.nextID++
		m := &rawmqtt.Publish{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, ID: s.nextID}
		if p.QoS > 0 {
			s.queue = append(s.queue, m)
		}
		s.conn.Publish(*m)
	}
}
