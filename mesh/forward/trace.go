package forward

import (
	"bytes"

	"github.com/mqcluster/mqcluster/session"
)

// Traced is told of a message that a peer does not get, and why.
type Traced func(peer, why string, m *session.Message)

// Why a message is not forwarded, as the label of the metric and in traces.
const (
	whyFull = "full"
	whyDown = "down"
)

// Trace has f called for every message that is not forwarded, until it is called with
// nil. f must not block and must not call the Forwarder.
func (f *Forwarder) Trace(fn Traced) {
	if fn == nil {
		f.tracer.Store(nil)
		return
	}
	f.tracer.Store(&fn)
}

// lose has the message of a record traced, or of all records in frames.
func (o *outbox) lose(why string, record []byte) {
	if o.tracer == nil {
		return
	}
	fn := o.tracer.Load()
	if fn == nil {
		return
	}
	var d decoder
	c := cursor{b: record}
	if got, ok := d.message(nil, &c, place{}); ok {
		(*fn)(o.peer, why, got[0].Message)
	}
}

func (o *outbox) loseFrames(why string, buf []byte) {
	if o.tracer == nil {
		return
	}
	fn := o.tracer.Load()
	if fn == nil || len(buf) == 0 {
		return
	}
	var d decoder
	in := newFrames(bytes.NewReader(buf), len(buf))
	for {
		k, body, err := in.next()
		if err != nil {
			return // they are this node's own: it is their end
		}
		if k != kindMessages && k != kindLater {
			continue
		}
		got, _ := d.messages(nil, k, body)
		for _, m := range got {
			(*fn)(o.peer, why, m.Message)
		}
	}
}
