package fsm

import (
	"bytes"
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// TestAppendItem: items are written as the protobuf library writes them, and what
// it refuses is refused.
func TestAppendItem(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "a/b", "\xff"}))
	rapid.Check(t, func(t *rapid.T) {
		p := &logpb.Publish{
			Client: text.Draw(t, "client"), Epoch: rapid.Uint64().Draw(t, "epoch"), Topic: text.Draw(t, "topic"),
			Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"), Qos: rapid.Uint32().Draw(t, "qos"), Retain: rapid.Bool().Draw(t, "retain"),
			PacketId: rapid.Uint32().Draw(t, "id"), Properties: rapid.SliceOf(rapid.Byte()).Draw(t, "properties"),
			Expiry: rapid.Ptr(rapid.Uint32(), true).Draw(t, "expiry"),
		}
		for _, it := range []*logpb.Item{
			{Kind: &logpb.Item_Publish{Publish: p}},
			{Kind: &logpb.Item_Rel{Rel: &logpb.Rel{Client: p.Client, PacketId: p.PacketId}}},
			{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{}}},
			{},
		} {
			want, wantErr := proto.MarshalOptions{Deterministic: true}.Marshal(it)
			got, err := AppendItem([]byte("before"), it)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("%v: error %v, want %v", it, err, wantErr)
			}
			if err == nil && !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Fatalf("%v:\n got %x\nwant %x", it, got, want)
			}
			if err == nil && ItemSize(it) != len(want) {
				t.Fatalf("%v: size %d, want %d", it, ItemSize(it), len(want))
			}
		}
	})
}
