//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// TestListeners has one node with every kind of listener and real clients at
// each.
func TestListeners(t *testing.T) {
	need(t, "openssl", "mosquitto_pub", "mosquitto_sub")
	t.Parallel()
	at := map[string]string{}
	for _, name := range []string{"tls", "tls13", "own", "require", "cn", "ws", "wss", "limited", "proxy", "plain"} {
		at[name] = freeAddress(t)
	}
	dir := t.TempDir()
	ownCert, ownKey := opensslServer(t, dir)
	c := newListening(t, 1, func(n *Node) []string {
		n.TLS, n.Plain = at["tls"], at["plain"]
		var flags []string
		for _, l := range []string{
			"tls,address=" + at["tls"],
			"tls,min_version=1.3,address=" + at["tls13"],
			"tls,cert_file=" + ownCert + ",key_file=" + ownKey + ",address=" + at["own"],
			"tls,require_client_cert=true,address=" + at["require"],
			"tls,require_client_cert=true,identity=cn,address=" + at["cn"],
			"ws,allow_plaintext=true,address=" + at["ws"],
			"wss,address=" + at["wss"],
			"tcp,allow_plaintext=true,max_connections=3,address=" + at["limited"],
			"tcp,allow_plaintext=true,proxy_from=127.0.0.2/32,address=" + at["proxy"],
			"tcp,allow_plaintext=true,address=" + at["plain"],
		} {
			flags = append(flags, "--listener", l)
		}
		return flags
	})
	n := c.Nodes[0]
	const odd = `pa$$word $HOME 'q" %u`
	c.addUser("odd", odd)
	certFile, keyFile, cert := c.certificate("odd")
	ca := n.path("tls", "ca.crt")
	withCert := c.ClientTLS.Clone()
	withCert.Certificates = []tls.Certificate{cert}

	t.Run("mosquitto clients", func(t *testing.T) {
		for _, tt := range []struct {
			name, address string
			args          []string
			fails         bool
		}{
			{"TLS 1.2", at["tls"], []string{"--cafile", ca, "--tls-version", "tlsv1.2", "-u", "odd", "-P", odd}, false},
			{"TLS 1.3", at["tls"], []string{"--cafile", ca, "--tls-version", "tlsv1.3", "-u", "odd", "-P", odd}, false},
			{"TLS 1.3, MQTT 5", at["tls13"], []string{"--cafile", ca, "--tls-version", "tlsv1.3", "-V", "5", "-u", "odd", "-P", odd}, false},
			{"the certificate of openssl", at["own"], []string{"--cafile", ownCert, "-u", "odd", "-P", odd}, false},
			{"the certificate of openssl, not trusted", at["own"], []string{"--cafile", ca, "-u", "odd", "-P", odd}, true},
			{"required certificate", at["require"], []string{"--cafile", ca, "--cert", certFile, "--key", keyFile, "-u", "odd", "-P", odd}, false},
			{"required certificate, none given", at["require"], []string{"--cafile", ca, "-u", "odd", "-P", odd}, true},
			{"identity of the certificate", at["cn"], []string{"--cafile", ca, "--cert", certFile, "--key", keyFile}, false},
			{"identity of the certificate, another user", at["cn"], []string{"--cafile", ca, "--cert", certFile, "--key", keyFile, "-u", user, "-P", password}, true},
			{"wrong password", at["tls"], []string{"--cafile", ca, "-u", "odd", "-P", "wrong"}, true},
			{"no user", at["tls"], []string{"--cafile", ca}, true},
			{"plain TCP", at["plain"], []string{"-u", "odd", "-P", odd}, false},
			{"plain TCP on the TLS port", at["tls"], []string{"-u", "odd", "-P", odd}, true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				got, err := mosquittoThrough(t, tt.address, tt.args)
				if tt.fails && err == nil {
					t.Errorf("it worked: %q", got)
				}
				if !tt.fails && (err != nil || !strings.Contains(got, "there and back")) {
					t.Errorf("got %q: %v", got, err)
				}
			})
		}
	})
	t.Run("versions", func(t *testing.T) {
		// mosquitto's --tls-version is a lower bound, so that these are ours.
		for _, tt := range []struct {
			address string
			version uint16
			works   bool
		}{{at["tls"], tls.VersionTLS11, false}, {at["tls"], tls.VersionTLS12, true}, {at["tls"], tls.VersionTLS13, true},
			{at["tls13"], tls.VersionTLS12, false}, {at["tls13"], tls.VersionTLS13, true}} {
			config := c.ClientTLS.Clone()
			config.MinVersion, config.MaxVersion = tt.version, tt.version
			_, ack, err := login{tt.address, config, "odd", odd}.connect(t, clean("version"))
			if works := err == nil && ack.Reason == 0; works != tt.works {
				t.Errorf("%s at %s works: %t; %v %v", tls.VersionName(tt.version), tt.address, works, ack, err)
			}
		}
	})
	t.Run("identity cn is the user", func(t *testing.T) {
		login{address: at["cn"], tls: withCert}.must(t, clean("by-certificate"))
		if s := sessionOf(t, n, "by-certificate"); s.User != "odd" {
			t.Errorf("the session is of user %q", s.User)
		}
		_, _, nobody := c.certificate("nobody")
		config := c.ClientTLS.Clone()
		config.Certificates = []tls.Certificate{nobody}
		if _, ack, err := (login{address: at["cn"], tls: config}).connect(t, clean("nobody")); err == nil && ack.Reason < 0x80 {
			t.Error("a certificate of a user that does not exist was accepted")
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		for _, url := range []string{"ws://" + at["ws"] + "/mqtt", "wss://" + at["wss"] + "/mqtt"} {
			sub, pub := webClient(t, c, url, "web-sub"), webClient(t, c, url, "web-pub")
			sub.Sub(rawmqtt.Sub("web", 1))
			big := strings.Repeat("b", 100_000) // in many frames
			pub.Pub("web", 1, false, big)
			if got := sub.Messages(1, patience); string(got[0].Payload) != big {
				t.Errorf("%s: %d bytes came", url, len(got[0].Payload))
			}
			sub.Disconnect(0)
			pub.Disconnect(0)
		}
	})
	t.Run("max_connections", func(t *testing.T) {
		l := login{at["limited"], nil, "odd", odd}
		var up []*Client
		for i := range 3 {
			up = append(up, l.must(t, clean(fmt.Sprintf("limited-%d", i))))
		}
		if _, ack, err := l.connect(t, clean("limited-3")); err == nil {
			t.Errorf("a fourth connection got %v", ack)
		}
		for _, c := range up {
			if err := c.Ping(); err != nil {
				t.Errorf("a connection within the limit: %v", err)
			}
		}
		up[0].Disconnect(0)
		await(t, patience, func() bool { _, ack, err := l.connect(t, clean("limited-4")); return err == nil && ack.Reason == 0 },
			func() string { return "no place became free" })
	})
	t.Run("PROXY", func(t *testing.T) {
		connect := rawmqtt.Connect{Version: 5, ClientID: "proxied", CleanStart: true, Username: new("odd"), Password: new(odd)}.Packet()
		for _, tt := range []struct {
			name, from string
			header     []byte
			accepted   bool
		}{
			{"v2 from a listed source", "127.0.0.2", proxyV2("203.0.113.7", 4711), true},
			{"v1 from a listed source", "127.0.0.2", []byte("PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n"), true},
			{"none from a listed source", "127.0.0.2", nil, false},
			{"v2 from an unlisted source", "127.0.0.3", proxyV2("203.0.113.7", 4711), false},
			{"v1 from an unlisted source", "127.0.0.3", []byte("PROXY TCP4 203.0.113.7 10.0.0.1 4711 1883\r\n"), false},
			{"none from an unlisted source", "127.0.0.3", nil, true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(tt.from)}}
				conn, err := d.Dial("tcp", at["proxy"])
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				raw := rawmqtt.New(conn, 5)
				if err := raw.Send(append(append([]byte{}, tt.header...), connect...)); err != nil {
					t.Fatal(err)
				}
				ack, err := raw.Await(rawmqtt.CONNACK, 0)
				if accepted := err == nil && ack.Reason == 0; accepted != tt.accepted {
					t.Fatalf("accepted: %t, with %v %v", accepted, ack, err)
				}
				if tt.accepted && tt.header != nil {
					if s := sessionOf(t, n, "proxied"); !strings.HasPrefix(s.Address, "203.0.113.7") {
						t.Errorf("session list gives the address %q", s.Address)
					}
				}
			})
		}
	})
}

// opensslServer makes a certificate of RSA 4096 with IP 127.0.0.1, signed by
// itself.
func opensslServer(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "own.crt"), filepath.Join(dir, "own.key")
	if _, err := shell(t, time.Minute, "openssl", "req", "-x509", "-newkey", "rsa:4096", "-nodes", "-days", "2", "-subj", "/CN=broker",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// mosquittoThrough sends a retained message with mosquitto_pub and fetches it
// with mosquitto_sub.
func mosquittoThrough(t *testing.T, address string, args []string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	topic := "mosquitto/" + strings.ReplaceAll(t.Name(), "/", "_")
	args = append([]string{"-h", host, "-p", port, "-t", topic, "-q", "1"}, args...)
	if out, err := shell(t, patience, "mosquitto_pub", append(args, "-r", "-m", "there and back")...); err != nil {
		return out, err
	}
	return shell(t, patience, "mosquitto_sub", append(args, "-C", "1", "-W", "10")...)
}

// webClient connects over WebSocket.
func webClient(t *testing.T, c *Cluster, url, id string) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o := &websocket.DialOptions{Subprotocols: []string{"mqtt"}}
	o.HTTPClient = httpClient(c.ClientTLS)
	ws, _, err := websocket.Dial(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	raw := rawmqtt.New(websocket.NetConn(t.Context(), ws, websocket.MessageBinary), 5)
	raw.AutoAck = true
	t.Cleanup(func() { raw.Close() })
	ack, err := raw.Connect(rawmqtt.Connect{ClientID: id, CleanStart: true, Username: new(user), Password: new(password)})
	if err != nil || ack.Reason != 0 {
		t.Fatalf("%s: %v %v", url, ack, err)
	}
	return &Client{Client: raw, t: t}
}

// proxyV2 is a PROXY header, version 2, of a connection from source.
func proxyV2(source string, port uint16) []byte {
	h := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, 0x11, 0, 12)
	h = append(h, net.ParseIP(source).To4()...)
	h = append(h, 10, 0, 0, 1)
	h = binary.BigEndian.AppendUint16(h, port)
	return binary.BigEndian.AppendUint16(h, 1883)
}

// listedSession is one of session list -o json.
type listedSession struct {
	Client  string `json:"client"`
	User    string `json:"user"`
	Node    string `json:"node"`
	Address string `json:"address"`
}

// sessionOf is the session of a client as session list shows it.
func sessionOf(t *testing.T, n *Node, client string) listedSession {
	t.Helper()
	var all []listedSession
	if err := json.Unmarshal([]byte(n.CLI("session", "list", "--prefix", client, "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Client == client {
			return s
		}
	}
	t.Fatalf("session list has no %q", client)
	return listedSession{}
}

// TestBalanced puts HAProxy with PROXY v2 and checks of /readyz before three
// nodes: clients work through it, find another node when theirs is killed, and
// are seen by their own addresses.
func TestBalanced(t *testing.T) {
	need(t, "haproxy")
	t.Parallel()
	c := newListening(t, 3, func(n *Node) []string {
		return []string{"--listener", "tls,proxy_from=127.0.0.1/32,address=" + n.TLS}
	})
	front := haproxy(t, c, "  option redispatch\n  retries 3\n  balance leastconn\n", "send-proxy-v2", c.ClientTLS, func(n *Node) string { return n.TLS })

	through := login{front, c.ClientTLS, user, password}
	sub := through.must(t, persistent("balanced-sub", 3600))
	sub.Sub(rawmqtt.Sub("balanced/#", 1))
	pub := through.must(t, clean("balanced-pub"))
	nodes := map[string]bool{}
	for i := range 6 {
		id := fmt.Sprintf("balanced-%d", i)
		other := through.must(t, clean(id))
		other.Pub("balanced/"+id, 1, false, id)
		s := sessionOf(t, c.Nodes[0], id)
		nodes[s.Node] = true
		if want := other.Conn.LocalAddr().String(); s.Address != want {
			t.Errorf("session list says that %s is at %q, it is at %s", id, s.Address, want)
		}
	}
	sub.Messages(6, patience)
	if len(nodes) < 2 {
		t.Errorf("six clients are all on %v", nodes)
	}
	victim := c.Node(sessionOf(t, c.Nodes[0], "balanced-sub").Node)
	victim.Kill()
	if _, err := sub.AwaitClose(patience); err != nil {
		t.Error(err)
	}
	var again *Client
	took := await(t, patience, func() bool {
		client, ack, err := through.connect(t, persistent("balanced-sub", 3600))
		again = client
		return err == nil && ack.Reason == 0
	}, func() string { return "the subscriber does not come back through the balancer" })
	if !again.Present {
		t.Error("the session is gone")
	}
	pub.Close()
	await(t, patience, func() bool {
		client, ack, err := through.connect(t, clean("balanced-pub"))
		pub = client
		return err == nil && ack.Reason == 0
	}, func() string { return "the publisher does not come back through the balancer" })
	pub.Pub("balanced/after", 1, false, "after the kill")
	// What was acknowledged just before the kill may come again.
	for string(again.Messages(1, patience)[0].Payload) != "after the kill" {
	}
	t.Logf("the subscriber was back %v after its node had been killed", took.Round(time.Millisecond))
	victim.Restart()
}

// TestDenied tells each refusal by its code, in MQTT 3.1.1 and 5.
func TestDenied(t *testing.T) {
	t.Parallel()
	c := newListening(t, 2, func(n *Node) []string {
		return []string{"--listener", "tls,address=" + n.TLS, "--auth.reveal-denials=true",
			"--listener", "tls,require_client_cert=true,identity=cn,address=" + n.Plain}
	})
	n := c.Nodes[0]
	c.addUser("limited", "secret")
	c.addUser("disabled", "secret")
	n.CLI("user", "disable", "disabled")
	n.CLI("acl", "set", "user:limited", "deny both no/#", "deny publish quiet/#", "deny subscribe loud/x/#", "allow both #")
	for _, version := range []byte{4, 5} {
		code := func(v3, v5 byte) byte {
			if version == 5 {
				return v5
			}
			return v3
		}
		t.Run(fmt.Sprintf("version %d", version), func(t *testing.T) {
			at := func(user, pass string) login { return login{n.TLS, c.ClientTLS, user, pass} }
			for _, tt := range []struct {
				name       string
				login      login
				want       byte
				will       *rawmqtt.Will
				acceptable byte // what the standard allows as well
			}{
				{"wrong password", at("limited", "wrong"), code(4, 0x86), nil, code(5, 0x87)},
				{"unknown user", at("nobody", "secret"), code(4, 0x86), nil, code(5, 0x87)},
				{"no user name", at("", ""), code(5, 0x87), nil, code(4, 0x86)},
				{"disabled user", at("disabled", "secret"), code(5, 0x8a), nil, code(4, 0x87)},
				{"will that may not be published", at("limited", "secret"), code(5, 0x87), &rawmqtt.Will{Topic: "no/will", Payload: []byte("x")}, code(5, 0x87)},
			} {
				_, ack, err := tt.login.connect(t, rawmqtt.Connect{Version: version, ClientID: "denied", CleanStart: true, Will: tt.will})
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
				} else if ack.Reason != tt.want && ack.Reason != tt.acceptable {
					t.Errorf("%s: CONNACK 0x%02x, want 0x%02x", tt.name, ack.Reason, tt.want)
				} else {
					t.Logf("%s: 0x%02x", tt.name, ack.Reason)
				}
			}
			cl := at("limited", "secret").must(t, rawmqtt.Connect{Version: version, ClientID: "limited", CleanStart: true})
			ack, err := cl.Subscribe(1, rawmqtt.Sub("no/#", 1), rawmqtt.Sub("yes/#", 1), rawmqtt.Sub("loud/#", 1))
			if err != nil || len(ack.Reasons) != 3 || ack.Reasons[0] != code(0x80, 0x87) || ack.Reasons[1] != 1 || ack.Reasons[2] != 1 {
				t.Errorf("SUBACK %v %v", ack, err)
			}
			for _, qos := range []byte{1, 2} {
				p, err := cl.PublishAcked(rawmqtt.Publish{Topic: "quiet/a", QoS: qos, ID: 9, Payload: []byte("x")})
				if version == 5 && (err != nil || p.Reason != 0x87) {
					t.Errorf("publish at QoS %d where that is denied: %v %v", qos, p, err)
				}
				if version == 4 && err != nil {
					t.Errorf("publish at QoS %d where that is denied: %v; in 3.1.1 it is acknowledged and dropped", qos, err)
				}
			}
			writer := at(user, password).must(t, rawmqtt.Connect{Version: version, ClientID: "writer", CleanStart: true})
			writer.Pub("loud/x/1", 1, false, "not for you")
			writer.Pub("loud/y", 1, false, "for you")
			if got := payloads(cl.Messages(1, patience)); got != "for you" {
				t.Errorf("received %q", got)
			}
			cl.Disconnect(0)
			writer.Disconnect(0)
		})
	}
	t.Run("changes reach connected clients", func(t *testing.T) {
		far := func(id string) *Client {
			return login{c.Nodes[1].TLS, c.ClientTLS, "limited", "secret"}.must(t, clean(id))
		}
		for _, tt := range []struct {
			name   string
			change []string
			stdin  string
			undo   []string
		}{
			{"disabled", []string{"user", "disable", "limited"}, "", []string{"user", "enable", "limited"}},
			{"password changed", []string{"user", "passwd", "limited", "--stdin"}, "secret2\n", nil},
			{"removed", []string{"user", "rm", "limited"}, "", nil},
		} {
			t.Run(tt.name, func(t *testing.T) {
				cl := far("connected")
				if tt.name == "removed" {
					defer c.addUser("limited", "secret")
				}
				start := time.Now()
				if _, err := n.TryCLI(tt.stdin, tt.change...); err != nil {
					t.Fatal(err)
				}
				returned := time.Since(start)
				got, err := cl.AwaitClose(3 * time.Second)
				if err != nil {
					t.Errorf("the client is still connected: %v", err)
				}
				t.Logf("the command took %v, the client was cut %v after it began: %v", returned.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), got)
				if tt.undo != nil {
					n.CLI(tt.undo...)
				}
				if strings.Contains(tt.name, "password") {
					if _, err := n.TryCLI("secret\n", "user", "passwd", "limited", "--stdin"); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
		t.Run("certificate revoked", func(t *testing.T) {
			_, _, cert := c.certificate("limited")
			config := c.ClientTLS.Clone()
			config.Certificates = []tls.Certificate{cert}
			by := login{address: c.Nodes[1].Plain, tls: config}
			cl := by.must(t, clean("by-certificate"))
			other := by.must(t, clean("by-certificate-2"))
			n.CLI("cert", "revoke", fmt.Sprintf("%x", cert.Leaf.SerialNumber))
			for _, cl := range []*Client{cl, other} {
				if _, err := cl.AwaitClose(3 * time.Second); err != nil {
					t.Errorf("the client is still connected: %v", err)
				}
			}
			if _, ack, err := by.connect(t, clean("by-certificate")); err == nil && ack.Reason < 0x80 {
				t.Error("a revoked certificate was accepted")
			}
		})
		t.Run("subscription denied later", func(t *testing.T) {
			cl := far("later")
			cl.Sub(rawmqtt.Sub("open/#", 1))
			n.CLI("acl", "set", "user:limited", "deny both open/#", "allow both #")
			w := login{n.TLS, c.ClientTLS, user, password}.must(t, clean("open-writer"))
			w.Pub("open/x", 1, false, "no more")
			w.Pub("open/x", 0, false, "no more")
			cl.Quiet(700 * time.Millisecond)
		})
	})
}
