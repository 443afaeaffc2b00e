//go:build linux

package e2e

import (
	"context"
	"fmt"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// crowd is the clients of a plan, some hundreds of messages a second in all.
type crowd struct {
	x    *chaos
	subs []*history.Subscriber
	pubs []*history.Publisher
}

// startLoad starts clients of every kind on every node: subscribers first, so
// that everything is owed to them.
func startLoad(x *chaos) *crowd {
	l := &crowd{x: x}
	l.subscribers()
	l.publishers()
	return l
}

// at is an endpoint whose first address is that of one of the nodes, in turn, and
// whose version is 5 or 3.1.1.
func (l *crowd) at(i int, version byte) history.Endpoint {
	e := l.x.Endpoint(l.x.Nodes[i%3])
	e.Version = version
	return e
}

func (l *crowd) subscribe(name string, e history.Endpoint, expiry uint32, subs []rawmqtt.Subscription, how ...func(*history.SubscriberConfig)) {
	c := history.SubscriberConfig{Endpoint: e, Name: name, Expiry: expiry, Subscriptions: subs}
	for _, set := range how {
		set(&c)
	}
	l.subs = append(l.subs, l.x.run.Subscribe(c))
}

func sub(filter string, qos byte) []rawmqtt.Subscription {
	return []rawmqtt.Subscription{rawmqtt.Sub(filter, qos)}
}

func (l *crowd) subscribers() {
	for i := range 3 {
		l.subscribe(fmt.Sprintf("keep-%d", i), l.at(i, 5), 3600, sub("chaos/#", 2))
		l.subscribe(fmt.Sprintf("keep-old-%d", i), l.at(i, 4), 3600, sub(fmt.Sprintf("chaos/+/%d/#", i), 2))
		l.subscribe(fmt.Sprintf("clean-%d", i), l.at(i, 5-byte(i%2)), 0, sub("chaos/#", byte(1+i%2)))
	}
	away := func(c *history.SubscriberConfig) { c.Up, c.Away = 4*time.Second, 3*time.Second }
	roam := func(c *history.SubscriberConfig) { c.Roam = true }
	l.subscribe("offline", l.at(0, 5), 3600, sub("chaos/#", 1), away)
	l.subscribe("offline-old", l.at(1, 4), 3600, sub("chaos/+/2/#", 2), away)
	l.subscribe("roaming", l.at(2, 5), 3600, sub("chaos/#", 2), away, roam)
	one := func(c *history.SubscriberConfig) { c.ReceiveMaximum = 1 }
	l.subscribe("one-at-a-time", l.at(1, 5), 3600, sub("chaos/0/2/a", 2), one, roam)
	for _, qos := range []byte{1, 2} {
		for i := range 4 {
			expiry := uint32(3600)
			if i == 3 {
				expiry = 0
			}
			l.subscribe(fmt.Sprintf("shared-%d-%d", qos, i), l.at(i, 5-byte(i%2)), expiry,
				sub(fmt.Sprintf("$share/g%d/chaos/#", qos), qos))
		}
	}
}

func (l *crowd) publishers() {
	for i := range 3 {
		for qos, rate := range []float64{15, 40, 25} {
			for version := byte(4); version <= 5; version++ {
				l.pubs = append(l.pubs, l.x.run.Publish(history.PublisherConfig{Endpoint: l.at(i, version),
					Name: fmt.Sprintf("pub-%d-%d-v%d", i, qos, version), Expiry: 3600, QoS: byte(qos), Rate: rate, Window: 30, Size: 64,
					Topics: []string{fmt.Sprintf("chaos/%d/%d/a", i, qos), fmt.Sprintf("chaos/%d/%d/b", i, qos)}}))
			}
		}
	}
}

// await waits until the publishers have so many more messages acknowledged.
func (l *crowd) await(more int) {
	l.x.t.Helper()
	acked := func() (sum int) {
		for _, p := range l.pubs {
			sum += p.Acked()
		}
		return sum
	}
	want := acked() + more
	await(l.x.t, patience, func() bool { return acked() >= want }, func() string {
		return fmt.Sprintf("%d of the publishers' messages are acknowledged, not %d", acked(), want)
	})
}

// stop ends the clients: who sends first, then who waits for it.
func (l *crowd) stop() {
	l.x.t.Helper()
	for _, p := range l.pubs {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := p.Stop(ctx); err != nil {
			l.x.t.Error(err)
		}
		cancel()
	}
	for _, s := range l.subs {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := s.Stay(ctx); err != nil {
			l.x.t.Error(err)
		}
		cancel()
	}
	l.x.run.Finish(l.subs...)
}

// options are what the checker has to know of the run.
func (l *crowd) options(p plan) history.Options {
	seconds := int(p.duration / time.Second)
	return history.Options{MinAcked: 50 * seconds, MinOwed: 150 * seconds, MinShare: 0.5,
		// Between two faults is gap, and the clients have had time to come back.
		FaultGrace: gap / 2, MaxSilence: 3 * time.Second}
}
