package routing

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Topics finds what it was asked for of late, is bounded, and forgets what was not
// asked for while as many others were.
func TestTopicsKeepsWhatIsUsed(t *testing.T) {
	k := Topics[int]{Places: 16}
	kept := k.GetBytes([]byte("kept"))
	kept.Value = 7
	for i := range 1000 {
		topic := fmt.Sprint("t/", i)
		m := k.Get(topic)
		if m.Name != topic || m.Value != 0 || k.GetBytes([]byte(topic)) != m {
			t.Fatalf("%q is %q with %d", topic, m.Name, m.Value)
		}
		if i%4 == 0 && k.Get("kept") != kept {
			t.Fatalf("after %d others what was used all the time is forgotten", i)
		}
		if k.Len() > 12 {
			t.Fatalf("%d topics are kept", k.Len())
		}
	}
	before := k.Get("t/1")
	for i := range 40 {
		k.Get(fmt.Sprint("u/", i))
	}
	if k.Get("t/1") == before {
		t.Error("what was not used is kept")
	}
}

// Of topics that come in turn, more than there are places for, some stay known.
func TestTopicsInTurn(t *testing.T) {
	k := Topics[bool]{Places: 64}
	known := 0
	for i := range 1000 {
		m := k.Get(fmt.Sprint("t/", i%60))
		if m.Value {
			known++
		}
		m.Value = true
	}
	if known < 250 {
		t.Errorf("%d of 1,000 were known", known)
	}
}

// Who holds a topic that is forgotten holds no others with it, in whatever order they
// came.
func TestTopicsForgottenAlone(t *testing.T) {
	k := Topics[int]{Places: 16}
	var all []*Topic[int]
	for i := range 200 {
		for range 2 {
			for j := range 8 {
				all = append(all, k.Get(fmt.Sprint("t/", i+j)))
			}
		}
	}
	for _, m := range all {
		held := map[*Topic[int]]bool{}
		for o := m.next; o != nil && !held[o]; o = o.next {
			held[o] = true
		}
		if len(held) > 16 {
			t.Fatalf("%q holds %d topics, more than there are places", m.Name, len(held))
		}
	}
}

// A topic of any length is found as long as it is the last one; only short ones are
// remembered for longer.
func TestTopicsLong(t *testing.T) {
	var k Topics[int]
	for _, n := range []int{1, shortTopic, shortTopic + 1, longTopic, longTopic + 1, MaxLength} {
		topic := []byte(strings.Repeat("x", n))
		m := k.GetBytes(topic)
		clear(topic)
		if want := strings.Repeat("x", n); m.Name != want || k.Get(want) != m {
			t.Errorf("%d bytes: the last topic is not found", n)
		}
		k.Get("other")
		if known := k.Get(strings.Repeat("x", n)) == m; known != (n <= longTopic) {
			t.Errorf("%d bytes: known is %t", n, known)
		}
	}
}

// What Topics knows of a topic is what was last remembered of it.
func TestTopicsAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := Topics[int]{Places: 1 << rapid.IntRange(3, 7).Draw(t, "places")}
		known := map[string]*Topic[int]{}
		for i := range rapid.IntRange(1, 300).Draw(t, "steps") {
			topic := fmt.Sprint(rapid.IntRange(0, 100).Draw(t, "topic"))
			m := k.Get(topic)
			if m.Name != topic {
				t.Fatalf("%q is %q", topic, m.Name)
			}
			if m.Value != 0 && known[topic] != m {
				t.Fatalf("%q is what was forgotten", topic)
			}
			if m.Value == 0 {
				known[topic] = m
			}
			m.Value = i + 1
			if k.Len()*4 > k.Places*3 {
				t.Fatalf("%d topics in %d places", k.Len(), k.Places)
			}
		}
	})
}

func BenchmarkTopics(b *testing.B) {
	for _, n := range []int{1, 1000, 100_000} {
		topics := make([][]byte, n)
		for i := range topics {
			topics[i] = fmt.Appendf(nil, "site/building/device-%d/temperature", i)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			k := Topics[[12]uint64]{Places: 1 << 18}
			for _, topic := range topics {
				k.GetBytes(topic)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k.GetBytes(topics[i%n])
			}
		})
	}
}
