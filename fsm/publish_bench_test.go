package fsm

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
	"google.golang.org/protobuf/proto"
)

// packs returns n log entries of 64 publishes each that follow the tape.
func (r *tape) packs64(n int, item func(i int) *logpb.Item) []*raft.Log {
	r.t.Helper()
	logs := make([]*raft.Log, n)
	for i := range logs {
		items := make([]*logpb.Item, 64)
		for j := range items {
			items[j] = item(i*64 + j)
		}
		logs[i] = r.entry(r.pack("a", items...))
	}
	return logs
}

// BenchmarkPublish is the cost of a message in the apply path: 64 B to 100
// topics, each with one persistent subscriber that is not there; entries of 64,
// batches of 8 entries.
func BenchmarkPublish(b *testing.B) {
	r := newTape(b)
	r.fs = vfs.NewMem()
	_, pub := r.connect("a", &logpb.Claim{Client: "pub", CleanStart: true})
	for i := range 100 {
		c := fmt.Sprintf("sub%d", i)
		_, e := r.connect("a", &logpb.Claim{Client: c, Expiry: session.Never})
		r.subscribe("a", c, e, 1, fmt.Sprintf("bench/%d", i))
		r.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: c, Epoch: e}}})
	}
	payload := make([]byte, 64)
	template := r.packs64(1, func(i int) *logpb.Item {
		return &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
			Client: "pub", Epoch: pub, Topic: fmt.Sprintf("bench/%d", i%100), Payload: payload, Qos: 1,
		}}}
	})[0]
	var e logpb.Entry
	if err := proto.Unmarshal(template.Data, &e); err != nil {
		b.Fatal(err)
	}
	number := r.packs["a"] - 1
	next := func() *raft.Log {
		number++
		e.GetPack().Number = number
		data, err := proto.Marshal(&e)
		if err != nil {
			b.Fatal(err)
		}
		r.index++
		return &raft.Log{Index: r.index, Type: raft.LogCommand, Data: data}
	}
	r.index--
	b.ReportAllocs()
	messages := 0
	for b.Loop() {
		b.StopTimer()
		logs := make([]*raft.Log, 8)
		for i := range logs {
			logs[i] = next()
		}
		r.events = nil
		b.StartTimer()
		r.store.ApplyBatch(logs)
		messages += 8 * 64
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(messages), "ns/msg")
}
