package broker

import (
	"bytes"

	"github.com/mqcluster/mqcluster/routing"
	"github.com/mqcluster/mqcluster/session"
)

// sysPrefix is where the values of SetSys are.
const sysPrefix = "$SYS"

// SetSys sets a value that this node tells of itself, and delivers it to its
// clients. It is retained here and goes neither to the log nor to peers; an
// empty payload removes it.
func (b *Broker) SetSys(topic string, payload []byte) {
	m := &session.Message{Topic: topic, Payload: bytes.Clone(payload), Retain: true, Stamp: b.clock.millis()}
	b.sysMu.Lock()
	defer b.sysMu.Unlock()
	if len(payload) == 0 {
		delete(b.sys, topic)
	} else {
		b.sys[topic] = m
	}
	b.tapped(m)
	b.deliverZero(b.match(b.sysMatches.Get(topic)), m)
}

// feedSys queues the values that r matches, and reports whether r is about
// them.
func (c *client) feedSys(r *replay) bool {
	if len(r.Filter) < len(sysPrefix) || r.Filter[:len(sysPrefix)] != sysPrefix {
		return false
	}
	b := c.b
	var found []*session.Message
	b.sysMu.RLock()
	for topic, m := range b.sys {
		if routing.Match(r.Filter, topic) {
			found = append(found, m)
		}
	}
	b.sysMu.RUnlock()
	for _, m := range found {
		if !c.feedMessage(r, retained{m: m}) {
			break
		}
	}
	return true
}
