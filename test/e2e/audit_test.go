//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestAclVersions goes back to what the rules were, on all nodes and for who is
// connected, and tests rules before they are set.
func TestAclVersions(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: cheap})
	n := c.Nodes[0]
	c.addUser("dev1", "secret")
	n.CLI("acl", "set", "*", "--clear")
	n.CLI("acl", "set", "user:dev1", "allow both plant/dev1/#")
	type version struct {
		Version uint64 `json:"version"`
		Actor   string `json:"actor"`
	}
	history := func(at *Node) (all []version) {
		t.Helper()
		if err := json.Unmarshal([]byte(at.CLI("acl", "history", "-o", "json")), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	good := history(n)
	last := good[len(good)-1]
	if want := fmt.Sprintf("uid %d", os.Getuid()); !strings.HasPrefix(last.Actor, want) {
		t.Errorf("the newest version is of %q, want %s", last.Actor, want)
	}
	dir := c.files("acl")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cases := write("cases.yaml", `
- {subject: user:dev1, client: x, action: publish, topic: plant/dev1/t, expected: allow}
- {subject: user:dev1, client: x, action: subscribe, topic: plant/#, expected: deny}
- {subject: anonymous, action: publish, topic: plant/dev1/t, expected: deny}
- {subject: user:gw, action: publish, topic: hall/7/t, cert: {ou: "7"}, expected: deny}
`)
	if out, err := c.Nodes[1].TryCLI("", "acl", "test", cases); err != nil || !strings.Contains(out, "4 cases passed") {
		t.Errorf("the rules in force: %q %v", out, err)
	}
	rules := write("rules.yaml", "user:dev1: ['allow both plant/#']\n'*': ['allow publish hall/%{cert.ou}/#']\n")
	if out, err := n.TryCLI("", "acl", "test", cases, "--rules", rules); err == nil || !strings.Contains(err.Error(), "2 of 4 cases failed") {
		t.Errorf("rules that allow too much: %q %v", out, err)
	}
	cl := login{c.Nodes[2].TLS, c.ClientTLS, "dev1", "secret"}.must(t, clean("dev1"))
	may := func(want bool) {
		t.Helper()
		p, err := cl.PublishAcked(rawmqtt.Publish{Topic: "plant/dev1/t", QoS: 1, ID: cl.next(), Payload: []byte("x")})
		if err != nil || (p.Reason < 0x80) != want {
			t.Errorf("publish: %v %v, want allowed %v", p, err, want)
		}
	}
	may(true)
	n.CLI("acl", "set", "user:dev1", "deny both plant/dev1/#", "allow both x/%u")
	n.CLI("acl", "set", "role:r", "allow both y")
	may(false)
	out := c.Nodes[1].CLI("acl", "diff", fmt.Sprint(last.Version))
	for _, line := range []string{"user:dev1", "- allow both plant/dev1/#", "+ deny both plant/dev1/#", "+ allow both x/%u", "role:r", "+ allow both y"} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("the diff does not say %q:\n%s", line, out)
		}
	}
	c.Nodes[1].CLI("acl", "rollback", fmt.Sprint(last.Version))
	may(true)
	if out := n.CLI("acl", "get", "user:dev1"); strings.TrimSpace(out) != "allow both plant/dev1/#" {
		t.Errorf("the rules are %q", out)
	}
	if _, err := n.TryCLI("", "acl", "get", "role:r"); err == nil {
		t.Error("a subject that had no rules has some")
	}
	if out := n.CLI("acl", "rollback", fmt.Sprint(last.Version)); !strings.Contains(out, "nothing to do") {
		t.Errorf("once more: %q", out)
	}
	if _, err := n.TryCLI("", "acl", "rollback", "99999"); err == nil {
		t.Error("there is no such version")
	}
	for _, node := range c.Nodes {
		if got := len(history(node)); got != len(good)+3 {
			t.Errorf("%s has %d versions, want %d", node.ID, got, len(good)+3)
		}
	}
	if out := n.CLI("acl", "explain", "dev1", "publish", "plant/dev1/t", "--client", "x"); !strings.Contains(out, "allowed: ") || !strings.Contains(out, "rule 1 of user:dev1") {
		t.Errorf("explain says %q", out)
	}
}

// TestAudit: who changed what is on every node, outlives them, and has no secret.
func TestAudit(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewCluster(t, Options{Flags: append([]string{"--audit.syslog", "unix:" + sock}, cheap...)})
	n := c.Nodes[1]
	if _, err := n.TryCLI("hush-hush\n", "user", "add", "dev1", "--stdin", "--role", "r"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.TryCLI("hush-hush\n", "user", "add", "dev1", "--stdin"); err == nil {
		t.Error("the user was added twice")
	}
	n.CLI("acl", "set", "role:r", "allow publish a")
	n.CLI("drain", "--off")
	type record struct {
		Actor, Node, Operation, Subject, Detail, Refused string
	}
	list := func(at *Node, args ...string) (all []record) {
		t.Helper()
		out := at.CLI(append([]string{"audit", "list", "-o", "json"}, args...)...)
		if strings.Contains(out, "hush") {
			t.Errorf("a password is in the audit: %s", out)
		}
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	for _, node := range c.Nodes {
		node.Kill()
	}
	for _, node := range c.Nodes {
		node.Start()
	}
	c.WaitWhole()
	who := fmt.Sprintf("uid %d", os.Getuid())
	for _, node := range c.Nodes {
		all := list(node, "--actor", who, "--limit", "4")
		want := []record{
			{Operation: "drain", Detail: "off true, stop false"}, {Operation: "acl/set", Subject: "role:r", Detail: "1 rules: allow publish a"},
			{Operation: "user/add", Subject: "dev1", Detail: "password, roles ", Refused: `user "dev1" exists already`},
			{Operation: "user/add", Subject: "dev1", Detail: "password, roles r"},
		}
		for i := range want {
			if i >= len(all) {
				t.Fatalf("%s has %v", node.ID, all)
			}
			if !strings.HasPrefix(all[i].Actor, who) || all[i].Node != n.ID {
				t.Errorf("%s has %+v", node.ID, all[i])
			}
			if all[i].Actor, all[i].Node = "", ""; all[i] != want[i] {
				t.Errorf("%s has %+v, want %+v", node.ID, all[i], want[i])
			}
		}
		if got := list(node, "--refused"); len(got) != 1 {
			t.Errorf("%d refusals: %v", len(got), got)
		}
		if got := list(node, "--operation", "join"); len(got) != 2 || !strings.HasPrefix(got[0].Actor, "token ") {
			t.Errorf("joins: %v", got)
		}
		if got := list(node, "--subject", "role:", "--since", "1h"); len(got) != 1 {
			t.Errorf("about roles: %v", got)
		}
	}
	var lines []string
	buf := make([]byte, 4096)
	for {
		if err := l.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		k, err := l.Read(buf)
		if err != nil {
			break
		}
		lines = append(lines, string(buf[:k]))
	}
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, `operation="user/add" subject="dev1"`) || !strings.Contains(text, "<108>1 ") || strings.Contains(text, "hush") {
		t.Errorf("syslog has:\n%s", text)
	}
}
