//go:build linux

package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// The marks of a disk of the test's size: see storage.low and storage.reserve.
const (
	diskLow     = diskSize / 2
	diskReserve = diskSize / 4
)

func mustMount(t *testing.T) {
	t.Helper()
	if why := mayMount(); why != "" {
		t.Skipf("no disks of their own for the nodes: %s", why)
	}
}

// alive fails if a process has ended or is another one than before.
func alive(t *testing.T, pids map[*Node]int, when string) {
	t.Helper()
	for n, pid := range pids {
		if !n.Running() || n.PID() != pid {
			t.Errorf("%s: node %s died of it", when, n.ID)
		}
	}
}

func fillDisks(t *testing.T, leave int64, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Disk.Fill(leave); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFull fills the disks of one node, of two and of all: the cluster goes
// on, then refuses what it would have to store and goes on with the rest, then
// stands still; nobody dies, nothing acknowledged is lost, and with room again
// all is as before.
func TestDiskFull(t *testing.T) {
	mustMount(t)
	t.Parallel()
	c := NewCluster(t, Options{Disks: true})
	pids := map[*Node]int{}
	for _, n := range c.Nodes {
		pids[n] = n.PID()
	}
	run := c.Record(t)
	followers := c.Followers()
	full, other := followers[0], followers[1]
	keep := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(other), Name: "keep", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("full/#", 1)}})
	load := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(other), Name: "load", Expiry: 3600, QoS: 1,
		Topics: []string{"full/a", "full/b"}, Rate: 300, Window: 50, Size: 128})
	awaitAcked(t, load, 300, patience)

	// One node down to its reserve: it lags and serves nobody, the others go on.
	fillDisks(t, diskReserve/2, full)
	await(t, patience, func() bool { code, _ := full.Ready(); return code == 503 }, func() string { return "the full node is still ready" })
	awaitAcked(t, load, load.Acked()+600, patience)
	alive(t, pids, "one disk full")
	full.Disk.Empty()
	full.WaitReady(patience)
	c.WaitWhole()
	awaitAcked(t, load, load.Acked()+300, patience)
	if err := load.Stop(t.Context()); err != nil {
		t.Error(err)
	}

	p := other.Connect(clean("probe"))
	p.Pub("kept", 1, true, "old")
	queue := other.Connect(persistent("offline", 3600))
	queue.Sub(rawmqtt.Sub("queue/#", 1))
	queue.Disconnect(0)
	p.Pub("queue/1", 1, false, "waiting")

	// Two nodes low: no quorum without them.
	low := []*Node{full, c.Leader()}
	if low[1] == full {
		low[1] = other
	}
	fillDisks(t, (diskLow+diskReserve)/2, low...)
	refused := func() bool {
		ack, err := p.PublishAcked(rawmqtt.Publish{Topic: "queue/2", QoS: 1, ID: p.next(), Payload: []byte("x")})
		return err == nil && ack.Reason == 0x97
	}
	took := await(t, patience, refused, func() string { return "durable publishes are taken while two disks are nearly full" })
	t.Logf("durable publishes are refused after %v", took.Round(time.Millisecond))
	if ack, err := p.PublishAcked(rawmqtt.Publish{Topic: "queue/2", QoS: 2, ID: p.next(), Payload: []byte("x")}); err != nil || ack.Reason != 0x97 {
		t.Errorf("QoS 2: %v %v", ack, err)
	}
	for _, n := range c.Nodes {
		n.WaitReady(patience)
	}
	await(t, patience, func() bool {
		leader := c.Leader()
		return leader != low[0] && leader != low[1]
	}, func() string { return "a node whose disk is nearly full still leads" })
	old := other.Connect(rawmqtt.Connect{Version: 4, ClientID: "old", KeepAlive: 60, CleanStart: true})
	if ack, err := old.PublishAcked(rawmqtt.Publish{Topic: "queue/2", QoS: 1, ID: 1, Payload: []byte("x")}); err == nil {
		t.Errorf("3.1.1 got %v", ack)
	}
	live := full.Connect(clean("live"))
	live.Sub(rawmqtt.Sub("live", 0))
	p.Pub("live", 0, false, "goes on")
	live.Messages(1, patience)
	p.Pub("kept", 1, true, "") // a delete
	queue = full.Connect(persistent("offline", 3600))
	before := queue.Messages(1, patience)
	for _, m := range before {
		if string(m.Payload) == "x" {
			t.Error("a refused message was delivered")
		}
	}
	full.CLI("session", "list") // the operator's verbs work
	alive(t, pids, "two disks nearly full")
	for _, n := range low {
		n.Disk.Empty()
	}
	await(t, patience, func() bool { return !refused() }, func() string { return "durable publishes are refused though there is room" })
	late := other.Connect(clean("late"))
	late.Sub(rawmqtt.Sub("kept", 1))
	late.Quiet(300 * time.Millisecond)

	// Everybody down to the reserve: the cluster stands still, and lives.
	fillDisks(t, diskReserve/2, c.Nodes...)
	for _, n := range c.Nodes {
		await(t, patience, func() bool { code, _ := n.Ready(); return code == 503 }, func() string { return n.ID + " is still ready" })
	}
	alive(t, pids, "all disks full")
	for _, n := range c.Nodes {
		n.Disk.Empty()
	}
	c.WaitWhole()
	again := other.Connect(clean("again"))
	await(t, patience, func() bool { // a node looks at its disk now and then
		ack, err := again.PublishAcked(rawmqtt.Publish{Topic: "again", QoS: 1, ID: again.next(), Payload: []byte("x")})
		return err == nil && ack.Reason < 0x80 // nobody is there to receive it
	}, func() string { return "durable publishes are refused though there is room" })
	alive(t, pids, "afterwards")
	run.Finish(keep)
	run.Judge(history.Options{MinAcked: 1000, MinOwed: 1000, TakeoverGrace: 10 * time.Second})
}

// TestDiskHung freezes the disk of the leader, then of a follower, under load:
// others lead within seconds, the process ends by itself with one sentence about
// its disk, or cannot end before the disk answers and holds no lease meanwhile;
// started again it catches up, and nothing acknowledged is lost.
func TestDiskHung(t *testing.T) {
	mustMount(t)
	t.Parallel()
	c := NewCluster(t, Options{Disks: true})
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			c.In(t)
			hung, others := c.Leader(), c.Followers()
			if who == "follower" {
				hung, others = others[0], []*Node{hung, others[1]}
			}
			run := c.Record(t)
			keep := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(others[0]), Name: who + "-keep", Expiry: 3600,
				Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("hung/#", 1)}})
			load := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(others[1]), Name: who + "-load", Expiry: 3600, QoS: 1,
				Topics: []string{"hung/a"}, Rate: 300, Window: 50, Size: 128})
			awaitAcked(t, load, 300, patience)
			earlier, err := os.ReadFile(hung.log)
			if err != nil {
				t.Fatal(err)
			}
			from, start := len(earlier), time.Now()
			hung.Disk.Freeze()
			defer hung.Disk.Thaw()
			if who == "leader" {
				took := await(t, patience, func() bool {
					s, err := others[0].Status()
					return err == nil && s.Leader != "" && s.Leader != hung.ID
				}, func() string { return "the node with the hung disk still leads" })
				t.Logf("another leads after %v", took.Round(time.Millisecond))
				if took > 8*time.Second {
					t.Errorf("another led only after %v", took)
				}
			}
			awaitAcked(t, load, load.Acked()+300, patience)
			await(t, patience, func() bool { return !hung.Running() || sentence(t, hung, from) != "" }, func() string { return "the process says nothing of its disk" })
			t.Logf("after %v: %s", time.Since(start).Round(time.Millisecond), sentence(t, hung, from))
			if code, _ := hung.Ready(); code == 200 {
				t.Error("a node without a disk is ready")
			}
			hung.Disk.Thaw()
			await(t, patience, func() bool { return !hung.Running() }, func() string { return "the process did not end" })
			if !strings.Contains(sentence(t, hung, from), "the disk d") {
				t.Error("the process ended without a sentence about its disk")
			}
			hung.Start()
			hung.WaitReady(patience)
			awaitAcked(t, load, load.Acked()+300, patience)
			if err := load.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			run.Finish(keep)
			run.Judge(history.Options{MinAcked: 900, MinOwed: 900, TakeoverGrace: 20 * time.Second})
			c.WaitWhole()
		})
	}
}

// sentence is what a node's log says, behind its first from bytes, of its end for
// the sake of its disk.
func sentence(t *testing.T, n *Node, from int) string {
	t.Helper()
	text, err := os.ReadFile(n.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text[from:])) {
		if strings.Contains(line, "the process ends") && strings.Contains(line, "the disk") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
