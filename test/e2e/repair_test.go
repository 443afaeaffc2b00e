//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestRepair mends a cluster that runs: retained messages, sessions, and the parts of a
// backup, each on one node and seen on another.
func TestRepair(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{})
	a, b, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]

	t.Run("retained", func(t *testing.T) {
		c.In(t)
		watcher := third.Connect(clean("watcher"))
		watcher.Sub(rawmqtt.Sub("plant/#", 1))
		a.CLI("retained", "set", "plant/mode", "auto")
		a.CLI("retained", "set", "plant/mode", "auto") // again is as good as once
		if got := watcher.Messages(2, patience); string(got[0].Payload) != "auto" || got[0].QoS != 1 {
			t.Errorf("who is subscribed got %v", got)
		}
		for i := range 30 {
			a.CLI("retained", "set", fmt.Sprintf("plant/old/%d", i), fmt.Sprint(i), "--qos", "2", "--expiry", "1h")
		}
		watcher.Messages(30, patience)
		var found []struct {
			Topic   string `json:"topic"`
			Payload []byte `json:"payload"`
			QoS     int    `json:"qos"`
			Expires int64  `json:"expires_at_ms"`
		}
		decode(t, b.CLI("retained", "get", "plant/#", "-o", "json"), &found)
		if len(found) != 31 || found[0].Topic != "plant/mode" || string(found[0].Payload) != "auto" || found[1].QoS != 2 || found[1].Expires == 0 {
			t.Errorf("retained get: %d: %+v", len(found), found)
		}
		if got := b.CLI("retained", "get", "plant/mode", "--raw"); got != "auto" {
			t.Errorf("--raw printed %q", got)
		}
		if got := b.CLI("retained", "get", "plant/#", "--limit", "2", "--after", "plant/mode"); strings.Count(got, "plant/old/") != 2 {
			t.Errorf("a part: %s", got)
		}
		if got := b.CLI("retained", "clear", "plant/old/#"); !strings.Contains(got, "30 topics are cleared") {
			t.Errorf("clear: %s", got)
		}
		if got := b.CLI("retained", "clear", "plant/old/#"); !strings.Contains(got, "0 topics are cleared") {
			t.Errorf("clear again: %s", got)
		}
		if got := retained(t, third, "plant/#"); len(got) != 1 {
			t.Errorf("after the clear %s has %v", third.ID, got)
		}
		for _, args := range [][]string{{"set", "a/+", "x"}, {"set", "a"}, {"get", "a/#/b"}, {"set", "a", "x", "--qos", "3"}} {
			if out, err := a.TryCLI("", append([]string{"retained"}, args...)...); err == nil {
				t.Errorf("retained %v: %s", args, out)
			}
		}
	})

	t.Run("session", func(t *testing.T) {
		c.In(t)
		o := persistent("dev7", 3600)
		s := third.Connect(o)
		s.Sub(rawmqtt.Sub("dev7/#", 1), rawmqtt.Sub("all/+", 2))
		var shown struct {
			Node    string                    `json:"node"`
			Queued  int                       `json:"queued_messages"`
			Filters []struct{ Filter string } `json:"filters"`
		}
		decode(t, a.CLI("session", "show", "dev7", "-o", "json"), &shown)
		if shown.Node != third.ID || len(shown.Filters) != 2 {
			t.Errorf("session show: %+v", shown)
		}
		if out := a.CLI("session", "kick", "dev7"); !strings.Contains(out, "sent away from node "+third.ID) {
			t.Errorf("kick: %s", out)
		}
		if p, err := s.Read(patience); err != nil || p.Type != rawmqtt.DISCONNECT || p.Reason != 0x98 {
			t.Errorf("who was kicked got %v %v", p, err)
		}
		await(t, patience, func() bool {
			return strings.Contains(a.CLI("session", "kick", "dev7"), "not connected")
		}, func() string { return "the connection stays" })
		p := b.Connect(clean("to-dev7"))
		for i := range 100 {
			p.Pub("dev7/x", 1, false, fmt.Sprint(i))
		}
		decode(t, a.CLI("session", "show", "dev7", "-o", "json"), &shown)
		if shown.Queued != 100 || shown.Node != "" {
			t.Errorf("session show: %+v", shown)
		}
		if out := a.CLI("session", "purge", "dev7"); !strings.Contains(out, "100 messages") {
			t.Errorf("purge: %s", out)
		}
		p.Pub("dev7/x", 1, false, "after")
		again := b.Connect(o)
		if got := again.Messages(1, patience); !again.Present || string(got[0].Payload) != "after" {
			t.Errorf("after the purge: present %v, %v", again.Present, got)
		}
		again.Quiet(quiet)
		if out, err := a.TryCLI("", "session", "show", "nobody"); err == nil {
			t.Errorf("a session of nobody: %s", out)
		}
	})

	t.Run("parts of a backup", func(t *testing.T) {
		c.In(t)
		v := newVault(t)
		c.addUser("keeps", "one")
		c.addUser("goes", "two")
		c.addUser("changes", "three")
		a.CLI("acl", "set", "user:goes", "allow publish up/#")
		a.CLI("acl", "set", "user:changes", "allow publish up/#")
		p := a.Connect(clean("keeper"))
		for i := range 700 { // more than one batch
			p.Pub(fmt.Sprintf("kept/%d", i), 1, true, fmt.Sprint("v", i))
		}
		path, _ := v.take(b, "parts.mqb")
		a.CLI("user", "rm", "goes")
		a.CLI("user", "disable", "changes")
		a.CLI("acl", "set", "user:changes", "deny both #")
		a.CLI("acl", "set", "user:goes", "--clear")
		a.CLI("retained", "clear", "kept/#")
		p.Pub("kept/1", 1, true, "newer")
		p.Pub("new/1", 1, true, "later")
		c.addUser("later", "four")
		run := func(args ...string) string {
			t.Helper()
			return third.CLI(append([]string{"restore", path, "--key-file", v.key}, args...)...)
		}
		out := run("--only", "users,acls")
		if !strings.Contains(out, "user changes is otherwise here and stays") {
			t.Errorf("restore: %s", out)
		}
		var users []struct {
			Name     string `json:"name"`
			Disabled bool   `json:"disabled"`
		}
		decode(t, b.CLI("user", "list", "-o", "json"), &users)
		names, disabled := "", ""
		for _, u := range users {
			names += u.Name + " "
			if u.Disabled {
				disabled += u.Name
			}
		}
		if names != "changes device goes keeps later " || disabled != "changes" {
			t.Errorf("users %q, disabled %q", names, disabled)
		}
		if got := strings.TrimSpace(b.CLI("acl", "get", "user:goes")); got != "allow publish up/#" {
			t.Errorf("the rules of goes: %q", got)
		}
		// The password is the old one.
		if _, ack, err := (login{b.TLS, c.ClientTLS, "goes", "two"}).connect(t, clean("goes-1")); err != nil || ack.Reason != 0 {
			t.Errorf("the user that came back: %v %v", ack, err)
		}
		run("--only", "users,acls", "--overwrite")
		if got := strings.TrimSpace(b.CLI("acl", "get", "user:changes")); got != "allow publish up/#" {
			t.Errorf("the rules of changes after --overwrite: %q", got)
		}
		var counts struct {
			Counts map[string]map[string]int `json:"counts"`
		}
		if err := json.Unmarshal([]byte(run("--only", "retained", "-o", "json")), &counts); err != nil {
			t.Fatal(err)
		}
		if got := counts.Counts["retained message"]; got["new"] != 699 || got["kept"] != 1 {
			t.Errorf("retained: %v", got)
		}
		got := retained(t, b, "kept/#")
		if len(got) != 700 || got["kept/1"] != "newer" || got["kept/699"] != "v699" {
			t.Errorf("%d retained, kept/1 %q, kept/699 %q", len(got), got["kept/1"], got["kept/699"])
		}
		run("--only", "retained", "--filter", "kept/1", "--overwrite")
		if got := retained(t, b, "kept/1"); got["kept/1"] != "v1" {
			t.Errorf("after --overwrite: %v", got)
		}
		if got := retained(t, b, "new/1"); got["new/1"] != "later" {
			t.Errorf("what came after the backup: %v", got)
		}
		for _, args := range [][]string{{"--only", "sessions"}, {"--overwrite"}, {"--only", "users", "--filter", "a"}} {
			if out, err := third.TryCLI("", append([]string{"restore", filepath.Clean(path), "--key-file", v.key}, args...)...); err == nil {
				t.Errorf("restore %v: %s", args, out)
			}
		}
		if v, agrees := a.Verify(); !agrees {
			t.Errorf("afterwards the nodes differ: %+v", v)
		}
	})
}
