package history

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A run with two cuts of all connections: nothing is lost, and the file holds
// what the memory holds.
func TestDriversSurviveFailures(t *testing.T) {
	for _, tt := range []struct{ version, qos byte }{{5, 1}, {5, 2}, {4, 1}, {3, 2}} {
		ctx, b := within(t), openBroker(t, 3)
		path := filepath.Join(t.TempDir(), "history.jsonl")
		rec, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		at := Endpoint{Addresses: b.addresses(), Version: tt.version}
		sub, err := StartSubscriber(ctx, rec, SubscriberConfig{Endpoint: at, Name: "s", Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("t", tt.qos)}})
		if err != nil {
			t.Fatal(err)
		}
		const n = 600
		// At a pace at which the cuts come while it sends.
		pub := StartPublisher(ctx, rec, PublisherConfig{Endpoint: at, Name: "p", Topics: []string{"t"}, QoS: tt.qos, Count: n, Rate: 2000, Expiry: 3600})
		for _, at := range []int{n / 4, n / 2} {
			if err := sub.AwaitCount(ctx, at); err != nil {
				t.Fatal(err)
			}
			rec.Mark("cut")
			b.cut()
		}
		if err := pub.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		if err := sub.AwaitCount(ctx, n); err != nil {
			t.Error(err)
		}
		sub.Stop()
		r := Check(rec.Events(), Options{MinAcked: n, MinOwed: n})
		if !r.OK() || r.Stats.Present < 1 {
			t.Errorf("version %d QoS %d:\n%s", tt.version, tt.qos, r)
		}
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		read, err := Read(f)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(rec.Events(), read); d != "" {
			t.Errorf("the file differs: %s", d)
		}
	}
}

func TestSubscriberAway(t *testing.T) {
	ctx, b := within(t), openBroker(t, 1)
	rec, _ := Open("")
	at := Endpoint{Addresses: b.addresses()}
	sub, err := StartSubscriber(ctx, rec, SubscriberConfig{Endpoint: at, Name: "s", Expiry: Never,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("t", 1)}})
	if err != nil {
		t.Fatal(err)
	}
	sub.Disconnect()
	pub := StartPublisher(ctx, rec, PublisherConfig{Endpoint: at, Name: "p", Topics: []string{"t"}, QoS: 1, Count: 60, Rate: 2000})
	if err := pub.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if r := Check(rec.Events(), Options{}); r.Stats.Unjudged != pub.Acked() || r.Stats.Owed != 0 {
		t.Errorf("while the subscriber is away:\n%s", r)
	}
	if err := sub.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sub.AwaitCount(ctx, pub.Acked()); err != nil {
		t.Fatal(err)
	}
	// Without a Count it goes on until Stop, which waits for what is under way.
	more := StartPublisher(ctx, rec, PublisherConfig{Endpoint: at, Name: "q", Topics: []string{"t"}, QoS: 1, Window: 5})
	if err := sub.AwaitCount(ctx, 200); err != nil {
		t.Fatal(err)
	}
	if err := more.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := sub.AwaitCount(ctx, 60+more.Acked()); err != nil {
		t.Fatal(err)
	}
	sub.Stop()
	if r := Check(rec.Events(), Options{MinOwed: 200}); !r.OK() {
		t.Errorf("after it came back:\n%s", r)
	}
}

func TestTakeover(t *testing.T) {
	ctx, b := within(t), openBroker(t, 2)
	rec, _ := Open("")
	start := func(name string) *Subscriber {
		s, err := StartSubscriber(ctx, rec, SubscriberConfig{Endpoint: Endpoint{Addresses: b.addresses()}, Name: name, ClientID: "c",
			Expiry: Never, Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("t", 1)}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := start("a")
	second := start("b")
	if err := first.AwaitCount(ctx, 1); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first connection goes on: %v", err)
	}
	second.Stop()
	first.Stop()
	if r := Check(rec.Events(), Options{}); !r.OK() || r.Stats.Present != 1 {
		t.Error(r)
	}
}

func TestNoBrokerIsAnError(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	rec, _ := Open("")
	if err := StartPublisher(ctx, rec, PublisherConfig{Endpoint: Endpoint{Addresses: []string{"127.0.0.1:1"}}, Name: "p", Count: 1}).Wait(t.Context()); err == nil {
		t.Error("published to nobody")
	}
	if _, err := StartSubscriber(ctx, rec, SubscriberConfig{Endpoint: Endpoint{Addresses: []string{"127.0.0.1:1"}}, Name: "s"}); err == nil {
		t.Error("subscribed to nobody")
	}
}
