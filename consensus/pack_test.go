package consensus

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

func sealed(t testing.TB, node string, incarnation, number uint64, items ...*logpb.Item) *pack {
	t.Helper()
	p := &pack{}
	for _, it := range items {
		proto.Size(it)
		if err := p.add(it, func(fsm.Result) {}); err != nil {
			t.Fatal(err)
		}
	}
	p.seal(node, incarnation, number)
	return p
}

// The wire form that pack and wrap make by hand is the one of the generated code.
func TestPackIsALogEntry(t *testing.T) {
	items := []*logpb.Item{publish("a", 1), publish("b", 2), {}}
	p := sealed(t, "node-1", 1<<63, 300, items...)
	body := p.body()
	wire := p.wire()
	if got, want := len(body), int(wire[0])<<24|int(wire[1])<<16|int(wire[2])<<8|int(wire[3]); got != want {
		t.Errorf("length %d, prefix %d", got, want)
	}
	// Sent again to wherever, it is the same, and what raft has stays as it is.
	wire = bytes.Clone(wire)
	first := wrap(p.give(), 7)
	kept := bytes.Clone(first)
	if second := wrap(p.give(), 8); !bytes.Equal(p.wire(), wire) || !bytes.Equal(first, kept) || len(second) != len(first) || &second[0] == &first[0] {
		t.Error("a pack that is sent again is another one, or the same memory")
	}
	node, incarnation, number, err := peek(body)
	if node != "node-1" || incarnation != 1<<63 || number != 300 || err != nil {
		t.Errorf("peek = %q %d %d %v", node, incarnation, number, err)
	}
	for _, stamp := range []int64{0, 1, 1_700_000_000_000, -1} {
		buf := append(make([]byte, entryHead), body...)
		var got logpb.Entry
		if err := proto.Unmarshal(wrap(buf, stamp), &got); err != nil {
			t.Fatal(err)
		}
		want := &logpb.Entry{Stamp: stamp, Command: &logpb.Entry_Pack{Pack: &logpb.Pack{
			Node: "node-1", Incarnation: 1 << 63, Number: 300, Items: items,
		}}}
		if d := cmp.Diff(want, &got, protocmp.Transform()); d != "" {
			t.Error(d)
		}
	}
}

func TestPackLimits(t *testing.T) {
	p := &pack{}
	big := publish("a", 1)
	big.GetPublish().Payload = make([]byte, 2*maxPackBytes)
	if n := proto.Size(big); !p.fits(n) {
		t.Error("a large item does not fit an empty pack")
	} else if err := p.add(big, nil); err != nil {
		t.Fatal(err)
	}
	if p.fits(1) || !p.full() {
		t.Error("a large item does not travel alone")
	}
	p = &pack{}
	for p.fits(100) {
		if err := p.add(publish("a", 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.dones) != maxPackItems {
		t.Errorf("%d items", len(p.dones))
	}
}

func FuzzPeek(f *testing.F) {
	f.Add(sealed(f, "n1", 7, 1, publish("a", 1)).body())
	f.Add([]byte{0x0a, 0x01, 'a', 0x10, 0x01, 0x18, 0x01, 0x0a, 0x01, 'b'})
	f.Add([]byte{0x2a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		node, incarnation, number, err := peek(b)
		if err != nil {
			return
		}
		// What peek believes is what apply reads, if apply can read it.
		var p logpb.Pack
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		if p.Node != node || p.Incarnation != incarnation || p.Number != number {
			t.Errorf("peek: %q %d %d, apply: %q %d %d", node, incarnation, number, p.Node, p.Incarnation, p.Number)
		}
		if len(p.ProtoReflect().GetUnknown()) > 0 {
			t.Error("a pack with unknown fields passed")
		}
	})
}

func FuzzFrame(f *testing.F) {
	ok, err := json.Marshal(leaseRequest{Seq: 1, Node: "n", Nonce: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(appendLength(nil, len(ok)), ok...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r leaseRequest
		rd := bufio.NewReader(bytes.NewReader(b))
		if err := readJSON(silent{}, rd, &r); err == nil && len(b) < 6 {
			t.Error("a request out of nothing")
		}
		if buf, err := readFrame(silent{}, bufio.NewReader(bytes.NewReader(b)), entryHead, 1<<16); err == nil && len(buf) < entryHead {
			t.Error("no room for the head")
		}
	})
}

// silent is a connection of which only the deadlines are used.
type silent struct{ net.Conn }

func (silent) SetReadDeadline(time.Time) error { return nil }
