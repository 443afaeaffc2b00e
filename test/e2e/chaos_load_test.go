//go:build linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// crowd is the clients of a plan, some hundreds of messages a second in all.
type crowd struct {
	x    *chaos
	subs []*history.Subscriber
	pubs []*history.Publisher
	// others are retained writers and readers, bearers of wills, rivals, and who
	// changes users.
	others []stopper
}

type stopper interface{ Stop(context.Context) error }

// startLoad starts clients of every kind on every node: subscribers first, so
// that everything is owed to them.
func startLoad(x *chaos) *crowd {
	l := &crowd{x: x}
	l.subscribers()
	l.publishers()
	l.retained()
	l.wills()
	l.rivals()
	l.users()
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
	// One at a time is two commits for each message: it gets few.
	l.subscribe("one-at-a-time", l.at(1, 5), 3600, sub("few/#", 2), one, roam)
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
	l.pubs = append(l.pubs, l.x.run.Publish(history.PublisherConfig{Endpoint: l.at(2, 5), Name: "pub-few", Expiry: 3600, QoS: 2, Rate: 2, Window: 30,
		Size: 64, IDs: 40, Topics: []string{"few/a"}}))
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

const retainedTopics = 4

// retained has few topics written and read on every node.
func (l *crowd) retained() {
	var topics []string
	for i := range retainedTopics {
		topics = append(topics, fmt.Sprintf("state/%d", i))
	}
	l.subscribe("watcher", l.at(0, 5), 3600, sub("state/#", 1))
	l.subscribe("watcher-clean", l.at(1, 5), 0, sub("state/#", 2))
	for i := range 3 {
		l.others = append(l.others,
			history.StartRetainedWriter(l.x.t.Context(), l.x.run.Recorder, history.RetainedWriterConfig{Endpoint: l.at(i, 5-byte(i%2)),
				Name: fmt.Sprintf("writer-%d", i), Topics: topics, QoS: byte(1 + i%2), Rate: 4}),
			history.StartRetainedReader(l.x.t.Context(), l.x.run.Recorder, history.RetainedReaderConfig{Endpoint: l.at(i+1, 5),
				Name: fmt.Sprintf("reader-%d", i), Topics: topics, QoS: 1, Rate: 3, Clean: i == 2}))
	}
}

// wills has clients die in every way.
func (l *crowd) wills() {
	for i := range 2 {
		l.subscribe(fmt.Sprintf("witness-%d", i), l.at(i, 5), 3600, sub("will/#", byte(1+i)))
	}
	for i := range 6 {
		l.others = append(l.others, history.StartWillBearer(l.x.t.Context(), l.x.run.Recorder, history.WillBearerConfig{Endpoint: l.at(i, 5-byte(i/5)),
			Name: fmt.Sprintf("bearer-%d", i), Topic: fmt.Sprintf("will/%d", i), QoS: byte(i % 3),
			Delay: uint32(i%2) * willDelay, Expiry: uint32(i/2) * 5, Stay: 2 * time.Second}))
	}
}

// How long wills may wait, in seconds: by themselves, and when a node is stopped
// in good order.
const (
	willDelay = 2
	willGrace = 4
)

// rivals fight for one client id.
func (l *crowd) rivals() {
	for i := range 2 {
		l.others = append(l.others, history.StartRival(l.x.t.Context(), l.x.run.Recorder, history.RivalConfig{Endpoint: l.at(i, 5),
			Name: fmt.Sprintf("rival-%d", i), ClientID: "rival", Topic: "chaos/rival/2/a", QoS: byte(1 + l.x.random.IntN(2)), Expiry: 600, Rate: 20}))
	}
}

// users has a user changed at one node after the other.
func (l *crowd) users() {
	turn := 0
	l.others = append(l.others, history.StartUserDriver(l.x.t.Context(), l.x.run.Recorder, history.UserDriverConfig{Endpoint: l.at(0, 5),
		Name: "users", User: "guest", Rate: 0.5, Run: func(ctx context.Context, stdin string, args ...string) error {
			turn++
			_, err := commandContext(ctx, stdin, append(args, "--data-dir", l.x.Nodes[turn%3].Dir, "--timeout", "10s")...)
			return err
		}}))
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
	all := l.others
	for _, p := range l.pubs {
		all = append(all, p)
	}
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := s.Stop(ctx); err != nil {
				l.x.t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(willLate + max(willDelay, willGrace)*time.Second) // for wills that are due
	// Together, so that a cluster that does not come back is not waited for by each.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range l.subs {
		if err := s.Stay(ctx); err != nil {
			l.x.t.Error(err)
		}
	}
	ctx, cancel = context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	for _, s := range l.subs {
		if err := s.AwaitQuiet(ctx, quietEnough); err != nil {
			l.x.t.Error(err)
		}
		s.Stop()
	}
}

// quietEnough is how long nothing may come to who is owed more: on a busy machine
// a subscriber that takes one message at a time waits a second for each.
const quietEnough = 5 * time.Second

// willLate is how much later than due a will may come where anything was wrong: a
// leader that is new waits a whole lease before it ends those of others, and its
// predecessor may have died when it was about to.
const willLate = 12 * time.Second

// options are what the checker has to know of the run.
func (l *crowd) options(p plan) history.Options {
	seconds := int(p.duration / time.Second)
	return history.Options{MinAcked: 50 * seconds, MinOwed: 150 * seconds, MinShare: 0.5,
		// Between two faults is gap, and the clients have had time to come back.
		FaultGrace: gap / 2, MaxSilence: 3 * time.Second,
		// A node that does not hear of a takeover closes the loser when its lease ends.
		TakeoverGrace: 2 * time.Second, FaultTakeover: lease,
		DrainGrace: willGrace * time.Second, WillLate: willLate,
		// Acknowledgements are written down ten times a second.
		Settled: 2 * time.Second}
}
