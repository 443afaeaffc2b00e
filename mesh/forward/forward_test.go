package forward

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mqcluster/mqcluster/session"
)

func TestForwardReachesThoseThatWantItInOrder(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, c *end) {
		b.Add("sport/+")
		c.Add("news/#")
		synctest.Wait()
		if !closed(b.Synced()) {
			t.Error("not known to the connected peers")
		}
		const n = 5000
		for i := 0; i < n; i += 50 {
			a.send(messages("sport/tennis", "pub", i, i+50), 0, 0)
		}
		a.send(messages("weather", "pub", 0, 10), 0, 0)
		synctest.Wait()
		got := b.deliveries()
		if len(got) != n {
			t.Fatalf("%d messages of %d", len(got), n)
		}
		for i, d := range got {
			if d.Message.Stamp != int64(i) {
				t.Fatalf("message %d came as number %d", d.Message.Stamp, i)
			}
		}
		if got := c.deliveries(); len(got) != 0 {
			t.Errorf("c was given %d messages that it does not want", len(got))
		}
	})
}

func TestForwardCarriesTheWholeMessage(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("#")
		synctest.Wait()
		want := []Delivery{
			{Message: &session.Message{Topic: "t", Publisher: "p", Stamp: 7}},
			{Message: &session.Message{
				Topic: "a/b", Payload: []byte("hello"), Properties: []byte{1, 2}, QoS: 2, Retain: true,
				Publisher: "ü", Stamp: -5, ExpiresAt: 99,
			}},
			{Message: &session.Message{Topic: "big", Payload: []byte(strings.Repeat("x", 200_000))}},
			{
				Message: &session.Message{Topic: "s", Payload: []byte("one")}, Client: "member",
				Subscription: session.Subscription{
					Filter: "$share/g/s", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 268435455,
				},
			},
		}
		for _, d := range want {
			if d.Client != "" {
				a.ForwardTo("b", d.Client, d.Message, d.Subscription)
			} else {
				a.send([]*session.Message{d.Message}, 0, 0)
			}
		}
		synctest.Wait()
		if diff := cmp.Diff(want, b.deliveries(), cmp.Comparer(bytes.Equal), cmpopts.IgnoreFields(Delivery{}, "Aside")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRoutesComeBackAfterAReconnect(t *testing.T) {
	for _, tt := range []struct {
		name     string
		changes  int
		snapshot bool
	}{
		{"few changes: the difference", 10, false},
		{"more than the log keeps: a snapshot", 200, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			trio(t, Config{LogChanges: 50}, func(t *testing.T, w *wires, a, b, _ *end) {
				b.Add("stays")
				b.Add("goes")
				synctest.Wait()
				before := value(t, b.metrics.snapshots)
				w.sever("b", "a")
				synctest.Wait()
				b.Remove("goes")
				for i := range tt.changes {
					b.Add(fmt.Sprint("new/", i))
				}
				synctest.Wait()
				a.send(messages("stays", "p", 0, 1), 0, 0) // routes outlive the stream
				w.heal("b", "a")
				time.Sleep(5 * time.Second)
				synctest.Wait()
				a.send(messages("goes", "p", 1, 2), 0, 0)
				a.send(messages("new/9", "p", 2, 3), 0, 0)
				a.send(messages("stays", "p", 3, 4), 0, 0)
				synctest.Wait()
				if got := b.payloads(); got != "0 2 3" {
					t.Errorf("got %q", got)
				}
				if got := value(t, b.metrics.snapshots) > before; got != tt.snapshot {
					t.Errorf("snapshot sent: %v", got)
				}
			})
		})
	}
}

func TestRestartedPeerBeginsANewLog(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, w *wires, a, b, _ *end) {
		b.Add("old")
		synctest.Wait()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b2 := w.node(t, Config{Node: "b"}, nil)
		b2.Add("new")
		b2.SetPeers([]string{"a", "c"})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		a.send(messages("old", "p", 0, 1), 0, 0)
		a.send(messages("new", "p", 1, 2), 0, 0)
		synctest.Wait()
		if got := b2.payloads(); got != "1" {
			t.Errorf("got %q", got)
		}
	})
}

func TestRemovesAreLazyAndArrive(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("x")
		synctest.Wait()
		b.Remove("x")
		if !closed(b.Synced()) {
			t.Error("nobody waits for a remove")
		}
		time.Sleep(2 * time.Second)
		a.send(messages("x", "p", 0, 1), 0, 0)
		synctest.Wait()
		if got := b.payloads(); got != "" {
			t.Errorf("got %q", got)
		}
		if n := a.table.trie.Load().Len(); n != 0 {
			t.Errorf("%d routes are left", n)
		}
	})
}

func TestSyncedWaitsForAcks(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("x")
		start := time.Now()
		<-b.Synced()
		if d := time.Since(start); d != 0 {
			t.Errorf("took %v", d)
		}
		if n := a.table.trie.Load().Len(); n != 1 {
			t.Errorf("synced, and a has %d routes", n)
		}
	})
}

func TestSyncedGivesUpOnASlowPeer(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, c *end) {
		a.Add("y")
		synctest.Wait()
		a.gap = make(chan struct{}) // a reads nothing behind this
		b.send(messages("y", "p", 0, 1), 0, 0)
		synctest.Wait()
		b.Add("x")
		start := time.Now()
		<-b.Synced()
		if d := time.Since(start); d != 300*time.Millisecond {
			t.Errorf("took %v", d)
		}
		// c suffers nothing from that.
		c.send(messages("x", "p", 0, 3), 0, 0)
		synctest.Wait()
		if got := b.payloads(); got != "0 1 2" {
			t.Errorf("got %q", got)
		}
		close(a.gap)
	})
}

func TestSyncedAloneCostsNothing(t *testing.T) {
	w := newWires()
	a := w.node(t, Config{Node: "a"}, nil)
	defer w.shut(t)
	a.Add("x")
	if n := testing.AllocsPerRun(100, func() {
		if !closed(a.Synced()) {
			t.Error("waits for nobody")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFullQueueDropsTheNewest(t *testing.T) {
	trio(t, Config{QueueMessages: 10}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("x")
		synctest.Wait()
		b.gap = make(chan struct{})
		a.send(messages("x", "p", 0, 1), 0, 0) // b is busy with this
		synctest.Wait()
		a.send(messages("x", "p", 1, 2), 0, 0) // the stream is busy with this
		synctest.Wait()
		for i := range 100 {
			a.send(messages("x", "p", 2+i, 3+i), 0, 0)
		}
		if n := value(t, a.metrics.full); n != 90 {
			t.Errorf("%v dropped", n)
		}
		close(b.gap)
		synctest.Wait()
		if got := b.payloads(); got != "0 1 2 3 4 5 6 7 8 9 10 11" {
			t.Errorf("not the oldest, or not in order: %v", got)
		}
	})
}

func TestMessagesForADeadPeerAreDroppedInTheEnd(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, w *wires, a, b, _ *end) {
		b.Add("x")
		synctest.Wait()
		w.sever("a", "b")
		synctest.Wait()
		a.send(messages("x", "p", 0, 1), 0, 0) // waits for a stream, in vain
		time.Sleep(6 * time.Second)
		a.send(messages("x", "p", 1, 2), 0, 0) // nothing is expected any more
		if n := value(t, a.metrics.down); n != 2 {
			t.Errorf("%v dropped", n)
		}
		w.heal("a", "b")
		time.Sleep(6 * time.Second)
		synctest.Wait()
		a.send(messages("x", "p", 2, 3), 0, 0)
		synctest.Wait()
		if got := b.payloads(); got != "2" {
			t.Errorf("got %q", got)
		}
	})
}

func TestShortCutLosesNoOrder(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, w *wires, a, b, _ *end) {
		b.Add("x")
		synctest.Wait()
		for i := range 50 {
			a.send(messages("x", "p", 10*i, 10*i+10), 0, 0)
			if i%10 == 5 {
				w.sever("a", "b")
				w.heal("a", "b")
			}
			time.Sleep(time.Duration(i) * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		last := int64(-1)
		for _, d := range b.deliveries() {
			if d.Message.Stamp <= last {
				t.Fatalf("%d after %d", d.Message.Stamp, last)
			}
			last = d.Message.Stamp
		}
		if last != 499 {
			t.Errorf("the last one is %d", last)
		}
	})
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("x")
		synctest.Wait()
		b.gap = make(chan struct{})
		a.send(messages("x", "p", 0, 1), 0, 0)
		synctest.Wait()
		if n := value(t, a.metrics.peers); n != 2 {
			t.Fatalf("%v peers", n)
		}
		time.Sleep(6 * time.Second)
		if n := value(t, a.metrics.peers); n != 1 {
			t.Errorf("%v peers: b hangs and is still waited for", n)
		}
		close(b.gap)
	})
}

func TestRemovedPeerIsForgotten(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, c *end) {
		b.Add("x")
		c.Add("x")
		synctest.Wait()
		a.SetPeers([]string{"c"})
		a.send(messages("x", "p", 0, 1), 0, 0)
		time.Sleep(10 * time.Second) // b tries to come back, and may not
		synctest.Wait()
		if got := b.payloads(); got != "" {
			t.Errorf("b got %q", got)
		}
		if got := c.payloads(); got != "0" {
			t.Errorf("c got %q", got)
		}
		a.SetPeers([]string{"d", "c", "b"}) // d takes b's place, b another
		time.Sleep(10 * time.Second)
		synctest.Wait()
		a.send(messages("x", "p", 1, 2), 0, 0)
		synctest.Wait()
		if got := b.payloads() + c.payloads(); got != "11" {
			t.Errorf("after b came back: %q", got)
		}
	})
}

func TestDropAsksAgain(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("x")
		synctest.Wait()
		a.Drop("b")
		if n := a.table.trie.Load().Len(); n != 0 {
			t.Errorf("%d routes are left", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := a.table.trie.Load().Len(); n != 1 {
			t.Errorf("%d routes came back", n)
		}
	})
}

func TestDigestFindsWhatIsWrong(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, _ *wires, a, b, _ *end) {
		b.Add("x")
		b.Add("y")
		synctest.Wait()
		inc, version, hash := b.Digest()
		r := &a.peer("b").in.routes
		check := func() {
			t.Helper()
			a.Check("b", inc, version, hash)
			time.Sleep(2 * time.Second)
			synctest.Wait()
		}
		before := value(t, b.metrics.resyncs)
		check()
		if n := value(t, b.metrics.resyncs); n != before {
			t.Error("asked for a snapshot without need")
		}
		// As if a change had been lost.
		if err := a.table.apply(r, r.version, []change{{"x", false}}, 10); err != nil {
			t.Fatal(err)
		}
		r.version--
		check()
		if n := a.table.trie.Load().Len(); n != 2 {
			t.Errorf("%d routes", n)
		}
		// As if this node had stopped hearing of changes.
		r.version--
		a.Check("b", inc, version, hash)
		time.Sleep(6 * time.Second)
		check()
		if _, have, _ := a.table.state(r); have != version {
			t.Errorf("has version %d of %d", have, version)
		}
		a.Check("nobody", 1, 2, 3)
	})
}

func TestManyRoutes(t *testing.T) {
	trio(t, Config{}, func(t *testing.T, w *wires, a, b, c *end) {
		w.sever("b", "c")
		synctest.Wait()
		const n = 20_000
		for i := range n {
			b.Add(fmt.Sprintf("park/%d/device/%d/#", i%7, i))
		}
		<-b.Synced()
		if got := a.table.trie.Load().Len(); got != n {
			t.Errorf("a has %d routes", got)
		}
		for i := range n / 2 {
			b.Remove(fmt.Sprintf("park/%d/device/%d/#", i%7, i))
		}
		w.heal("b", "c")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		inc, version, hash := b.Digest()
		for _, e := range []*end{a, c} {
			i, v, h := e.table.state(&e.peer("b").in.routes)
			if i != inc || v != version || h != hash || e.table.trie.Load().Len() != n/2 {
				t.Errorf("%s: %d routes, version %d of %d", e.cfg.Node, e.table.trie.Load().Len(), v, version)
			}
		}
	})
}
