package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// script builds a history by hand; every event is a millisecond after the one
// before.
type script struct {
	events []Event
	at     time.Duration
}

func (s *script) add(client string, conn int, e Event) *script {
	s.at += time.Millisecond
	e.At, e.Conn = s.at, conn
	e.History, e.Client, _ = strings.Cut(client, "=")
	if e.Client == "" {
		e.Client = e.History
	}
	s.events = append(s.events, e)
	return s
}

func (s *script) pass(d time.Duration) *script { s.at += d; return s }

// up connects; client may be "history=client id".
func (s *script) up(client string, conn int, expiry uint32, present bool) *script {
	return s.ask(client, conn, expiry).add(client, conn, Event{Kind: Connected, Present: present})
}

func (s *script) ask(client string, conn int, expiry uint32) *script {
	return s.add(client, conn, Event{Kind: ConnectSent, Version: 5, Clean: expiry == 0, Expiry: expiry})
}

func (s *script) sub(client string, conn int, filter string, qos byte) *script {
	return s.add(client, conn, Event{Kind: SubscribeSent, Filter: filter, QoS: qos}).
		add(client, conn, Event{Kind: Subscribed, Filter: filter, QoS: qos})
}

// sent publishes number seq of client on topic t.
func (s *script) sent(client string, conn, seq int, qos byte, dup bool) *script {
	return s.add(client, conn, Event{Kind: PublishSent, Message: fmt.Sprintf("%s/%d", client, seq), Seq: seq, Topic: "t", QoS: qos, Dup: dup})
}

func (s *script) acked(client string, conn, seq int) *script {
	return s.add(client, conn, Event{Kind: PublishAcked, Message: fmt.Sprintf("%s/%d", client, seq), Seq: seq})
}

func (s *script) pub(client string, conn, seq int, qos byte) *script {
	return s.sent(client, conn, seq, qos, false).acked(client, conn, seq)
}

// got receives message p/seq with a packet id of the same number.
func (s *script) got(client string, conn, seq int, qos byte, dup bool) *script {
	return s.add(client, conn, Event{Kind: Received, Message: fmt.Sprintf("p/%d", seq), Topic: "t", QoS: qos, PacketID: uint16(seq), Dup: dup})
}

func (s *script) released(client string, conn, seq int) *script {
	return s.add(client, conn, Event{Kind: Released, PacketID: uint16(seq)})
}

func (s *script) lost(client string, conn int, reason byte) *script {
	return s.add(client, conn, Event{Kind: Lost, Reason: reason})
}

func (s *script) left(client string, conn int, expiry uint32) *script {
	return s.add(client, conn, Event{Kind: Disconnected, Expiry: expiry})
}

// begun is a publisher p and a persistent subscriber s of "t".
func begun(qos byte) *script {
	return (&script{}).up("p", 1, Never, false).up("s", 1, Never, false).sub("s", 1, "t", qos)
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name  string
		run   *script
		rules []string // broken, in order
	}{
		{"all is well", begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).pub("p", 1, 2, 1).got("s", 1, 2, 1, false), nil},
		{"sent before SUBACK", (&script{}).up("p", 1, Never, false).up("s", 1, Never, false).sent("p", 1, 1, 1, false).
			sub("s", 1, "t", 1).acked("p", 1, 1), nil},
		{"not acknowledged", begun(1).sent("p", 1, 1, 1, false), nil},
		{"refused", begun(1).sent("p", 1, 1, 1, false).add("p", 1, Event{Kind: PublishAcked, Message: "p/1", Reason: 0x97}), nil},
		{"granted QoS 0", begun(0).pub("p", 1, 1, 1), nil},
		{"first one lost", begun(1).pub("p", 1, 1, 1).pub("p", 1, 2, 1).got("s", 1, 2, 1, false), []string{RuleSubscribe}},
		{"later one lost", begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).pub("p", 1, 2, 1).pub("p", 1, 3, 1).
			got("s", 1, 3, 1, false), []string{RuleDurable}},
		{"lost with the connection", begun(1).pub("p", 1, 1, 1).lost("s", 1, 0).up("s", 2, Never, true), []string{RuleFailover}},
		{"lost with a node", begun(1).pub("p", 1, 1, 1).add("", 0, Event{Kind: Killed, Node: "a"}), []string{RuleFailover}},
		{"never came back", begun(1).pub("p", 1, 1, 1).lost("s", 1, 0), []string{RuleFailover}},
		{"left by its own will", begun(1).pub("p", 1, 1, 1).left("s", 1, Never), nil},
		{"drained, then left", begun(1).pub("p", 1, 1, 1).add("s", 1, Event{Kind: Drained}).left("s", 1, Never), []string{RuleSubscribe}},
		{"too late", begun(1).pub("p", 1, 1, 1).add("s", 1, Event{Kind: Drained}).got("s", 1, 1, 1, false), []string{RuleSubscribe}},
		{"clean session that ended", (&script{}).up("s", 1, 0, false).sub("s", 1, "t", 1).up("p", 1, 0, false).pub("p", 1, 1, 1).
			lost("s", 1, 0).up("s", 2, 0, false), nil},
		{"clean session that stayed", (&script{}).up("s", 1, 0, false).sub("s", 1, "#", 1).up("p", 1, 0, false).pub("p", 1, 1, 1),
			[]string{RuleSubscribe}},
		{"unsubscribed", begun(1).pub("p", 1, 1, 1).add("s", 1, Event{Kind: UnsubscribeSent, Filter: "t"}), nil},
		{"no local", (&script{}).up("p", 1, Never, false).add("p", 1, Event{Kind: SubscribeSent, Filter: "t", QoS: 1, NoLocal: true}).
			add("p", 1, Event{Kind: Subscribed, Filter: "t", QoS: 1}).pub("p", 1, 1, 1), nil},

		{"QoS 2", begun(2).pub("p", 1, 1, 2).got("s", 1, 1, 2, false).released("s", 1, 1), nil},
		{"QoS 2 twice", begun(2).pub("p", 1, 1, 2).got("s", 1, 1, 2, false).released("s", 1, 1).got("s", 1, 1, 2, true), []string{RuleOnce}},
		{"QoS 2 repeated before its release", begun(2).pub("p", 1, 1, 2).got("s", 1, 1, 2, false).lost("s", 1, 0).
			up("s", 2, Never, true).got("s", 2, 1, 2, true).released("s", 2, 1), nil},
		{"QoS 2 repeated without DUP", begun(2).pub("p", 1, 1, 2).got("s", 1, 1, 2, false).lost("s", 1, 0).
			up("s", 2, Never, true).got("s", 2, 1, 2, false), []string{RuleRepeat}},
		{"QoS 2 repeated to the newer connection before the older one has it", begun(2).lost("s", 1, 0).
			up("a=s", 1, Never, true).pub("p", 1, 1, 2).up("b=s", 1, Never, true).got("b=s", 1, 1, 2, true).got("a=s", 1, 1, 2, false).
			lost("a=s", 1, TakenOver).released("b=s", 1, 1), nil},
		{"QoS 2 repeated for no reason", begun(2).pub("p", 1, 1, 2).got("s", 1, 1, 2, false).got("s", 1, 1, 2, true), []string{RuleRepeat}},
		{"QoS 2 id used twice", begun(2).pub("p", 1, 1, 2).pub("p", 1, 2, 2).got("s", 1, 1, 2, false).
			add("s", 1, Event{Kind: Received, Message: "p/2", Topic: "t", QoS: 2, PacketID: 1}), []string{RuleOnce}},
		{"QoS 2 sent again by the publisher", begun(2).sent("p", 1, 1, 2, false).lost("p", 1, 0).up("p", 2, Never, true).
			sent("p", 2, 1, 2, true).acked("p", 2, 1).got("s", 1, 1, 2, false).released("s", 1, 1).
			add("s", 1, Event{Kind: Received, Message: "p/1", Topic: "t", QoS: 2, PacketID: 7}), []string{RuleOnce}},

		{"QoS 1 twice", begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).got("s", 1, 1, 1, true), []string{RuleRepeat}},
		{"QoS 1 again after a reconnect", begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).lost("s", 1, 0).up("s", 2, Never, true).
			got("s", 2, 1, 1, true), nil},
		{"QoS 1 again without DUP", begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).lost("s", 1, 0).up("s", 2, Never, true).
			got("s", 2, 1, 1, false), []string{RuleRepeat}},
		{"QoS 1 sent again by the publisher", begun(1).sent("p", 1, 1, 1, false).sent("p", 1, 2, 1, false).got("s", 1, 1, 1, false).
			got("s", 1, 2, 1, false).lost("p", 1, 0).up("p", 2, Never, true).sent("p", 2, 1, 1, true).sent("p", 2, 2, 1, true).
			got("s", 1, 1, 1, false).got("s", 1, 2, 1, false), nil},
		{"two overlapping subscriptions, two copies", begun(1).sub("s", 1, "+", 1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).
			got("s", 1, 1, 1, false), nil},

		{"out of order", begun(1).pub("p", 1, 1, 1).pub("p", 1, 2, 1).got("s", 1, 2, 1, false).got("s", 1, 1, 1, false), []string{RuleOrder}},
		{"a repetition that began before the subscription", (&script{}).up("p", 1, 100, false).sent("p", 1, 1, 1, false).sent("p", 1, 2, 1, false).
			up("s", 1, 100, false).sub("s", 1, "t", 1).got("s", 1, 2, 1, false).lost("p", 1, 0).up("p", 2, 100, true).sent("p", 2, 1, 1, true).
			acked("p", 2, 1).got("s", 1, 1, 1, false), nil},
		{"repetition out of order", begun(1).pub("p", 1, 1, 1).pub("p", 1, 2, 1).got("s", 1, 1, 1, false).got("s", 1, 2, 1, false).
			lost("s", 1, 0).up("s", 2, Never, true).got("s", 2, 2, 1, true).got("s", 2, 1, 1, true), []string{RuleOrder}},
		{"repetition of a suffix", begun(1).pub("p", 1, 1, 1).pub("p", 1, 2, 1).pub("p", 1, 3, 1).got("s", 1, 1, 1, false).
			got("s", 1, 2, 1, false).lost("s", 1, 0).up("s", 2, Never, true).got("s", 2, 2, 1, true).got("s", 2, 3, 1, false), nil},

		{"nobody sent it", begun(1).got("s", 1, 9, 1, false), []string{RuleForged}},
		{"nobody asked for it", (&script{}).up("p", 1, Never, false).up("s", 1, Never, false).sub("s", 1, "u", 1).pub("p", 1, 1, 1).
			got("s", 1, 1, 1, false), []string{RuleForged}},
		{"more QoS than granted", begun(0).pub("p", 1, 1, 1).got("s", 1, 1, 1, false), []string{RuleForged}},
		{"after UNSUBACK", begun(1).add("s", 1, Event{Kind: UnsubscribeSent, Filter: "t"}).add("s", 1, Event{Kind: Unsubscribed, Filter: "t"}).
			pub("p", 1, 1, 1).got("s", 1, 1, 1, false), []string{RuleForged}},
		{"another payload", begun(1).pub("p", 1, 1, 1).add("s", 1, Event{Kind: Received, Message: "p/1", Topic: "t", QoS: 1, PacketID: 1, Sum: 5}),
			[]string{RuleForged, RuleSubscribe}},

		{"session lost", begun(1).lost("s", 1, 0).up("s", 2, Never, false), []string{RulePresent}},
		{"session from nowhere", (&script{}).up("s", 1, Never, true), []string{RulePresent}},
		{"clean start with a session", begun(1).left("s", 1, Never).ask("s", 2, 0).add("s", 2, Event{Kind: Connected, Present: true}), []string{RulePresent}},
		{"session expired", (&script{}).up("s", 1, 5, false).lost("s", 1, 0).pass(6*time.Second).up("s", 2, 5, false), nil},
		{"session expired too soon", (&script{}).up("s", 1, 5, false).lost("s", 1, 0).pass(3*time.Second).up("s", 2, 5, false), []string{RulePresent}},
		{"after a CONNECT without an answer", (&script{}).ask("s", 1, Never).up("s", 2, Never, true), nil},
		{"ended by DISCONNECT", (&script{}).up("s", 1, 60, false).left("s", 1, 0).up("s", 2, 60, false), nil},

		{"taken over", (&script{}).up("a=c", 1, Never, false).up("b=c", 1, Never, true).lost("a=c", 1, TakenOver), nil},
		{"taken over without a word", (&script{}).up("a=c", 1, Never, false).up("b=c", 1, Never, true).lost("a=c", 1, 0), []string{RuleTakeover}},
		{"not taken over", (&script{}).up("a=c", 1, Never, false).up("b=c", 1, Never, true).pass(2*time.Second).up("x", 1, 0, false), []string{RuleTakeover}},
		{"taken over slowly", (&script{}).up("a=c", 1, Never, false).up("b=c", 1, Never, true).pass(2*time.Second).lost("a=c", 1, TakenOver), []string{RuleTakeover}},
		{"published after it was taken over", (&script{}).up("a=c", 1, Never, false).up("b=c", 1, Never, true).
			sent("a", 1, 1, 1, false).acked("a", 1, 1).lost("a=c", 1, TakenOver), []string{RuleTakeover}},
		{"kicked by nobody", (&script{}).up("a", 1, Never, false).lost("a", 1, TakenOver), []string{RuleTakeover}},

		{"shared", groupOf("s", "u").pub("p", 1, 1, 1).got("s", 1, 1, 1, false).pub("p", 1, 2, 1).got("u", 1, 2, 1, false), nil},
		{"shared, to both", groupOf("s", "u").pub("p", 1, 1, 1).got("s", 1, 1, 1, false).got("u", 1, 1, 1, false), []string{RuleShared}},
		{"shared, to none", groupOf("s", "u").pub("p", 1, 1, 1), []string{RuleShared}},
		{"shared, to another after the first went away", groupOf("s", "u").pub("p", 1, 1, 1).got("s", 1, 1, 1, false).lost("s", 1, 0).
			got("u", 1, 1, 1, true), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Check(tt.run.events, Options{})
			var rules []string
			for _, v := range r.Violations {
				rules = append(rules, v.Rule)
				if len(v.Events) == 0 {
					t.Errorf("%s: no events show it", v.Rule)
				}
			}
			if fmt.Sprint(rules) != fmt.Sprint(tt.rules) {
				t.Errorf("broken: %q, want %q\n%s", rules, tt.rules, r)
			}
		})
	}
}

// groupOf is a publisher p and members of a shared subscription.
func groupOf(members ...string) *script {
	s := (&script{}).up("p", 1, Never, false)
	for _, m := range members {
		s.up(m, 1, Never, false).sub(m, 1, "$share/g/t", 1)
	}
	return s
}

func TestCheckWantsResults(t *testing.T) {
	run := begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).pass(time.Second).pub("p", 1, 2, 1).got("s", 1, 2, 1, false)
	for _, tt := range []struct {
		options Options
		ok      bool
	}{
		{Options{MinAcked: 2, MinOwed: 2, MaxSilence: 2 * time.Second}, true},
		{Options{MinAcked: 3}, false},
		{Options{MinOwed: 3}, false},
		{Options{MaxSilence: time.Millisecond}, false},
	} {
		if r := Check(run.events, tt.options); r.OK() != tt.ok {
			t.Errorf("%+v: OK is %t, want %t:\n%s", tt.options, r.OK(), tt.ok, r)
		}
	}
}

func TestCheckQoS0OnDemand(t *testing.T) {
	run := begun(1).sent("p", 1, 1, 0, false)
	if r := Check(run.events, Options{}); !r.OK() {
		t.Errorf("QoS 0 may be lost:\n%s", r)
	}
	if r := Check(run.events, Options{QoS0: true}); r.OK() {
		t.Error("QoS 0 was lost and demanded")
	}
}

func TestCheckSettled(t *testing.T) {
	run := begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).add("s", 1, Event{Kind: ReceiveAcked, Message: "p/1"}).
		pass(time.Second).lost("s", 1, 0).up("s", 2, Never, true).got("s", 2, 1, 1, true)
	if r := Check(run.events, Options{Settled: 2 * time.Second}); !r.OK() {
		t.Errorf("a repetition within the time is allowed:\n%s", r)
	}
	if r := Check(run.events, Options{Settled: time.Second / 2}); r.OK() {
		t.Error("a repetition long after the acknowledgement is not found")
	}
	run = begun(1).pub("p", 1, 1, 1).got("s", 1, 1, 1, false).add("s", 1, Event{Kind: ReceiveAcked, Message: "p/1"}).fault("x").
		pass(time.Second).lost("s", 1, 0).mended("x").up("s", 2, Never, true).got("s", 2, 1, 1, true)
	if r := Check(run.events, Options{Settled: time.Second / 2}); !r.OK() {
		t.Errorf("a repetition is allowed where a fault may have kept the acknowledgement out of the log:\n%s", r)
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/+", "a/b", true}, {"a/+", "a/b/c", false}, {"a/+", "a", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"#", "a/b", true}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false},
		{"$SYS/#", "$SYS/x", true}, {"+", "", true}, {"+/+", "/", true}, {"/+", "/a", true}, {"a", "a/", false},
	} {
		if got := matches(tt.filter, tt.topic); got != tt.want {
			t.Errorf("matches(%q, %q) = %t", tt.filter, tt.topic, got)
		}
	}
}
