package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Check judges a run. It is pure and looks at every event; events need not be in
// order of time across histories.
func Check(events []Event, o Options) *Report {
	c := &check{options: o.withDefaults(), messages: map[string]*message{}, groups: map[string]*shared{},
		byKey: map[connKey]*conn{}, byClient: map[string][]*conn{}, clears: map[string][]*message{}, matching: map[[2]string]bool{},
		drains: map[string][]time.Duration{}, resets: map[string][]time.Duration{}, seen: map[string]time.Duration{}}
	c.events = events
	byTime := func(a, b Event) int { return cmp.Compare(a.At, b.At) }
	if !slices.IsSortedFunc(events, byTime) {
		c.events = slices.Clone(events)
		slices.SortStableFunc(c.events, byTime)
	}
	c.collectWindows()
	c.collectMessages()
	c.collectSessions()
	c.collectSeen()
	for _, s := range c.sessions {
		c.judgeDeliveries(s)
		c.judgeOwed(s)
		c.judgeFence(s)
	}
	c.judgeShared()
	c.judgeTakeovers()
	c.judgeQuota()
	c.judgeWills()
	c.judgeRetained()
	c.judgeUsers()
	c.judgeOutage()
	return &c.report
}

// check is one call of Check.
type check struct {
	options  Options
	events   []Event
	report   Report
	messages map[string]*message
	order    []*message            // by first sending
	clears   map[string][]*message // by topic, those without a payload
	conns    []*conn
	byKey    map[connKey]*conn
	byClient map[string][]*conn
	sessions []*session
	groups   map[string]*shared
	windows  []window
	seen     map[string]time.Duration   // when each message was first received by whomever
	drains   map[string][]time.Duration // by node
	resets   map[string][]time.Duration // likewise
	matching map[[2]string]bool         // filter and topic: asked before
}

func (c *check) violate(rule string, events []Event, format string, args ...any) {
	c.report.Violations = append(c.report.Violations, Violation{Rule: rule, Text: fmt.Sprintf(format, args...), Events: events})
}

// matches is matches with a memory: a run has few filters and topics.
func (c *check) matches(filter, topic string) bool {
	key := [2]string{filter, topic}
	is, ok := c.matching[key]
	if !ok {
		is = matches(filter, topic)
		c.matching[key] = is
	}
	return is
}

// message is one application message.
type message struct {
	id    string
	sent  []Event // every time it was sent; of a will its CONNECT
	acked *Event  // with a reason below 0x80
	// refused is the acknowledgement that says that it was not taken.
	refused *Event
	will    bool
}

func (m *message) first() Event { return m.sent[0] }

func (c *check) message(e *Event, will bool) *message {
	m := c.messages[e.Message]
	if m == nil {
		m = &message{id: e.Message, will: will}
		c.messages[e.Message] = m
		c.order = append(c.order, m)
		if e.Clear {
			c.clears[e.Topic] = append(c.clears[e.Topic], m)
		}
		if !will {
			c.report.Stats.Published++
		}
	}
	m.sent = append(m.sent, *e)
	return m
}

func (c *check) collectMessages() {
	st := &c.report.Stats
	for i := range c.events {
		e := &c.events[i]
		switch e.Kind {
		case PublishSent:
			c.message(e, false)
		case ConnectSent:
			if e.Message != "" {
				c.message(e, true)
			}
		case PublishAcked:
			m := c.messages[e.Message]
			if m == nil || m.acked != nil {
				continue
			}
			if e.Reason >= 0x80 {
				m.refused = e
				st.Refused++
				continue
			}
			m.acked = e
			st.Acked++
		case PublishUnknown:
			st.Unknown++
		}
	}
}
