//go:build linux

package dashboard

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what has to come.
const patience = 60 * time.Second

// node is one process.
type node struct {
	id, dir                  string
	mesh, plain, health, web string
	cmd                      *exec.Cmd
	done                     chan struct{}
}

// cluster is three of them.
type cluster struct {
	t     *testing.T
	bin   string
	nodes []*node
}

// program is what is tested.
func program(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("MQCLUSTER_BIN")
	if bin == "" {
		t.Fatal("MQCLUSTER_BIN does not say where the program lies: use make dashboard")
	}
	return bin
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startCluster returns when every node is ready.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	// Not t.TempDir: the path of a Unix socket has to be short.
	dir, err := os.MkdirTemp("", "dash-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, bin: program(t)}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.kill()
		}
		if t.Failed() {
			for _, n := range c.nodes {
				text, _ := os.ReadFile(n.dir + ".log")
				t.Logf("log of %s, its end:\n%s", n.id, text[max(0, len(text)-3000):])
			}
		}
		_ = os.RemoveAll(dir)
	})
	for i := range 3 {
		n := &node{
			id: fmt.Sprintf("n%d", i+1), dir: filepath.Join(dir, fmt.Sprintf("n%d", i+1)),
			mesh: freeAddress(t), plain: freeAddress(t), health: freeAddress(t), web: freeAddress(t),
		}
		c.nodes = append(c.nodes, n)
	}
	out := c.run("", append([]string{"init"}, c.flags(c.nodes[0])...)...)
	token := regexp.MustCompile(`MQ1\.\S+`).FindString(out)
	if token == "" {
		t.Fatalf("init printed no token:\n%s", out)
	}
	c.start(c.nodes[0])
	for _, n := range c.nodes[1:] {
		c.run("", append([]string{"join", c.nodes[0].mesh, "--token", token}, c.flags(n)...)...)
		c.start(n)
	}
	return c
}

func (c *cluster) flags(n *node) []string {
	return []string{
		"--data-dir", n.dir, "--node", n.id, "--mesh.listen", n.mesh, "--health.listen", n.health, "--api.listen", n.web,
		"--listener", "tcp,address=" + n.plain + ",allow_plaintext=true,allow_anonymous=true",
		"--cluster.name", "park-east",
	}
}

// start runs a node and waits until it is ready.
func (c *cluster) start(n *node) {
	c.t.Helper()
	log, err := os.OpenFile(n.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	n.cmd = exec.Command(c.bin, append([]string{"run"}, c.flags(n)...)...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	n.done = make(chan struct{})
	go func() { _ = n.cmd.Wait(); close(n.done) }()
	await(c.t, "node "+n.id+" to be ready", func() bool {
		r, err := http.Get("http://" + n.health + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Kill()
	<-n.done
	n.cmd = nil
}

// run runs a verb that has to work.
func (c *cluster) run(stdin string, args ...string) string {
	c.t.Helper()
	cmd := exec.Command(c.bin, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("mqcluster %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// cli runs a verb at a node.
func (c *cluster) cli(n *node, args ...string) string {
	c.t.Helper()
	return c.run("", append(args, "--data-dir", n.dir)...)
}

// await waits for something that is looked at again and again.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// device is a client with as much of MQTT 3.1.1 as this test needs.
type device struct {
	conn net.Conn
	mu   sync.Mutex
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func packet(kind byte, body ...[]byte) []byte {
	n := 0
	for _, b := range body {
		n += len(b)
	}
	out := []byte{kind}
	for rest := n; ; {
		b := byte(rest % 128)
		if rest /= 128; rest > 0 {
			b |= 128
		}
		out = append(out, b)
		if rest == 0 {
			break
		}
	}
	for _, b := range body {
		out = append(out, b...)
	}
	return out
}

// connect returns when the node has accepted the client.
func connect(address, id string, clean bool) (*device, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	flags := byte(0)
	if clean {
		flags = 2
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(packet(0x10, text("MQTT"), []byte{4, flags, 0, 0}, text(id))); err != nil {
		return nil, err
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 0x20 || answer[3] != 0 {
		_ = conn.Close()
		return nil, fmt.Errorf("CONNACK %x %w", answer, err)
	}
	_ = conn.SetDeadline(time.Time{})
	d := &device{conn: conn}
	go func() { _, _ = io.Copy(io.Discard, bufio.NewReader(conn)) }()
	return d, nil
}

// publish sends a message of QoS 0.
func (d *device) publish(topic, payload string, retain bool) error {
	kind := byte(0x30)
	if retain {
		kind |= 1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.conn.Write(packet(kind, text(topic), []byte(payload)))
	return err
}

func (d *device) subscribe(filter string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.conn.Write(packet(0x82, []byte{0, 1}, text(filter), []byte{1}))
	return err
}

// devices connects many clients, spread over the nodes; they stay until the test ends.
func (c *cluster) devices(n int) []*device {
	c.t.Helper()
	all := make([]*device, n)
	errs := make(chan error, n)
	room := make(chan struct{}, 64)
	for i := range n {
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			var err error
			all[i], err = connect(c.nodes[i%3].plain, fmt.Sprintf("dev-%05d", i), i%4 != 0)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			c.t.Fatal(err)
		}
	}
	c.t.Cleanup(func() {
		for _, d := range all {
			_ = d.conn.Close()
		}
	})
	return all
}
