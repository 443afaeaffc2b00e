package broker

import (
	"github.com/mqcluster/mqcluster/fsm"
	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// replay is one filter of a feed.
type replay struct {
	session.Subscription
	at    session.Pos
	after []byte // key of the last topic read; of the goroutine that feeds

	// again: it was begun by an earlier connection, which may have sent what
	// follows.
	again   bool
	stopped bool // the subscription has gone, or was made anew

	// logged: the session is owed the messages (session.Replay). under are those
	// read and not settled, in order; acked is the key of the last one that is, with
	// all before it.
	logged bool
	read   bool // all were read
	under  fifo[*owedTopic]
	acked  []byte
	moved  bool // since it was last reported
}

// owedTopic is a retained message on its way to a client whose session is owed
// it.
type owedTopic struct {
	of   *replay
	key  []byte
	pos  session.Pos // OfRetained; 0 if nothing was sent
	done bool
}

// resumeReplays makes the feeds that earlier connections did not finish. The
// caller holds c.mu.
func (c *client) resumeReplays(list []session.Replay) {
	o := &c.out
	for _, r := range list {
		n := len(o.feeds)
		if n == 0 || o.feeds[n-1].at != r.At {
			o.feeds = append(o.feeds, &feed{at: r.At})
			n++
		}
		p := &replay{Subscription: r.Subscription, at: r.At, after: r.After, acked: r.After, again: true, logged: true}
		o.feeds[n-1].parts = append(o.feeds[n-1].parts, p)
		o.replays = append(o.replays, p)
	}
}

// stopReplays ends what is still to be sent for a filter. The caller holds the
// client's mu.
func (o *outgoing) stopReplays(filter string) {
	for _, f := range o.feeds {
		for _, p := range f.parts {
			p.stopped = p.stopped || p.Filter == filter
		}
	}
	for i, p := range o.replays {
		if p.Filter == filter {
			o.replays = append(o.replays[:i:i], o.replays[i+1:]...)
			return
		}
	}
}

// owe notes a message of a topic that is on its way.
func (p *replay) owe(topic string, pos session.Pos) *owedTopic {
	if !p.logged {
		return nil
	}
	t := &owedTopic{of: p, key: routing.AppendTopicKey(nil, topic), pos: pos}
	p.under.push(t)
	return t
}

// pass notes a topic that needs nothing more.
func (c *client) pass(p *replay, topic string, pos session.Pos) {
	if t := p.owe(topic, pos); t != nil {
		c.settleTopic(t)
	}
}

// settleTopic notes that the replay of t needs to send it no more: it was
// acknowledged, or the log has its state.
func (c *client) settleTopic(t *owedTopic) {
	t.done = true
	p := t.of
	for p.under.len() > 0 && (*p.under.at(0)).done {
		p.acked, p.moved = p.under.pop().key, true
	}
	if p.moved {
		c.out.replayed = true
		c.moved()
	}
}

// endPart notes that all messages of p were read.
func (c *client) endPart(p *replay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closing || p.stopped || !p.logged {
		return
	}
	p.read, p.moved = true, true
	c.out.replayed = true
	c.moved()
}

func (p *replay) over() bool { return p.read && p.under.len() == 0 }

func (p *replay) record() *logpb.Replayed {
	return &logpb.Replayed{Filter: p.Filter, At: uint64(p.at), After: p.acked, Done: p.over()}
}

// takeReplayed returns how far the replays have come that moved; all of them if
// the connection is over.
func (o *outgoing) takeReplayed(all bool) (list []*logpb.Replayed) {
	o.replayed = false
	for _, p := range o.replays {
		if p.moved || all && (len(p.acked) > 0 || p.read) {
			p.moved = false
			list = append(list, p.record())
		}
	}
	return list
}

// replayedReported acts on what became of a report.
func (c *client) replayedReported(list []*logpb.Replayed, r fsm.Result) {
	if len(list) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.out
	left := o.replays[:0:0]
	for _, p := range o.replays {
		over := false
		for _, l := range list {
			if l.Filter == p.Filter && l.At == uint64(p.at) {
				p.moved = p.moved || r.Err != nil
				over = r.Err == nil && l.Done
			}
		}
		if !over {
			left = append(left, p)
		}
	}
	o.replays = left
	if r.Err != nil {
		o.replayed = true
		c.moved()
	}
}
