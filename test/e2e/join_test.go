//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestJoinRules has nodes try to get in that must not.
func TestJoinRules(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	members := func() int {
		s, err := c.Nodes[0].Status()
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Members)
	}
	refused := func(t *testing.T, err error, want string) {
		t.Helper()
		if err == nil {
			t.Fatal("the node got in")
		}
		if !regexp.MustCompile("(?i)" + want).MatchString(err.Error()) {
			t.Errorf("the refusal says %q, which does not match %q", err, want)
		}
		if n := members(); n != 3 {
			t.Errorf("the cluster has %d members", n)
		}
		t.Logf("refused: %v", err)
	}
	t.Run("without a token", func(t *testing.T) {
		c.In(t)
		n := c.outsider("without")
		_, err := command("", append([]string{"join", c.Nodes[0].Advertise}, n.flags(nil)...)...)
		refused(t, err, "token")
	})
	t.Run("with a made-up secret", func(t *testing.T) {
		c.In(t)
		parts := strings.Split(c.Token, ".")
		parts[2] = strings.Repeat("A", len(parts[2]))
		refused(t, c.Join(c.outsider("made-up"), strings.Join(parts, ".")), "token")
	})
	t.Run("with a token of another cluster", func(t *testing.T) {
		c.In(t)
		other := NewCluster(t, Options{Nodes: 1})
		refused(t, c.Join(c.outsider("other-token"), other.Token), "token|authority|cluster")
	})
	t.Run("with a token that another key has used", func(t *testing.T) {
		c.In(t)
		token := strings.TrimSpace(c.Nodes[1].CLI("token", "create", "--uses", "1", "--quiet"))
		fourth := c.add()
		if err := c.Join(fourth, token); err != nil {
			t.Fatal(err)
		}
		if err := c.Join(fourth, token); err != nil {
			t.Errorf("the same node runs join again: %v", err)
		}
		err := c.Join(c.outsider("second"), token)
		if err == nil {
			t.Fatal("a second node got in")
		}
		t.Logf("refused: %v", err)
		fourth.Start()
		fourth.WaitReady(patience)
		fourth.CLI("leave")
		fourth.AwaitExit(patience)
		await(t, patience, func() bool { return members() == 3 }, func() string { return "the fourth node is still a member" })
	})
	t.Run("with a revoked token", func(t *testing.T) {
		c.In(t)
		token := strings.TrimSpace(c.Nodes[1].CLI("token", "create", "--quiet"))
		out := c.Nodes[1].CLI("token", "list", "-o", "json")
		id := regexp.MustCompile(`"id":\s*"([^"]+)"`).FindAllStringSubmatch(out, -1)
		for _, m := range id {
			c.Nodes[1].CLI("token", "revoke", m[1])
		}
		refused(t, c.Join(c.outsider("revoked"), token), "token")
	})
	t.Run("with a certificate of another CA", func(t *testing.T) {
		c.In(t)
		other := NewCluster(t, Options{Nodes: 1})
		impostor(t, c, other)
		if n := members(); n != 3 {
			t.Errorf("the cluster has %d members", n)
		}
	})
}

// outsider is a node that belongs to no cluster; it is not among c.Nodes.
func (c *Cluster) outsider(id string) *Node {
	c.t.Helper()
	n := c.add()
	c.Nodes = c.Nodes[:len(c.Nodes)-1]
	n.ID, n.Dir = id, filepath.Join(c.dir, id)
	return n
}

// impostor gives a node's place to a process whose certificate is of another CA:
// it runs n3's data with the other cluster's identity.
func impostor(t *testing.T, c *Cluster, other *Cluster) {
	t.Helper()
	n := c.Nodes[2]
	n.Stop()
	own, foreign := n.path("tls"), other.Nodes[0].path("tls")
	kept := n.path("tls.real")
	if err := os.Rename(own, kept); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(own, os.DirFS(foreign)); err != nil {
		t.Fatal(err)
	}
	// Copied files lose their mode, and a key that others can read is refused.
	if err := filepath.WalkDir(own, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = os.Chmod(path, 0o600)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	n.Start()
	select {
	case <-n.exited:
		t.Logf("the process gave up: %s", n.tail(1))
	case <-time.After(4 * time.Second): // long enough for many dials
		if code, _ := n.Ready(); code == 200 {
			t.Error("a node with a certificate of another CA is ready")
		}
		s, err := c.Nodes[0].Status()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range s.Members {
			if m.Node == n.ID && m.Up {
				t.Error("the cluster believes that a node with a certificate of another CA is up")
			}
		}
		n.Kill()
	}
	n.forget()
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(kept, own); err != nil {
		t.Fatal(err)
	}
	n.Restart()
	c.WaitWhole()
}

// TestLeave takes a node out: it ends by itself, the others go on, and it cannot
// come back without a new token.
func TestLeave(t *testing.T) {
	t.Parallel()
	for _, leads := range []bool{false, true} {
		name := "follower"
		if leads {
			name = "leader"
		}
		t.Run(name, func(t *testing.T) {
			c := NewCluster(t, Options{})
			n := c.Followers()[0]
			if leads {
				n = c.Leader()
			}
			client := n.Connect(persistent("stays", 3600))
			start := time.Now()
			n.CLI("leave")
			n.AwaitExit(patience)
			t.Logf("left in %v", time.Since(start).Round(time.Millisecond))
			if _, err := client.AwaitClose(time.Second); err != nil {
				t.Error(err)
			}
			leader := c.Leader()
			s, err := leader.Status()
			if err != nil || len(s.Members) != 2 {
				t.Errorf("status after the leave: %+v %v", s, err)
			}
			for _, left := range c.Running() {
				left.WaitReady(patience)
				p := left.Connect(clean("pub-" + left.ID))
				p.Pub("after/leave", 1, true, left.ID)
				p.Disconnect(0)
			}
			if again := leader.Connect(persistent("stays", 3600)); !again.Present {
				t.Error("a session of the node that left is gone")
			}
			n.Start()
			select {
			case <-n.exited:
			case <-time.After(3 * time.Second):
				if code, _ := n.Ready(); code == 200 {
					t.Error("a node that left is ready again")
				}
			}
			if s, err := leader.Status(); err != nil || len(s.Members) != 2 {
				t.Errorf("status after the node that left was started: %+v %v", s, err)
			}
		})
	}
}
