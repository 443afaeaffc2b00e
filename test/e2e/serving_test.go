//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// roles are those of all members, by the word of the leader.
func (c *Cluster) roles() string {
	c.t.Helper()
	s, err := c.Leader().Status()
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, m := range s.Members {
		role := m.Role
		if role == "leader" {
			role = "voter" // who leads is left to them
		}
		out = append(out, m.Node+" "+role)
	}
	return strings.Join(out, ", ")
}

func (c *Cluster) awaitRoles(want string) {
	c.t.Helper()
	await(c.t, patience, func() bool { return c.roles() == want }, func() string {
		return fmt.Sprintf("the roles are %s, not %s", c.roles(), want)
	})
}

// TestServingNodes has three of five nodes vote and all clients on the other two, of
// which one is never to vote: what these acknowledge is not lost, a voter that dies for
// good and is removed leaves its vote to the one that may have it, and that vote counts.
func TestServingNodes(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	first := c.Nodes[0]
	for _, bad := range []string{"4", "2", "7", "all"} {
		if _, err := first.TryCLI("", "setting", "set", "cluster.voters", bad); err == nil || !strings.Contains(err.Error(), "neither 3 nor 5") {
			t.Errorf("%s voters: %v", bad, err)
		}
	}
	first.CLI("setting", "set", "cluster.voters", "3")
	may := c.grow(1)[0]
	may.WaitReady(patience)
	never := c.add()
	join := append([]string{"join", first.Advertise, "--token", first.token(1), "--serving-only"}, never.flags(nil)...)
	if _, err := command("", join...); err != nil {
		t.Fatal(err)
	}
	never.Start()
	never.WaitReady(patience)
	c.awaitRoles("n1 voter, n2 voter, n3 voter, n4 serving, n5 serving")

	run := c.Record(t)
	var subs []*history.Subscriber
	for _, n := range []*Node{may, never} {
		subs = append(subs, run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(n), Name: "serving-sub-" + n.ID, Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("serving/#", 1)}}))
	}
	pub := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(never), Name: "serving-pub", Expiry: 3600, QoS: 1,
		Topics: []string{"serving/a"}, Rate: 200, Window: 50, Size: 64})
	more := func() { t.Helper(); awaitAcked(t, pub, pub.Acked()+200, patience) }
	more()

	voters := []*Node{}
	for _, n := range c.Followers() {
		if n != may && n != never {
			voters = append(voters, n)
		}
	}
	dead := voters[0]
	run.KillNode(dead)
	more()
	if got, want := c.roles(), dead.ID+" voter"; !strings.Contains(got, want) {
		t.Errorf("a voter that is only down has lost its vote: %s", got)
	}
	await(t, patience, func() bool { _, err := may.TryCLI("", "leave", dead.ID); return err == nil },
		func() string { return "the dead voter is not removed" })
	want := []string{}
	for _, n := range c.Nodes {
		switch n {
		case dead:
		case never:
			want = append(want, n.ID+" serving")
		default:
			want = append(want, n.ID+" voter")
		}
	}
	c.awaitRoles(strings.Join(want, ", "))
	more()

	// Without the vote that moved, one of two voters would be left now.
	run.KillNode(voters[1])
	more()
	// And a node that serves may die as any other.
	run.KillNode(never)
	more()
	if err := pub.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	run.Finish(subs...)
	run.Judge(history.Options{MinAcked: 1000, MinOwed: 1000})
}

// TestServingOnlyTakesNoVotersPlace: who never votes cannot replace who may, and is
// replaced itself by another one of its kind.
func TestServingOnlyTakesNoVotersPlace(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	stays, dead := c.Leader(), c.Followers()[0]
	fresh, token := c.add(), stays.token(5)
	join := func(extra ...string) error {
		args := append([]string{"join", stays.Advertise, "--token", token, "--serving-only"}, fresh.flags(nil)...)
		_, err := command("", append(args, extra...)...)
		return err
	}
	dead.Kill()
	var err error
	await(t, patience, func() bool {
		err = join("--replace", dead.ID)
		return err != nil && strings.Contains(err.Error(), "cannot take its place")
	}, func() string { return fmt.Sprintf("a node that serves only replaces a voter: %v", err) })
	dead.Restart()
	c.WaitWhole()
	if err := join(); err != nil {
		t.Fatal(err)
	}
	fresh.Start()
	fresh.WaitReady(patience)
	c.awaitRoles("n1 voter, n2 voter, n3 voter, n4 serving")
	gone := fresh
	fresh.Kill()
	fresh = c.add()
	await(t, patience, func() bool { err = join("--replace", gone.ID); return err == nil },
		func() string { return fmt.Sprintf("one that serves only is not replaced: %v", err) })
	fresh.Start()
	fresh.WaitReady(patience)
	c.awaitRoles("n1 voter, n2 voter, n3 voter, n5 serving")
}
