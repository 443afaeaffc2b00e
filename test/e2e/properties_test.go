//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestForwardedProperties has the properties of a PUBLISH and of a will arrive as
// they were sent, by every road: the mesh, the log, retained, queued, across
// nodes [MQTT-3.3.2-4, -15 to -20].
func TestForwardedProperties(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	props := []rawmqtt.Property{
		rawmqtt.Int(rawmqtt.PayloadFormat, 1), rawmqtt.Text(rawmqtt.ContentType, "text/plain"),
		rawmqtt.Text(rawmqtt.ResponseTopic, "props/answer"), rawmqtt.Text(rawmqtt.CorrelationData, "\x00\xff42"),
		rawmqtt.User("b", "1"), rawmqtt.User("a", "2"), rawmqtt.User("b", "3"), // in this order, twice the same name
	}
	pub := c.Nodes[0].Connect(clean("props-pub"))
	same := func(t *testing.T, where string, p *rawmqtt.Packet, want []rawmqtt.Property) {
		t.Helper()
		var got []string
		for _, x := range p.Properties {
			if x.ID != rawmqtt.TopicAlias { // ours, not the publisher's
				got = append(got, fmt.Sprintf("%02x:%d:%q:%q", x.ID, x.Int, x.Key, x.Text))
			}
		}
		for _, x := range want {
			s := fmt.Sprintf("%02x:%d:%q:%q", x.ID, x.Int, x.Key, x.Text)
			if !strings.Contains(strings.Join(got, " "), s) {
				t.Errorf("%s: %s is missing in %s", where, s, got)
			}
		}
		users := ""
		for _, x := range p.Properties {
			if x.ID == rawmqtt.UserProperty {
				users += x.Key + x.Text
			}
		}
		if users != "b1a2b3" || len(got) != len(want) {
			t.Errorf("%s: user properties %q, in all %s", where, users, got)
		}
	}
	for qos := range byte(3) {
		for i, n := range c.Nodes {
			topic := fmt.Sprintf("props/%d/%d", qos, i)
			sub := n.Connect(persistent(fmt.Sprintf("props-sub-%d-%d", qos, i), 60))
			sub.Sub(rawmqtt.Sub(topic, qos))
			send := func(retain bool) {
				t.Helper()
				if _, err := pub.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: qos, ID: pub.next(), Retain: retain, Payload: []byte("x"), Properties: props}); err != nil {
					t.Fatal(err)
				}
			}
			send(false)
			same(t, fmt.Sprintf("QoS %d at %s", qos, n.ID), sub.Messages(1, patience)[0], props)
			sub.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 60))
			send(true)
			late := n.Connect(clean("props-late"))
			late.Sub(rawmqtt.Sub(topic, qos))
			same(t, fmt.Sprintf("QoS %d retained at %s", qos, n.ID), late.Messages(1, patience)[0], props)
			late.Disconnect(0)
			if qos > 0 {
				again := c.Nodes[(i+1)%3].Connect(persistent(fmt.Sprintf("props-sub-%d-%d", qos, i), 60))
				same(t, fmt.Sprintf("QoS %d queued for %s", qos, n.ID), again.Messages(1, patience)[0], props)
				again.Disconnect(0, rawmqtt.Int(rawmqtt.SessionExpiry, 0))
			}
		}
	}
	t.Run("will", func(t *testing.T) {
		sub := c.Nodes[2].Connect(clean("props-will"))
		sub.Sub(rawmqtt.Sub("props/will", 1))
		o := clean("props-dies")
		o.Will = &rawmqtt.Will{Topic: "props/will", Payload: []byte("x"), QoS: 1, Properties: props}
		c.Nodes[1].Connect(o).Close()
		same(t, "will", sub.Messages(1, patience)[0], props)
	})
	t.Run("dollar topics", func(t *testing.T) {
		// What begins with $ is the server's; no rule lets a client write there
		// [MQTT-4.7.2-1]. TestCLI has what # and $SYS/# show.
		c.Nodes[0].CLI("acl", "set", "*", "allow both #", "allow both $own/#", "allow both $SYS/#")
		for _, topic := range []string{"$own/x", "$SYS/broker/version", "$share/g/x"} {
			p, err := pub.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: 1, ID: pub.next(), Payload: []byte("x")})
			if err != nil || p.Reason != 0x87 {
				t.Errorf("publish to %s: %v %v", topic, p, err)
			}
		}
	})
}
