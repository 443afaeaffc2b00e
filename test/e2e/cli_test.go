//go:build linux

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCLI runs the operator's verbs against a real cluster, each change on one
// node and the question on another.
func TestCLI(t *testing.T) {
	need(t, "mosquitto_sub")
	t.Parallel()
	c := NewCluster(t, Options{Nodes: 3})
	a, b := c.Nodes[0], c.Nodes[1]
	at := func(pass string) login { return login{b.TLS, c.ClientTLS, "dev", pass} }
	reason := func(pass string) byte {
		t.Helper()
		_, ack, err := at(pass).connect(t, clean("dev"))
		if err != nil {
			t.Fatal(err)
		}
		return ack.Reason
	}
	t.Run("user", func(t *testing.T) {
		c.addUser("dev", "one")
		if _, err := a.TryCLI("one\n", "user", "add", "dev", "--stdin"); err == nil {
			t.Error("a user was added twice")
		}
		if r := reason("one"); r != 0 {
			t.Errorf("CONNACK 0x%02x", r)
		}
		if _, err := a.TryCLI("two\n", "user", "passwd", "dev", "--stdin"); err != nil {
			t.Error(err)
		}
		if r := reason("one"); r < 0x80 {
			t.Error("the old password works")
		}
		if r := reason("two"); r != 0 {
			t.Errorf("the new password: CONNACK 0x%02x", r)
		}
		a.CLI("user", "disable", "dev")
		var users []struct {
			Name     string `json:"name"`
			Disabled bool   `json:"disabled"`
		}
		decode(t, b.CLI("user", "list", "-o", "json"), &users)
		if len(users) != 2 || users[0].Name != "dev" || !users[0].Disabled {
			t.Errorf("user list: %+v", users)
		}
		if r := reason("two"); r < 0x80 {
			t.Error("a disabled user gets in")
		}
		a.CLI("user", "enable", "dev")
		if r := reason("two"); r != 0 {
			t.Errorf("enabled again: CONNACK 0x%02x", r)
		}
		a.CLI("user", "rm", "dev")
		if r := reason("two"); r < 0x80 {
			t.Error("a removed user gets in")
		}
		if out, err := a.TryCLI("", "user", "add", "x", "secret"); err == nil || strings.Contains(out+err.Error(), "secret\"") {
			t.Errorf("a password among the arguments: %q %v", out, err)
		}
	})
	t.Run("acl", func(t *testing.T) {
		c.addUser("dev", "one")
		a.CLI("acl", "set", "user:dev", "allow publish up/%u/%c", "deny both #")
		if got := strings.TrimSpace(b.CLI("acl", "get", "user:dev")); got != "allow publish up/%u/%c\ndeny both #" {
			t.Errorf("acl get: %q", got)
		}
		for _, tt := range []struct {
			args []string
			want string
		}{
			{[]string{"dev", "publish", "up/dev/c1", "--client", "c1"}, "allowed"},
			{[]string{"dev", "publish", "up/dev/c2", "--client", "c1"}, "denied"},
			{[]string{"dev", "subscribe", "#"}, "denied"},
		} {
			if got := b.CLI(append([]string{"acl", "explain"}, tt.args...)...); !strings.HasPrefix(got, tt.want) {
				t.Errorf("acl explain %v: %q", tt.args, got)
			}
		}
		if _, err := a.TryCLI("", "acl", "set", "user:dev", "permit all #"); err == nil {
			t.Error("a rule that means nothing was accepted")
		}
	})
	t.Run("cert", func(t *testing.T) {
		dir := t.TempDir()
		a.CLI("cert", "issue", "dev", "--dir", dir)
		info, err := os.Stat(filepath.Join(dir, "dev.key"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the key: %v %v", info, err)
		}
		for _, algorithm := range []string{"ecdsa", "rsa", "ed25519"} {
			if _, err := b.TryCLI("", "cert", "issue", "dev-"+algorithm, "--dir", dir, "--algorithm", algorithm); err != nil {
				t.Errorf("--algorithm %s: %v", algorithm, err)
			}
		}
		var certs []struct {
			Subject string `json:"subject"`
			Kind    string `json:"kind"`
			Serial  string `json:"serial"`
		}
		decode(t, b.CLI("cert", "list", "-o", "json"), &certs)
		kinds := map[string]int{}
		for _, x := range certs {
			kinds[x.Kind]++
		}
		if kinds["node"] < 3 || kinds["client"] < 3 {
			t.Errorf("cert list: %+v", certs)
		}
	})
	t.Run("token", func(t *testing.T) {
		var made struct {
			ID    string `json:"id"`
			Token string `json:"token"`
		}
		decode(t, a.CLI("token", "create", "--uses", "2", "--ttl", "30m", "-o", "json"), &made)
		list := func() string { return b.CLI("token", "list", "-o", "json") }
		if made.Token == "" || !strings.Contains(list(), made.ID) {
			t.Errorf("token %+v is not in %s", made, list())
		}
		if strings.Contains(list(), strings.Split(made.Token, ".")[2]) {
			t.Error("token list shows a secret")
		}
		b.CLI("token", "revoke", made.ID)
		if strings.Contains(list(), made.ID) {
			t.Error("the token is still listed")
		}
	})
	t.Run("status", func(t *testing.T) {
		for _, n := range c.Nodes {
			s, err := n.Status()
			if err != nil || len(s.Members) != 3 || s.Leader == "" || !s.Quorum {
				t.Errorf("status of %s: %+v %v", n.ID, s, err)
			}
			n.CLI("status", "--check")
		}
	})
	t.Run("config", func(t *testing.T) {
		a.CLI("config", "check")
		if out := a.CLI("config", "show"); !strings.Contains(out, a.TLS) {
			t.Errorf("config show has no %s:\n%s", a.TLS, out)
		}
		// What passes the check must not keep a node from starting.
		for _, memory := range []string{"64KiB", "1GiB"} {
			if _, err := command("", "config", "check", "--data-dir", a.Dir, "--auth.argon2-memory", memory); err == nil {
				t.Errorf("config check accepts auth.argon2_memory %s, and a node does not start with it", memory)
			}
		}
		file := filepath.Join(t.TempDir(), "wrong.yaml")
		if err := os.WriteFile(file, []byte("limits:\n  max_packet_sice: 1MiB\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := command("", "config", "check", "--config", file); err == nil || !strings.Contains(err.Error(), "max_packet_size") {
			t.Errorf("an unknown key: %v", err)
		}
	})
	t.Run("$SYS", func(t *testing.T) { sysValues(t, c) })
	t.Run("health", func(t *testing.T) {
		for path, want := range map[string]string{"/livez": "", "/readyz": `"ready":true`, "/metrics": "mqcluster_broker_connections"} {
			r, err := http.Get("http://" + a.Health + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || r.StatusCode != 200 || !strings.Contains(string(body), want) {
				t.Errorf("%s: %d %v", path, r.StatusCode, err)
			}
		}
	})
}

// sysValues looks at $SYS with mosquitto_sub.
func sysValues(t *testing.T, c *Cluster) {
	t.Helper()
	n := c.Nodes[1]
	n.CLI("acl", "set", "*", "allow both #", "allow subscribe $SYS/#") // # alone does not match what begins with $
	_, port, _ := strings.Cut(n.TLS, ":")
	subscribe := func(filter string) string {
		// It ends after two seconds with an exit code of its own.
		out, _ := shell(t, patience, "mosquitto_sub", "-h", "127.0.0.1", "-p", port, "--cafile", n.path("tls", "ca.crt"),
			"-u", user, "-P", password, "-t", filter, "-W", "2", "-F", "%t %r %p")
		return out
	}
	// The values of the start know no leader; later ones come every ten seconds.
	var out string
	await(t, patience, func() bool {
		out = subscribe("$SYS/broker/#") + subscribe("$SYS/cluster/#")
		return strings.Contains(out, "$SYS/cluster/leader 1 ")
	}, func() string { return "$SYS/cluster/leader is not retained: " + out })
	for _, want := range []string{
		`\$SYS/broker/version 1 mqcluster version \S+`, `\$SYS/broker/uptime 1 \d+ seconds`, `\$SYS/broker/clients/connected 1 \d+`,
		`\$SYS/broker/clients/total 1 \d+`, `\$SYS/broker/clients/maximum 1 \d+`, `\$SYS/broker/messages/received 1 \d+`,
		`\$SYS/broker/messages/sent 1 \d+`, `\$SYS/broker/publish/messages/received 1 \d+`, `\$SYS/broker/subscriptions/count 1 \d+`,
		`\$SYS/broker/bytes/received 1 \d+`, `\$SYS/broker/bytes/sent 1 \d+`, `\$SYS/cluster/leader 1 n\d`, `\$SYS/cluster/id 1 \S+`, `\$SYS/cluster/nodes/n1/state 1 up`, `\$SYS/cluster/nodes/n3/state 1 up`,
	} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(out) {
			t.Errorf("no value like %s", want)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
	if all := subscribe("#"); strings.Contains(all, "$SYS") {
		t.Error("# has matched $SYS")
	}
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}
