package history

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fault is what a model broker does wrong, once or always.
type fault int

const (
	noFault       fault = iota
	dropOne             // one subscriber does not get one message
	ackThenDrop         // a message is acknowledged and given to nobody
	doubleQoS2          // one message comes twice to one subscriber
	reorder             // two messages of a publisher change places
	forgetCursor        // after a reconnect all comes again, as new
	forgetSession       // after a reconnect there is no session
	forge               // a message that nobody sent
)

// model is a broker and its clients, reduced to the events they would record.
// Time passes by itself; rapid decides what happens next.
type model struct {
	t      *rapid.T
	qos    byte
	fault  fault
	victim string // message that the fault concerns
	events []Event
	at     time.Duration
	pubs   []*modelPub
	subs   []*modelSub
}

type modelPub struct {
	name    string
	conn    int
	seq     int
	unacked []Event // PublishSent
}

type modelSub struct {
	name   string
	conn   int
	up     bool
	log    []Event // Received to come, and those that came
	next   int     // in log: what to deliver
	acked  int     // in log: below it, everything is done
	nextID uint16
}

func newModel(t *rapid.T, f fault) *model {
	m := &model{t: t, fault: f, qos: byte(rapid.IntRange(1, 2).Draw(t, "qos"))}
	if f == doubleQoS2 {
		m.qos = 2
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "subscribers") {
		s := &modelSub{name: fmt.Sprintf("s%d", i)}
		m.subs = append(m.subs, s)
		m.connectSub(s, false)
		m.add(s.name, s.conn, Event{Kind: SubscribeSent, Filter: "t/#", QoS: 2})
		m.add(s.name, s.conn, Event{Kind: Subscribed, Filter: "t/#", QoS: 2})
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "publishers") {
		p := &modelPub{name: fmt.Sprintf("p%d", i)}
		m.pubs = append(m.pubs, p)
		m.connectPub(p, false)
	}
	m.victim = fmt.Sprintf("p0/%d", rapid.IntRange(1, 10).Draw(t, "victim"))
	return m
}

func (m *model) add(name string, conn int, e Event) Event {
	m.at += time.Microsecond
	e.At, e.History, e.Client, e.Conn = m.at, name, name, conn
	m.events = append(m.events, e)
	return e
}

func (m *model) connectPub(p *modelPub, present bool) {
	p.conn++
	m.add(p.name, p.conn, Event{Kind: ConnectSent, Version: 5, Expiry: Never})
	m.add(p.name, p.conn, Event{Kind: Connected, Present: present})
	for _, e := range p.unacked {
		e.Dup = true
		m.add(p.name, p.conn, e)
		if m.qos == 1 {
			m.accept(e)
		}
	}
}

func (m *model) connectSub(s *modelSub, present bool) {
	s.conn++
	s.up = true
	m.add(s.name, s.conn, Event{Kind: ConnectSent, Version: 5, Expiry: Never})
	m.add(s.name, s.conn, Event{Kind: Connected, Present: present && m.fault != forgetSession})
	// What was sent and not acknowledged comes again with DUP.
	for i := s.acked; i < s.next; i++ {
		s.log[i].Dup = true
	}
	s.next = s.acked
	if m.fault == forgetCursor && present {
		s.next, s.acked = 0, 0
		for i := range s.log {
			s.log[i].Dup = false
		}
	}
}

// accept gives a message to the subscribers' queues.
func (m *model) accept(e Event) {
	first := e.Message == m.victim
	if first && m.fault == ackThenDrop {
		return
	}
	for i, s := range m.subs {
		r := Event{Kind: Received, Message: e.Message, Topic: e.Topic, QoS: m.qos}
		if i == 0 && first && m.fault == dropOne {
			continue
		}
		s.queue(r)
		if i > 0 {
			continue
		}
		if first && m.fault == doubleQoS2 {
			s.queue(r)
		}
		if n := len(s.log); m.fault == reorder && e.Message == follower(m.victim) && !e.Dup {
			// Not delivered yet: reordering runs keep the first subscriber back.
			s.log[n-1].Message, s.log[n-2].Message = s.log[n-2].Message, s.log[n-1].Message
		}
		if first && m.fault == forge {
			r.Message = "p0/999"
			s.queue(r)
		}
	}
}

// follower is the next message of the same publisher.
func follower(message string) string {
	var p, n int
	fmt.Sscanf(message, "p%d/%d", &p, &n)
	return fmt.Sprintf("p%d/%d", p, n+1)
}

func (s *modelSub) queue(r Event) {
	s.nextID++
	r.PacketID = s.nextID
	s.log = append(s.log, r)
}

func (m *model) publish(p *modelPub) {
	p.seq++
	e := m.add(p.name, p.conn, Event{Kind: PublishSent, Message: fmt.Sprintf("%s/%d", p.name, p.seq), Seq: p.seq, Topic: "t/x", QoS: m.qos})
	p.unacked = append(p.unacked, e)
	m.accept(e)
	if m.fault == reorder && e.Message == m.victim {
		m.publish(p) // the one to change places with
	}
}

func (m *model) ack(p *modelPub) {
	if len(p.unacked) > 0 {
		m.add(p.name, p.conn, Event{Kind: PublishAcked, Message: p.unacked[0].Message})
		p.unacked = p.unacked[1:]
	}
}

func (m *model) deliver(s *modelSub) {
	if s.up && s.next < len(s.log) {
		m.add(s.name, s.conn, s.log[s.next])
		s.next++
	}
}

func (m *model) finish(s *modelSub) {
	if s.up && s.acked < s.next {
		if m.qos == 2 {
			m.add(s.name, s.conn, Event{Kind: Released, PacketID: s.log[s.acked].PacketID})
		}
		s.acked++
	}
}

// run plays a run to its end: everybody is there and has everything.
func (m *model) run() {
	for range rapid.IntRange(20, 120).Draw(m.t, "steps") {
		p := m.pubs[rapid.IntRange(0, len(m.pubs)-1).Draw(m.t, "p")]
		s := m.subs[rapid.IntRange(0, len(m.subs)-1).Draw(m.t, "s")]
		switch rapid.IntRange(0, 9).Draw(m.t, "step") {
		case 0, 1, 2:
			m.publish(p)
		case 3, 4:
			m.ack(p)
		case 5, 6:
			m.deliver(s)
		case 7:
			m.finish(s)
		case 8:
			m.add(p.name, p.conn, Event{Kind: Lost})
			m.connectPub(p, true)
		case 9:
			m.add(s.name, s.conn, Event{Kind: Lost})
			m.connectSub(s, true)
		}
	}
	for m.pubs[0].seq < 12 { // the victim and what comes after it
		m.publish(m.pubs[0])
	}
	for _, p := range m.pubs {
		for len(p.unacked) > 0 {
			m.ack(p)
		}
	}
	for _, s := range m.subs {
		for s.next < len(s.log) {
			m.deliver(s)
		}
		// A last reconnect, for the faults of reconnecting.
		for s.acked < s.next {
			m.finish(s)
		}
		m.add(s.name, s.conn, Event{Kind: Lost})
		m.connectSub(s, true)
		for s.next < len(s.log) {
			m.deliver(s)
		}
		m.add(s.name, s.conn, Event{Kind: Drained})
	}
}

func TestModelWithoutFault(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, noFault)
		m.run()
		if r := Check(m.events, Options{MinAcked: 12, MinOwed: 12}); !r.OK() {
			t.Fatalf("a faultless broker is found guilty:\n%s", r)
		}
	})
}

func TestModelFaultsAreFound(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault
		rules []string // any of them, at least one
	}{
		{"drop one", dropOne, []string{RuleSubscribe, RuleDurable, RuleFailover}},
		{"acknowledge, then drop", ackThenDrop, []string{RuleSubscribe, RuleDurable, RuleFailover}},
		{"QoS 2 twice", doubleQoS2, []string{RuleOnce}},
		{"reorder", reorder, []string{RuleOrder}},
		{"forget the cursor", forgetCursor, []string{RuleOnce, RuleRepeat}},
		{"forget the session", forgetSession, []string{RulePresent}},
		{"forge", forge, []string{RuleForged}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := newModel(t, tt.fault)
				m.run()
				r := Check(m.events, Options{})
				if !slices.ContainsFunc(r.Violations, func(v Violation) bool { return slices.Contains(tt.rules, v.Rule) }) {
					t.Fatalf("not found (victim %s):\n%s", m.victim, r)
				}
			})
		})
	}
}
