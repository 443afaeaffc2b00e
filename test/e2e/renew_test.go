//go:build linux

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"
)

// setWall shifts the wall clock of a node with Options.Wall.
func (n *Node) setWall(by time.Duration) {
	n.t.Helper()
	var shift [8]byte
	binary.LittleEndian.PutUint64(shift[:], uint64(by/time.Second))
	f, err := os.OpenFile(n.wall, os.O_WRONLY, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(shift[:], 0); err != nil {
		n.t.Fatal(err)
	}
}

// TestNodeCertificatesRenew has the wall clocks of all nodes go on by more than a
// certificate of a node lives, in steps: every node renews its own in time, and the
// mesh never needs one that has expired.
func TestNodeCertificatesRenew(t *testing.T) {
	withShiftedClock(t)
	c := NewCluster(t, Options{Wall: true})
	const day = 24 * time.Hour
	until := func() map[string]time.Time {
		out := map[string]time.Time{}
		for _, n := range c.Nodes[0].authorities().Nodes {
			if n.Error == "" {
				out[n.Node] = n.Until
			}
		}
		return out
	}
	before := until()
	steps := []time.Duration{21 * day}
	if long() {
		steps = append(steps, 42*day) // a minute more: what was renewed is renewed, too
	}
	for _, at := range steps {
		for _, n := range c.Nodes {
			n.setWall(at)
		}
		var now map[string]time.Time
		took := await(t, 3*time.Minute, func() bool {
			now = until()
			renewed := len(now) == len(c.Nodes)
			for node, end := range now {
				renewed = renewed && end.After(before[node].Add(10*day))
			}
			return renewed
		}, func() string { return fmt.Sprintf("after %v certificates end on %v, before on %v", at, now, before) })
		t.Logf("%v on, all have renewed theirs after %v", at, took.Round(time.Second))
		before = now
		// New connections between the nodes are made with what is in force now.
		victim := c.Followers()[0]
		victim.Kill()
		victim.Restart()
		c.WaitWhole()
	}
}
