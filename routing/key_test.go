package routing_test

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mqcluster/mqcluster/routing"
	"pgregory.net/rapid"
)

func TestTopicKeyIsOrderedAndInvertible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genTopic.Draw(t, "a"), genTopic.Draw(t, "b")
		ka, kb := routing.AppendTopicKey(nil, a), routing.AppendTopicKey(nil, b)
		if got, want := bytes.Compare(ka, kb), slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")); got != want {
			t.Fatalf("keys of %q and %q compare %d, want %d", a, b, got, want)
		}
		if back, err := routing.TopicFromKey(ka); err != nil || back != a {
			t.Fatalf("%q came back as %q, %v", a, back, err)
		}
	})
}

func FuzzTopicFromKey(f *testing.F) {
	f.Add([]byte("a\x01b"))
	f.Add([]byte("a\x02\x01"))
	f.Add([]byte("a\x02"))
	f.Fuzz(func(t *testing.T, key []byte) {
		topic, err := routing.TopicFromKey(key)
		if err == nil && !bytes.Equal(routing.AppendTopicKey(nil, topic), key) {
			t.Fatalf("%q decodes to %q, which has another key", key, topic)
		}
	})
}

// sortedKeys is a store of topics.
func sortedKeys(topics []string) []string {
	keys := make([]string, len(topics))
	for i, topic := range topics {
		keys[i] = string(routing.AppendTopicKey(nil, topic))
	}
	sort.Strings(keys)
	return slices.Compact(keys)
}

// scan drives a TopicScan over keys as a store would and counts.
func scan(t interface{ Fatalf(string, ...any) }, filter string, keys []string) (matches []string, seeks, steps int) {
	s := routing.NewTopicScan(filter)
	i := sort.SearchStrings(keys, string(s.Start()))
	for seeks = 1; i < len(keys); {
		match, seek, done := s.Next([]byte(keys[i]))
		if match {
			topic, err := routing.TopicFromKey([]byte(keys[i]))
			if err != nil {
				t.Fatalf("%v", err)
			}
			matches = append(matches, topic)
		}
		if done {
			break
		}
		if seek == nil {
			i++
			steps++
			continue
		}
		if string(seek) <= keys[i] {
			t.Fatalf("filter %q at %q seeks back to %q", filter, keys[i], seek)
		}
		i = sort.SearchStrings(keys, string(seek))
		seeks++
	}
	return matches, seeks, steps
}

func TestTopicScanAgreesWithMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		topics := rapid.SliceOfN(genTopic, 0, 60).Draw(t, "topics")
		filter := genFilter.Draw(t, "filter")
		var want []string
		for _, topic := range topics {
			if oracle(filter, topic) {
				want = append(want, topic)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		got, seeks, steps := scan(t, filter, sortedKeys(topics))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("filter %q over %q: got %q, want %q", filter, topics, got, want)
		}
		if seeks+steps > len(topics)+1 {
			t.Fatalf("filter %q: %d seeks and %d steps over %d topics", filter, seeks, steps, len(topics))
		}
	})
}

// All topics of up to three levels of an alphabet with all the special bytes,
// against all filters of up to three levels.
func TestTopicScanExhaustive(t *testing.T) {
	topics := joined([]string{"", "a", "a\x01", "\x02", "$", "b"}, 3)
	keys := sortedKeys(topics)
	for _, filter := range joined([]string{"", "a", "a\x01", "\x02", "$", "+", "#"}, 3) {
		if routing.ValidFilter(filter) != nil {
			continue
		}
		want := []string{}
		for _, topic := range topics {
			if oracle(filter, topic) {
				want = append(want, topic)
			}
		}
		got, _, _ := scan(t, filter, keys)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("filter %q:\n%s", filter, cmp.Diff(want, got))
		}
	}
}

func joined(levels []string, n int) []string {
	all, last := []string{}, []string{""}
	for i := range n {
		var next []string
		for _, p := range last {
			for _, l := range levels {
				if i > 0 {
					l = p + "/" + l
				}
				next = append(next, l)
			}
		}
		all, last = append(all, next...), next
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// What a filter costs on 100 sites of 100 devices of 10 topics each.
func TestTopicScanSeeks(t *testing.T) {
	var topics []string
	for site := range 100 {
		for dev := range 100 {
			for v := range 10 {
				topics = append(topics, fmt.Sprintf("park/s%02d/d%02d/v%d", site, dev, v))
			}
		}
	}
	for s := range 1000 {
		topics = append(topics, fmt.Sprintf("$SYS/x/%d", s))
	}
	keys := sortedKeys(topics)
	for _, c := range []struct {
		filter              string
		matches, seeks, all int // at most: seeks, and seeks and steps
	}{
		{"park/s07/d07/v7", 1, 1, 1},
		{"park/s07/d07/none", 0, 1, 2},
		{"nothing/here", 0, 1, 2},
		{"park/s07/#", 1000, 1, 1001},
		{"park/s07/d07/+", 10, 1, 11},
		{"park/s07/+/v3", 100, 201, 202},
		{"park/+/d05/v3", 100, 201, 202},
		{"park/+/d05/none", 0, 201, 302},
		{"park/+/+", 0, 10101, 10202},
		{"#", 100000, 2, 100002},
		{"+", 0, 3, 4},
		{"$SYS/#", 1000, 1, 1001},
	} {
		got, seeks, steps := scan(t, c.filter, keys)
		if len(got) != c.matches || seeks > c.seeks || seeks+steps > c.all {
			t.Errorf("%s: %d matches, %d seeks, %d steps; want %d matches, at most %d seeks, %d in all",
				c.filter, len(got), seeks, steps, c.matches, c.seeks, c.all)
		}
	}
}
