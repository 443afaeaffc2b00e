package history

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// sets writes a retained value of topic r, clears it if name ends with "-".
func (s *script) sets(client, name string) *script {
	return s.add(client, 1, Event{Kind: PublishSent, Message: name, Topic: "r", QoS: 1, Retain: true, Clear: clears(name)})
}

func clears(name string) bool { return name[len(name)-1] == '-' }

func (s *script) done(client, name string) *script {
	return s.add(client, 1, Event{Kind: PublishAcked, Message: name})
}

func (s *script) set(client, name string) *script { return s.sets(client, name).done(client, name) }

// value receives a value of topic r.
func (s *script) value(client, name string, retain bool) *script {
	return s.add(client, 1, Event{Kind: Received, Message: name, Topic: "r", QoS: 1, Retain: retain, Clear: name == "" || clears(name), PacketID: uint16(len(s.events))})
}

// read has a new client read; "" is none.
func (s *script) read(client, name string, clean bool) *script {
	expiry := uint32(5)
	if clean {
		expiry = 0
	}
	s.up(client, 1, expiry, false).sub(client, 1, "r", 1)
	if name != "" {
		s.value(client, name, true)
	}
	return s.add(client, 1, Event{Kind: ReadDone, Topic: "r"}).left(client, 1, expiry)
}

// manyClears are clears of which nobody knows whether they were done, or will be.
func manyClears(s *script) *script {
	for i := range 40 {
		s.set("w", fmt.Sprintf("1%d", i)).sets("v", fmt.Sprintf("%d-", i)).read(fmt.Sprintf("r%d", i), fmt.Sprintf("1%d", i), false)
	}
	return s.set("w", "1")
}

func TestCheckRetained(t *testing.T) {
	begin := func() *script { return (&script{}).up("w", 1, 0, false).up("v", 1, 0, false) }
	watch := func(names ...string) *script {
		s := begin()
		for _, n := range names {
			s.up(n, 1, Never, false).sub(n, 1, "r", 1)
		}
		return s
	}
	broken := []string{RuleRetained}
	rule(t, []ruling{
		{"none, a value, another, a clear", begin().read("a", "", false).set("w", "1").read("b", "1", false).set("v", "2").read("c", "2", true).set("w", "3-").read("d", "", false), nil, Options{}},
		{"an old value", begin().set("w", "1").set("w", "2").read("a", "1", false), broken, Options{}},
		{"an old value, clean", begin().set("w", "1").set("w", "2").read("a", "1", true), broken, Options{}},
		{"none, though there is one", begin().set("w", "1").read("a", "", false), broken, Options{}},
		{"a value that was cleared", begin().set("w", "1").set("w", "2-").read("a", "1", false), broken, Options{}},
		{"none after an unknown clear, and back", begin().set("w", "1").sets("w", "2-").read("a", "", false).read("b", "1", false), broken, Options{}},
		{"unknown, and never seen", begin().set("w", "1").sets("w", "2").read("a", "1", false).read("b", "1", false), nil, Options{}},
		{"unknown, and seen late", begin().set("w", "1").sets("w", "2").read("a", "1", false).read("b", "2", false), nil, Options{}},
		{"unknown, seen, and gone", begin().set("w", "1").sets("w", "2").read("a", "2", false).read("b", "1", false), broken, Options{}},
		{"unknown clear, and late", begin().set("w", "1").sets("w", "2-").read("a", "1", false).read("b", "", false), nil, Options{}},
		{"unknown clear, and later than its client's next connection", begin().set("w", "1").sets("w", "2-").lost("w", 1, 0).up("w", 2, 0, false).
			read("a", "1", false).read("b", "", false), broken, Options{}},
		{"refused, and seen", begin().sets("w", "1").add("w", 1, Event{Kind: PublishAcked, Message: "1", Reason: 0x97}).read("a", "1", false), []string{RuleForged, RuleRetained}, Options{}},
		{"two at once, in either order", begin().sets("w", "1").sets("v", "2").done("w", "1").done("v", "2").read("a", "1", false), nil, Options{}},
		{"two at once, and both orders", begin().sets("w", "1").sets("v", "2").done("w", "1").done("v", "2").read("a", "1", false).read("b", "2", false), broken, Options{}},
		{"a change in place of what it replaced", begin().set("w", "1").sets("w", "2").up("a", 1, 5, false).sub("a", 1, "r", 1).value("a", "2", false).
			add("a", 1, Event{Kind: ReadDone, Topic: "r"}).done("w", "2"), nil, Options{}},
		{"many unknown clears, and none that anybody saw", manyClears(begin()).set("w", "2").read("a", "1", false), broken, Options{}},
		{"a will sets it", begin().set("w", "1").add("b", 1, Event{Kind: ConnectSent, Message: "will", Topic: "r", QoS: 1, Retain: true}).add("b", 1, Event{Kind: Connected}).
			add("b", 1, Event{Kind: Cut}).read("a", "1", false).read("c", "will", false), nil, Options{}},

		{"stays and has the newest", watch("s").set("w", "1").value("s", "1", false).set("w", "2").value("s", "2", false).drained("s", 1), nil, Options{}},
		{"stays and has an older one", watch("s").set("w", "1").set("v", "2").value("s", "2", false).value("s", "1", false).drained("s", 1), []string{RuleRetained}, Options{}},
		{"comes later and has an older one", begin().set("w", "1").set("w", "2").up("s", 1, Never, false).sub("s", 1, "r", 1).value("s", "1", true).drained("s", 1), broken, Options{}},
		{"comes later and has none", begin().set("w", "1").up("s", 1, Never, false).sub("s", 1, "r", 1).drained("s", 1), broken, Options{}},
		{"comes later and has none after a clear", begin().set("w", "1").set("w", "2-").up("s", 1, Never, false).sub("s", 1, "r", 1).drained("s", 1), nil, Options{}},
		{"an old one, and then the newest", begin().set("w", "1").set("w", "2").up("s", 1, Never, false).sub("s", 1, "r", 1).value("s", "1", true).value("s", "2", false).drained("s", 1), nil, Options{}},
		{"a clear without a name, and newest", watch("s").set("w", "1").value("s", "1", false).add("v", 1, Event{Kind: PublishSent, Message: "2-", Topic: "r", QoS: 1, Retain: true, Clear: true}).
			done("v", "2-").value("s", "", false).value("s", "2-", false).drained("s", 1), nil, Options{}},
		{"a clear that nobody sent", watch("s").set("w", "1").value("s", "", false).value("s", "1", false).drained("s", 1), []string{RuleForged}, Options{}},
		{"twice, retained and live", begin().up("s", 1, Never, false).add("s", 1, Event{Kind: SubscribeSent, Filter: "r", QoS: 1}).set("w", "1").
			add("s", 1, Event{Kind: Subscribed, Filter: "r", QoS: 1}).value("s", "1", true).value("s", "1", false), broken, Options{}},
		{"again for another SUBSCRIBE", begin().set("w", "1").up("s", 1, Never, false).sub("s", 1, "r", 1).value("s", "1", true).sub("s", 1, "r", 1).value("s", "1", true), nil, Options{}},
		{"again after the connection", begin().set("w", "1").up("s", 1, Never, false).sub("s", 1, "r", 1).value("s", "1", true).lost("s", 1, 0).up("s", 2, Never, true).
			add("s", 2, Event{Kind: Received, Message: "1", Topic: "r", QoS: 1, Retain: true, PacketID: 99}), nil, Options{}},

		{"two orders", watch("s", "u").sets("w", "1").sets("v", "2").done("w", "1").done("v", "2").value("s", "1", false).value("s", "2", false).
			value("u", "2", false).value("u", "1", false), broken, Options{}},
		{"one order, and gaps", watch("s", "u").sets("w", "1").sets("v", "2").value("s", "1", false).value("s", "2", false).
			value("u", "2", false), nil, Options{}},
	})
}

// account changes and logins of the user ada, by one driver.
func (s *script) asks(seq int, verb, secret string) *script {
	return s.add("", 0, Event{Kind: UserAsked, History: "u", User: "ada", Note: verb, Secret: secret, Seq: seq})
}

func (s *script) changed(seq int, verb, secret string, reason byte) *script {
	s.asks(seq, verb, secret).add("", 0, Event{Kind: UserDone, User: "ada", Seq: seq, Reason: reason})
	return s
}

func (s *script) login(seq int, secret string, reason byte) *script {
	return s.add("", 0, Event{Kind: LoginAsked, User: "ada", Secret: secret, Seq: seq}).add("", 0, Event{Kind: LoginDone, User: "ada", Seq: seq, Reason: reason})
}

func TestCheckUsers(t *testing.T) {
	begin := func() *script { return (&script{}).changed(1, "add", "one", 0).login(2, "one", 0) }
	const wrong = 0x86
	broken := []string{RuleUsers}
	rule(t, []ruling{
		{"before it is there", (&script{}).login(1, "one", wrong).changed(2, "add", "one", 0).login(3, "one", 0), nil, Options{}},
		{"all verbs", begin().changed(3, "passwd", "two", 0).login(4, "one", wrong).login(5, "two", 0).changed(6, "disable", "", 0).login(7, "two", 0x87).
			changed(8, "enable", "", 0).login(9, "two", 0).changed(10, "rm", "", 0).login(11, "two", wrong), nil, Options{}},
		{"the old password after a change", begin().changed(3, "passwd", "two", 0).login(4, "one", 0), broken, Options{}},
		{"the new password refused", begin().changed(3, "passwd", "two", 0).login(4, "two", wrong), broken, Options{}},
		{"a disabled user", begin().changed(3, "disable", "", 0).login(4, "one", 0), broken, Options{}},
		{"a removed user", begin().changed(3, "rm", "", 0).login(4, "one", 0), broken, Options{}},
		{"a node without a lease", begin().login(3, "one", 0x88), nil, Options{}},
		{"unknown, and not done", begin().changed(3, "passwd", "two", 0xff).login(4, "one", 0), nil, Options{}},
		{"unknown, and done later", begin().changed(3, "passwd", "two", 0xff).login(4, "one", 0).login(5, "two", 0).login(6, "one", wrong), nil, Options{}},
		{"unknown, done, and undone", begin().changed(3, "passwd", "two", 0xff).login(4, "two", 0).login(5, "one", 0), broken, Options{}},
		{"added twice", begin().changed(3, "add", "two", 0), broken, Options{}},
		{"added after an unknown removal", begin().changed(3, "rm", "", 0xff).changed(4, "add", "two", 0).login(5, "two", 0), nil, Options{}},
		{"no end of the change", begin().asks(3, "passwd", "two").login(4, "two", 0), nil, Options{}},
	})
}

// What the search says of random histories of a register is what trying all
// orders says.
func TestLinearize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ops []*operation
		for i := range rapid.IntRange(1, 7).Draw(t, "operations") {
			call := rapid.IntRange(0, 20).Draw(t, "call")
			o := &operation{call: time.Duration(2 * call), done: time.Duration(2*(call+rapid.IntRange(0, 8).Draw(t, "lasts")) + 1)}
			v := fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "value"))
			if o.read = i > 0 && rapid.Bool().Draw(t, "read"); o.read {
				o.input = value(v)
			} else if o.input = wrote(v); rapid.Bool().Draw(t, "maybe") {
				if o.maybe = true; rapid.Bool().Draw(t, "open") {
					o.done = forever
				}
			}
			ops = append(ops, o)
		}
		r := register{initial: "", step: stepValue}
		want := disordered
		if permute(r, "", ops, nil) {
			want = ordered
		}
		c := &check{options: Options{}.withDefaults()}
		c.judgeRegister(RuleRetained, "r", r, ops)
		if got := len(c.report.Violations); (got == 0) != (want == ordered) {
			t.Fatalf("%d violations, all orders say %v", got, want)
		}
	})
}

// permute tries every order.
func permute(r register, state any, left, gone []*operation) bool {
	open := true
	for _, o := range left {
		open = open && o.done == forever
	}
	if open {
		return true // they never happened
	}
next:
	for i, o := range left {
		for _, p := range left {
			if p.done < o.call {
				continue next
			}
		}
		rest := append(append([]*operation{}, left[:i]...), left[i+1:]...)
		for _, to := range r.step(state, o.input) {
			if permute(r, to, rest, append(gone, o)) {
				return true
			}
		}
		if o.maybe && permute(r, state, rest, append(gone, o)) {
			return true
		}
	}
	return false
}

// A register as a plan of 90 s makes it, with writes whose outcome nobody knows, is
// judged well within JudgeTime, whether its last read is right or wrong.
func TestRegisterOfAPlan(t *testing.T) {
	for _, tt := range []struct {
		name  string
		every int           // which write has an unknown one beside it
		open  time.Duration // how long that may yet be done
		last  string
		want  outcome
	}{
		{"right", 10, 40, "w299", ordered},
		{"wrong", 10, 40, "w298", disordered},
		{"right, with writes that may come at any time", 10, forever, "w299", ordered},
		{"wrong, with some writes that may come at any time", 50, forever, "w298", disordered},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ops []*operation
			for i := range 300 {
				at := time.Duration(10 * i)
				ops = append(ops, &operation{call: at, done: at + 7, input: wrote(fmt.Sprintf("w%d", i))})
				if i%tt.every == 7 {
					o := &operation{call: at + 1, done: forever, maybe: true, input: wrote("")}
					if tt.open < forever {
						o.done = o.call + tt.open
					}
					ops = append(ops, o)
				}
				ops = append(ops, &operation{call: at + 8, done: at + 9, read: true, input: value(fmt.Sprintf("w%d", i))})
			}
			ops = append(ops, &operation{call: 3000, done: 3001, read: true, input: value(tt.last)})
			start := time.Now()
			if got := linearize(register{initial: "", step: stepValue}, ops, Options{}.withDefaults().JudgeTime); got != tt.want {
				t.Errorf("%v after %v, not %v", got, time.Since(start), tt.want)
			}
		})
	}
}

// A search that is not done in time is no pass.
func TestUndecided(t *testing.T) {
	var ops []*operation
	for i := range 400 {
		ops = append(ops, &operation{call: 0, done: 10, input: wrote(fmt.Sprint(i % 40))})
	}
	for i := range 60 {
		ops = append(ops, &operation{call: 0, done: time.Duration(11 + i), read: true, input: value("never")})
	}
	c := &check{options: Options{JudgeTime: 20 * time.Millisecond}.withDefaults()}
	c.judgeRegister(RuleRetained, "r", register{initial: "", step: stepValue}, ops)
	if len(c.report.Violations) != 1 || c.report.Violations[0].Rule != RuleUndecided {
		t.Errorf("%v", c.report.Violations)
	}
}
