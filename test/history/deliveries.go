package history

import "time"

// flow is what P6 orders: one publisher's messages of one topic and QoS, as one
// session receives them.
type flow struct {
	publisher, topic string
	sent, received   byte
}

// progress is how far a flow has come.
type progress struct {
	high     Event // the first delivery with the highest number
	highSeq  int
	last     Event // the newest delivery
	lastSeq  int
	lastConn connKey
}

// judgeDeliveries judges everything that one session received.
func (c *check) judgeDeliveries(s *session) {
	flows := map[flow]*progress{}
	seen := map[string]*deliveries{}
	for _, came := range s.events {
		e := *came
		switch e.Kind {
		case Released:
			delete(s.inFlight, e.PacketID)
			continue
		case ReceiveAcked:
			if d := seen[e.Message]; d != nil {
				d.acked = came
			}
			continue
		}
		m := c.messages[e.Message]
		if !c.wanted(s, e, m) {
			continue
		}
		if e.QoS == 2 && c.repeatedQoS2(s, e) {
			continue
		}
		d, again := seen[e.Message]
		if !again {
			d = &deliveries{}
			seen[e.Message] = d
			c.report.Stats.Delivered++
			if e.At <= s.drained {
				s.got[e.Message] = e
			}
		}
		d.note(e)
		if again {
			c.judgeAgain(s, m, d, e)
			c.report.Stats.Repeated++
		}
		d.last = e
		if !e.Retain && !s.shares && !m.will {
			c.judgeOrder(flows, m, e, again || s.joinedBetween(m, e), c.copies(s, m))
		}
	}
}

// joinedBetween tells whether e may be no more than the publisher's repetition of
// a message that was sent, and may have been in the log, before the session was
// subscribed: to others it is a repetition, and as far back in their order.
func (s *session) joinedBetween(m *message, e Event) bool {
	if len(m.sent) < 2 || m.sent[1].At > e.At {
		return false
	}
	for _, b := range s.subs {
		if b.since < m.first().At && matches(b.plain, e.Topic) {
			return false
		}
	}
	return true
}

// wanted judges whether the message exists and the session asked for it.
func (c *check) wanted(s *session, e Event, m *message) bool {
	if m == nil && e.Clear && e.Message == "" {
		if all := c.clears[e.Topic]; len(all) == 0 || all[0].first().At > e.At {
			c.violate(RuleForged, []Event{e}, "%s received a clear of %q, which nobody sent", s.client, e.Topic)
		}
		return false // which clear it is does not show
	}
	if m == nil {
		c.violate(RuleForged, []Event{e}, "%s received %q, which nobody sent", s.client, e.Message)
		return false
	}
	sent := m.first()
	if e.Topic != sent.Topic || e.Sum != sent.Sum {
		c.violate(RuleForged, []Event{sent, e}, "%s received %q with another topic or payload than it was sent with", s.client, m.id)
		return false
	}
	if s.unsure {
		return true
	}
	if m.refused != nil && m.acked == nil && len(m.sent) == 1 {
		c.violate(RuleForged, []Event{sent, *m.refused, e}, "%s received %q, which was refused to its publisher", s.client, m.id)
	}
	asked, late, most := false, true, byte(0)
	for _, b := range s.subs {
		if b.asked < e.At && c.matches(b.plain, e.Topic) {
			asked = true
			late = late && b.gone < sent.At
			most = max(most, b.qos)
		}
	}
	switch {
	case !asked:
		c.violate(RuleForged, []Event{sent, e}, "%s received %q, which matches none of its subscriptions", s.client, m.id)
	case late:
		c.violate(RuleForged, []Event{sent, e}, "%s received %q, which was sent after it was told that it is unsubscribed", s.client, m.id)
	case e.QoS > min(most, sent.QoS):
		c.violate(RuleForged, []Event{sent, e}, "%s received %q with QoS %d, above what it was sent or granted with", s.client, m.id, e.QoS)
	}
	return true
}

// repeatedQoS2 tells whether a QoS 2 PUBLISH is the repetition of one that is
// under way, by its packet id, and judges it.
func (c *check) repeatedQoS2(s *session, e Event) bool {
	before, ok := s.inFlight[e.PacketID]
	if !ok {
		s.inFlight[e.PacketID] = e
		return false
	}
	switch {
	case before.Message != e.Message:
		c.violate(RuleOnce, []Event{before, e}, "packet id %d was used for another message before it was released", e.PacketID)
		s.inFlight[e.PacketID] = e
		return false
	case before.History == e.History && before.Conn == e.Conn:
		c.violate(RuleRepeat, []Event{before, e}, "%s received %q again on the same connection", s.client, e.Message)
	case !e.Dup && !c.overtook(before, e):
		c.violate(RuleRepeat, []Event{before, e}, "%s received %q again without DUP", s.client, e.Message)
	}
	c.report.Stats.Repeated++
	return true
}

// overtook tells whether a came by a newer connection than b, both of one client:
// what was under way to the older one arrives after it was repeated to the newer.
func (c *check) overtook(a, b Event) bool {
	newer, older := c.byKey[connKey{a.History, a.Conn}], c.byKey[connKey{b.History, b.Conn}]
	return newer != nil && older != nil && newer.asked.At > older.asked.At
}

// copies is how often one message may come: once, or once for each subscription
// that it matches.
func (c *check) copies(s *session, m *message) int {
	n := 0
	for _, b := range s.subs {
		if c.matches(b.plain, m.first().Topic) {
			n++
		}
	}
	return max(n, 1)
}

// asked is how many SUBSCRIBEs of filters that match a message were sent.
func (s *session) asked(c *check, m *message, by time.Duration) (n int) {
	for _, b := range s.subs {
		if !c.matches(b.plain, m.first().Topic) {
			continue
		}
		for _, at := range b.asks {
			if at < by {
				n++
			}
		}
	}
	return n
}

// deliveries is how often one message came to one session.
type deliveries struct {
	last  Event
	all   int
	fresh int    // without DUP
	here  int    // on the newest connection
	acked *Event // the newest acknowledgement by the receiver
	// freshHere counts those without DUP on the newest connection; retained: one of
	// them came because of a SUBSCRIBE.
	freshHere int
	retained  bool
}

func (d *deliveries) note(e Event) {
	if d.last.History != e.History || d.last.Conn != e.Conn {
		d.here, d.freshHere = 0, 0
	}
	d.all++
	d.here++
	d.retained = d.retained || e.Retain
	if !e.Dup {
		d.fresh++
		d.freshHere++
	}
}

// judgeAgain judges a delivery of a message that was delivered before. For each
// time that it was sent and each subscription that it matches, a message may come
// once on every connection, and once without DUP.
func (c *check) judgeAgain(s *session, m *message, d *deliveries, e Event) {
	copies := c.copies(s, m)
	if d.all <= copies {
		return
	}
	shows := append(append([]Event{}, m.sent...), d.last, e)
	allowed := copies * len(m.sent)
	if d.retained {
		// Each SUBSCRIBE but the first of a filter brings it once more.
		allowed += s.asked(c, m, e.At) - copies
	}
	switch {
	case m.will && d.fresh > allowed:
		c.violate(RuleWill, shows, "%s received the will %q twice", s.client, m.id)
	case d.retained && d.freshHere <= allowed && (e.QoS < 2 || d.all <= allowed):
	case d.retained && e.QoS < 2:
		c.violate(RuleRetained, shows, "%s received the retained message %q twice", s.client, m.id)
	case e.QoS == 2:
		c.violate(RuleOnce, shows, "%s received %q twice", s.client, m.id)
	case e.QoS == 0 && d.all > allowed:
		c.violate(RuleRepeat, shows, "%s received %q twice at QoS 0", s.client, m.id)
	case d.here > allowed:
		c.violate(RuleRepeat, shows, "%s received %q %d times on one connection, and it was sent %d times", s.client, m.id, d.here, len(m.sent))
	case d.fresh > allowed && (!s.shares || d.freshHere > allowed):
		// What a member did not acknowledge may be given to the group once more, and
		// come to the same member, as a new message.
		c.violate(RuleRepeat, shows, "%s received %q again without DUP", s.client, m.id)
	case d.acked != nil && len(m.sent) == 1 && c.writtenDown(*d.acked, s.endAfter(*d.acked)):
		c.violate(RuleRepeat, append(shows, *d.acked), "%s received %q again, long after it had acknowledged it", s.client, m.id)
	}
}

// writtenDown tells whether the broker must have written an acknowledgement of a
// receiver down before its connection ended: it had time, and nothing was wrong
// with any node meanwhile.
func (c *check) writtenDown(acked Event, end time.Duration) bool {
	settle := c.options.Settled
	return settle > 0 && end-acked.At > settle && c.overlap(acked.At, acked.At+settle) == 0
}

// endAfter is when the connection of an event ended.
func (s *session) endAfter(e Event) time.Duration {
	for _, cn := range s.conns {
		if cn.asked.History == e.History && cn.asked.Conn == e.Conn && cn.end != nil {
			return cn.end.At
		}
	}
	return e.At
}

// judgeOrder judges a delivery against those of the same flow before it. First
// deliveries come in the order of sending. A repetition may step back to where
// the publisher sent again, or to anywhere on a new connection, and goes on in
// order from there.
func (c *check) judgeOrder(flows map[flow]*progress, m *message, e Event, again bool, copies int) {
	sent := m.first()
	key := flow{sent.History, sent.Topic, sent.QoS, e.QoS}
	p := flows[key]
	if p == nil {
		p = &progress{}
		flows[key] = p
	}
	link := connKey{e.History, e.Conn}
	switch {
	case !again && sent.Seq < p.highSeq:
		c.violate(RuleOrder, []Event{sent, p.high, e}, "%s received %q of %s for the first time after %q", e.Client, m.id, sent.History, p.high.Message)
	case again && link == p.lastConn && sent.Seq < p.lastSeq && len(m.sent) < 2 && copies < 2:
		c.violate(RuleOrder, []Event{sent, p.last, e}, "%s received %q of %s again after %q on the same connection", e.Client, m.id, sent.History, p.last.Message)
	}
	if sent.Seq > p.highSeq {
		p.high, p.highSeq = e, sent.Seq
	}
	p.last, p.lastSeq, p.lastConn = e, sent.Seq, link
}
