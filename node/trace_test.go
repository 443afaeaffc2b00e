package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/broker"
	"github.com/mqcluster/mqcluster/session"
)

func newTestTrace(q admin.TraceRequest) *trace {
	return &trace{node: "a", q: q, ready: make(chan struct{}), sent: map[flightKey]known{}, queued: map[queuedKey]known{}}
}

func told(steps []admin.TraceStep) (out []string) {
	for _, s := range steps {
		out = append(out, s.Step+" "+s.Client+" "+s.Topic+" "+s.Why)
	}
	return out
}

// TestTraceMatches: a trace of a client has what it sends and what it gets, one of a
// filter what its topic matches; an acknowledgement, which has no topic, is named by the
// delivery before it.
func TestTraceMatches(t *testing.T) {
	steps := []admin.TraceStep{
		{Step: string(broker.StepAccepted), Client: "pub", Publisher: "pub", Topic: "a/1"},
		{Step: string(broker.StepDelivered), Client: "sub", Publisher: "pub", Topic: "a/1", PacketID: 3},
		{Step: string(broker.StepDelivered), Client: "other", Publisher: "pub", Topic: "b/1", PacketID: 3},
		{Step: string(broker.StepAcked), Client: "sub", PacketID: 3},
		{Step: string(broker.StepAcked), Client: "sub", PacketID: 3}, // nobody knows of what
		{Step: string(broker.StepAcked), Client: "other", PacketID: 3},
	}
	for _, tt := range []struct {
		q    admin.TraceRequest
		want []string
	}{
		{admin.TraceRequest{Filter: "a/#"}, []string{"accepted pub a/1 ", "delivered sub a/1 ", "acknowledged sub a/1 "}},
		{admin.TraceRequest{Client: "other"}, []string{"delivered other b/1 ", "acknowledged other b/1 "}},
		{admin.TraceRequest{Client: "pub", Filter: "b/+"}, []string{"delivered other b/1 ", "acknowledged other b/1 "}},
		{admin.TraceRequest{Client: "nobody"}, nil},
	} {
		tr := newTestTrace(tt.q)
		for _, s := range steps {
			tr.add(s, 0)
		}
		if diff := cmp.Diff(tt.want, told(tr.take())); diff != "" {
			t.Errorf("%+v: %s", tt.q, diff)
		}
	}
}

// TestTraceOfALimit: what a limit gives up of a queue is told, each message once, and
// nothing else of it.
func TestTraceOfALimit(t *testing.T) {
	tr := newTestTrace(admin.TraceRequest{Filter: "#"})
	for i := range 4 {
		pos := session.At(uint64(10+i), 0)
		tr.add(admin.TraceStep{Step: string(broker.StepWaits), Client: "dev", Publisher: "pub", Topic: "t", Index: pos.Index()}, pos)
	}
	tr.add(admin.TraceStep{Step: string(broker.StepDelivered), Client: "dev", Topic: "t", Index: 10}, session.At(10, 0))
	tr.take()
	tr.trimmed("other", session.At(20, 0), "messages")
	tr.trimmed("dev", session.At(11, 0), "messages")
	tr.trimmed("dev", session.At(11, 0), "messages")
	if diff := cmp.Diff([]string{"dropped dev t limit of the queue: messages"}, told(tr.take())); diff != "" {
		t.Error(diff)
	}
	tr.trimmed("", session.At(20, 0), "age")
	if got := tr.take(); len(got) != 2 {
		t.Errorf("of all: %+v", got)
	}
}

// TestTraceIsBounded: what nobody reads is lost, and that is said.
func TestTraceIsBounded(t *testing.T) {
	tr := newTestTrace(admin.TraceRequest{Client: "pub"})
	at := time.Now()
	steps := func(n int) {
		for range n {
			tr.add(admin.TraceStep{At: at, Step: string(broker.StepAccepted), Client: "pub", Topic: "t"}, 0)
		}
	}
	steps(traceRate + 5)
	if got := tr.take(); len(got) != traceRate+1 || got[traceRate].Step != "note" {
		t.Errorf("of one second: %d steps, the last %+v", len(got), got[len(got)-1])
	}
	for range traceRoom/traceRate + 1 {
		at = at.Add(time.Second)
		steps(traceRate)
	}
	got := tr.take()
	if len(got) != traceRoom+1 || got[traceRoom].Step != "note" {
		t.Errorf("%d steps, the last %+v", len(got), got[len(got)-1])
	}
	select {
	case <-tr.waiting():
		t.Error("there is something to read of an empty trace")
	default:
	}
}
