//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestBans bans by address, user and client on one node, which holds on all, for who
// is connected too, and ends by time; and has guesses slowed down.
func TestBans(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: append([]string{"--abuse.user-failures", "5", "--abuse.scan-limit", "30", "--abuse.flap-limit", "9"}, cheap...)})
	n := c.Nodes[0]
	c.addUser("dev1", "secret")
	from := func(node *Node, address, name, secret, id string) (*rawmqtt.Packet, *rawmqtt.Client) {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: patience}
		conn, err := d.DialContext(t.Context(), "tcp", node.Plain)
		if errors.Is(err, syscall.ECONNRESET) {
			return nil, nil // it was closed that fast
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		raw := rawmqtt.New(conn, 5)
		o := clean(id)
		o.Username, o.Password = &name, &secret
		ack, err := raw.Connect(o)
		if err != nil {
			return nil, raw
		}
		return ack, raw
	}
	reason := func(p *rawmqtt.Packet) string {
		if p == nil {
			return "no answer"
		}
		return fmt.Sprintf("0x%02x", p.Reason)
	}
	is := func(want string, p *rawmqtt.Packet, what string) {
		t.Helper()
		if got := reason(p); got != want {
			t.Errorf("%s is answered %s, want %s", what, got, want)
		}
	}
	for _, tt := range []struct{ kind, value, address, name, id, want string }{
		{"address", "127.0.5.0/24", "127.0.5.7", user, "by-address", "no answer"},
		{"user", "dev1", "127.0.0.9", "dev1", "by-user", "0x8a"},
		{"client", "by-client", "127.0.0.9", user, "by-client", "0x8a"},
	} {
		secret := password
		if tt.name == "dev1" {
			secret = "secret"
		}
		ack, raw := from(c.Nodes[1], tt.address, tt.name, secret, tt.id)
		is("0x00", ack, tt.id+" before its ban")
		n.CLI("ban", "add", tt.kind, tt.value, "--reason", "test", "--for", "1h")
		if _, err := raw.AwaitClose(patience); err != nil {
			t.Errorf("%s stays connected: %v", tt.id, err)
		}
		for _, node := range c.Nodes {
			ack, _ := from(node, tt.address, tt.name, secret, tt.id)
			is(tt.want, ack, tt.id+" at "+node.ID)
		}
		ack, _ = from(n, "127.0.0.8", user, password, "somebody-else")
		is("0x00", ack, "somebody else")
		c.Nodes[2].CLI("ban", "remove", tt.kind, tt.value)
		ack, _ = from(n, tt.address, tt.name, secret, tt.id)
		is("0x00", ack, tt.id+" after its ban")
	}
	t.Run("it ends by time", func(t *testing.T) {
		n.CLI("ban", "add", "client", "short", "--for", "2s")
		ack, _ := from(n, "127.0.0.8", user, password, "short")
		is("0x8a", ack, "while it lasts")
		await(t, patience, func() bool {
			ack, _ := from(c.Nodes[2], "127.0.0.8", user, password, "short")
			return ack != nil && ack.Reason == 0
		}, func() string { return "the ban does not end" })
		if out := n.CLI("ban", "list", "-o", "json"); strings.Contains(out, "short") {
			t.Errorf("it is listed still: %s", out)
		}
	})
	t.Run("guesses", func(t *testing.T) {
		ack, _ := from(n, "127.0.6.1", "dev1", "secret", "home")
		is("0x00", ack, "the user at home")
		for i := range 5 {
			ack, _ = from(n, "127.0.6.66", "dev1", fmt.Sprint("guess", i), "guesser")
			is("0x86", ack, "a guess")
		}
		ack, _ = from(n, "127.0.6.66", "dev1", "secret", "guesser")
		is("0x9f", ack, "the guess after too many, though right")
		ack, _ = from(n, "127.0.6.67", "dev1", "secret", "elsewhere")
		is("0x9f", ack, "the user at a new address")
		ack, _ = from(n, "127.0.6.1", "dev1", "secret", "home")
		is("0x00", ack, "the user at home, while others guess")
		if v := n.Metric(`mqcluster_broker_refusals_total{reason="throttled"}`); v != 2 {
			t.Errorf("%v refusals are counted as throttled", v)
		}
		if k := strings.Count(n.Log(), "reason=credentials source=127.0.6.66"); k != 1 {
			t.Errorf("five guesses make %d lines of log", k)
		}
	})
	t.Run("a client that comes and goes", func(t *testing.T) {
		// One more than the limit: the count runs off with time, and some has passed.
		for i := range 10 {
			ack, raw := from(n, "127.0.8.8", user, password, "flapper")
			is("0x00", ack, fmt.Sprint("connection ", i+1))
			if i < 9 {
				raw.Disconnect(0)
			} else if _, err := raw.AwaitClose(patience); err != nil {
				t.Errorf("it stays connected: %v", err)
			}
		}
		for _, node := range c.Nodes {
			await(t, patience, func() bool { return strings.Contains(node.CLI("ban", "list"), "flapper") }, func() string { return "the client is not banned at " + node.ID })
			ack, _ := from(node, "127.0.8.8", user, password, "flapper")
			is("0x8a", ack, "the client at "+node.ID)
		}
		ack, _ := from(n, "127.0.8.8", user, password, "its-neighbour")
		is("0x00", ack, "another client at its address")
		if out := n.CLI("ban", "list"); !strings.Contains(out, "flapper") || !strings.Contains(out, "connected 9 times") {
			t.Errorf("the list of bans does not have it:\n%s", out)
		}
	})
	t.Run("a scanner", func(t *testing.T) {
		for i := range 40 {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.7.7")}}).DialContext(t.Context(), "tcp", n.Plain)
			if errors.Is(err, syscall.ECONNRESET) {
				break // it is banned by now
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(append([]byte{0x10, byte(i), 0, 4, 'X', 'X', 'X', 'X'}, make([]byte, 44)...))
			_, _ = silent(t, conn, patience)
			conn.Close()
		}
		for _, node := range c.Nodes {
			await(t, patience, func() bool { return strings.Contains(node.CLI("ban", "list"), "127.0.7.7/32") }, func() string { return "the scanner is not banned at " + node.ID })
		}
		ack, _ := from(c.Nodes[1], "127.0.7.7", user, password, "scanner")
		is("no answer", ack, "the scanner")
		if out := n.CLI("audit", "list", "--operation", "ban"); !strings.Contains(out, "127.0.7.7/32") {
			t.Errorf("the audit does not have it:\n%s", out)
		}
	})
}

// TestUserLimits: the limits of a user hold on all nodes and at once.
func TestUserLimits(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: cheap})
	n := c.Nodes[0]
	c.addUser("dev1", "secret")
	at := login{c.Nodes[1].TLS, c.ClientTLS, "dev1", "secret"}
	cl := at.must(t, clean("one"))
	cl.Sub(rawmqtt.Sub("a", 0))
	n.CLI("user", "limits", "dev1", "--subscriptions", "1", "--topic-levels", "2", "--connections", "1", "--message-rate", "20", "--packet-size", "1000")
	if ack, err := cl.Subscribe(2, rawmqtt.Sub("b", 0), rawmqtt.Sub("a/b/c", 0), rawmqtt.Sub("a", 1)); err != nil || ack.Reasons[0] != 0x97 || ack.Reasons[1] != 0x8f || ack.Reasons[2] != 1 {
		t.Errorf("SUBACK %v %v", ack, err)
	}
	if p, err := cl.PublishAcked(rawmqtt.Publish{Topic: "a/b/c", QoS: 1, ID: 7, Payload: []byte("x")}); err != nil || p.Reason != 0x90 {
		t.Errorf("a topic of three levels: %v %v", p, err)
	}
	if _, ack, err := at.connect(t, clean("two")); err != nil || ack.Reason != 0x97 {
		t.Errorf("a second connection: %v %v", ack, err)
	}
	start := time.Now()
	for i := range 40 {
		if err := cl.Publish(rawmqtt.Publish{Topic: "x", QoS: 1, ID: uint16(100 + i), Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cl.Await(rawmqtt.PUBACK, 139); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 700*time.Millisecond {
		t.Errorf("40 messages at 20 a second took %v", took)
	} else {
		t.Logf("40 messages at 20 a second took %v", took.Round(time.Millisecond))
	}
	cl.Disconnect(0)
	await(t, patience, func() bool {
		next, ack, err := at.connect(t, clean("three"))
		if err != nil || ack.Reason != 0 {
			return false
		}
		cl = next
		size, _ := ack.Int(rawmqtt.MaximumPacketSize)
		return size == 1000
	}, func() string { return "the next connection is not told of its packet size" })
	if err := cl.Publish(rawmqtt.Publish{Topic: "x", Payload: make([]byte, 1200)}); err != nil {
		t.Fatal(err)
	}
	if got, err := cl.AwaitClose(patience); err != nil || len(got) == 0 || got[len(got)-1].Reason != 0x95 {
		t.Errorf("a packet of 1,200 bytes: %v %v", got, err)
	}
	n.CLI("user", "limits", "dev1")
	await(t, patience, func() bool {
		one, ack, err := at.connect(t, clean("four"))
		if err == nil && ack.Reason == 0 {
			_, ack, err = at.connect(t, clean("five"))
			one.Disconnect(0)
		}
		return err == nil && ack.Reason == 0
	}, func() string { return "limits that are taken away hold still" })
}
