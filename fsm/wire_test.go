package fsm

import (
	"bytes"
	"testing"

	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// TestRecord: the record of a message is what the protobuf library writes.
func TestRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bin := func(name string) []byte { return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, name) }
		m := &session.Message{
			Topic: rapid.StringN(0, 100, 400).Draw(t, "topic"), Payload: bin("payload"), Properties: bin("properties"),
			QoS: byte(rapid.IntRange(0, 2).Draw(t, "qos")), Retain: rapid.Bool().Draw(t, "retain"),
			Publisher: rapid.StringN(0, 100, 400).Draw(t, "publisher"),
			Stamp:     rapid.Int64().Draw(t, "stamp"), ExpiresAt: rapid.Int64().Draw(t, "expires"),
		}
		rec := messageRecord(m)
		var filters []*filter
		for _, id := range rapid.SliceOfN(rapid.Uint64(), 0, 4).Draw(t, "filters") {
			filters = append(filters, &filter{id: id})
			rec.Filters = append(rec.Filters, id)
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		got := appendRecord(nil, m, filters)
		if !bytes.Equal(got, want) {
			t.Fatalf("got %x, want %x", got, want)
		}
		if n := sizeRecord(m, filters); n != len(want) {
			t.Fatalf("%d bytes, want %d", n, len(want))
		}
	})
}
