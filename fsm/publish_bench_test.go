package fsm

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// BenchmarkPublish is the cost of a message in the apply path: 64 B to 100
// topics, each with one persistent subscriber that is not there; entries of 64,
// batches of 8 entries.
func BenchmarkPublish(b *testing.B) {
	o := newOffice(b, true)
	messages := 0
	for b.Loop() {
		b.StopTimer()
		logs := o.batch(false)
		b.StartTimer()
		o.store.ApplyBatch(logs)
		messages += len(logs) * 64
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(messages), "ns/msg")
}

// BenchmarkRelay is the cost of a message from its entry until nothing is left of
// it: as BenchmarkPublish, and the subscribers acknowledge each 2,000 messages, and
// what is dead is collected each 8,000, which is 50 ms and 200 ms at 40,000 a
// second.
func BenchmarkRelay(b *testing.B) {
	o := newOffice(b, false)
	messages, n := 0, 0
	for b.Loop() {
		b.StopTimer()
		n++
		logs := o.batch(n%4 == 0)
		b.StartTimer()
		o.store.ApplyBatch(logs)
		messages += 8 * 64
		if n%16 == 0 {
			collectAll(b, o.store)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(messages), "ns/msg")
}

// office makes the entries of the benchmarks.
type office struct {
	*tape
	number   uint64
	topics   []string
	publish  *logpb.Entry
	progress *logpb.Progress
}

func newOffice(b *testing.B, away bool) *office {
	o := &office{tape: newTape(b), progress: &logpb.Progress{}}
	o.fs = vfs.NewMem()
	o.store = o.openCollecting(o.fs)
	o.store.ApplyBatch(o.logs)
	_, pub := o.connect("a", &logpb.Claim{Client: "pub", CleanStart: true})
	for i := range 100 {
		c := fmt.Sprintf("sub%d", i)
		_, e := o.connect("a", &logpb.Claim{Client: c, Expiry: session.Never})
		o.topics = append(o.topics, fmt.Sprintf("bench/%d", i))
		o.subscribe("a", c, e, 1, o.topics[i])
		if away {
			o.admin("a", &logpb.Item{Kind: &logpb.Item_Release{Release: &logpb.Release{Client: c, Epoch: e}}})
		}
		o.progress.Sessions = append(o.progress.Sessions, &logpb.SessionProgress{Client: c, Epoch: e})
	}
	payload := make([]byte, 64)
	items := make([]*logpb.Item, 64)
	for i := range items {
		items[i] = &logpb.Item{Kind: &logpb.Item_Publish{Publish: &logpb.Publish{
			Client: "pub", Epoch: pub, Payload: payload, Qos: 1,
		}}}
	}
	o.publish = o.pack("a", items...)
	o.number = o.publish.GetPack().Number - 1
	collectAll(b, o.store)
	b.ReportAllocs()
	return o
}

// batch returns 8 entries of 64 messages, each to other topics, and one with the
// acknowledgements of all of an earlier batch.
func (o *office) batch(acknowledge bool) []*raft.Log {
	var logs []*raft.Log
	if acknowledge {
		for _, s := range o.progress.Sessions {
			s.Cursor = uint64(session.At(o.index-8, 0))
		}
		logs = append(logs, o.numbered(&logpb.Entry{Command: &logpb.Entry_Pack{Pack: &logpb.Pack{
			Node: "a", Incarnation: o.inc["a"], Items: []*logpb.Item{{Kind: &logpb.Item_Progress{Progress: o.progress}}},
		}}}))
	}
	for i := range 8 {
		for j, it := range o.publish.GetPack().Items {
			it.GetPublish().Topic = o.topics[(i*64+j)%100]
		}
		logs = append(logs, o.numbered(o.publish))
	}
	o.events = nil
	return logs
}

func (o *office) numbered(e *logpb.Entry) *raft.Log {
	o.number++
	e.GetPack().Number = o.number
	l := o.entry(e)
	return l
}
