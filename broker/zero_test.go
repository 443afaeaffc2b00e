package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mqcluster/mqcluster/broker/codec"
	"github.com/mqcluster/mqcluster/fsm/logpb"
)

func (c *cluster) setting(key, value string) {
	c.do(func() {
		c.admin(c.nodes[0], &logpb.Item{Kind: &logpb.Item_SettingPut{SettingPut: &logpb.SettingPut{Key: key, Value: value}}})
	})
}

// wantQoS expects messages, each with its QoS ("0:payload") and without DUP, and
// answers them.
func (c *peer) wantQoS(want ...string) {
	c.t.Helper()
	for _, w := range want {
		p := c.message()
		if got := fmt.Sprintf("%d:%s", p.FixedHeader.Qos, p.Payload); got != w || p.FixedHeader.Dup {
			c.t.Fatalf("got %s, DUP %v; want %s", got, p.FixedHeader.Dup, w)
		}
	}
}

// With queue.qos0 on, messages of QoS 0 wait for sessions that are away, in order
// with the others, and those that are there get them once as ever.
func TestQoS0Waits(t *testing.T) {
	c := newCluster(t, 3, Config{ProgressInterval: time.Millisecond})
	early := connect(t, c.nodes[0], 5, "early", persistent)
	early.subscribe(sub("a", 0))
	early.disconnect() // before the setting is on
	c.setting("queue.qos0", "on")
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 1))
	z := connect(t, c.nodes[0], 4, "z", persistent)
	z.subscribe(sub("+", 0))
	there := connect(t, c.nodes[2], 5, "there", persistent)
	there.subscribe(sub("a", 2))
	clean := connect(t, c.nodes[0], 5, "clean")
	clean.subscribe(sub("a", 2))
	p := connect(t, c.nodes[1], 5, "p")
	p.publish("a", "live", 1, false)
	s.wantQoS("1:live")
	z.wantQoS("0:live")
	for range 2 { // the second time away is as the first
		s.disconnect()
		z.disconnect()
		c.settle() // the publisher's node knows that they are away
		p.publish("a", "x", 0, false)
		p.publish("a", "y", 1, false)
		p.publish("a", "z", 0, false)
		p.publish("b", "b", 0, false)
		p.publish("a", "last", 1, false)
		s = connect(t, c.nodes[1], 5, "s", persistent)
		s.wantQoS("0:x", "1:y", "0:z", "1:last")
		s.quiet()
		z = connect(t, c.nodes[2], 4, "z", persistent)
		z.wantQoS("0:x", "0:y", "0:z", "0:b", "0:last")
		z.quiet()
	}
	for _, o := range []*peer{there, clean} {
		// QoS 0 and 1 need no order among each other.
		got := map[string]int{}
		for range 9 {
			m := o.message()
			got[fmt.Sprintf("%d:%s", m.FixedHeader.Qos, m.Payload)]++
		}
		if diff := cmp.Diff(map[string]int{"1:live": 1, "0:x": 2, "1:y": 2, "0:z": 2, "1:last": 2}, got); diff != "" {
			t.Error(diff)
		}
		o.quiet()
	}
	early = connect(t, c.nodes[1], 5, "early", persistent)
	early.wantQoS("0:live", "0:x", "0:y", "0:z", "0:last", "0:x", "0:y", "0:z", "0:last")
	early.quiet()
	p.publish("a", "now", 0, false)
	p.publish("no/body", "", 1, false)
	for _, o := range []*peer{s, z, there, clean, early} {
		o.wantQoS("0:now")
		o.quiet()
	}
	there.disconnect()
	there = connect(t, c.nodes[0], 5, "there", persistent)
	there.quiet() // what it got as it came is not repeated
	c.setting("queue.qos0", "off")
	s.disconnect()
	p.publish("a", "off", 0, false)
	p.publish("no/body", "", 1, false)
	s = connect(t, c.nodes[0], 5, "s", persistent)
	s.quiet()
}

// At most once: what a connection whose end nobody saw may have sent is not sent
// again, and what an orderly one did not send is.
func TestQoS0IsSentOnce(t *testing.T) {
	for _, end := range []string{"crash", "disconnect", "takeover"} {
		t.Run(end, func(t *testing.T) {
			c := newCluster(t, 2, Config{})
			c.setting("queue.qos0", "on")
			s := connect(t, c.nodes[0], 5, "s", persistent)
			s.subscribe(sub("a", 1))
			s.disconnect()
			c.settle()
			p := connect(t, c.nodes[1], 5, "p")
			for i, qos := range []byte{0, 1, 0, 1, 0} {
				p.publish("a", fmt.Sprint(i), qos, false)
			}
			p.publish("no/body", "", 1, false) // comes after them in the log
			s = connect(t, c.nodes[0], 5, "s", persistent, receiveMaximum(1))
			s.wantQoS("0:0")
			s.expect(packets.Publish) // 1, not acknowledged: the rest waits
			s.quiet()
			switch end {
			case "crash":
				c.crash(c.nodes[0])
			case "disconnect":
				s.disconnect()
			}
			c.settle()
			p.publish("a", "while away", 0, false)
			p.publish("no/body", "", 1, false)
			s = connect(t, c.nodes[1], 5, "s", persistent)
			again := s.expect(packets.Publish)
			if string(again.Payload) != "1" || !again.FixedHeader.Dup {
				t.Fatalf("got %q, DUP %v", again.Payload, again.FixedHeader.Dup)
			}
			s.ack(codec.TypePuback, again.PacketID, 0)
			switch end {
			case "crash":
				s.message() // 3, which may have been sent
				s.wantQoS("0:while away")
			case "disconnect":
				s.wantQoS("0:2", "1:3", "0:4", "0:while away")
			case "takeover":
				s.message() // 3; the loser was there when "while away" came
			}
			s.quiet()
		})
	}
}

// What waits takes part in trims, and what is gone is gone.
func TestQoS0IsTrimmed(t *testing.T) {
	c := newCluster(t, 1, Config{})
	c.setting("queue.qos0", "on")
	s := connect(t, c.nodes[0], 5, "s", persistent)
	s.subscribe(sub("a", 0))
	s.disconnect()
	c.settle()
	p := connect(t, c.nodes[0], 5, "p")
	p.publish("a", "old", 0, false)
	s2 := connect(t, c.nodes[0], 5, "s2")
	s2.subscribe(sub("a", 1))
	p.publish("a", "mark", 1, false)
	s2.wantMessages("a", "mark")
	c.trimAll()
	p.publish("a", "new", 0, false)
	p.publish("a", "end", 1, false)
	s = connect(t, c.nodes[0], 5, "s", persistent)
	s.wantQoS("0:new", "0:end")
	s.quiet()
}
