//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// Backup is the part of backup -o json and restore --dry-run -o json that the tests
// read.
type Backup struct {
	ClusterID string `json:"cluster_id"`
	Index     uint64 `json:"index"`
	Size      int64  `json:"size"`
	Contents  struct {
		Sessions  int `json:"sessions"`
		Connected int `json:"connected"`
		Retained  int `json:"retained"`
		Messages  int `json:"messages"`
		Sending   int `json:"qos2_sending"`
		Receiving int `json:"qos2_receiving"`
	} `json:"contents"`
}

// vault is where a test keeps backups and the key that opens them.
type vault struct {
	t                   *testing.T
	dir, key, recipient string
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{t: t, dir: t.TempDir()}
	v.key = filepath.Join(v.dir, "key")
	out, err := command("", "backup", "keygen", v.key)
	if err != nil {
		t.Fatal(err)
	}
	v.recipient = strings.TrimSpace(out)
	return v
}

// take has a node make a backup.
func (v *vault) take(n *Node, name string, flags ...string) (path string, b Backup) {
	v.t.Helper()
	path = filepath.Join(v.dir, name)
	out := n.CLI(append([]string{"backup", path, "--recipient", v.recipient, "-o", "json"}, flags...)...)
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		v.t.Fatal(err)
	}
	return path, b
}

// restore makes a new cluster of one node out of a backup.
func (v *vault) restore(path string, flags ...string) *Cluster {
	v.t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		v.t.Fatal(err)
	}
	c := &Cluster{t: v.t, dir: dir}
	v.t.Cleanup(c.close)
	n := c.add()
	n.ID = "r1" // no node of the old cluster
	args := append([]string{"restore", path, "--key-file", v.key}, n.flags(flags)...)
	if out, err := command("", args...); err != nil {
		v.t.Fatalf("restore: %v\n%s", err, out)
	}
	n.Restart()
	c.trust()
	return c
}

// queued are the payloads that a session gets when its client comes back.
func queued(t *testing.T, n *Node, client string, want int) (out []string) {
	t.Helper()
	c := n.Connect(persistent(client, 3600))
	if !c.Present {
		t.Errorf("%s has no session on %s", client, n.ID)
	}
	for _, m := range c.Messages(want, patience) {
		out = append(out, string(m.Payload))
	}
	c.Quiet(quiet)
	c.Disconnect(0)
	return out
}

// TestBackup takes a backup of a cluster under load, and restores it to another one:
// sessions, queues, in-flight QoS 2 states, retained messages, users and rights are
// there, client by client; what was acknowledged before it began is in it; nothing
// of the old cluster's nodes is. Damaged files are refused and leave nothing.
func TestBackup(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	v := newVault(t)
	const clients, each = 5, 200
	p := c.Nodes[0].Connect(clean("pub"))
	want := map[string][]string{}
	for i := range clients {
		name := fmt.Sprint("queue-", i)
		s := c.Nodes[i%3].Connect(persistent(name, 3600))
		s.Sub(rawmqtt.Sub("queue/"+fmt.Sprint(i)+"/#", byte(1+i%2)), rawmqtt.Sub("queue/all", 1))
		s.Disconnect(0)
	}
	for k := range each {
		for i := range clients {
			text := fmt.Sprint(i, "-", k)
			p.Pub(fmt.Sprintf("queue/%d/x", i), byte(1+k%2), false, text)
			want[fmt.Sprint("queue-", i)] = append(want[fmt.Sprint("queue-", i)], text)
		}
		p.Pub(fmt.Sprint("kept/", k), 1, true, fmt.Sprint("value ", k))
	}
	kept := retained(t, c.Nodes[1], "kept/#")

	// A client that is connected and has a QoS 2 message it has not released, and one
	// that it published and not released.
	live := willed("live", 0, 3600)
	holder := c.Nodes[2].Connect(live)
	holder.AutoAck = false
	holder.Sub(rawmqtt.Sub("live", 2))
	p.Pub("live", 2, false, "half")
	half := holder.Messages(1, patience)[0]
	if err := holder.Send(rawmqtt.AckPacket(5, rawmqtt.PUBREC, half.ID, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Await(rawmqtt.PUBREL, half.ID); err != nil {
		t.Fatal(err)
	}
	if err := holder.Publish(rawmqtt.Publish{Topic: "kept/two", QoS: 2, ID: 77, Retain: true, Payload: []byte("once")}); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Await(rawmqtt.PUBREC, 77); err != nil {
		t.Fatal(err)
	}
	kept["kept/two"] = "once"

	// Load while the backup runs, none of which may be held up by it.
	run := c.Record(t)
	keep := run.Subscribe(history.SubscriberConfig{Endpoint: c.Endpoint(c.Nodes[0]), Name: "keep", Expiry: 3600,
		Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub("load/#", 1)}})
	load := run.Publish(history.PublisherConfig{Endpoint: c.Endpoint(c.Nodes[1]), Name: "load", Expiry: 3600, QoS: 1,
		Topics: []string{"load/a", "load/b"}, Rate: 500, Window: 50, Size: 128})
	awaitAcked(t, load, 500, patience)
	// Acknowledged by another node just before: it is in the backup of this one.
	last := c.Nodes[1].Connect(clean("last"))
	last.Pub("kept/last", 1, true, "acknowledged")
	kept["kept/last"] = "acknowledged"
	path, made := v.take(c.Nodes[0], "cluster.mqb")
	t.Logf("%+v", made)
	awaitAcked(t, load, load.Acked()+500, patience)
	if err := load.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	run.Finish(keep)
	run.Judge(history.Options{MinAcked: 1000, MinOwed: 1000})
	if made.Contents.Connected < 2 || made.Contents.Sending == 0 || made.Contents.Receiving == 0 || made.Contents.Retained < len(kept) || made.Contents.Messages < clients*each {
		t.Errorf("the backup holds %+v", made.Contents)
	}
	v.damaged(path)

	n := v.restore(path).Nodes[0]
	if d := cmp.Diff(kept, retained(t, n, "kept/#")); d != "" {
		t.Errorf("retained: %s", d)
	}
	for name, texts := range want {
		if d := cmp.Diff(texts, queued(t, n, name, each)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	st, err := n.Status()
	if err != nil || len(st.Members) != 1 || st.Members[0].Node != n.ID {
		t.Errorf("members of the new cluster: %+v %v", st, err)
	}
	if tokens := n.CLI("token", "list", "-o", "json"); strings.Count(tokens, `"id"`) != 1 {
		t.Errorf("tokens of the new cluster: %s", tokens)
	}
	// The client that was connected goes on where it was.
	back := n.Connect(live)
	back.AutoAck = false
	if !back.Present {
		t.Error("the session of the connected client is gone")
	}
	if _, err := back.Await(rawmqtt.PUBREL, half.ID); err != nil {
		t.Errorf("the QoS 2 message under way is not released again: %v", err)
	}
	if err := back.Send(rawmqtt.AckPacket(5, rawmqtt.PUBREL, 77, 0)); err != nil {
		t.Fatal(err)
	}
	if ack, err := back.Await(rawmqtt.PUBCOMP, 77); err != nil || ack.Reason != 0 {
		t.Errorf("the packet id of the QoS 2 publish is not known: %v %v", ack, err)
	}
	if out, err := n.TryCLI("", "restore", path, "--key-file", v.key); err == nil || !strings.Contains(err.Error(), "holds a node") {
		t.Errorf("a restore over a node: %v\n%s", err, out)
	}
}

// damaged checks that files that are not whole are refused and make no node.
func (v *vault) damaged(path string) {
	v.t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		v.t.Fatal(err)
	}
	if out, err := command("", "restore", path, "--key-file", v.key, "--dry-run"); err != nil || !strings.Contains(out, "is whole") {
		v.t.Errorf("--dry-run: %v\n%s", err, out)
	}
	bad, dir := filepath.Join(v.dir, "bad.mqb"), filepath.Join(v.dir, "data")
	flipped := func(at int) []byte {
		b := bytes.Clone(file)
		b[at] ^= 1
		return b
	}
	for name, data := range map[string][]byte{
		"flipped at the start": flipped(30), "flipped in the middle": flipped(len(file) / 2), "flipped at the end": flipped(len(file) - 1),
		"cut": file[:len(file)-1], "cut at a chunk": file[:len(file)/(64<<10+16)*(64<<10+16)], "longer": append(bytes.Clone(file), 0),
	} {
		if err := os.WriteFile(bad, data, 0o600); err != nil {
			v.t.Fatal(err)
		}
		for _, flags := range [][]string{{"--dry-run"}, {"--data-dir", dir, "--node", "x", "--mesh.advertise", "127.0.0.1:1"}} {
			out, err := command("", append([]string{"restore", bad, "--key-file", v.key}, flags...)...)
			if err == nil {
				v.t.Errorf("%s was taken (%v):\n%s", name, flags, out)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "node.json")); err == nil {
			v.t.Errorf("%s made a node", name)
		}
	}
}

// TestRestoredWills restores a cluster with clients that were connected: the will of
// the one that comes back does not fire, that of the other does, once, at the end of
// the grace; and the CA of the old cluster goes on where it was asked for.
func TestRestoredWills(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 1})
	v := newVault(t)
	for _, name := range []string{"back", "away"} {
		c.Nodes[0].Connect(willed(name, 0, 3600))
	}
	path, made := v.take(c.Nodes[0], "cluster.mqb", "--ca-key")
	c.Nodes[0].Kill()
	const grace = 15 * time.Second
	again := v.restore(path, "--will-grace", grace.String())
	started := time.Now()
	n := again.Nodes[0]
	if st, err := n.Status(); err != nil || st.ClusterID != made.ClusterID {
		t.Errorf("with the CA the cluster is another one: %+v, before %s, %v", st, made.ClusterID, err)
	}
	// Clients that trust the old cluster trust this one.
	again.ClientTLS = c.ClientTLS
	w := n.Connect(clean("watch"))
	w.Sub(rawmqtt.Sub("will/#", 1))
	n.Connect(willed("back", 0, 3600))
	m := w.Messages(1, patience)[0]
	// The clock of the cluster began with the restore, not after its start.
	if took := time.Since(started); m.Topic != "will/away" || took < grace-10*time.Second {
		t.Errorf("%v fired after %v", m, took)
	}
	w.Quiet(3 * time.Second)
}

// TestScheduledBackup: a node makes backups by itself, keeps some, and tells of
// those that fail.
func TestScheduledBackup(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	dir := filepath.Join(v.dir, "scheduled")
	c := NewCluster(t, Options{Nodes: 1, Flags: []string{"--backup.directory", dir, "--backup.recipient", v.recipient, "--backup.interval", "1m", "--backup.keep", "1"}})
	n := c.Nodes[0]
	files := func() (out []string) {
		entries, _ := os.ReadDir(dir) // it is made with the first one
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	await(t, patience, func() bool { return len(files()) == 1 && strings.HasSuffix(files()[0], ".mqb") },
		func() string { return fmt.Sprintf("there is no backup: %v", files()) })
	if out, err := command("", "restore", filepath.Join(dir, files()[0]), "--key-file", v.key, "--dry-run"); err != nil {
		t.Errorf("the scheduled backup: %v\n%s", err, out)
	}
	if got := n.Metric("mqcluster_backup_last_success_timestamp_seconds"); time.Since(time.Unix(int64(got), 0)) > time.Minute {
		t.Errorf("the metric says %v", got)
	}
	// Where it cannot write, it says so and goes on.
	n.Stop()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.Restart()
	await(t, patience, func() bool { return n.Metric("mqcluster_backup_failures_total") > 0 }, func() string { return "the failure is not counted" })
	awaitLog(t, n, "the scheduled backup failed")
}

// TestBackupDiskFull backs up to a disk that fills: nothing is left of it, the error
// says so, and the node, whose own disk it is, goes on.
func TestBackupDiskFull(t *testing.T) {
	mustMount(t)
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 1, Disks: true})
	v := newVault(t)
	n := c.Nodes[0]
	pid := n.PID()
	p := n.Connect(clean("pub"))
	s := n.Connect(persistent("queue", 3600))
	s.Sub(rawmqtt.Sub("queue", 1))
	s.Disconnect(0)
	large := strings.Repeat("0123456789abcdef", 48<<10/16)
	for range 400 {
		p.Pub("queue", 1, false, large)
	}
	// A file as large as the queue takes the disk below its mark.
	target := filepath.Join(filepath.Dir(n.Dir), "backup.mqb")
	_, all := n.Disk.space()
	fillDisks(t, all/2+8<<20, n)
	out, err := n.TryCLI("", "backup", target, "--recipient", v.recipient)
	if err == nil || !strings.Contains(err.Error(), "nearly full") {
		t.Errorf("a backup onto the node's last room: %v\n%s", err, out)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(target), "*mqb*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	// Another disk that is full.
	tiny := c.tinyDisk(4 << 20)
	out, err = n.TryCLI("", "backup", filepath.Join(tiny, "backup.mqb"), "--recipient", v.recipient)
	if err == nil || !strings.Contains(err.Error(), "no room for the backup") {
		t.Errorf("a backup to a full disk: %v\n%s", err, out)
	}
	if left, err := filepath.Glob(filepath.Join(tiny, "*mqb*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	n.Disk.Empty()
	await(t, patience, func() bool {
		ack, err := p.PublishAcked(rawmqtt.Publish{Topic: "queue", QoS: 1, ID: p.next(), Payload: []byte("x")})
		return err == nil && ack.Reason < 0x80
	}, func() string { return "the node does not go on" })
	alive(t, map[*Node]int{n: pid}, "backups that failed")
	if _, made := v.take(n, "whole.mqb"); made.Contents.Messages < 400 {
		t.Errorf("afterwards: %+v", made)
	}
}
