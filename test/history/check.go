package history

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The rules, by the promise that they judge.
const (
	RuleDurable   = "P1 acknowledged is durable"
	RuleFailover  = "P2 nothing is lost with a node"
	RuleOnce      = "P2 QoS 2 is exactly once"
	RuleRepeat    = "P2 a repetition has a cause and says DUP"
	RulePresent   = "P2 session present tells the truth"
	RuleTakeover  = "P3 one connection per client id"
	RuleOrder     = "P6 order"
	RuleShared    = "P7 one member of a shared group"
	RuleSubscribe = "P8 SUBACK means subscribed"
	RuleForged    = "nothing arrives that was not sent, or not asked for"
	RuleOutage    = "an outage is not a pass"
)

// Options say what a run had to achieve.
type Options struct {
	// MinAcked is how many publishes of QoS 1 and 2 must have been acknowledged.
	MinAcked int
	// MinOwed is how many deliveries must have been owed and judged.
	MinOwed int
	// MaxSilence is the longest time without any acknowledgement between the
	// first and the last one of the run; 0 for any.
	MaxSilence time.Duration
	// QoS0 demands messages of QoS 0 as well: the mesh was whole all the time.
	QoS0 bool
	// Settled, if not 0, is how long after the receiver's acknowledgement a QoS 1
	// message must not come again, not even with DUP after a reconnect. It must
	// be longer than the broker takes to write acknowledgements down.
	Settled time.Duration
	// TakeoverGrace is how long a connection may live on after another one with
	// its client id was acknowledged; 0 means a second.
	TakeoverGrace time.Duration
}

// Violation is a broken promise and the events that show it.
type Violation struct {
	Rule   string
	Text   string
	Events []Event
}

// Stats counts what a run did.
type Stats struct {
	Published, Acked, Refused, Unknown int
	// Owed are deliveries that a promise demanded, Unjudged those whose receiver
	// was away at the end by its own will.
	Owed, Unjudged int
	// Delivered are first deliveries, Repeated further ones that were allowed.
	Delivered, Repeated  int
	Connections, Present int
	// Silence is the longest time between two acknowledgements.
	Silence time.Duration
}

// Report is what Check found.
type Report struct {
	Stats      Stats
	Violations []Violation
}

// OK tells whether no promise was broken.
func (r *Report) OK() bool { return len(r.Violations) == 0 }

// shown is how many violations and how many events of each String writes out.
const shown = 20

// String explains the report.
func (r *Report) String() string {
	var b strings.Builder
	s := r.Stats
	fmt.Fprintf(&b, "%d published, %d acknowledged, %d refused, %d unknown; %d deliveries owed, %d delivered, %d repeated, %d not judged; "+
		"%d connections, %d resumed; longest silence %v; %d violations\n", s.Published, s.Acked, s.Refused, s.Unknown, s.Owed,
		s.Delivered, s.Repeated, s.Unjudged, s.Connections, s.Present, s.Silence.Round(time.Millisecond), len(r.Violations))
	for i, v := range r.Violations {
		if i == shown {
			fmt.Fprintf(&b, "… and %d more\n", len(r.Violations)-shown)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", v.Rule, v.Text)
		for j, e := range v.Events {
			if j == shown {
				fmt.Fprintf(&b, "    … and %d more events\n", len(v.Events)-shown)
				break
			}
			fmt.Fprintf(&b, "    %s\n", e)
		}
	}
	return b.String()
}

// String describes the event in one line.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%12v %s/%d %s", e.At, e.History, e.Conn, e.Kind)
	for _, f := range []struct {
		name  string
		value any
		show  bool
	}{
		{"client", e.Client, e.Client != "" && e.Client != e.History}, {"node", e.Node, e.Node != ""},
		{"version", e.Version, e.Version > 0}, {"clean", e.Clean, e.Clean}, {"expiry", e.Expiry, e.Expiry > 0},
		{"present", e.Present, e.Kind == Connected}, {"reason", fmt.Sprintf("0x%02x", e.Reason), e.Reason != 0},
		{"filter", e.Filter, e.Filter != ""}, {"message", e.Message, e.Message != ""}, {"topic", e.Topic, e.Topic != ""},
		{"qos", e.QoS, e.Topic != "" || e.Filter != ""}, {"id", e.PacketID, e.PacketID > 0}, {"dup", e.Dup, e.Dup},
		{"retain", e.Retain, e.Retain}, {"", e.Note, e.Note != ""},
	} {
		if f.show {
			fmt.Fprintf(&b, " %s %v", f.name, f.value)
		}
	}
	return b.String()
}

// Check judges a run. It is pure and looks at every event; events need not be in
// order of time across histories.
func Check(events []Event, o Options) *Report {
	if o.TakeoverGrace == 0 {
		o.TakeoverGrace = time.Second
	}
	c := &check{options: o, messages: map[string]*message{}, groups: map[string]*shared{}}
	c.events = slices.Clone(events)
	slices.SortStableFunc(c.events, func(a, b Event) int { return int(a.At - b.At) })
	c.collectPublishes()
	c.collectSessions()
	for _, s := range c.sessions {
		c.judgeDeliveries(s)
		c.judgeOwed(s)
	}
	c.judgeShared()
	c.judgeTakeovers()
	c.judgeOutage()
	return &c.report
}

// check is one call of Check.
type check struct {
	options  Options
	events   []Event
	report   Report
	messages map[string]*message
	order    []*message // by first sending
	conns    []*conn
	sessions []*session
	groups   map[string]*shared
	kills    []Event
}

func (c *check) violate(rule string, events []Event, format string, args ...any) {
	c.report.Violations = append(c.report.Violations, Violation{Rule: rule, Text: fmt.Sprintf(format, args...), Events: events})
}

// message is one application message.
type message struct {
	id    string
	sent  []Event // every time it was sent
	acked *Event  // with a reason below 0x80
}

func (m *message) first() Event { return m.sent[0] }

func (c *check) collectPublishes() {
	st := &c.report.Stats
	var lastAck time.Duration
	for i := range c.events {
		e := &c.events[i]
		m := c.messages[e.Message]
		switch e.Kind {
		case PublishSent:
			if m == nil {
				m = &message{id: e.Message}
				c.messages[e.Message] = m
				c.order = append(c.order, m)
				st.Published++
			}
			m.sent = append(m.sent, *e)
		case PublishAcked:
			if m == nil || m.acked != nil {
				continue
			}
			if e.Reason >= 0x80 {
				st.Refused++
				continue
			}
			m.acked = e
			st.Acked++
			if lastAck > 0 {
				st.Silence = max(st.Silence, e.At-lastAck)
			}
			lastAck = e.At
		case PublishUnknown:
			st.Unknown++
		case Killed:
			c.kills = append(c.kills, *e)
		}
	}
}

func (c *check) judgeOutage() {
	o, s := c.options, c.report.Stats
	if s.Acked < o.MinAcked {
		c.violate(RuleOutage, nil, "only %d publishes were acknowledged, the run needs %d", s.Acked, o.MinAcked)
	}
	if s.Owed < o.MinOwed {
		c.violate(RuleOutage, nil, "only %d deliveries could be judged, the run needs %d", s.Owed, o.MinOwed)
	}
	if o.MaxSilence > 0 && s.Silence > o.MaxSilence {
		c.violate(RuleOutage, nil, "nothing was acknowledged for %v, at most %v is allowed", s.Silence, o.MaxSilence)
	}
}
