//go:build linux

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// authPacket is an AUTH packet of SCRAM-SHA-256.
func authPacket(reason byte, data string) []byte {
	body := rawmqtt.AppendProperties([]byte{reason}, []rawmqtt.Property{
		rawmqtt.Text(rawmqtt.AuthMethod, "SCRAM-SHA-256"), rawmqtt.Text(rawmqtt.AuthData, data),
	})
	return rawmqtt.Frame(rawmqtt.AUTH<<4, body)
}

// scramDial opens a connection and sends a CONNECT with the first message of the
// exchange; it returns the answer.
func (n *Node) scramDial(t *testing.T, id, first string) (*rawmqtt.Client, *rawmqtt.Packet) {
	t.Helper()
	raw, err := n.Dial(5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	o := clean(id)
	o.Properties = append(o.Properties, rawmqtt.Text(rawmqtt.AuthMethod, "SCRAM-SHA-256"), rawmqtt.Text(rawmqtt.AuthData, first))
	if err := raw.Send(o.Packet()); err != nil {
		t.Fatal(err)
	}
	p, err := raw.Read(patience)
	if err != nil {
		t.Fatal(err)
	}
	return raw, p
}

// scramLogin runs a whole exchange and returns the last answer, the client's final
// message, and whether it believes the server.
func (n *Node) scramLogin(t *testing.T, id, name, secret string) (raw *rawmqtt.Client, last *rawmqtt.Packet, first, final string, believes bool) {
	t.Helper()
	client, err := scram.SHA256.NewClient(name, secret, "")
	if err != nil {
		t.Fatal(err)
	}
	conv := client.NewConversation()
	first, _ = conv.Step("")
	raw, last = n.scramDial(t, id, first)
	if last.Type != rawmqtt.AUTH {
		return raw, last, first, "", false
	}
	challenge, _ := last.Text(rawmqtt.AuthData)
	final, err = conv.Step(challenge)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Send(authPacket(0x18, final)); err != nil {
		t.Fatal(err)
	}
	if last, err = raw.Read(patience); err != nil {
		t.Fatal(err)
	}
	proof, _ := last.Text(rawmqtt.AuthData)
	_, err = conv.Step(proof)
	return raw, last, first, final, err == nil && conv.Valid()
}

// TestScram logs in by SCRAM-SHA-256 on all nodes, with clients of its own and with
// mqcluster's, and tries what must not work.
func TestScram(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, Options{Flags: cheap})
	n := c.Nodes[0]
	// Before it is on nobody has keys, and the method is not known.
	if _, p, _, _, _ := n.scramLogin(t, "early", user, password); p.Type != rawmqtt.CONNACK || p.Reason != 0x8c {
		t.Errorf("while it is off: %v", p)
	}
	n.CLI("setting", "set", "auth.scram", "on")
	c.addUser("dev1", "secret")
	for _, at := range c.Nodes {
		raw, p, _, _, believes := at.scramLogin(t, "dev1-"+at.ID, "dev1", "secret")
		if p.Type != rawmqtt.CONNACK || p.Reason != 0 || !believes {
			t.Fatalf("at %s: %v, the client believes the server: %v", at.ID, p, believes)
		}
		if err := raw.Ping(); err != nil {
			t.Error(err)
		}
	}
	t.Run("a user of before, after one login by password", func(t *testing.T) {
		if _, p, _, _, _ := n.scramLogin(t, "before", user, password); p.Reason != 0x86 {
			t.Errorf("without keys: %v", p)
		}
		n.Connect(clean("by-password"))
		await(t, patience, func() bool {
			_, p, _, _, ok := c.Nodes[1].scramLogin(t, "after", user, password)
			return p.Reason == 0 && ok
		}, func() string { return "after a login by password the user cannot log in by SCRAM" })
	})
	t.Run("wrong password and unknown user are refused alike", func(t *testing.T) {
		_, wrong, _, _, _ := n.scramLogin(t, "wrong", "dev1", "wrong")
		_, unknown, _, _, _ := n.scramLogin(t, "unknown", "nobody", "secret")
		if wrong.Reason != 0x86 || unknown.Reason != 0x86 || string(wrong.Raw) != string(unknown.Raw) {
			t.Errorf("wrong password: %v, unknown user: %v", wrong, unknown)
		}
		salt := func(at *Node, name string) string {
			_, p := at.scramDial(t, "salt", "n,,n="+name+",r=nonce")
			text, _ := p.Text(rawmqtt.AuthData)
			parts := strings.Split(text, ",")
			if len(parts) != 3 || parts[2] != "i=15000" {
				t.Fatalf("the challenge of %s is %q", name, text)
			}
			return parts[1]
		}
		if a, b, k := salt(n, "nobody"), salt(c.Nodes[2], "nobody"), salt(n, "dev1"); a != b || len(a) != len(k) {
			t.Errorf("an unknown user's salt is %s and %s, a known one's %s", a, b, k)
		}
	})
	t.Run("a recorded exchange is worth nothing", func(t *testing.T) {
		_, p, first, final, _ := n.scramLogin(t, "recorded", "dev1", "secret")
		if p.Reason != 0 {
			t.Fatal(p)
		}
		raw, _ := n.scramDial(t, "replayed", first)
		if err := raw.Send(authPacket(0x18, final)); err != nil {
			t.Fatal(err)
		}
		if p, err := raw.Read(patience); err != nil || p.Type != rawmqtt.CONNACK || p.Reason != 0x86 {
			t.Errorf("the replay is answered %v %v", p, err)
		}
	})
	t.Run("again on a connection", func(t *testing.T) {
		again := func(name, secret string) (*rawmqtt.Client, *rawmqtt.Packet) {
			raw, p, _, _, _ := n.scramLogin(t, "again", "dev1", "secret")
			if p.Reason != 0 {
				t.Fatal(p)
			}
			client, err := scram.SHA256.NewClient(name, secret, "")
			if err != nil {
				t.Fatal(err)
			}
			conv := client.NewConversation()
			text, _ := conv.Step("")
			for _, reason := range []byte{0x19, 0x18} {
				if err := raw.Send(authPacket(reason, text)); err != nil {
					t.Fatal(err)
				}
				if p, err = raw.Read(patience); err != nil {
					t.Fatal(err)
				}
				if p.Type != rawmqtt.AUTH || p.Reason == 0 {
					break
				}
				challenge, _ := p.Text(rawmqtt.AuthData)
				if text, err = conv.Step(challenge); err != nil {
					t.Fatal(err)
				}
			}
			return raw, p
		}
		raw, p := again("dev1", "secret")
		if p.Type != rawmqtt.AUTH || p.Reason != 0 || raw.Ping() != nil {
			t.Errorf("re-authentication is answered %v", p)
		}
		if _, p := again("dev1", "wrong"); p.Type != rawmqtt.DISCONNECT || p.Reason != 0x87 {
			t.Errorf("re-authentication with a wrong password is answered %v", p)
		}
		if _, p := again(user, password); p.Type != rawmqtt.DISCONNECT || p.Reason != 0x87 {
			t.Errorf("re-authentication as somebody else is answered %v", p)
		}
	})
	t.Run("a changed password", func(t *testing.T) {
		raw, p, _, _, _ := c.Nodes[1].scramLogin(t, "changed", "dev1", "secret")
		if p.Reason != 0 {
			t.Fatal(p)
		}
		if _, err := n.TryCLI("new\n", "user", "passwd", "dev1", "--stdin"); err != nil {
			t.Fatal(err)
		}
		if _, err := raw.AwaitClose(patience); err != nil {
			t.Errorf("who came with the old one stays: %v", err)
		}
		for _, at := range c.Nodes {
			if _, p, _, _, _ := at.scramLogin(t, "old", "dev1", "secret"); p.Reason != 0x86 {
				t.Errorf("%s takes the old password: %v", at.ID, p)
			}
			if _, p, _, _, ok := at.scramLogin(t, "new", "dev1", "new"); p.Reason != 0 || !ok {
				t.Errorf("%s does not take the new password: %v", at.ID, p)
			}
		}
		n.CLI("user", "disable", "dev1")
		if _, p, _, _, _ := n.scramLogin(t, "off", "dev1", "new"); p.Reason != 0x8a {
			t.Errorf("a disabled user: %v", p)
		}
	})
	t.Run("mqcluster pub", func(t *testing.T) {
		host, port, _ := net.SplitHostPort(n.TLS)
		file := filepath.Join(c.files("scram"), "password")
		flags := []string{"pub", "-h", host, "-p", port, "--cafile", n.path("tls", "ca.crt"), "-u", user, "--password-file", file,
			"-t", "scram/x", "-m", "hello", "-q", "1", "--auth-method", "SCRAM-SHA-256"}
		for secret, ok := range map[string]bool{password: true, "wrong": false} {
			if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := command("", flags...); (err == nil) != ok {
				t.Errorf("with %q: %q %v", secret, out, err)
			}
		}
	})
}
