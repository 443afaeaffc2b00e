//go:build linux

package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestPlantedFaults shows that the checker finds what it is there for: programs
// with a fault, built with a tag that no release has, are run through what the
// real one passes in TestKillNode, and the checker must complain.
func TestPlantedFaults(t *testing.T) {
	for _, tt := range []struct {
		tag string
		qos byte
		// rules are those that it breaks; which of them a lost message breaks is a
		// hint only.
		rules []string
		// settled is for repetitions of what the client acknowledged long before.
		settled time.Duration
		victim  func(leader, follower *Node) *Node
	}{
		{"plant_ack_before_commit", 1, []string{history.RuleDurable, history.RuleFailover, history.RuleSubscribe}, 0, func(l, _ *Node) *Node { return l }},
		{"plant_forget_cursor", 1, []string{history.RuleRepeat}, 2 * time.Second, func(_, f *Node) *Node { return f }},
		{"plant_forget_cursor", 2, []string{history.RuleOnce, history.RuleRepeat}, 0, func(_, f *Node) *Node { return f }},
	} {
		t.Run(tt.tag+"/QoS"+string('0'+rune(tt.qos)), func(t *testing.T) {
			plant(t, tt.tag)
			const tries = 3 // what is under way when the node dies is chance
			for range tries {
				report := faultyRun(t, tt.qos, tt.victim, history.Options{Settled: tt.settled})
				for _, v := range report.Violations {
					if slices.Contains(tt.rules, v.Rule) {
						t.Logf("found %d violations, the first: %s: %s", len(report.Violations), v.Rule, v.Text)
						return
					}
				}
				t.Logf("nothing found: %s", report)
			}
			t.Errorf("the checker found nothing in %d runs with %s", tries, tt.tag)
		})
	}
}

// plant has the test run a program with a fault.
func plant(t *testing.T, tag string) {
	t.Helper()
	buildProgram(t, "-tags", tag)
}

// faultyRun publishes on the leader to a persistent session on a follower, kills
// one of the two and returns what the checker says.
func faultyRun(t *testing.T, qos byte, victim func(leader, follower *Node) *Node, o history.Options) *history.Report {
	t.Helper()
	c := NewCluster(t, Options{})
	leader, follower := c.Leader(), c.Followers()[0]
	run := c.Record(t)
	sub := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(follower), Name: "sub", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("load", qos)}})
	const count = 15_000
	pub := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(leader), Name: "pub", Expiry: 3600, QoS: qos,
		Topics: []string{"load"}, Rate: 3000, Window: 500, Size: 128, Count: count})
	awaitAcked(t, pub, count/2, patience)
	run.KillNode(victim(leader, follower))
	run.Wait(pub, patience)
	run.Finish(sub)
	return history.Check(run.Events(), o)
}
