package history

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// await waits until something is so.
func await(t *testing.T, ctx context.Context, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

func mustStop(t *testing.T, ctx context.Context, drivers ...interface{ Stop(context.Context) error }) {
	t.Helper()
	for _, d := range drivers {
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

func subscribe(t *testing.T, ctx context.Context, rec *Recorder, cfg SubscriberConfig) *Subscriber {
	t.Helper()
	s, err := StartSubscriber(ctx, rec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Writers and readers of all versions on a faultless broker, with cuts: nothing to
// complain of, and reads that saw values and reads that saw none.
func TestRetainedClients(t *testing.T) {
	ctx, b := within(t), openBroker(t, 3)
	rec, _ := Open("")
	at := Endpoint{Addresses: b.addresses(), Roam: true}
	old := Endpoint{Addresses: b.addresses(), Roam: true, Version: 4}
	topics := []string{"r/0", "r/1"}
	watch := []rawmqtt.Subscription{rawmqtt.Sub("r/#", 2)}
	subs := []*Subscriber{
		subscribe(t, ctx, rec, SubscriberConfig{Endpoint: at, Name: "stays", Expiry: Never, Subscriptions: watch}),
		subscribe(t, ctx, rec, SubscriberConfig{Endpoint: old, Name: "stays4", Expiry: Never, Subscriptions: watch}),
		subscribe(t, ctx, rec, SubscriberConfig{Endpoint: at, Name: "clean", Subscriptions: watch}),
		subscribe(t, ctx, rec, SubscriberConfig{Endpoint: at, Name: "comes-and-goes", Expiry: Never, Subscriptions: watch,
			Up: 50 * time.Millisecond, Away: 50 * time.Millisecond}),
	}
	var writers []*RetainedWriter
	for qos := range byte(3) {
		writers = append(writers, StartRetainedWriter(ctx, rec, RetainedWriterConfig{Endpoint: at, Name: fmt.Sprintf("w%d", qos), Topics: topics, QoS: qos, Rate: 100, ClearEvery: 2}))
	}
	writers = append(writers, StartRetainedWriter(ctx, rec, RetainedWriterConfig{Endpoint: old, Name: "w4", Topics: topics, QoS: 1, Rate: 100}))
	readers := []*RetainedReader{
		StartRetainedReader(ctx, rec, RetainedReaderConfig{Endpoint: at, Name: "r", Topics: topics, QoS: 1, Rate: 50}),
		StartRetainedReader(ctx, rec, RetainedReaderConfig{Endpoint: at, Name: "c", Topics: topics, QoS: 2, Rate: 50, Clean: true}),
		StartRetainedReader(ctx, rec, RetainedReaderConfig{Endpoint: old, Name: "r4", Topics: topics, QoS: 1, Rate: 50}),
	}
	for n := 30; n <= 90; n += 30 {
		await(t, ctx, "writes", func() bool { return writers[1].Acked() >= n && writers[2].Acked() >= n && writers[3].Acked() >= n })
		b.cut()
	}
	for _, r := range readers {
		await(t, ctx, "reads", func() bool { return r.Reads() >= 10 })
		mustStop(t, ctx, r)
	}
	for _, w := range writers {
		mustStop(t, ctx, w)
	}
	for _, s := range subs {
		if err := s.Stay(ctx); err != nil {
			t.Error(err)
		}
		if err := s.AwaitQuiet(ctx, 200*time.Millisecond); err != nil {
			t.Error(err)
		}
		s.Stop()
	}
	r := Check(rec.Events(), Options{MinAcked: 200, MinOwed: 200})
	if !r.OK() || r.Stats.RetainedReads < 30 {
		t.Error(r)
	}
	t.Log(r)
}

// Bearers of wills end in all ways; a witness sees what it must.
func TestWillBearers(t *testing.T) {
	ctx, b := within(t), openBroker(t, 2)
	rec, _ := Open("")
	at := Endpoint{Addresses: b.addresses()}
	witness := subscribe(t, ctx, rec, SubscriberConfig{Endpoint: at, Name: "witness", Expiry: Never, Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("will/#", 2)}})
	var bearers []*WillBearer
	for i, c := range []WillBearerConfig{
		{Name: "a", QoS: 1},
		{Name: "b", QoS: 2, Expiry: 60},
		{Name: "c", QoS: 1, Expiry: 60, Delay: 1, Retain: true},
		{Name: "d", QoS: 1, Expiry: 60, Endpoint: Endpoint{Version: 4}},
	} {
		c.Addresses, c.Topic, c.Stay = at.Addresses, fmt.Sprintf("will/%d", i), 100*time.Millisecond
		bearers = append(bearers, StartWillBearer(ctx, rec, c))
	}
	if err := witness.AwaitCount(ctx, 12); err != nil {
		t.Error(err)
	}
	for _, w := range bearers {
		mustStop(t, ctx, w)
	}
	if err := witness.AwaitQuiet(ctx, 2*time.Second); err != nil {
		t.Error(err)
	}
	witness.Stop()
	r := Check(rec.Events(), Options{WillLate: 500 * time.Millisecond})
	if !r.OK() || r.Stats.WillsDue < 8 || r.Stats.WillsFired < 12 {
		t.Error(r)
	}
	t.Log(r)
}

// Rivals take a client id from each other, with a session and without.
func TestRivals(t *testing.T) {
	for _, expiry := range []uint32{0, Never} {
		ctx, b := within(t), openBroker(t, 2)
		rec, _ := Open("")
		at := Endpoint{Addresses: b.addresses(), Roam: true}
		sub := subscribe(t, ctx, rec, SubscriberConfig{Endpoint: at, Name: "s", Expiry: Never, Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("rivals", 2)}})
		var rivals []*Rival
		for i := range 3 {
			rivals = append(rivals, StartRival(ctx, rec, RivalConfig{Endpoint: at, Name: fmt.Sprintf("rival%d", i), ClientID: "it", Topic: "rivals", QoS: 2,
				Expiry: expiry, Rate: 500, Stay: 50 * time.Millisecond}))
		}
		if err := sub.AwaitCount(ctx, 300); err != nil {
			t.Error(err)
		}
		for _, r := range rivals {
			mustStop(t, ctx, r)
		}
		if err := sub.AwaitQuiet(ctx, 200*time.Millisecond); err != nil {
			t.Error(err)
		}
		sub.Stop()
		r := Check(rec.Events(), Options{MinAcked: 200})
		if !r.OK() || r.Stats.Connections < 10 {
			t.Error(r)
		}
	}
}

// A user is changed by a Run that fails now and then, before or after it has done
// its work.
func TestUserDriver(t *testing.T) {
	ctx, b := within(t), openBroker(t, 2)
	rec, _ := Open("")
	calls := 0
	var parked string // of a user who is disabled
	run := func(_ context.Context, stdin string, args ...string) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		calls++
		if calls%7 == 0 {
			return errors.New("before it was done")
		}
		user := args[2]
		secret, there := b.secrets[user]
		switch verb := args[1]; {
		case verb == "add" && there, verb != "add" && !there:
			return errors.New("no such user, or there already")
		case verb == "add":
			b.secrets[user], parked = stdin[:len(stdin)-1], ""
		case verb == "passwd" && parked != "":
			parked = stdin[:len(stdin)-1]
		case verb == "passwd":
			b.secrets[user] = stdin[:len(stdin)-1]
		case verb == "disable" && parked == "":
			b.secrets[user], parked = "", secret
		case verb == "enable" && parked != "":
			b.secrets[user], parked = parked, ""
		case verb == "rm":
			delete(b.secrets, user)
		}
		if calls%5 == 0 {
			return errors.New("after it was done")
		}
		return nil
	}
	u := StartUserDriver(ctx, rec, UserDriverConfig{Endpoint: Endpoint{Addresses: b.addresses()}, Name: "u", User: "ada", Rate: 1000, Run: run})
	await(t, ctx, "changes", func() bool { return u.Changes() >= 60 })
	mustStop(t, ctx, u)
	if r := Check(rec.Events(), Options{}); !r.OK() || r.Stats.UserReads < 100 {
		t.Error(r)
	}
}

// Few packet ids, a Receive Maximum of one, and a rate.
func TestFewIDs(t *testing.T) {
	for _, quota := range []uint16{1, 65535} {
		ctx, b := within(t), openBroker(t, 1)
		rec, _ := Open("")
		at := Endpoint{Addresses: b.addresses(), ReceiveMaximum: quota}
		sub := subscribe(t, ctx, rec, SubscriberConfig{Endpoint: at, Name: "s", Expiry: Never, Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("t", 2)}})
		pub := StartPublisher(ctx, rec, PublisherConfig{Endpoint: at, Name: "p", Topics: []string{"t"}, QoS: 2, Count: 200, Rate: 2000, IDs: 3, Expiry: Never})
		await(t, ctx, "messages", func() bool { return pub.Acked() > 50 })
		b.cut()
		if err := pub.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if err := sub.AwaitCount(ctx, 200); err != nil {
			t.Error(err)
		}
		sub.Stop()
		events := rec.Events()
		if r := Check(events, Options{MinAcked: 200, MinOwed: 200, MinShare: 1}); !r.OK() {
			t.Error(r)
		}
		for _, e := range events {
			if e.Kind == PublishSent && e.PacketID > 3 {
				t.Fatalf("%v: only 3 ids are to be used", e)
			}
		}
	}
}
