//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// Client is a raw client that fails its test when a step fails.
type Client struct {
	*rawmqtt.Client
	Present bool
	t       *testing.T
	id      uint16
}

// Dial opens a TLS connection to a node and sends nothing.
func (n *Node) Dial(version byte) (*rawmqtt.Client, error) {
	return rawmqtt.Dial(context.Background(), n.TLS, n.cluster.ClientTLS, version)
}

// Connect connects as the user; o.Version 0 means 5.
func (n *Node) Connect(o rawmqtt.Connect) *Client {
	n.t.Helper()
	c, ack, err := n.TryConnect(o)
	if err != nil || ack.Reason != 0 {
		n.t.Fatalf("%s connects to %s: %v %v", o.ClientID, n.ID, ack, err)
	}
	return c
}

// TryConnect connects and returns the CONNACK, whatever it says.
func (n *Node) TryConnect(o rawmqtt.Connect) (*Client, *rawmqtt.Packet, error) {
	if o.Version == 0 {
		o.Version = 5
	}
	raw, err := n.Dial(o.Version)
	if err != nil {
		return nil, nil, err
	}
	n.t.Cleanup(func() { raw.Close() })
	raw.AutoAck = true
	name, secret := user, password
	o.Username, o.Password = &name, &secret
	ack, err := raw.Connect(o)
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	if ack.Reason != 0 {
		raw.Close()
	}
	return &Client{Client: raw, Present: ack.SessionPresent, t: n.t}, ack, nil
}

// persistent is a CONNECT whose session outlives the connection.
func persistent(id string, seconds uint32) rawmqtt.Connect {
	return rawmqtt.Connect{Version: 5, ClientID: id, KeepAlive: 60,
		Properties: []rawmqtt.Property{rawmqtt.Int(rawmqtt.SessionExpiry, seconds)}}
}

// clean is a CONNECT of a session that ends with the connection.
func clean(id string) rawmqtt.Connect {
	return rawmqtt.Connect{Version: 5, ClientID: id, KeepAlive: 60, CleanStart: true}
}

func (c *Client) next() uint16 { c.id++; return c.id }

// Sub subscribes and fails unless everything is granted.
func (c *Client) Sub(subs ...rawmqtt.Subscription) {
	c.t.Helper()
	ack, err := c.Subscribe(c.next(), subs...)
	if err != nil {
		c.t.Fatal(err)
	}
	for i, r := range ack.Reasons {
		if r >= 0x80 {
			c.t.Fatalf("%q was refused with 0x%02x", subs[i].Filter, r)
		}
	}
}

// Pub publishes and takes it to its end.
func (c *Client) Pub(topic string, qos byte, retain bool, payload string) {
	c.t.Helper()
	p, err := c.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: qos, ID: c.next(), Retain: retain, Payload: []byte(payload)})
	if err != nil || p != nil && p.Reason >= 0x80 {
		c.t.Fatalf("publish %q to %s: %v %v", payload, topic, p, err)
	}
}

// Messages reads until n messages have come, and fails after limit.
func (c *Client) Messages(n int, limit time.Duration) (got []*rawmqtt.Packet) {
	c.t.Helper()
	deadline := time.Now().Add(limit)
	for len(got) < n {
		p, err := c.Read(time.Until(deadline))
		if err != nil {
			c.t.Fatalf("%d of %d messages came within %v: %v", len(got), n, limit, err)
		}
		if p.Type == rawmqtt.PUBLISH {
			got = append(got, p)
		}
	}
	return got
}

// Quiet fails if a message comes within d.
func (c *Client) Quiet(d time.Duration) {
	c.t.Helper()
	deadline := time.Now().Add(d)
	for {
		p, err := c.Read(time.Until(deadline))
		switch {
		case errors.Is(err, rawmqtt.ErrTimeout):
			return
		case err != nil:
			c.t.Fatalf("while nothing should come: %v", err)
		case p.Type == rawmqtt.PUBLISH:
			c.t.Fatalf("nothing should come, and %v did", p)
		}
	}
}

// payloads are the payloads of packets, joined.
func payloads(got []*rawmqtt.Packet) string {
	var out []string
	for _, p := range got {
		out = append(out, string(p.Payload))
	}
	return strings.Join(out, " ")
}

// Endpoint is where a recorded client connects: first to the given nodes.
func (c *Cluster) Endpoint(first ...*Node) history.Endpoint {
	return history.Endpoint{Addresses: c.Addresses(first...), TLS: c.ClientTLS, Version: 5, Username: user, Password: password}
}

// Run is a recorded run over a cluster.
type Run struct {
	*history.Recorder
	t *testing.T
	c *Cluster
}

// Record starts a run.
func (c *Cluster) Record(t *testing.T) *Run {
	t.Helper()
	rec, err := history.Open("")
	if err != nil {
		t.Fatal(err)
	}
	return &Run{rec, t, c}
}

// Subscribe starts a recorded subscriber.
func (r *Run) Subscribe(cfg history.SubscriberConfig) *history.Subscriber {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := history.StartSubscriber(ctx, r.Recorder, cfg)
	r.t.Cleanup(s.Disconnect)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// Publish starts a recorded publisher.
func (r *Run) Publish(cfg history.PublisherConfig) *history.Publisher {
	return history.StartPublisher(r.t.Context(), r.Recorder, cfg)
}

// Wait waits until a publisher has everything acknowledged.
func (r *Run) Wait(p *history.Publisher, limit time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := p.Wait(ctx); err != nil {
		r.t.Error(err)
	}
}

// Finish waits until the subscriber has heard nothing for a while, has it leave
// and notes that everything owed must have come.
func (r *Run) Finish(subs ...*history.Subscriber) {
	r.t.Helper()
	for _, s := range subs {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := s.AwaitQuiet(ctx, 1500*time.Millisecond); err != nil {
			r.t.Error(err)
		}
		cancel()
		s.Stop()
	}
}

// Judge lets the checker judge the run, fails for what it found and logs the
// figures.
func (r *Run) Judge(o history.Options) *history.Report {
	r.t.Helper()
	report := history.Check(r.Events(), o)
	if !report.OK() {
		r.t.Errorf("%s", report)
	} else {
		r.t.Logf("%s", strings.TrimSpace(report.String()))
	}
	return report
}

// KillNode kills a node and notes it.
func (r *Run) KillNode(n *Node) {
	r.t.Helper()
	r.Kill(n.TLS)
	n.Kill()
}

// Gap is how long a client did not work because of a fault: outage is the longest
// time between two events of the kind that ends within ten seconds after the
// fault; again is the time from its first CONNECT after the fault to the first
// event of the kind after that, or the outage if it kept its connection.
func (r *Run) Gap(client string, fault history.Event, kind history.Kind) (outage, again time.Duration) {
	r.t.Helper()
	var asked, last time.Duration
	for _, e := range r.Events() {
		if e.History != client || e.At > fault.At+10*time.Second {
			continue
		}
		if e.Kind == history.ConnectSent && asked == 0 && e.At > fault.At {
			asked = e.At
		}
		if e.Kind != kind {
			continue
		}
		if last > 0 && e.At > fault.At {
			outage = max(outage, e.At-last)
		}
		last = e.At
		if asked > 0 && again == 0 {
			again = e.At - asked
		}
	}
	if last < fault.At || asked > 0 && again == 0 {
		r.t.Errorf("%s did not work again within ten seconds of the fault: no event %q", client, kind)
	}
	if asked == 0 {
		again = outage
	}
	return outage, again
}

// fault is the newest event of a kind, such as a kill.
func (r *Run) fault(kind history.Kind) history.Event {
	r.t.Helper()
	events := r.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Kind == kind {
			return events[i]
		}
	}
	r.t.Fatalf("the run has no event %q", kind)
	return history.Event{}
}

// awaitAcked waits until a publisher has so many messages acknowledged.
func awaitAcked(t *testing.T, p *history.Publisher, n int, limit time.Duration) {
	t.Helper()
	await(t, limit, func() bool { return p.Acked() >= n }, func() string {
		return fmt.Sprintf("%d messages are acknowledged, not %d", p.Acked(), n)
	})
}
