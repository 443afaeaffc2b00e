package mosquitto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What the fixture holds, one line for each thing, as describe says it. Mosquitto
// itself loses shared subscriptions and retain handling, and says of client raw,
// which has no user, that it is ann's.
const fixtureWant = `retained r/one "kept" qos 1 properties ""
retained r/two "with properties" qos 0 properties "\x03\x00\x04text"
client both user "" never
  a/# qos 1
  queued a/1 "first" qos 1 waiting
  queued a/2 "second" qos 1 waiting
client five user "" expires
  b/+ qos 2 id 7 nolocal rap
  queued b/1 "id" qos 2 waiting id 7
client named user "ann" never
  a/# qos 1
  queued a/1 "first" qos 1 waiting
  queued a/2 "second" qos 1 waiting
client raw user "ann" unsure never
  x/# qos 2
  queued x/1 "sent 1" qos 1 sent 1
  queued x/2 "sent 2" qos 2 sent 2
  queued x/3 "received" qos 2 received 3
  incoming in/1 "half way" qos 2 id 77
`

// TestReadDatabase reads a file that Debian's mosquitto 2.0.11 wrote (makeFixture).
func TestReadDatabase(t *testing.T) {
	data, err := os.ReadFile("testdata/v6.db")
	if err != nil {
		t.Fatal(err)
	}
	checkDatabase(t, data)
}

// TestRealDatabase does so with one that the installed mosquitto writes now;
// UPDATE=1 keeps it as the fixture.
func TestRealDatabase(t *testing.T) {
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	data := makeFixture(t)
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/v6.db", data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checkDatabase(t, data)
}

func checkDatabase(t *testing.T, data []byte) {
	t.Helper()
	db, notes, err := ReadDatabase("db", data)
	if err != nil || len(notes) > 0 || db.Version != 6 {
		t.Fatal(db, notes, err)
	}
	if diff := cmp.Diff(fixtureWant, describe(db)); diff != "" {
		t.Error(diff)
	}
}

func describe(db *Database) string {
	var lines []string
	for _, m := range db.Retained {
		if !strings.HasPrefix(m.Topic, "$SYS") {
			lines = append(lines, fmt.Sprintf("retained %s %q qos %d properties %q\n", m.Topic, m.Payload, m.QoS, m.Properties))
		}
	}
	slices.Sort(lines)
	var clients []string
	for _, c := range db.Clients {
		var b strings.Builder
		life := "never"
		if c.Expiry != never || !c.Expires.IsZero() {
			life = "expires"
		}
		if c.Unsure {
			life = "unsure " + life
		}
		fmt.Fprintf(&b, "client %s user %q %s\n", c.ID, c.User, life)
		var subs []string
		for _, s := range c.Subscriptions {
			text := fmt.Sprintf("  %s qos %d", s.Filter, s.QoS)
			if s.ID != 0 {
				text += fmt.Sprintf(" id %d", s.ID)
			}
			if s.NoLocal {
				text += " nolocal"
			}
			if s.RetainAsPublished {
				text += " rap"
			}
			if s.RetainHandling != 0 {
				text += fmt.Sprintf(" handling %d", s.RetainHandling)
			}
			subs = append(subs, text+"\n")
		}
		slices.Sort(subs)
		b.WriteString(strings.Join(subs, ""))
		for _, q := range c.Queue {
			fmt.Fprintf(&b, "  queued %s %q qos %d ", q.Message.Topic, q.Message.Payload, q.QoS)
			switch q.State {
			case Waiting:
				b.WriteString("waiting")
			case Sent:
				fmt.Fprintf(&b, "sent %d", q.PacketID)
			case Received:
				fmt.Fprintf(&b, "received %d", q.PacketID)
			}
			if q.SubscriptionID != 0 {
				fmt.Fprintf(&b, " id %d", q.SubscriptionID)
			}
			b.WriteString("\n")
		}
		for _, q := range c.Incoming {
			fmt.Fprintf(&b, "  incoming %s %q qos %d id %d\n", q.Message.Topic, q.Message.Payload, q.QoS, q.PacketID)
		}
		clients = append(clients, b.String())
	}
	slices.Sort(clients)
	return strings.Join(lines, "") + strings.Join(clients, "")
}

// TestOldDatabase: files of versions 3, 4 and 5, put together by hand.
func TestOldDatabase(t *testing.T) {
	for _, version := range []int{3, 4, 5} {
		w := &dbWriter{version: version}
		w.start()
		w.message(9, "a/1", "payload", true)
		w.client("c1")
		w.clientMessage("c1", 9, 4, 1, stateWaitPuback)
		w.subscription("c1", "a/#", 1)
		w.retained(9)
		db, notes, err := ReadDatabase("db", w.Bytes())
		if err != nil || len(notes) > 0 {
			t.Fatal(version, notes, err)
		}
		m := &Message{Topic: "a/1", Payload: []byte("payload"), QoS: 1, Retain: true, Source: "src"}
		want := &Database{Version: version, Retained: []*Message{m}, Clients: []*Client{{
			ID: "c1", Expiry: never, Subscriptions: []Subscription{{Filter: "a/#", QoS: 1}},
			Queue: []Queued{{Message: m, PacketID: 4, QoS: 1, State: Sent}},
		}}}
		if diff := cmp.Diff(want, db); diff != "" {
			t.Error(version, diff)
		}
	}
}

// TestStaleUsers: what 2.0.11 leaves in the place of a user is not one.
func TestStaleUsers(t *testing.T) {
	var l lastUser
	type got struct {
		user   string
		unsure bool
	}
	for i, tt := range []struct {
		raw  string
		want got
	}{
		{"", got{}},
		{"usr1", got{"usr1", false}},
		{"usr1\x00" + strings.Repeat("x", 1019), got{}},
		{"usr1", got{"usr1", true}},
		{"usr1 and" + strings.Repeat("x", 1016), got{}},
		{"ann", got{"ann", false}},
		{"ann", got{"ann", false}},
		{"\xff\xfe", got{}},
		{"", got{}},
		{"ann", got{"ann", false}},
	} {
		user, unsure := l.next([]byte(tt.raw))
		if user != tt.want.user || unsure != tt.want.unsure {
			t.Errorf("%d: %q, %v, want %v", i, user, unsure, tt.want)
		}
	}
}

func TestBadDatabases(t *testing.T) {
	good, err := os.ReadFile("testdata/v6.db")
	if err != nil {
		t.Fatal(err)
	}
	huge := bytes.Clone(good)
	binary.BigEndian.PutUint32(huge[27:], 0xffffffff)
	future := bytes.Clone(good)
	future[22] = 7
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("hello"), "cut": good[:len(good)-3], "a length beyond the file": huge, "version 7": future} {
		if _, _, err := ReadDatabase("db", data); !errors.Is(err, ErrDatabase) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLostRecords: what refers to nothing is told and passed over.
func TestLostRecords(t *testing.T) {
	w := &dbWriter{version: 5}
	w.start()
	w.client("c1")
	w.client("c1")
	w.retained(1)
	w.clientMessage("c1", 5, 1, 1, 0)
	w.subscription("c2", "a", 0)
	w.chunk(99, []byte("?"))
	db, notes, err := ReadDatabase("db", w.Bytes())
	if err != nil || len(db.Clients) != 1 || len(notes) != 5 {
		t.Fatal(db, notes, err)
	}
}

func FuzzDatabase(f *testing.F) {
	good, err := os.ReadFile("testdata/v6.db")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, version := range []int{3, 4, 5} {
		w := &dbWriter{version: version}
		w.start()
		w.message(9, "a/1", "payload", true)
		w.client("c1")
		w.clientMessage("c1", 9, 4, 2, stateWaitPubcomp)
		w.subscription("c1", "a/#", 1)
		w.retained(9)
		f.Add(w.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		db, _, err := ReadDatabase("db", data)
		if err != nil {
			return
		}
		for _, c := range db.Clients {
			for _, q := range append(c.Queue, c.Incoming...) {
				if q.Message == nil || len(q.Message.Payload) > len(data) {
					t.Error("a message that is not in the file")
				}
			}
		}
	})
}

// dbWriter writes databases of versions 3 to 5.
type dbWriter struct {
	bytes.Buffer
	version int
}

func (w *dbWriter) start() {
	w.Write(dbMagic)
	w.Write([]byte{0, 0, 0, 0, 0, 0, 0, byte(w.version)})
	if w.version < 5 {
		w.chunk(chunkConfig, le64([]byte{1, 8}, 0))
		return
	}
	w.chunk(chunkConfig, append(le64(nil, 9), 1, 8, 0, 0, 0, 0, 0, 0))
}

func (w *dbWriter) chunk(kind int, body []byte) {
	var head []byte
	if w.version < 5 {
		head = binary.BigEndian.AppendUint16(head, uint16(kind))
	} else {
		head = binary.BigEndian.AppendUint32(head, uint32(kind))
	}
	w.Write(binary.BigEndian.AppendUint32(head, uint32(len(body))))
	w.Write(body)
}

func le64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }
func be16(b []byte, n int) []byte    { return binary.BigEndian.AppendUint16(b, uint16(n)) }
func be32(b []byte, n int) []byte    { return binary.BigEndian.AppendUint32(b, uint32(n)) }
func text16(b []byte, s string) []byte {
	return append(be16(b, len(s)), s...)
}

func (w *dbWriter) message(id uint64, topic, payload string, retain bool) {
	flag := map[bool]byte{true: 1}[retain]
	b := le64(nil, id)
	if w.version >= 5 {
		b = be16(be32(le64(b, 0), len(payload)), 1)
		b = be16(be16(be16(be16(b, 3), 0), len(topic)), 1883)
		b = append(append(append(b, 1, flag), "src"...), topic...)
		w.chunk(chunkMessage, append(b, payload...))
		return
	}
	b = text16(b, "src")
	if w.version == 4 {
		b = be16(text16(b, "user"), 1883)
	}
	b = append(text16(be16(be16(b, 1), 0), topic), 1, flag)
	w.chunk(chunkMessage, append(be32(b, len(payload)), payload...))
}

func (w *dbWriter) client(id string) {
	if w.version >= 5 {
		b := be16(be16(be32(le64(nil, 0), never), 3), len(id))
		w.chunk(chunkClient, append(b, id...))
		return
	}
	w.chunk(chunkClient, le64(be16(text16(nil, id), 3), 0))
}

func (w *dbWriter) clientMessage(client string, id uint64, packet int, qos, state byte) {
	if w.version >= 5 {
		b := be16(be16(le64(nil, id), packet), len(client))
		w.chunk(chunkClientMessage, append(append(b, qos, state, 0, 1), client...))
		return
	}
	b := be16(le64(text16(nil, client), id), packet)
	w.chunk(chunkClientMessage, append(b, qos, 0, 1, state, 0))
}

func (w *dbWriter) retained(id uint64) { w.chunk(chunkRetained, le64(nil, id)) }

func (w *dbWriter) subscription(client, filter string, qos byte) {
	if w.version >= 5 {
		b := be16(be16(be32(nil, 0), len(client)), len(filter))
		b = append(append(append(b, qos, 0, 0, 0), client...), filter...)
		w.chunk(chunkSubscription, b)
		return
	}
	w.chunk(chunkSubscription, append(text16(text16(nil, client), filter), qos))
}

// makeFixture has the installed mosquitto write a database.
func makeFixture(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	conf := filepath.Join(dir, "m.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nuser root\n", port, dir)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	broker := exec.CommandContext(t.Context(), "mosquitto", "-c", conf)
	broker.Cancel = func() error { return broker.Process.Signal(os.Interrupt) }
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	for again := time.NewTicker(10 * time.Millisecond); ; <-again.C {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("mosquitto does not listen")
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, append([]string{"-h", "127.0.0.1", "-p", port}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	run("mosquitto_sub", "-i", "both", "-c", "-q", "1", "-t", "a/#", "-E")
	run("mosquitto_sub", "-i", "named", "-u", "ann", "-P", "x", "-c", "-q", "1", "-t", "a/#", "-E")
	sessionOf5(t, addr)
	sessionOf4(t, addr, run)
	run("mosquitto_pub", "-t", "a/1", "-q", "1", "-m", "first")
	run("mosquitto_pub", "-t", "a/2", "-q", "2", "-m", "second")
	run("mosquitto_pub", "-t", "b/1", "-q", "2", "-m", "id")
	run("mosquitto_pub", "-t", "r/one", "-q", "1", "-r", "-m", "kept")
	run("mosquitto_pub", "-V", "5", "-t", "r/two", "-r", "-m", "with properties", "-D", "publish", "content-type", "text")
	// Nothing acknowledges QoS 0: whoever reads the message back knows that it arrived.
	run("mosquitto_sub", "-t", "r/two", "-C", "1", "-W", "10")
	if err := broker.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = broker.Wait()
	data, err := os.ReadFile(filepath.Join(dir, "mosquitto.db"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// rawClient speaks just enough MQTT.
type rawClient struct {
	t *testing.T
	net.Conn
}

func dialRaw(t *testing.T, addr string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &rawClient{t, c}
}

func (c *rawClient) send(first byte, parts ...any) {
	c.t.Helper()
	var body []byte
	for _, p := range parts {
		body = fmt.Append(body, p)
	}
	if _, err := c.Write(append([]byte{first, byte(len(body))}, body...)); err != nil {
		c.t.Fatal(err)
	}
}

// recv reads until a packet of that type came.
func (c *rawClient) recv(kind byte) {
	c.t.Helper()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c, head); err != nil {
			c.t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(head[1])); err != nil {
			c.t.Fatal(err)
		}
		if head[0]>>4 == kind {
			return
		}
	}
}

// sessionOf5 leaves a session of MQTT 5 with all options of subscriptions.
func sessionOf5(t *testing.T, addr string) {
	c := dialRaw(t, addr)
	c.send(0x10, "\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x01\x51\x80", "\x00\x04five")
	c.recv(2)
	c.send(0x82, "\x00\x01\x02\x0b\x07\x00\x03b/+\x2e")
	c.recv(9)
	c.send(0x82, "\x00\x02\x00\x00\x0c$share/g/s/+\x01")
	c.recv(9)
	c.send(0xe0)
	_, _ = io.Copy(io.Discard, c) // until mosquitto has closed it
}

// sessionOf4 leaves a session with messages in every state.
func sessionOf4(t *testing.T, addr string, run func(string, ...string)) {
	c := dialRaw(t, addr)
	c.send(0x10, "\x00\x04MQTT\x04\x00\x00\x00\x00\x03raw")
	c.recv(2)
	c.send(0x82, "\x00\x01\x00\x03x/#\x02")
	c.recv(9)
	run("mosquitto_pub", "-t", "x/1", "-q", "1", "-m", "sent 1")
	run("mosquitto_pub", "-t", "x/2", "-q", "2", "-m", "sent 2")
	run("mosquitto_pub", "-t", "x/3", "-q", "2", "-m", "received")
	for range 3 {
		c.recv(3)
	}
	c.send(0x50, "\x00\x03") // PUBREC of x/3
	c.recv(6)
	c.send(0x34, "\x00\x04in/1\x00\x4dhalf way")
	c.recv(5)
}
