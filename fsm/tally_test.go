package fsm

import (
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

func TestOutline(t *testing.T) {
	m := &session.Message{Topic: "a/b", Payload: []byte("payload"), Properties: []byte{1, 1}, QoS: 1, Stamp: 77, ExpiresAt: 99, Publisher: "p"}
	rec := messageRecord(m)
	rec.Filters = []uint64{1, 2, 3}
	v, err := proto.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	o, err := outlineOf(v)
	if want := (outline{size: uint64(m.Size()), stamp: 77, expiresAt: 99}); err != nil || o != want {
		t.Fatalf("got %+v, %v, want %+v", o, err, want)
	}
}

// What protobuf reads, outlineOf reads, and finds the same.
func FuzzOutline(f *testing.F) {
	v, _ := proto.Marshal(&logpb.Message{Topic: "t", Payload: []byte("p"), Stamp: 1, ExpiresAt: 2, Filters: []uint64{1, 300}})
	f.Add(v)
	f.Add(v[:len(v)-1])
	f.Fuzz(func(t *testing.T, v []byte) {
		if _, _, err := parseTally(v); err == nil {
			_ = aloneIn(v)
		}
		o, err := outlineOf(v)
		m := new(logpb.Message)
		if proto.Unmarshal(v, m) != nil {
			return
		}
		if err != nil {
			t.Fatalf("%v where protobuf reads %v", err, m)
		}
		// A field may stand twice, or with another type, in bytes that nobody writes.
		if again, _ := proto.Marshal(m); len(again) != len(v) || len(m.ProtoReflect().GetUnknown()) > 0 {
			return
		}
		if o.size != recordSize(m) || o.stamp != m.Stamp || o.expiresAt != m.ExpiresAt {
			t.Fatalf("got %+v of %v", o, m)
		}
	})
}
