//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// The sizes of the Mosquitto that is taken over.
const (
	importUsers    = 1000
	importSessions = 500
	importRetained = 5 // of each user
	importQueued   = 3 // of each session, besides one that all get
)

// importRights has what ACL files have: denials after grants, reading and writing
// apart, patterns with both names, and clients without one.
const importRights = `topic read anon/#
user pub
topic readwrite #
user u0001
topic readwrite rw/#
topic deny rw/secret
topic write wo/#
topic read ro/+
user u0002
topic read #
topic deny dev/u0003/#
user u/4
topic readwrite own/#
pattern readwrite dev/%u/#
pattern read all/#
pattern deny dev/%u/locked
pattern write cl/%c/in
pattern read cl/%c/out
`

// importProbes are asked what they may do, of topics that everything above is
// about.
var importProbes = []struct{ user, pass, client string }{
	{"u0001", "secret 1", "p1"}, {"u0002", "secret 2", "p2"}, {"u0005", "secret 5", "p5"},
	{"u/4", "secret", "p4"}, {"pub", "secret", "p0"}, {"", "", "nobody"},
}

var importTopics = []string{
	"anon/x", "rw/a", "rw/secret", "wo/a", "ro/a", "ro/a/b", "own/x", "dev/u0001/z", "dev/u0002/z", "dev/u0003/z", "dev/u/4/z", "dev/u0005/z",
	"dev/u0005/locked", "dev/u/4/locked", "all/z/1", "cl/p1/in", "cl/p1/out", "cl/p5/in", "cl/p5/out", "cl/p4/out", "cl/nobody/in", "cl/nobody/out", "else",
}

// TestImportMosquitto takes over Debian's mosquitto with users, rights, retained
// messages and sessions, and compares, client by client, with what that mosquitto
// itself goes on to do.
func TestImportMosquitto(t *testing.T) {
	need(t, "mosquitto", "mosquitto_passwd")
	m := newMosquitto(t)
	m.start()
	m.fill()
	m.stop()
	conf := m.copyTo(filepath.Join(m.dir, "copy"))
	m.start()
	want := observeAll(t, m.address)
	m.stop()

	out, err := command("", "import", "mosquitto", "--config", conf, "--dry-run")
	if err != nil || !strings.Contains(out, "Nothing was changed") || !strings.Contains(out, fmt.Sprint(importUsers*importRetained+len(importTopics), " retained messages")) {
		t.Fatalf("%v: %.2000s", err, out)
	}
	c := newListening(t, 3, func(n *Node) []string {
		return []string{"--listener", "tcp,allow_plaintext=true,allow_anonymous=true,address=" + n.Plain,
			"--auth.argon2_memory", "1MiB", "--auth.argon2_time", "1"}
	})
	c.Nodes[0].CLI("acl", "set", "*", "--clear")
	start := time.Now()
	first := c.Nodes[1].CLI("import", "mosquitto", "--config", conf)
	t.Logf("imported after %v: %s", time.Since(start).Round(time.Millisecond), lastLine(first))
	if want := fmt.Sprintf("%d users, 6 subjects with rules, %d retained messages, %d sessions with %d messages",
		importUsers+2, importUsers*importRetained+len(importTopics), importSessions, importSessions*(importQueued+1)); !strings.Contains(first, want) {
		t.Errorf("want %q in:\n%.3000s", want, first)
	}
	if again := c.Nodes[2].CLI("import", "mosquitto", "--config", conf); !strings.Contains(again, "New here: 0 users, 0 subjects with rules, 0 retained messages, 0 sessions with 0 messages") {
		t.Errorf("a second import changed something: %s", lastLine(again))
	}
	got := observeAll(t, c.Nodes[0].Plain)
	differ := 0
	for name := range want {
		if strings.Contains(want[name], "error: ") {
			t.Errorf("%s at mosquitto: %s", name, want[name])
		}
		if diff := cmp.Diff(want[name], got[name]); diff != "" {
			if differ++; differ <= 5 {
				t.Errorf("%s sees something else (-mosquitto +mqcluster):\n%.2000s", name, diff)
			}
		}
	}
	t.Logf("%d clients were compared, %d differ", len(want), differ)
	if differ > 0 || len(want) != importUsers+len(importProbes) {
		t.Errorf("%d of %d clients see something else", differ, len(want))
	}
	// Passwords that were used have a new hash, and are the same.
	for _, n := range c.Nodes {
		if _, err := observe(n.Plain, "u0007", "secret 7", "late", nil); err != nil {
			t.Error(err)
		}
		if _, err := observe(n.Plain, "u0007", "secret 8", "wrong", nil); err == nil {
			t.Error("a wrong password lets in")
		}
	}
	if last := c.Nodes[0].CLI("import", "mosquitto", "--config", conf); !strings.Contains(last, "New here: 0 users") {
		t.Errorf("a late import changed something: %s", lastLine(last))
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// observeAll lets every client of the old broker come, and returns what each saw.
func observeAll(t *testing.T, address string) map[string]string {
	t.Helper()
	type job struct {
		name string
		run  func() (string, error)
	}
	jobs := make(chan job)
	seen := map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for j := range jobs {
				text, err := j.run()
				if err != nil {
					text += fmt.Sprintf("error: %v", err)
				}
				mu.Lock()
				seen[j.name] = text
				mu.Unlock()
			}
		})
	}
	for i := range importUsers {
		user, pass := fmt.Sprintf("u%04d", i), fmt.Sprintf("secret %d", i)
		if i < importSessions {
			queue := importQueued + 1
			jobs <- job{user, func() (string, error) { return observe(address, user, pass, "c-"+user, &queue) }}
			continue
		}
		jobs <- job{user, func() (string, error) { return observe(address, user, pass, "fresh-"+user, nil) }}
	}
	close(jobs)
	wg.Wait()
	// After the rest: probes publish.
	for _, p := range importProbes {
		wg.Go(func() {
			text, err := probeRights(address, p.user, p.pass, p.client)
			if err != nil {
				text += fmt.Sprintf("error: %v", err)
			}
			mu.Lock()
			seen["probe "+p.user] = text
			mu.Unlock()
		})
	}
	wg.Wait()
	return seen
}

func dialAs(address, user, pass string, o rawmqtt.Connect) (*rawmqtt.Client, *rawmqtt.Packet, error) {
	raw, err := rawmqtt.Dial(context.Background(), address, nil, o.Version)
	if err != nil {
		return nil, nil, err
	}
	raw.AutoAck, raw.Timeout = true, patience
	if user != "" {
		o.Username, o.Password = &user, &pass
	}
	ack, err := raw.Connect(o)
	if err == nil && ack.Reason != 0 {
		err = fmt.Errorf("refused with 0x%02x", ack.Reason)
	}
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	return raw, ack, nil
}

// observe connects as one client and returns what waited for it (of a session
// with so many messages) and which retained messages it gets.
func observe(address, user, pass, id string, queue *int) (string, error) {
	c, ack, err := dialAs(address, user, pass, rawmqtt.Connect{Version: 4, ClientID: id, CleanStart: queue == nil, KeepAlive: 60})
	if err != nil {
		return "", err
	}
	defer c.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "present %v\n", ack.SessionPresent)
	if queue != nil {
		for range *queue {
			p, err := message(c)
			if err != nil {
				return b.String(), err
			}
			fmt.Fprintf(&b, "queued %s %q qos %d\n", p.Topic, p.Payload, p.QoS)
		}
	}
	subs := []rawmqtt.Subscription{rawmqtt.Sub("dev/"+user+"/#", 1), rawmqtt.Sub("dev/u0003/+/1", 1), rawmqtt.Sub("all/#", 1)}
	if strings.HasSuffix(user, "02") {
		// All retained messages, of which it gets what it may read, for some only: each
		// such subscription looks at every one.
		subs = []rawmqtt.Subscription{rawmqtt.Sub("#", 1)}
	}
	if _, err := c.Subscribe(100, subs...); err != nil {
		return b.String(), err
	}
	// What the client publishes itself comes after the retained messages.
	mark := "dev/" + user + "/mark"
	if _, err := c.PublishAcked(rawmqtt.Publish{Topic: mark, QoS: 1, ID: 101, Payload: []byte("mark")}); err != nil {
		return b.String(), err
	}
	var retained []string
	for {
		p, err := message(c)
		if err != nil {
			return b.String(), err
		}
		if p.Topic == mark {
			break
		}
		if p.Retain { // and not a mark of another client
			retained = append(retained, fmt.Sprintf("retained %s %q qos %d\n", p.Topic, p.Payload, p.QoS))
		}
	}
	slices.Sort(retained)
	b.WriteString(strings.Join(retained, ""))
	return b.String(), c.Disconnect(0)
}

func message(c *rawmqtt.Client) (*rawmqtt.Packet, error) {
	for {
		p, err := c.Read(patience)
		if err != nil || p.Type == rawmqtt.PUBLISH {
			return p, err
		}
	}
}

// probeRights returns what a client may subscribe to, read, by the retained messages that
// it gets, and publish, by PUBACK's reason.
func probeRights(address, user, pass, id string) (string, error) {
	c, _, err := dialAs(address, user, pass, rawmqtt.Connect{Version: 5, ClientID: id, CleanStart: true, KeepAlive: 60})
	if err != nil {
		return "", err
	}
	defer c.Close()
	var subs []rawmqtt.Subscription
	for _, topic := range importTopics {
		subs = append(subs, rawmqtt.Sub(topic, 1))
	}
	ack, err := c.Subscribe(1, subs...)
	if err != nil {
		return "", err
	}
	read := map[string]bool{}
	for {
		p, err := c.Read(2 * time.Second)
		if errors.Is(err, rawmqtt.ErrTimeout) {
			break // nothing more will come
		}
		if err != nil {
			return "", err
		}
		if p.Type == rawmqtt.PUBLISH && p.Retain {
			read[p.Topic] = true
		}
	}
	var b strings.Builder
	for i, topic := range importTopics {
		// One connection for each: mosquitto may close it after a denied one.
		p, _, err := dialAs(address, user, pass, rawmqtt.Connect{Version: 5, ClientID: id, CleanStart: true, KeepAlive: 60})
		if err != nil {
			return b.String(), err
		}
		put, err := p.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: 1, ID: 1, Payload: []byte("probe")})
		if err = errors.Join(err, p.Close()); err != nil {
			return b.String(), err
		}
		fmt.Fprintf(&b, "%s: subscribes %v, reads %v, writes %v\n", topic, ack.Reasons[i] < 0x80, read[topic], put.Reason < 0x80)
	}
	return b.String(), nil
}

// realMosquitto is Debian's.
type realMosquitto struct {
	t            *testing.T
	dir, address string
	cmd          *exec.Cmd
}

func newMosquitto(t *testing.T) *realMosquitto {
	t.Helper()
	m := &realMosquitto{t: t, dir: t.TempDir(), address: freeAddress(t)}
	plain := [2]strings.Builder{}
	for i := range importUsers {
		fmt.Fprintf(&plain[i%2], "u%04d:secret %d\n", i, i)
	}
	plain[0].WriteString("pub:secret\n")
	plain[1].WriteString("u/4:secret\n")
	var all []byte
	for i, kind := range []string{"sha512", "sha512-pbkdf2"} {
		file := filepath.Join(m.dir, kind)
		m.write(file, plain[i].String())
		if out, err := exec.CommandContext(t.Context(), "mosquitto_passwd", "-H", kind, "-U", file).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
		hashed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hashed...)
	}
	m.write(filepath.Join(m.dir, "passwd"), string(all))
	m.write(filepath.Join(m.dir, "acl"), importRights)
	m.write(filepath.Join(m.dir, "m.conf"), m.config(m.dir))
	return m
}

func (m *realMosquitto) config(dir string) string {
	host, port, _ := strings.Cut(m.address, ":")
	return fmt.Sprintf(`listener %s %s
allow_anonymous true
password_file %[3]s/passwd
acl_file %[3]s/acl
persistence true
persistence_location %[4]s/
set_tcp_nodelay true
max_queued_messages 0
user root
`, port, host, m.dir, dir)
}

func (m *realMosquitto) write(file, text string) {
	m.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *realMosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", filepath.Join(m.dir, "m.conf"))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	await(m.t, patience, func() bool {
		c, err := rawmqtt.Dial(m.t.Context(), m.address, nil, 4)
		return err == nil && c.Close() == nil
	}, func() string { return "mosquitto does not listen" })
}

func (m *realMosquitto) stop() {
	m.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	_ = m.cmd.Wait()
}

// copyTo copies the database and returns a configuration that names the copy.
func (m *realMosquitto) copyTo(dir string) string {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, "mosquitto.db"))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(filepath.Join(dir, "mosquitto.db"), string(data))
	m.write(filepath.Join(dir, "m.conf"), m.config(dir))
	return filepath.Join(dir, "m.conf")
}

// fill makes sessions, retained messages, and messages that wait.
func (m *realMosquitto) fill() {
	m.t.Helper()
	for i := range importSessions {
		user := fmt.Sprintf("u%04d", i)
		c, _, err := dialAs(m.address, user, fmt.Sprintf("secret %d", i), rawmqtt.Connect{Version: 4, ClientID: "c-" + user, KeepAlive: 60})
		if err == nil {
			_, err = c.Subscribe(1, rawmqtt.Sub("dev/"+user+"/queue/#", 1), rawmqtt.Sub("all/+", 2))
		}
		if err == nil {
			err = c.Disconnect(0)
		}
		if err != nil {
			m.t.Fatal(user, err)
		}
	}
	c, _, err := dialAs(m.address, "pub", "secret", rawmqtt.Connect{Version: 4, ClientID: "publisher", CleanStart: true, KeepAlive: 60})
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	id := uint16(0)
	pub := func(topic, payload string, qos byte, retain bool) {
		m.t.Helper()
		id++
		if _, err := c.PublishAcked(rawmqtt.Publish{Topic: topic, QoS: qos, ID: id, Retain: retain, Payload: []byte(payload)}); err != nil {
			m.t.Fatal(topic, err)
		}
	}
	for i := range importUsers {
		for n := range importRetained {
			pub(fmt.Sprintf("dev/u%04d/state/%d", i, n), fmt.Sprintf("state %d of %d", n, i), byte(n%3), true)
		}
	}
	for i := range importSessions {
		for n := range importQueued {
			pub(fmt.Sprintf("dev/u%04d/queue/%d", i, n), fmt.Sprintf("message %d for %d", n, i), byte(1+n%2), false)
		}
	}
	pub("all/news", "for everybody", 2, false)
	for _, topic := range importTopics {
		pub(topic, "probe", 1, true)
	}
}
