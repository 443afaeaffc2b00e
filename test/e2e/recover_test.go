//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// Survivor is the part of recover --inspect -o json that the tests read.
type Survivor struct {
	Node      string `json:"node"`
	LastIndex uint64 `json:"last_index"`
	LastTerm  uint64 `json:"last_term"`
	Applied   uint64 `json:"applied_index"`
	Lost      []struct {
		Node  string `json:"node"`
		Voter bool   `json:"voter"`
	} `json:"lost"`
}

func (n *Node) inspect() (s Survivor) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.CLI("recover", "--inspect", "-o", "json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// wipe takes a node's disk away; the next start needs a join.
func (n *Node) wipe() {
	n.t.Helper()
	if err := os.RemoveAll(n.Dir); err != nil {
		n.t.Fatal(err)
	}
}

// TestRecover loses two of three nodes for good: the third says what may be lost,
// goes on alone with everything it has, and the cluster grows again. The dead that
// come back are refused.
func TestRecover(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	survivor := c.Followers()[0]
	var dead []*Node
	for _, n := range c.Nodes {
		if n != survivor {
			dead = append(dead, n)
		}
	}
	survivor.awaitCA()
	const count = 500
	s := survivor.Connect(persistent("queue", 3600))
	s.Sub(rawmqtt.Sub("queue/#", 1))
	s.Disconnect(0)
	p := dead[0].Connect(clean("pub"))
	for i := range count {
		p.Pub("queue/q", 1, i == count-1, fmt.Sprint(i))
	}
	mourned := willed("mourned", 0, 3600)
	mourned.Will.Retain = true
	dead[0].Connect(mourned)
	// What was acknowledged to a client of the survivor is in its log.
	survivor.Connect(clean("last")).Pub("kept", 1, true, "value")
	for _, n := range c.Nodes {
		n.Kill()
	}
	before := survivor.inspect()
	t.Logf("%+v", before)
	if len(before.Lost) != 2 || before.LastIndex == 0 || before.Applied > before.LastIndex {
		t.Errorf("recover --inspect says %+v", before)
	}
	if out, err := survivor.TryCLI("another name\n", "recover"); err == nil {
		t.Errorf("recover went on without the name:\n%s", out)
	} else if again := survivor.inspect(); again.LastIndex != before.LastIndex || again.LastTerm != before.LastTerm {
		t.Errorf("recover that was called off changed the log: %+v, before %+v", again, before)
	}
	text := survivor.CLI("recover", "--yes")
	t.Log(text)
	if !strings.Contains(text, "is gone") {
		t.Error("recover does not say what may be lost")
	}
	survivor.Restart()
	if got := retained(t, survivor, "#"); got["queue/q"] != fmt.Sprint(count-1) || got["kept"] != "value" || got["will/mourned"] != "gone" {
		t.Errorf("retained: %v", got)
	}
	again := survivor.Connect(persistent("queue", 3600))
	if !again.Present {
		t.Error("the session is gone")
	}
	for i, m := range again.Messages(count, patience) {
		if string(m.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d of the queue is %q", i, m.Payload)
		}
	}
	again.Disconnect(0)

	// One that was dead and is not: alone, it must say so and be refused by name.
	dead[0].Start()
	awaitLog(t, dead[0], "left behind when the cluster was recovered")
	if code, _ := dead[0].Ready(); code == 200 {
		t.Error("a node of the old group is ready")
	}
	// Both: by themselves they are a majority of the group as it was, and the
	// recovered node does not hear them.
	dead[0].Kill()
	if st, err := survivor.Status(); err != nil || len(st.Members) != 1 || st.Leader != survivor.ID {
		t.Errorf("the recovered node: %+v, %v", st, err)
	}

	token := strings.TrimSpace(survivor.CLI("token", "create", "--uses", "2", "--quiet"))
	for _, n := range dead {
		n.wipe()
		if err := c.Join(n, token); err != nil {
			t.Fatal(err)
		}
		n.Restart()
	}
	c.WaitWhole()
	for _, n := range dead {
		if got := retained(t, n, "#"); got["kept"] != "value" {
			t.Errorf("%s has %v retained", n.ID, got)
		}
	}
	// The group is one of three again.
	survivor.Kill()
	dead[0].WaitReady(patience)
	c2 := dead[0].Connect(persistent("queue", 3600))
	if !c2.Present {
		t.Error("the session did not reach the new nodes")
	}
}

// awaitCA waits until a voter holds the CA key, which it fetches once it votes.
func (n *Node) awaitCA() {
	n.t.Helper()
	await(n.t, patience, func() bool { _, err := os.Stat(n.path("ca", "ca.crt")); return err == nil },
		func() string { return "node " + n.ID + " never gets the CA key" })
}

// awaitLog waits for a line in a node's log.
func awaitLog(t *testing.T, n *Node, want string) {
	t.Helper()
	await(t, patience, func() bool { return strings.Contains(n.Log(), want) },
		func() string { return fmt.Sprintf("node %s never logs %q", n.ID, want) })
}
