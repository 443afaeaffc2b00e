package forward

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/session"
)

func TestDeltaRoundTrip(t *testing.T) {
	want := []change{{"a/b", true}, {"#", false}, {"+/ü", true}}
	body := binary.BigEndian.AppendUint64(nil, 42)
	for _, ch := range want {
		body = appendChange(body, ch)
	}
	from, got, err := delta(body)
	if err != nil || from != 42 {
		t.Fatal(from, err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(change{})); diff != "" {
		t.Error(diff)
	}
}

func TestDecodersAreStrict(t *testing.T) {
	msg := func(m session.Message) []byte { return appendMessage([]byte{0}, &m) }
	good := msg(session.Message{Topic: "t", Payload: []byte("p")})
	decode := func(b []byte) error {
		var d decoder
		_, err := d.messages(nil, kindMessages, b)
		return err
	}
	later := func(b []byte) error {
		var d decoder
		_, err := d.messages(nil, kindLater, b)
		return err
	}
	changes := func(b []byte) error { _, _, err := delta(b); return err }
	names := func(b []byte) error { _, err := filters(nil, b); return err }
	if err := decode(good); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		f    func([]byte) error
		b    []byte
	}{
		{"no index", decode, nil},
		{"no index that was applied", later, []byte{1}},
		{"message cut short", decode, good[:len(good)-1]},
		{"one byte too many", decode, append(bytes.Clone(good), 1)},
		{"no topic", decode, msg(session.Message{})},
		{"topic not UTF-8", decode, msg(session.Message{Topic: "\xff"})},
		{"QoS 3", decode, msg(session.Message{Topic: "t", QoS: 3})},
		{"unknown flag", decode, append([]byte{0, 0x80}, good[2:]...)},
		{"length beyond the frame", decode, []byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}},
		{"targeted at nobody", decode, appendTargeted([]byte{0}, &session.Message{Topic: "t"}, "", session.Subscription{})},
		{"no version", changes, []byte{1, 2}},
		{"unknown op", changes, append(make([]byte, 8), 2, 1, 'a')},
		{"no filter", changes, append(make([]byte, 8), 1, 0)},
		{"bad filter", changes, append(make([]byte, 8), 1, 2, '#', '#')},
		{"shared filter", names, appendString(nil, "$share/g/x")},
		{"filter cut short", names, []byte{3, 'a'}},
	}
	for _, tt := range tests {
		if err := tt.f(tt.b); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What is put aside for a topic is there with its next message, of the next frame too.
func TestAsideStaysWithTheTopic(t *testing.T) {
	var d decoder
	of := func(topic string) *any {
		t.Helper()
		all, err := d.messages(nil, kindMessages, appendMessage([]byte{0}, &session.Message{Topic: topic}))
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0].Aside
	}
	*of("a") = "of a"
	if b := of("b"); *b != nil {
		t.Errorf("with b: %v", *b)
	}
	if a := of("a"); *a != "of a" {
		t.Errorf("with a: %v", *a)
	}
}

func TestFramesOfAllSizes(t *testing.T) {
	var stream []byte
	var want []int
	for _, n := range []int{0, 1, readBuffer - headerSize - 1, readBuffer - headerSize, readBuffer - headerSize + 1, 700_000, 3, 2 << 20, 5} {
		start := len(stream)
		stream = append(appendHeader(stream, kindMessages), make([]byte, n)...)
		endFrame(stream, start)
		want = append(want, n)
	}
	f := newFrames(bytes.NewReader(stream), 4<<20)
	var got []int
	for {
		k, body, err := f.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || k != kindMessages {
			t.Fatal(k, err)
		}
		got = append(got, len(body))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	f = newFrames(bytes.NewReader(stream), 1<<20)
	var err error
	for err == nil {
		_, _, err = f.next()
	}
	if !errors.Is(err, errMalformed) {
		t.Errorf("a frame over the limit: %v", err)
	}
}

func TestDecodedMessagesKeepNoFrame(t *testing.T) {
	body := []byte{0}
	for range 3 {
		body = appendMessage(body, &session.Message{Topic: "topic", Payload: []byte("payload"), Properties: []byte("prop")})
	}
	var d decoder
	got, err := d.messages(nil, kindMessages, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'X'
	}
	for _, g := range got {
		if string(g.Message.Payload) != "payload" || string(g.Message.Properties) != "prop" || g.Message.Topic != "topic" {
			t.Errorf("the frame shows through: %+v", g.Message)
		}
		// Appending to a payload must not reach the next one.
		_ = append(g.Message.Payload, "!!!!!!!!"...)
	}
	if string(got[1].Message.Payload) != "payload" {
		t.Error("payloads overlap")
	}
}

func TestHashDoesNotDependOnOrder(t *testing.T) {
	a := hash64("a") ^ hash64("b/+") ^ hash64("c/#")
	b := hash64("c/#") ^ hash64("a") ^ hash64("b/+")
	if a != b || a == 0 || hash64("a") == hash64("b") {
		t.Error("not a hash of a set")
	}
}

// sink is a connection whose reads come from a buffer and whose writes go
// nowhere.
type sink struct{ r io.Reader }

func (s sink) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s sink) Write(p []byte) (int, error)      { return len(p), nil }
func (s sink) Close() error                     { return nil }
func (s sink) LocalAddr() net.Addr              { return nil }
func (s sink) RemoteAddr() net.Addr             { return nil }
func (s sink) SetDeadline(time.Time) error      { return nil }
func (s sink) SetReadDeadline(time.Time) error  { return nil }
func (s sink) SetWriteDeadline(time.Time) error { return nil }

// seeds are whole streams of a peer.
func seeds() map[string][]byte {
	frame := func(dst []byte, k kind, body []byte) []byte {
		start := len(dst)
		dst = append(appendHeader(dst, k), body...)
		endFrame(dst, start)
		return dst
	}
	hello := appendNumbers(nil, kindHello, 7, 3)
	snap := appendNumbers(bytes.Clone(hello), kindSnapBegin, 7, 3, 2)
	snap = frame(snap, kindSnapChunk, appendString(appendString(nil, "a/+"), "b"))
	snap = appendNumbers(snap, kindSnapEnd, hash64("a/+")^hash64("b"))
	more := frame(bytes.Clone(snap), kindDelta, appendChange(append(make([]byte, 7), 3), change{"b", false}))
	msgs := appendMessage([]byte{0}, &session.Message{Topic: "t", Payload: []byte("p"), Publisher: "c", Stamp: 5})
	msgs = appendMessage(msgs, &session.Message{Topic: "t", Properties: []byte("x"), ExpiresAt: 9, Retain: true})
	msgs = appendTargeted(msgs, &session.Message{Topic: "u"}, "client", session.Subscription{Filter: "$share/g/u", QoS: 1, ID: 5})
	held := append([]byte{200, 1}, msgs[1:]...)
	return map[string][]byte{
		"hello":     hello,
		"snapshot":  snap,
		"delta":     more,
		"messages":  frame(bytes.Clone(hello), kindMessages, msgs),
		"held":      frame(frame(bytes.Clone(hello), kindMessages, held), kindMessages, msgs),
		"keepalive": appendNumbers(bytes.Clone(hello), kindKeepalive),
	}
}

// FuzzReceive reads a stream of a peer that sends anything at all.
func FuzzReceive(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	w := newWires()
	e := w.node(f, Config{Node: "a", MaxFrame: 1 << 16, MaxRoutes: 100, HoldMessages: 100}, func() uint64 { return 50 })
	f.Cleanup(func() { w.shut(f) })
	e.SetPeers([]string{"b"})
	p := e.peer("b")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := p.receive(sink{bytes.NewReader(data)}); err == nil {
			t.Error("a stream without end")
		}
		for _, d := range e.deliveries() {
			if d.Message.Topic == "" || d.Message.QoS > 2 {
				t.Errorf("delivered %+v", d.Message)
			}
		}
		if n := e.table.trie.Load().Len(); n > 100 {
			t.Errorf("%d routes", n)
		}
		e.table.drop(&p.in.routes, false)
		p.in.hold.forget(e.Forwarder, false)
		if n, h := e.table.trie.Load().Len(), e.held.Load(); n != 0 || h != 0 {
			t.Errorf("%d routes and %d held messages are left", n, h)
		}
	})
}

// FuzzAnswers reads what comes back on the stream to a peer.
func FuzzAnswers(f *testing.F) {
	f.Add(appendNumbers(appendNumbers(nil, kindAck, 0), kindAlive))
	f.Add(appendNumbers(nil, kindResync))
	f.Add(appendNumbers(nil, kindAck, 99))
	w := newWires()
	e := w.node(f, Config{Node: "a"}, nil)
	f.Cleanup(func() { w.shut(f) })
	e.SetPeers([]string{"b"})
	p := e.peer("b")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := p.readAnswers(newFrames(bytes.NewReader(data), maxAnswer)); err == nil || strings.Contains(err.Error(), "panic") {
			t.Error(err)
		}
	})
}
