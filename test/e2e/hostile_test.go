//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// attack is one thing that somebody hostile tries. It returns what it got, which
// must have want in it.
type attack struct {
	name string
	try  func(t *testing.T) string
	want string
}

// hostiles is a cluster under attack, with what an attacker may have got hold of.
type hostiles struct {
	*Cluster
	n       *Node
	clients map[string]*tls.Certificate // that are no member's
	used    string                      // a token that a node has joined by
}

// TestHostilePeers is the table of hostile peers: each is refused as it should be,
// while a publisher and a subscriber notice nothing. TestStrangers tries every
// protocol of the mesh port, TestJoinRules every kind of token, TestMutatedStreams
// broken packets.
func TestHostilePeers(t *testing.T) {
	// Where others listen without TLS is the listener that takes users from
	// certificates.
	c := newListening(t, 3, func(n *Node) []string {
		return append([]string{"--listener", "tls,address=" + n.TLS, "--listener", "tls,require_client_cert=true,identity=cn,address=" + n.Plain}, cheap...)
	})
	h := &hostiles{Cluster: c, n: c.Nodes[0], clients: map[string]*tls.Certificate{"no certificate": nil}}
	_, _, client := c.certificate("device")
	h.clients["a client's certificate"] = &client
	former := h.formerMember(t)
	h.clients["a former member's certificate"] = &former
	pair := c.startPair(t, c.Nodes[0], c.Nodes[1], 200)
	users := c.Nodes[2].CLI("user", "list", "-o", "json")
	for _, a := range [][]attack{h.mesh(), h.ports(former), h.joins(), h.admin(), h.names()} {
		for _, one := range a {
			t.Run(one.name, func(t *testing.T) {
				if got := one.try(t); !strings.Contains(got, one.want) {
					t.Errorf("it got %q, and should get %q", got, one.want)
				}
			})
		}
	}
	t.Run("10,000 half-open connections", h.halfOpen)
	s, err := h.n.Status()
	if err != nil || len(s.Members) != 3 {
		t.Errorf("the cluster afterwards: %+v %v", s, err)
	}
	if got := c.Nodes[2].CLI("user", "list", "-o", "json"); got != users {
		t.Errorf("the users afterwards are %s, and were %s", got, users)
	}
	for _, name := range []string{"mqcluster_mesh_panics_total", "mqcluster_broker_panics_total", "mqcluster_listener_panics_total"} {
		if v := h.n.Metric(name); v != 0 {
			t.Errorf("%s is %v", name, v)
		}
	}
	pair.finish(1000)
}

// formerMember has a node join and leave again, and keeps its certificate.
func (h *hostiles) formerMember(t *testing.T) tls.Certificate {
	t.Helper()
	h.used = strings.TrimSpace(h.n.CLI("token", "create", "--quiet"))
	fourth := h.add()
	if err := h.Join(fourth, h.used); err != nil {
		t.Fatal(err)
	}
	kept := h.files("former")
	if err := os.CopyFS(kept, os.DirFS(fourth.path("tls"))); err != nil {
		t.Fatal(err)
	}
	fourth.Start()
	fourth.WaitReady(patience)
	fourth.CLI("leave")
	fourth.AwaitExit(patience)
	h.Nodes = h.Nodes[:len(h.Nodes)-1]
	h.WaitWhole()
	_, _, cert := h.loadCertificate(filepath.Join(kept, "node.crt"), filepath.Join(kept, "node.key"))
	return cert
}

// mesh are attacks on the port between the nodes: a snapshot that would replace the
// whole state, with users and rights of the attacker's, and a call for the CA key.
func (h *hostiles) mesh() (all []attack) {
	// Raft's InstallSnapshot begins with its number; what follows does not matter to
	// who is not listened to.
	snapshot := append([]byte("generation \n\x02"), bytes.Repeat([]byte("\x8fforged"), 10_000)...)
	for name, cert := range h.clients {
		config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mqc-raft/1"}}
		control := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mqc-control/1"}}
		if cert != nil {
			config.Certificates, control.Certificates = []tls.Certificate{*cert}, []tls.Certificate{*cert}
		}
		all = append(all, attack{"a forged snapshot with " + name, func(t *testing.T) string {
			before := refusals(h.n)
			said := knock(t, h.n.Mesh, config, snapshot)
			await(t, patience, func() bool { return refusals(h.n) > before }, func() string { return "the refusal is not counted" })
			return fmt.Sprintf("said %q", said)
		}, `said ""`}, attack{"the CA key with " + name, func(t *testing.T) string {
			said := knock(t, h.n.Mesh, control, []byte("POST /v1/ca HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"))
			return fmt.Sprintf("said %q", said)
		}, `said ""`})
	}
	return all
}

// ports are attacks on the ports for clients with what belongs to the mesh.
func (h *hostiles) ports(former tls.Certificate) (all []attack) {
	_, _, node := h.loadCertificate(h.Nodes[1].path("tls", "node.crt"), h.Nodes[1].path("tls", "node.key"))
	for name, cert := range map[string]tls.Certificate{"a node's": node, "a former node's": former} {
		all = append(all, attack{name + " certificate in the place of a user's", func(t *testing.T) string {
			config := h.ClientTLS.Clone()
			config.Certificates = []tls.Certificate{cert}
			_, ack, err := login{address: h.n.Plain, tls: config}.connect(t, clean("as-node"))
			if err != nil || ack.Reason >= 0x80 {
				return "refused"
			}
			return ack.String()
		}, "refused"}, attack{name + " certificate beside a wrong password", func(t *testing.T) string {
			config := h.ClientTLS.Clone()
			config.Certificates = []tls.Certificate{cert}
			_, ack, err := login{h.n.TLS, config, user, "wrong"}.connect(t, clean("as-node"))
			if err != nil {
				return "refused with 0x86: by TLS"
			}
			return fmt.Sprintf("refused with 0x%02x", ack.Reason)
		}, "refused with 0x86"})
	}
	return all
}

// joins are attacks with tokens.
func (h *hostiles) joins() []attack {
	join := func(token string) func(t *testing.T) string {
		return func(t *testing.T) string {
			h.In(t)
			if err := h.Join(h.outsider("evil"), token); err != nil {
				return err.Error()
			}
			return "joined"
		}
	}
	parts := strings.Split(h.used, ".")
	return []attack{
		{"join with a replayed token", join(h.used), "has been used by another node"},
		{"join with a token of 64 KB", join("MQ1." + strings.Repeat("A", 65535) + "." + parts[2]), "token"},
		{"join with a NUL in the token", join(parts[0] + "." + parts[1] + ".\n" + parts[2]), "token"},
		{"join under the name of a path", func(t *testing.T) string {
			h.In(t)
			n := h.outsider("evil")
			n.ID = "../../evil"
			return fmt.Sprint(h.Join(n, strings.TrimSpace(h.n.CLI("token", "create", "--quiet"))))
		}, "node.id"},
	}
}

// admin are attacks on the operators' API.
func (h *hostiles) admin() []attack {
	get := func(method, path string) func(*testing.T) string {
		return func(t *testing.T) string {
			conn, err := net.Dial("tcp", h.n.Health)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", method, path)
			answer, _ := io.ReadAll(io.LimitReader(conn, 4096))
			line, _, _ := strings.Cut(string(answer), "\r\n")
			if bytes.Contains(answer, []byte("root:")) {
				return "the file"
			}
			return line
		}
	}
	return []attack{
		{"a change by the health port", get(http.MethodPost, "/v1/user/add"), " 404 "},
		{"users by the health port", get(http.MethodGet, "/v1/user/list"), " 404 "},
		{"a file by the health port", get(http.MethodGet, "/../../../../etc/passwd"), " 307 "}, // to what it means
		{"the same, without dots", get(http.MethodGet, "/etc/passwd"), " 404 "},
		{"the admin socket as another user", func(t *testing.T) string {
			if os.Getuid() != 0 {
				t.Skip("only root can be somebody else")
			}
			// Where the directory stops nobody, the socket itself has to.
			for _, dir := range []string{h.dir, h.n.Dir} {
				info, err := os.Stat(dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = os.Chmod(dir, info.Mode()) }()
			}
			cmd := exec.Command(program, "user", "list", "--admin.socket", h.n.path("admin.sock"))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := cmd.CombinedOutput()
			if err == nil {
				return "listed: " + string(out)
			}
			return "refused: " + err.Error() + " " + string(out)
		}, "refused: "},
	}
}

// names are attacks with names that are none.
func (h *hostiles) names() []attack {
	long, bad := strings.Repeat("x", 65535), "a\x00b"
	connect := func(o rawmqtt.Connect) func(*testing.T) string {
		return func(t *testing.T) string {
			raw, err := h.n.Dial(5)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			o.Version = 5
			ack, err := raw.Connect(o)
			if err != nil {
				return "closed"
			}
			return fmt.Sprintf("0x%02x", ack.Reason)
		}
	}
	with := func(name, secret, id string) rawmqtt.Connect {
		o := clean(id)
		o.Username, o.Password = &name, &secret
		return o
	}
	packet := func(p rawmqtt.Publish) func(*testing.T) string {
		return func(t *testing.T) string {
			cl := h.n.Connect(clean("nul"))
			if err := cl.Publish(p); err != nil {
				t.Fatal(err)
			}
			got, err := cl.AwaitClose(patience)
			if err != nil || len(got) == 0 {
				return fmt.Sprint("not closed: ", got, err)
			}
			return fmt.Sprintf("0x%02x", got[len(got)-1].Reason)
		}
	}
	cli := func(args ...string) func(*testing.T) string {
		return func(t *testing.T) string {
			out, err := h.n.TryCLI("secret\n", args...)
			return fmt.Sprint(out, err)
		}
	}
	dir := h.files("issued")
	return []attack{
		{"a user name of 64 KB", connect(with(long, "x", "long")), "0x86"},
		{"a password of 64 KB", connect(with(user, long, "long")), "0x86"},
		{"a client id of 64 KB and a wrong password", connect(with(user, "x", long)), "0x86"},
		{"a NUL in the user name", connect(with(bad, "x", "nul")), "0x81"},
		{"a NUL in the client id", connect(with(user, password, bad)), "0x81"},
		{"a user name that is not UTF-8", connect(with("a\xff", "x", "utf8")), "0x81"},
		{"a user name that is a path", connect(with("../../etc/passwd", "x", "path")), "0x86"},
		{"a NUL in a topic", packet(rawmqtt.Publish{Topic: bad, QoS: 1, ID: 1}), "0x"},
		{"a topic below $SYS", func(t *testing.T) string {
			p, err := h.n.Connect(clean("sys")).PublishAcked(rawmqtt.Publish{Topic: "$SYS/broker/version", QoS: 1, ID: 1, Payload: []byte("x")})
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("0x%02x", p.Reason)
		}, "0x87"},
		{"a user with a name of 64 KB", cli("user", "add", long, "--stdin"), "give it at most 255"},
		{"a certificate for a path", func(t *testing.T) string {
			said := cli("cert", "issue", "../../outside", "--dir", filepath.Join(dir, "a", "b"))(t)
			found, err := filepath.Glob(filepath.Join(h.dir, "*outside*"))
			more, _ := filepath.Glob(filepath.Join(dir, "*outside*"))
			if len(found)+len(more) > 0 || err != nil {
				return fmt.Sprint("files outside of the directory: ", found, more, err)
			}
			return "nothing outside; " + said
		}, "nothing outside"},
		{"a ban of everybody by a name", cli("ban", "add", "user", ""), "name is empty"},
		{"a role that is a path in an ACL", cli("acl", "set", "role:../../x", "allow both #%{cert.../}"), "not valid"},
	}
}

// halfOpen holds 10,000 connections that begin a handshake and do not go on. Others
// get in meanwhile, and afterwards nothing is left of it.
func (h *hostiles) halfOpen(t *testing.T) {
	const conns, sources = 10_000, 20
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur = limit.Max; limit.Cur < conns+2000 {
		t.Skipf("%d files may be open, which is too few", limit.Cur)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	rest := h.n.Metric("go_goroutines")
	var held sync.Map
	var open, gone atomic.Int64
	defer held.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil })
	var all sync.WaitGroup
	start := time.Now()
	for s := range sources {
		all.Go(func() {
			// An address that is not among those of others, for its ports and its ban.
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, byte(s+1))}, Timeout: patience}
			for range conns / sources {
				conn, err := d.DialContext(t.Context(), "tcp", h.n.TLS)
				if err != nil {
					gone.Add(1)
					continue
				}
				_, _ = conn.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
				held.Store(conn, nil)
				open.Add(1)
			}
		})
	}
	var worst time.Duration
	tries := 0
	for done := make(chan struct{}); ; tries++ {
		if tries == 0 {
			go func() { all.Wait(); close(done) }()
		}
		at := time.Now()
		cl := h.n.Connect(clean(fmt.Sprint("meanwhile", tries)))
		worst = max(worst, time.Since(at))
		cl.Disconnect(0)
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond):
			continue
		}
		break
	}
	t.Logf("%d connections were opened and %d were not within %v; %d clients came in meanwhile, the slowest in %v",
		open.Load(), gone.Load(), time.Since(start).Round(time.Millisecond), tries, worst.Round(time.Millisecond))
	if open.Load() < conns/2 {
		t.Errorf("only %d of %d connections were opened, which shows nothing", open.Load(), conns)
	}
	if worst > 10*time.Second {
		t.Errorf("a client needed %v to get in", worst)
	}
	held.Range(func(c, _ any) bool { return c.(net.Conn).Close() == nil })
	await(t, 30*time.Second, func() bool { return h.n.Metric("go_goroutines") < rest+50 }, func() string {
		return fmt.Sprintf("%v goroutines, %v before", h.n.Metric("go_goroutines"), rest)
	})
}
