package broker

import "sync/atomic"

// counters are what Stats reports.
type counters struct {
	sockets, connects, refused, kicked, takenOver atomic.Int64
	connected, peak                               atomic.Int64
	subscriptions, sharedSubscriptions            atomic.Int64
	in, out                                       [3]atomic.Int64 // messages by QoS
	bytesIn, bytesOut, retained                   atomic.Int64
	logged                                        atomic.Int64 // messages of the log, whoever they are for
}

// Stats are counts since the start of the Broker, and sizes of now, of this
// node alone.
type Stats struct {
	Connected, ConnectedMax            int64
	Connects, Refused, TakenOver       int64
	Subscriptions, SharedSubscriptions int64
	// Filters are distinct ones.
	Filters int64
	// MessagesIn and MessagesOut are PUBLISH packets by QoS.
	MessagesIn, MessagesOut [3]int64
	BytesIn, BytesOut       int64
	Dropped                 int64
	Retained                int64 // retained messages sent to new subscriptions
}

// Stats returns the counts of now.
func (b *Broker) Stats() Stats {
	n := &b.n
	s := Stats{
		Connected: n.connected.Load(), ConnectedMax: n.peak.Load(),
		Connects: n.connects.Load(), Refused: n.refused.Load(), TakenOver: n.takenOver.Load(),
		Subscriptions: n.subscriptions.Load(), SharedSubscriptions: n.sharedSubscriptions.Load(),
		Filters: int64(b.trie.Load().Len()), BytesIn: n.bytesIn.Load(), BytesOut: n.bytesOut.Load(),
		Dropped: b.m.drops.Load(), Retained: n.retained.Load(),
	}
	for q := range 3 {
		s.MessagesIn[q], s.MessagesOut[q] = n.in[q].Load(), n.out[q].Load()
	}
	return s
}

// Messages counts PUBLISH packets from clients and to them, and the messages that this
// node applies, which those of other nodes wait for.
func (b *Broker) Messages() (n int64) {
	n = b.n.logged.Load()
	for q := range 3 {
		n += b.n.in[q].Load() + b.n.out[q].Load()
	}
	return n
}
