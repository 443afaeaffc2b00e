package history

import (
	"fmt"
	"testing"
	"time"
)

// bears connects with a will, whose topic is "w" and name w/number of the
// connection.
func (s *script) bears(node, client string, conn int, delay, expiry uint32, present bool) *script {
	name, _, _ := cutName(client)
	return s.add(client, conn, Event{Kind: ConnectSent, Version: 5, Clean: expiry == 0, Expiry: expiry, Node: node, Message: fmt.Sprintf("%s/will-%d", name, conn),
		Topic: "w", QoS: 1, Delay: delay}).add(client, conn, Event{Kind: Connected, Present: present, Node: node})
}

func cutName(client string) (history, id string, two bool) {
	for i := range client {
		if client[i] == '=' {
			return client[:i], client[i+1:], true
		}
	}
	return client, client, false
}

// sees has the witness receive a will.
func (s *script) sees(name string) *script {
	return s.add("witness", 1, Event{Kind: Received, Message: name, Topic: "w", QoS: 1, PacketID: uint16(len(s.events))})
}

// last has time pass until everything is drained.
func (s *script) last() *script { return s.pass(5*time.Minute).drained("witness", 1) }

func TestCheckWills(t *testing.T) {
	// begun is a witness, and b with a will at node a.
	begun := func(delay, expiry uint32) *script {
		return (&script{}).upAt("b", "x", 1, 0, false).upAt("c", "witness", 1, Never, false).sub("witness", 1, "w", 1).bears("a", "b", 1, delay, expiry, false)
	}
	const second = time.Second
	cut := Event{Kind: Cut}
	broken := []string{RuleWill}
	rule(t, []ruling{
		{"DISCONNECT", begun(0, 0).left("b", 1, 0).last(), nil, Options{}},
		{"DISCONNECT, and fired", begun(0, 0).left("b", 1, 0).sees("b/will-1").last(), broken, Options{}},
		{"DISCONNECT that a dying node may not have heard", begun(0, 0).left("b", 1, 0).noted(Killed, "a").sees("b/will-1").last(), nil, Options{}},
		{"DISCONNECT at a node, another one dies", begun(0, 0).left("b", 1, 0).noted(Killed, "c").sees("b/will-1").last(), broken, Options{}},
		{"DISCONNECT at a node, both others die", begun(0, 0).left("b", 1, 0).noted(Killed, "c").noted(Killed, "b").sees("b/will-1").last(), nil, Options{}},
		{"DISCONNECT with will", begun(0, 0).add("b", 1, Event{Kind: Disconnected, Reason: withWill}).sees("b/will-1").last(), nil, Options{}},
		{"DISCONNECT with will, and not fired", begun(0, 0).add("b", 1, Event{Kind: Disconnected, Reason: withWill}).last(), broken, Options{}},
		{"cut", begun(0, 60).add("b", 1, cut).sees("b/will-1").last(), nil, Options{}},
		{"cut, and not fired", begun(0, 60).add("b", 1, cut).last(), broken, Options{}},
		{"cut, and no time left", begun(0, 60).add("b", 1, cut).pass(2*second).drained("witness", 1), nil, Options{}},
		{"cut, and no time left after a fault", begun(0, 60).fault("c").add("b", 1, cut).mended("c").pass(20*second).drained("witness", 1), nil, Options{}},
		{"cut, and fired late", begun(0, 60).add("b", 1, cut).pass(5 * second).sees("b/will-1").last(), broken, Options{}},
		{"cut, and fired late because of a fault", begun(0, 60).fault("c").add("b", 1, cut).mended("c").pass(9 * second).sees("b/will-1").last(), nil, Options{}},
		{"cut, and fired twice", begun(0, 60).add("b", 1, cut).sees("b/will-1").sees("b/will-1").last(), broken, Options{}},
		{"fired while it was connected", begun(0, 60).sees("b/will-1").pass(second).add("b", 1, cut).last(), broken, Options{}},
		{"fired while it is connected", begun(0, 60).sees("b/will-1").last(), broken, Options{}},
		{"lost", begun(0, 60).lost("b", 1, 0).last(), broken, Options{}},
		{"kept alive by nobody", begun(0, 60).lost("b", 1, 0x8d).last(), nil, Options{}},

		{"delayed", begun(10, 60).add("b", 1, cut).pass(10 * second).sees("b/will-1").last(), nil, Options{}},
		{"delayed, and too soon", begun(10, 60).add("b", 1, cut).pass(8 * second).sees("b/will-1").last(), broken, Options{}},
		{"delayed, and the session ends before", begun(100, 10).add("b", 1, cut).pass(10 * second).sees("b/will-1").last(), nil, Options{}},
		{"delayed, and the session's expiry was changed", begun(100, 60).add("b", 1, Event{Kind: Disconnected, Reason: withWill, Expiry: 10}).
			pass(10 * second).sees("b/will-1").last(), nil, Options{}},
		{"back in time", begun(10, 60).add("b", 1, cut).pass(5*second).bears("c", "b", 2, 10, 60, true).left("b", 2, 60).last(), nil, Options{}},
		{"back in time, and fired", begun(10, 60).add("b", 1, cut).pass(5*second).bears("c", "b", 2, 10, 60, true).left("b", 2, 60).
			pass(10 * second).sees("b/will-1").last(), broken, Options{}},
		{"back too late", begun(10, 60).add("b", 1, cut).pass(40*second).bears("c", "b", 2, 10, 60, true).left("b", 2, 60).last(), broken, Options{}},
		{"back seconds after it was due", begun(10, 60).add("b", 1, cut).pass(15*second).bears("c", "b", 2, 10, 60, true).left("b", 2, 60).last(), broken, Options{}},
		{"back seconds after it was due, beside a fault", begun(10, 60).add("b", 1, cut).pass(5*second).fault("c").mended("c").pass(10*second).
			bears("c", "b", 2, 10, 60, true).left("b", 2, 60).last(), nil, Options{}},
		{"back just then", begun(10, 60).add("b", 1, cut).pass(10*second).bears("c", "b", 2, 10, 60, true).left("b", 2, 60).last(), nil, Options{}},
		{"back in time, and clean", begun(10, 60).add("b", 1, cut).pass(5*second).bears("c", "b", 2, 0, 0, false).left("b", 2, 0).last(), broken, Options{}},
		{"back in time, with no answer", begun(10, 60).add("b", 1, cut).pass(5*second).ask("b", 2, 60).last(), nil, Options{}},

		{"taken over", begun(0, 60).bears("c", "x=b", 1, 0, 60, true).lost("b", 1, TakenOver).sees("b/will-1").left("x=b", 1, 60).last(), nil, Options{}},
		{"taken over, and not fired", begun(0, 60).bears("c", "x=b", 1, 0, 60, true).lost("b", 1, TakenOver).left("x=b", 1, 60).last(), broken, Options{}},
		{"taken over without an answer, and told later", begun(0, 60).ask("x=b", 1, 60).sees("b/will-1").pass(5*second).bears("c", "x=b", 2, 0, 60, true).
			lost("b", 1, TakenOver).left("x=b", 2, 60).last(), nil, Options{}},
		{"fired before anybody asked for its id", begun(0, 60).sees("b/will-1").pass(5*second).ask("x=b", 1, 60).bears("c", "x=b", 2, 0, 60, true).
			lost("b", 1, TakenOver).left("x=b", 2, 60).last(), broken, Options{}},
		{"taken over, and cancelled", begun(10, 60).bears("c", "x=b", 1, 0, 60, true).lost("b", 1, TakenOver).left("x=b", 1, 60).last(), nil, Options{}},
		{"taken over, and not cancelled", begun(10, 60).bears("c", "x=b", 1, 0, 60, true).lost("b", 1, TakenOver).left("x=b", 1, 60).pass(10 * second).sees("b/will-1").last(), broken, Options{}},
		{"taken over by a clean start", begun(10, 60).bears("c", "x=b", 1, 0, 0, false).lost("b", 1, TakenOver).left("x=b", 1, 0).last(), broken, Options{}},

		{"node killed", begun(0, 60).noted(Killed, "a").lost("b", 1, 0).pass(20 * second).sees("b/will-1").last(), nil, Options{}},
		{"node killed, and not fired", begun(0, 60).noted(Killed, "a").pass(second).lost("b", 1, 0).noted(Restarted, "a").last(), broken, Options{}},
		{"node killed, and back in time", begun(20, 60).noted(Killed, "a").lost("b", 1, 0).bears("c", "b", 2, 20, 60, true).left("b", 2, 60).last(), nil, Options{}},
		{"node killed, back in time, and fired", begun(20, 60).noted(Killed, "a").lost("b", 1, 0).bears("c", "b", 2, 20, 60, true).left("b", 2, 60).
			pass(second).sees("b/will-1").last(), broken, Options{}},
		{"node cut off, fired before its client knew", begun(0, 60).fault("a").pass(10*second).sees("b/will-1").pass(10*second).lost("b", 1, shuttingDown).last(), nil, Options{}},
		{"node cut off, and too soon", begun(10, 60).fault("a").pass(5*second).sees("b/will-1").pass(10*second).lost("b", 1, shuttingDown).last(), broken, Options{}},
		{"node cut off, sends its client away and is killed", begun(0, 60).fault("a").pass(10*second).lost("b", 1, shuttingDown).noted(Killed, "a").
			bears("c", "b", 2, 0, 60, true).left("b", 2, 60).last(), nil, Options{}},
		{"node cut off, and not fired", begun(0, 60).fault("a").pass(10*second).lost("b", 1, shuttingDown).last(), nil, Options{}},

		{"drained, and back in time", begun(0, 60).noted(Draining, "a").lost("b", 1, shuttingDown).pass(second).bears("c", "b", 2, 0, 60, true).left("b", 2, 60).last(), nil, Options{}},
		{"drained, back in time, and fired", begun(0, 60).noted(Draining, "a").lost("b", 1, shuttingDown).pass(second).bears("c", "b", 2, 0, 60, true).left("b", 2, 60).
			sees("b/will-1").last(), broken, Options{}},
		{"drained long after a fault, back in time, and fired", begun(0, 60).fault("a").mended("a").pass(100*second).noted(Draining, "a").lost("b", 1, shuttingDown).
			bears("c", "b", 2, 0, 60, true).left("b", 2, 60).sees("b/will-1").last(), broken, Options{}},
		{"drained with a clean session, back in time, and fired", begun(0, 0).noted(Draining, "a").lost("b", 1, useAnother).pass(second).bears("c", "b", 2, 0, 0, false).left("b", 2, 0).
			sees("b/will-1").last(), broken, Options{}},
		{"drained, and back too late", begun(0, 60).noted(Draining, "a").lost("b", 1, shuttingDown).pass(70*second).bears("c", "b", 2, 0, 60, false).left("b", 2, 60).
			sees("b/will-1").last(), nil, Options{}},

		{"refused, and fired", (&script{}).up("witness", 1, Never, false).sub("witness", 1, "w", 1).add("b", 1, Event{Kind: ConnectSent, Message: "b/will-1", Topic: "w", QoS: 1}).
			add("b", 1, Event{Kind: Refused, Reason: 0x88}).sees("b/will-1").last(), broken, Options{}},
		{"no answer, and fired", (&script{}).up("witness", 1, Never, false).sub("witness", 1, "w", 1).add("b", 1, Event{Kind: ConnectSent, Message: "b/will-1", Topic: "w", QoS: 1}).
			sees("b/will-1").last(), nil, Options{}},
		{"another payload", begun(0, 60).add("b", 1, cut).add("witness", 1, Event{Kind: Received, Message: "b/will-1", Topic: "w", QoS: 1, Sum: 9}).last(), []string{RuleForged, RuleWill}, Options{}},
	})
}
