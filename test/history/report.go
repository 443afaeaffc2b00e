package history

import (
	"fmt"
	"maps"
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
	RuleRetained  = "P4 retained messages agree"
	RuleWill      = "P5 a will fires exactly once"
	RuleExpiry    = "P2 a session ends when it is to"
	RuleUsers     = "P11 a change of a user acts at once"
	RuleQuota     = "flow control: no more under way than Receive Maximum"
	RuleUndecided = "what cannot be decided is not a pass"
	RuleForged    = "nothing arrives that was not sent, or not asked for"
	RuleOutage    = "an outage is not a pass"
)

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
	// Silence is the longest time between two acknowledgements, outside the windows
	// of faults.
	Silence time.Duration
	// Offered is what publishers were to send outside the windows of faults,
	// OfferedAcked what of it was acknowledged.
	Offered, OfferedAcked int
	// RetainedReads and UserReads are reads of a register that were judged.
	RetainedReads, UserReads int
	// WillsDue had to fire, WillsFired did, WillsUnjudged might or might not.
	WillsDue, WillsFired, WillsUnjudged int
}

// Share is how much of what was offered outside the windows of faults was
// acknowledged; 0 if nothing was offered.
func (s Stats) Share() float64 {
	if s.Offered == 0 {
		return 0
	}
	return float64(s.OfferedAcked) / float64(s.Offered)
}

// Report is what Check found.
type Report struct {
	Stats      Stats
	Violations []Violation
}

// OK tells whether no promise was broken.
func (r *Report) OK() bool { return len(r.Violations) == 0 }

// shown is how many violations, of each rule, and how many events of each String
// writes out.
const (
	shown       = 20
	shownOfRule = 5
)

// String explains the report.
func (r *Report) String() string {
	var b strings.Builder
	s := r.Stats
	fmt.Fprintf(&b, "%d published, %d acknowledged, %d refused, %d unknown; %d deliveries owed, %d delivered, %d repeated, %d not judged; "+
		"%d connections, %d resumed; longest silence %v; %.1f%% of %d offered; %d reads of retained, %d of users; "+
		"%d wills due, %d fired, %d not judged; %d violations\n", s.Published, s.Acked, s.Refused, s.Unknown, s.Owed,
		s.Delivered, s.Repeated, s.Unjudged, s.Connections, s.Present, s.Silence.Round(time.Millisecond), 100*s.Share(), s.Offered,
		s.RetainedReads, s.UserReads, s.WillsDue, s.WillsFired, s.WillsUnjudged, len(r.Violations))
	of, all := map[string]int{}, 0
	for _, v := range r.Violations {
		if of[v.Rule]++; of[v.Rule] > shownOfRule || all == shown {
			continue
		}
		all++
		fmt.Fprintf(&b, "%s: %s\n", v.Rule, v.Text)
		for j, e := range v.Events {
			if j == shown {
				fmt.Fprintf(&b, "    … and %d more events\n", len(v.Events)-shown)
				break
			}
			fmt.Fprintf(&b, "    %s\n", e)
		}
	}
	if all < len(r.Violations) {
		for _, rule := range slices.Sorted(maps.Keys(of)) {
			fmt.Fprintf(&b, "%d times in all: %s\n", of[rule], rule)
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
		{"retain", e.Retain, e.Retain}, {"clear", e.Clear, e.Clear}, {"delay", e.Delay, e.Delay > 0}, {"count", e.Count, e.Count > 0},
		{"user", e.User, e.User != ""}, {"secret", e.Secret, e.Secret != ""}, {"", e.Note, e.Note != ""},
	} {
		if f.show {
			fmt.Fprintf(&b, " %s %v", f.name, f.value)
		}
	}
	return b.String()
}
