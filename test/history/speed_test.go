package history

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// busy makes up a faultless run of about n events with all kinds of clients.
func busy(n int) []Event {
	random := rand.New(rand.NewPCG(1, 2))
	s := &script{}
	const publishers, subscribers, members, topics = 20, 40, 6, 8
	for i := range subscribers {
		s.up(fmt.Sprintf("s%d", i), 1, Never, false).sub(fmt.Sprintf("s%d", i), 1, fmt.Sprintf("t/%d/#", i%publishers), 1)
	}
	for i := range members {
		s.up(fmt.Sprintf("m%d", i), 1, Never, false).sub(fmt.Sprintf("m%d", i), 1, "$share/g/t/0/#", 1)
	}
	s.up("stays", 1, Never, false).sub("stays", 1, "r/#", 1)
	values := map[string]string{}
	conns := map[string]int{}
	connect := func(name string, expiry uint32, present bool) int {
		conns[name]++
		s.up(name, conns[name], expiry, present)
		return conns[name]
	}
	for i := range publishers {
		connect(fmt.Sprintf("p%d", i), Never, false)
	}
	for seq := 1; len(s.events) < n; seq++ {
		i := random.IntN(publishers)
		name := fmt.Sprintf("p%d", i)
		e := Event{Kind: PublishSent, Message: fmt.Sprintf("%s/%d", name, seq), Seq: seq, Topic: fmt.Sprintf("t/%d/x", i), QoS: 1, PacketID: uint16(seq%60000 + 1)}
		s.add(name, conns[name], e)
		got := Event{Kind: Received, Message: e.Message, Topic: e.Topic, QoS: 1, PacketID: e.PacketID}
		s.add(name, conns[name], Event{Kind: PublishAcked, Message: e.Message})
		for _, k := range []int{i, i + publishers} {
			s.add(fmt.Sprintf("s%d", k), 1, got).add(fmt.Sprintf("s%d", k), 1, Event{Kind: ReceiveAcked, Message: e.Message, PacketID: e.PacketID})
		}
		if i == 0 {
			s.add(fmt.Sprintf("m%d", seq%members), 1, got)
		}
		topic := fmt.Sprintf("r/%d", random.IntN(topics))
		switch seq % 20 {
		case 0:
			s.add(name, conns[name], Event{Kind: Cut})
			connect(name, Never, true)
		case 1, 2, 3:
			v := fmt.Sprintf("v%d", seq)
			s.add(name, conns[name], Event{Kind: PublishSent, Message: v, Topic: topic, QoS: 1, Retain: true, Seq: seq})
			if seq%3 > 0 {
				s.add(name, conns[name], Event{Kind: PublishAcked, Message: v})
			}
			if seq%3 > 0 || seq%2 > 0 {
				values[topic] = v
				s.add("stays", 1, Event{Kind: Received, Message: v, Topic: topic, QoS: 1, PacketID: uint16(seq%60000 + 1)})
			}
		case 4, 5:
			conn := connect("reader", 0, false)
			s.sub("reader", conn, topic, 1)
			if v := values[topic]; v != "" {
				s.add("reader", conn, Event{Kind: Received, Message: v, Topic: topic, QoS: 1, Retain: true, PacketID: 1})
			}
			s.add("reader", conn, Event{Kind: ReadDone, Topic: topic}).left("reader", conn, 0)
		case 6:
			s.changed(seq, "add", "x", 0).login(-seq, "x", 0).changed(seq, "rm", "", 0)
		}
	}
	return s.events
}

// A run of half a million events is judged in seconds.
func TestSpeed(t *testing.T) {
	const events, limit = 500_000, time.Minute
	run := busy(events)
	start := time.Now()
	r := Check(run, Options{MinShare: 0.5, MinOwed: 1000, Settled: time.Second})
	took := time.Since(start)
	t.Logf("%d events in %v: %s", len(run), took.Round(time.Millisecond), r)
	if !r.OK() {
		t.Error("a faultless run is found guilty")
	}
	if took > limit {
		t.Errorf("judging took %v, at most %v is allowed", took, limit)
	}
}
