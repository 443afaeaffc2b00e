package history

import (
	"slices"
	"testing"
	"time"
)

// ruling is a made-up history and the rules that it breaks.
type ruling struct {
	name    string
	run     *script
	rules   []string
	options Options
}

func rule(t *testing.T, all []ruling) {
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			r := Check(tt.run.events, tt.options)
			var rules []string
			for _, v := range r.Violations {
				rules = append(rules, v.Rule)
			}
			if !slices.Equal(rules, tt.rules) {
				t.Errorf("broken: %q, want %q\n%s", rules, tt.rules, r)
			}
		})
	}
}

func (s *script) drained(client string, conn int) *script {
	return s.add(client, conn, Event{Kind: Drained})
}

func (s *script) fault(node string) *script {
	return s.add("", 0, Event{Kind: FaultBegin, Node: node, Note: "fault of " + node})
}

func (s *script) mended(node string) *script {
	return s.add("", 0, Event{Kind: FaultEnd, Note: "fault of " + node})
}

func (s *script) noted(kind Kind, node string) *script {
	return s.add("", 0, Event{Kind: kind, Node: node})
}

// upAt connects to a node.
func (s *script) upAt(node, client string, conn int, expiry uint32, present bool) *script {
	return s.add(client, conn, Event{Kind: ConnectSent, Version: 5, Clean: expiry == 0, Expiry: expiry, Node: node}).
		add(client, conn, Event{Kind: Connected, Present: present, Node: node})
}

// acks acknowledges message p/seq with a packet id of the same number.
func (s *script) acks(client string, conn, seq int) *script {
	return s.add(client, conn, Event{Kind: ReceiveAcked, Message: messageOf(seq), PacketID: uint16(seq)})
}

const hour = time.Hour

func TestCheckShared(t *testing.T) {
	two := func(qos byte) *script {
		return (&script{}).upAt("a", "p", 1, Never, false).
			upAt("b", "s", 1, Never, false).sub("s", 1, "$share/g/t", qos).upAt("c", "u", 1, 0, false).sub("u", 1, "$share/g/t", qos)
	}
	rule(t, []ruling{
		{"to another after an UNSUBSCRIBE", two(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).
			add("s", 1, Event{Kind: UnsubscribeSent, Filter: "$share/g/t"}).got("u", 1, 1, 1, false), nil, Options{}},
		{"to another after a cut", two(1).pub("p", 1, 1, 1).got("u", 1, 1, 1, false).add("u", 1, Event{Kind: Cut}).got("s", 1, 1, 1, false), nil, Options{}},
		{"to another, long before the first went", two(1).pub("p", 1, 1, 1).got("u", 1, 1, 1, false).got("s", 1, 1, 1, false).pass(hour).
			lost("u", 1, 0), []string{RuleShared}, Options{}},
		{"to another while the first one's node hung", two(1).pub("p", 1, 1, 1).got("u", 1, 1, 1, false).fault("c").pass(hour).got("s", 1, 1, 1, false), nil, Options{}},
		{"to another while another node hung", two(1).pub("p", 1, 1, 1).got("u", 1, 1, 1, false).fault("a").pass(hour).got("s", 1, 1, 1, false),
			[]string{RuleShared}, Options{}},
		{"to another after the first one's node died, whose bytes come last", two(1).pub("p", 1, 1, 1).noted(Killed, "c").pass(10*time.Second).
			got("s", 1, 1, 1, false).got("u", 1, 1, 1, false), nil, Options{}},
		{"to one at a node that dies only then, whose bytes come later", two(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).noted(Killed, "c").
			pass(10*time.Second).got("u", 1, 1, 1, false), []string{RuleShared}, Options{}},
		{"to another after a node died, and from its next life", two(1).pub("p", 1, 1, 1).noted(Killed, "c").pass(10*time.Second).
			got("s", 1, 1, 1, false).lost("u", 1, 0).noted(Restarted, "c").pass(time.Minute).upAt("c", "u", 2, 0, false).sub("u", 2, "$share/g/t", 1).
			got("u", 2, 1, 1, false), []string{RuleShared}, Options{}},
		{"to another though the first acknowledged it", two(1).pub("p", 1, 1, 1).got("u", 1, 1, 1, false).acks("u", 1, 1).pass(time.Minute).
			add("u", 1, Event{Kind: Cut}).got("s", 1, 1, 1, false), []string{RuleShared}, Options{Settled: time.Second}},
		{"to another right after the first acknowledged it", two(1).pub("p", 1, 1, 1).got("u", 1, 1, 1, false).acks("u", 1, 1).
			add("u", 1, Event{Kind: Cut}).got("s", 1, 1, 1, false), nil, Options{Settled: time.Second}},
		{"to the same member again", two(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).lost("s", 1, 0).upAt("a", "s", 2, Never, true).got("s", 2, 1, 1, false), nil, Options{}},
		{"to the same member again on its connection", two(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).got("s", 1, 1, 1, false), []string{RuleRepeat}, Options{}},
		{"sent twice, to two", two(1).sent("p", 1, 1, 1, false).lost("p", 1, 0).upAt("a", "p", 2, Never, true).sent("p", 2, 1, 1, true).acked("p", 2, 1).
			got("u", 1, 1, 1, false).got("s", 1, 1, 1, false), nil, Options{}},
		{"QoS 0, to two, the first of which went", two(0).sent("p", 1, 1, 0, false).got("u", 1, 1, 0, false).add("u", 1, Event{Kind: Cut}).got("s", 1, 1, 0, false),
			[]string{RuleShared}, Options{}},
		{"QoS 0, to two at once", two(0).sent("p", 1, 1, 0, false).got("u", 1, 1, 0, false).got("s", 1, 1, 0, false), []string{RuleShared}, Options{}},
		{"QoS 2 stays with its member", two(2).pub("p", 1, 1, 2).got("s", 1, 1, 2, false).lost("s", 1, 0).got("u", 1, 1, 2, false), []string{RuleShared}, Options{}},
		{"QoS 2 stays even if the session ends", two(2).pub("p", 1, 1, 2).got("u", 1, 1, 2, false).add("u", 1, Event{Kind: Cut}).got("s", 1, 1, 2, false),
			[]string{RuleShared}, Options{}},
		{"QoS 2 may be lost with its member", two(2).pub("p", 1, 1, 2).add("u", 1, Event{Kind: Cut}), nil, Options{}},
		{"QoS 1 is not lost with its member", two(1).pub("p", 1, 1, 1).add("u", 1, Event{Kind: Cut}), []string{RuleShared}, Options{}},
		{"QoS 1 may wait for a member that is away", two(1).pub("p", 1, 1, 1).left("s", 1, Never), nil, Options{}},
	})
}

func TestCheckFence(t *testing.T) {
	// p publishes over one connection, and then over another one with its id.
	run := func() *script {
		return (&script{}).up("s", 1, Never, false).sub("s", 1, "t", 1).up("p", 1, 0, false).sent("p", 1, 1, 1, false).add("p", 1, Event{Kind: Cut}).up("p", 2, 0, false)
	}
	other := func(s *script) *script {
		return s.add("q", 1, Event{Kind: PublishSent, Message: "q/1", Seq: 1, Topic: "t", QoS: 1}).
			add("q", 1, Event{Kind: PublishAcked, Message: "q/1"}).add("s", 1, Event{Kind: Received, Message: "q/1", Topic: "t", QoS: 1, PacketID: 77})
	}
	rule(t, []ruling{
		{"before what the winner's time brought", other(run().got("s", 1, 1, 1, false)), nil, Options{}},
		{"after it", other(run()).got("s", 1, 1, 1, false), []string{RuleTakeover}, Options{}},
		{"sent again by the winner", other(run()).sent("p", 2, 1, 1, true).got("s", 1, 1, 1, false), nil, Options{}},
	})
}

func TestCheckSentAway(t *testing.T) {
	// c is at node a; another connection with its id is asked for.
	run := func() *script {
		return (&script{}).upAt("b", "x", 1, 0, false).upAt("c", "y", 1, 0, false).upAt("a", "a=c", 1, Never, false)
	}
	taken := func(s *script, reason byte) *script { return s.upAt("b", "b=c", 1, Never, true).lost("a=c", 1, reason) }
	rule(t, []ruling{
		{"for no reason", taken(run(), shuttingDown), []string{RuleTakeover}, Options{}},
		{"by a node that is told to stop", taken(run().noted(Draining, "a"), shuttingDown), nil, Options{}},
		{"by a node that lost its lease for another one's fault", taken(run().fault("b"), shuttingDown), nil, Options{}},
		{"by a node after another one's fault was over for long", taken(run().fault("b").mended("b").pass(hour), shuttingDown), []string{RuleTakeover}, Options{}},
		{"with 0x8E", taken(run(), TakenOver), nil, Options{}},
		{"without a word, by a reset", taken(run().noted(Reset, "a"), 0), nil, Options{}},
		{"without a word, after a reset of another node", taken(run().noted(Reset, "b"), 0), []string{RuleTakeover}, Options{}},
		{"without a word, after a reset before it", taken((&script{}).upAt("b", "x", 1, 0, false).noted(Reset, "a").upAt("a", "a=c", 1, Never, false), 0),
			[]string{RuleTakeover}, Options{}},
		{"seconds late, and nothing is wrong", run().upAt("b", "b=c", 1, Never, true).pass(4*time.Second).lost("a=c", 1, TakenOver), []string{RuleTakeover}, Options{FaultTakeover: 5 * time.Second}},
		{"seconds late because of another one's fault", run().fault("b").upAt("b", "b=c", 1, Never, true).pass(4*time.Second).lost("a=c", 1, TakenOver), nil, Options{FaultTakeover: 5 * time.Second}},
		{"for another reason", taken(run().fault("b"), 0x82), []string{RuleTakeover}, Options{}},
		{"two connections of a node that is well", run().fault("b").upAt("c", "b=c", 1, Never, true).pass(hour).upAt("c", "z", 1, 0, false), []string{RuleTakeover}, Options{}},
		{"two connections of a node that is cut off", run().fault("a").upAt("c", "b=c", 1, Never, true).pass(hour).upAt("c", "z", 1, 0, false), nil, Options{}},
	})
}

func TestCheckExpiry(t *testing.T) {
	rule(t, []ruling{
		{"gone in time", (&script{}).up("s", 1, 5, false).left("s", 1, 5).pass(10*time.Second).up("s", 2, 5, false), nil, Options{}},
		{"outlived", (&script{}).up("s", 1, 5, false).left("s", 1, 5).pass(10*time.Second).up("s", 2, 5, true), []string{RuleExpiry}, Options{}},
		{"within the margin", (&script{}).up("s", 1, 5, false).left("s", 1, 5).pass(7*time.Second).up("s", 2, 5, true), nil, Options{}},
		{"no leader counted", (&script{}).up("s", 1, 5, false).left("s", 1, 5).fault("").pass(10*time.Second).mended("").up("s", 2, 5, true), nil, Options{}},
		{"shortened by DISCONNECT", (&script{}).up("s", 1, 3600, false).left("s", 1, 5).pass(10*time.Second).up("s", 2, 5, true), []string{RuleExpiry}, Options{}},
		{"lengthened by DISCONNECT", (&script{}).up("s", 1, 5, false).left("s", 1, 3600).pass(10*time.Second).up("s", 2, 5, false), []string{RulePresent}, Options{}},
		{"a DISCONNECT that a node may not have heard", (&script{}).upAt("a", "s", 1, 5, false).fault("a").left("s", 1, 3600).pass(10*time.Second).up("s", 2, 5, false), nil, Options{}},
		{"never", (&script{}).up("s", 1, Never, false).left("s", 1, Never).pass(1000*hour).up("s", 2, 5, true), nil, Options{}},
		{"never, and gone", (&script{}).up("s", 1, Never, false).left("s", 1, Never).pass(1000*hour).up("s", 2, 5, false), []string{RulePresent}, Options{}},
		{"expired, and owed nothing", (&script{}).up("p", 1, Never, false).up("s", 1, 5, false).sub("s", 1, "t", 1).lost("s", 1, 0).pub("p", 1, 1, 1).
			pass(time.Minute).up("x", 1, 0, false), nil, Options{}},
		{"drained, and given more time", (&script{}).upAt("a", "s", 1, 5, false).noted(Draining, "a").lost("s", 1, shuttingDown).pass(30*time.Second).up("s", 2, 5, true), nil, Options{}},
	})
}

func TestCheckQuota(t *testing.T) {
	run := func(quota uint16) *script {
		s := (&script{}).up("p", 1, Never, false)
		return s.add("s", 1, Event{Kind: ConnectSent, Version: 5, Expiry: Never, Quota: quota}).add("s", 1, Event{Kind: Connected}).sub("s", 1, "t", 2)
	}
	rule(t, []ruling{
		{"one after the other", run(1).pub("p", 1, 1, 1).pub("p", 1, 2, 1).got("s", 1, 1, 1, false).acks("s", 1, 1).got("s", 1, 2, 1, false), nil, Options{}},
		{"two at once", run(1).pub("p", 1, 1, 1).pub("p", 1, 2, 1).got("s", 1, 1, 1, false).got("s", 1, 2, 1, false), []string{RuleQuota}, Options{}},
		{"two of two", run(2).pub("p", 1, 1, 1).pub("p", 1, 2, 1).got("s", 1, 1, 1, false).got("s", 1, 2, 1, false), nil, Options{}},
		{"QoS 2 until PUBCOMP", run(1).pub("p", 1, 1, 2).pub("p", 1, 2, 2).got("s", 1, 1, 2, false).acks("s", 1, 1).got("s", 1, 2, 2, false), []string{RuleQuota}, Options{}},
		{"QoS 2 after PUBCOMP", run(1).pub("p", 1, 1, 2).pub("p", 1, 2, 2).got("s", 1, 1, 2, false).acks("s", 1, 1).released("s", 1, 1).
			add("s", 1, Event{Kind: ReceiveAcked, PacketID: 1}).got("s", 1, 2, 2, false), nil, Options{}},
	})
}

func TestCheckOutage(t *testing.T) {
	// due publishes message seq, which was due at a time.
	due := func(s *script, seq int, at time.Duration, acked bool) *script {
		s.add("p", 1, Event{Kind: PublishSent, Message: messageOf(seq), Seq: seq, Topic: "t", QoS: 1, Due: at})
		if acked {
			s.acked("p", 1, seq)
		}
		return s
	}
	begin := func() *script { return due((&script{}).up("p", 1, Never, false), 1, time.Second, true) }
	half := Options{MinShare: 0.5, FaultGrace: time.Millisecond}
	silent := Options{MaxSilence: 2 * time.Second, FaultGrace: time.Second}
	rule(t, []ruling{
		{"half", due(begin(), 2, time.Second, false), nil, half},
		{"less than half", due(due(begin(), 2, time.Second, false), 3, time.Second, false), []string{RuleOutage}, half},
		{"none at all", (&script{}).up("p", 1, Never, false), []string{RuleOutage}, half},
		{"in a fault's window", due(due(begin().pass(2*time.Second).fault("a"), 2, 2*time.Second+10*time.Millisecond, false), 3, 2*time.Second+10*time.Millisecond, false), nil, half},
		{"after a fault's window", due(due(begin().fault("a").mended("a"), 2, 8*time.Second, false), 3, 8*time.Second, false), []string{RuleOutage}, half},
		{"never sent", begin().pass(10*time.Second).add("p", 1, Event{Kind: Missed, QoS: 1, Seq: 1, Count: 5, Due: 2 * time.Second}), []string{RuleOutage}, half},
		{"never sent for a fault", begin().pass(time.Second).fault("a").pass(10*time.Second).
			add("p", 1, Event{Kind: Missed, QoS: 1, Seq: 1, Count: 5, Due: 2 * time.Second}).add("", 0, Event{Kind: FaultEnd, Note: "fault of a"}), nil, half},
		{"silence", due(begin().pass(3*time.Second), 2, 0, true), []string{RuleOutage}, silent},
		{"silence in a fault's window", due(begin().fault("a").pass(30*time.Second).mended("a").pass(2*time.Second), 2, 0, true), nil, silent},
		{"silence after a fault's window", due(begin().fault("a").mended("a").pass(4*time.Second), 2, 0, true), []string{RuleOutage}, silent},
		{"silence while a node was killed, which is no excuse", due(begin().noted(Killed, "a").pass(3*time.Second), 2, 0, true), []string{RuleOutage}, silent},
	})
}

// messageOf is number seq of the publisher p.
func messageOf(seq int) string { return "p/" + string(rune('0'+seq)) }
