package routing_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/routing"
	"pgregory.net/rapid"
)

func TestValidTopic(t *testing.T) {
	for topic, want := range map[string]error{
		"a":                          nil,
		"/":                          nil,
		"a//b":                       nil,
		"$SYS/x":                     nil,
		"a b/ü":                      nil,
		"":                           routing.ErrEmpty,
		"a/+":                        routing.ErrWildcard,
		"a#":                         routing.ErrWildcard,
		"a\x00":                      routing.ErrNUL,
		strings.Repeat("x", 65535):   nil,
		strings.Repeat("x", 65536):   routing.ErrTooLong,
		strings.Repeat("/", 127):     nil,
		strings.Repeat("/", 128):     routing.ErrTooDeep,
		"x" + strings.Repeat("/", 3): nil,
	} {
		if err := routing.ValidTopic(topic); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("ValidTopic(%.20q) = %v, want %v", topic, err, want)
		}
	}
}

func TestValidFilter(t *testing.T) {
	for filter, want := range map[string]error{
		"a": nil, "+": nil, "#": nil, "/": nil, "+/+": nil, "+/#": nil, "a/+/b/#": nil, "/#": nil, "//+": nil,
		"$SYS/#": nil, "$share": nil, "$share/g/#": nil, "$share/g//": nil, "$share/g/a/+": nil, "$shared/+": nil,
		"":                                       routing.ErrEmpty,
		"a#":                                     routing.ErrMultiEnd,
		"a/#/b":                                  routing.ErrMultiEnd,
		"#/":                                     routing.ErrMultiEnd,
		"##":                                     routing.ErrMultiEnd,
		"+#":                                     routing.ErrMultiEnd,
		"a+":                                     routing.ErrPlusLevel,
		"a/+b":                                   routing.ErrPlusLevel,
		"++":                                     routing.ErrPlusLevel,
		"a\x00b":                                 routing.ErrNUL,
		"$share/":                                routing.ErrShareName,
		"$share//a":                              routing.ErrShareName,
		"$share/g":                               routing.ErrShareName,
		"$share/+/a":                             routing.ErrShareName,
		"$share/g#/a":                            routing.ErrShareName,
		"$share/g\x00/a":                         routing.ErrNUL,
		"$share/g/":                              routing.ErrEmpty,
		"$share/g/a#":                            routing.ErrMultiEnd,
		"$share/g/$share/h/a":                    routing.ErrNested,
		strings.Repeat("/", 128):                 routing.ErrTooDeep,
		strings.Repeat("x", 65536):               routing.ErrTooLong,
		"$share/g/" + strings.Repeat("/", 127):   nil,
		"$share/g/" + strings.Repeat("x", 65530): routing.ErrTooLong,
	} {
		if err := routing.ValidFilter(filter); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("ValidFilter(%.20q) = %v, want %v", filter, err, want)
		}
	}
}

func TestSplitShared(t *testing.T) {
	for _, c := range []struct {
		filter, group, inner string
		shared               bool
	}{
		{"$share/g/a/#", "g", "a/#", true},
		{"$share/g//a", "g", "/a", true},
		{"$share/g", "g", "", true},
		{"$share", "", "$share", false},
		{"a/b", "", "a/b", false},
	} {
		g, i, s := routing.SplitShared(c.filter)
		if g != c.group || i != c.inner || s != c.shared {
			t.Errorf("SplitShared(%q) = %q, %q, %v", c.filter, g, i, s)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true},
		{"a/b", "a/B", false},
		{"a", "a/", false},
		{"a/", "a", false},
		{"a/#", "a", true},
		{"a/#", "a/", true},
		{"a/#", "a/b/c", true},
		{"a/#", "ab", false},
		{"a/b/#", "a", false},
		{"#", "a/b", true},
		{"#", "/", true},
		{"#", "$SYS/x", false},
		{"+/x", "$SYS/x", false},
		{"$SYS/#", "$SYS/x", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/+", "$SYS/$x", true},
		{"a/+", "a/$x", true},
		{"+", "a", true},
		{"+", "/a", false},
		{"+/+", "/a", true},
		{"/+", "/a", true},
		{"+/+", "a", false},
		{"+/", "a/", true},
		{"+", "a/", false},
		{"+/#", "a", true},
		{"a/+/#", "a", false},
		{"a/+/#", "a/b", true},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a//c", true},
		{"a/+/c", "a/b/b/c", false},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
	} {
		if got := routing.Match(c.filter, c.topic); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.filter, c.topic, got)
		}
		if got := oracle(c.filter, c.topic); got != c.want {
			t.Errorf("oracle(%q, %q) = %v", c.filter, c.topic, got)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		filter, sub string
		want        bool
	}{
		{"#", "#", true},
		{"#", "a/+/#", true},
		{"#", "$SYS/#", false},
		{"#", "+/a", true},
		{"+/a", "$SYS/a", false},
		{"+/#", "#", true},
		{"+/+/#", "#", false},
		{"#", "+/#", true},
		{"+", "#", false},
		{"a/#", "a", true},
		{"a/#", "a/#", true},
		{"a/#", "a/+", true},
		{"a/#", "a/+/#", true},
		{"a/+/#", "a/#", false},
		{"a/#", "#", false},
		{"a/+", "a/#", false},
		{"a/+", "a/+", true},
		{"a/b", "a/+", false},
		{"a/+/c", "a/b/c", true},
		{"a/+/c", "a/+/c", true},
		{"a/+/c", "a/+/+", false},
		{"+/+", "a/+", true},
		{"a", "a/b", false},
		{"a/b", "a", false},
		{"a/b/#", "a", false},
		{"$SYS/#", "$SYS/+/x", true},
	} {
		if got := routing.Covers(c.filter, c.sub); got != c.want {
			t.Errorf("Covers(%q, %q) = %v", c.filter, c.sub, got)
		}
	}
}

func TestMatchAgreesWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filter, topic := genFilter.Draw(t, "filter"), genTopic.Draw(t, "topic")
		if got, want := routing.Match(filter, topic), oracle(filter, topic); got != want {
			t.Fatalf("Match(%q, %q) = %v", filter, topic, got)
		}
		if got, want := routing.Covers(filter, topic), oracle(filter, topic); got != want {
			t.Fatalf("Covers(%q, topic %q) = %v", filter, topic, got)
		}
	})
}

// Over all topics of up to four levels of a small alphabet, Covers and
// Overlaps say exactly what inclusion and intersection of the matches are.
func TestCoversAndOverlaps(t *testing.T) {
	var topics []string
	for n, last := 1, []string{"", "a", "b", "$s", "z"}; n <= 4; n++ {
		topics = append(topics, last...)
		var next []string
		for _, t := range last {
			for _, l := range []string{"", "a", "b", "$s", "z"} {
				next = append(next, t+"/"+l)
			}
		}
		last = next
	}
	topics = topics[1:] // the empty topic
	rapid.Check(t, func(t *rapid.T) {
		f, g := genShortFilter.Draw(t, "f"), genShortFilter.Draw(t, "g")
		all, some := true, false
		for _, topic := range topics {
			some = some || oracle(g, topic) && oracle(f, topic)
		}
		if got := routing.Overlaps(f, g); got != some || got != routing.Overlaps(g, f) {
			t.Fatalf("Overlaps(%q, %q) = %v, want %v", f, g, got, some)
		}
		for _, topic := range topics {
			if oracle(g, topic) && !oracle(f, topic) {
				all = false
				break
			}
		}
		if got := routing.Covers(f, g); got != all {
			t.Fatalf("Covers(%q, %q) = %v, want %v", f, g, got, all)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("a/+/#", "a/#", "a/b")
	f.Add("#", "$SYS/#", "$SYS/x")
	f.Add("+/#", "#", "/")
	f.Add("$share/g/a", "//", "/a")
	f.Fuzz(func(t *testing.T, a, b, topic string) {
		_, a, _ = routing.SplitShared(a)
		_, b, _ = routing.SplitShared(b)
		if routing.ValidTopic(topic) != nil || routing.ValidFilter(a) != nil || routing.ValidFilter(b) != nil {
			return
		}
		ma, mb := routing.Match(a, topic), routing.Match(b, topic)
		if ma != oracle(a, topic) {
			t.Fatalf("Match(%q, %q) = %v", a, topic, ma)
		}
		if mb && !ma && routing.Covers(a, b) {
			t.Fatalf("Covers(%q, %q), but only the second matches %q", a, b, topic)
		}
		if !routing.Covers(a, a) {
			t.Fatalf("%q does not cover itself", a)
		}
		tr := routing.NewTrie[string]()
		tr.Set(a, a)
		tr.Set(b, b)
		want := 0
		if ma {
			want++
		}
		if mb && a != b {
			want++
		}
		if got := tr.Load().Match(nil, topic); len(got) != want {
			t.Fatalf("Trie(%q, %q) on %q = %q", a, b, topic, got)
		}
		if tr.Delete(a); a != b && (len(tr.Load().Match(nil, topic)) == 1) != mb {
			t.Fatalf("Trie(%q) on %q after delete", b, topic)
		}
	})
}

func FuzzValid(f *testing.F) {
	f.Add("$share/g/a/+/#")
	f.Add("a//+\x00")
	f.Fuzz(func(t *testing.T, s string) {
		if routing.ValidTopic(s) == nil {
			_, inner, shared := routing.SplitShared(s)
			if err := routing.ValidFilter(s); err != nil && !shared {
				t.Fatalf("%q is a topic and no filter: %v", s, err)
			} else if !routing.Match(s, s) || err == nil && !routing.Match(inner, inner) {
				t.Fatalf("%q does not match itself", s)
			}
		}
		if routing.ValidFilter(s) != nil {
			return
		}
		_, inner, _ := routing.SplitShared(s)
		for i, level := range strings.Split(inner, "/") {
			if i >= routing.MaxLevels || strings.ContainsRune(level, 0) || len(level) > 1 && strings.ContainsAny(level, "+#") {
				t.Fatalf("%q is valid", s)
			}
		}
	})
}

// oracle is Match, written as the standard's sentences.
func oracle(filter, topic string) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	var match func(f, t []string) bool
	match = func(f, t []string) bool {
		switch {
		case len(f) == 1 && f[0] == "#":
			return true
		case len(f) == 0 || len(t) == 0:
			return len(f) == len(t)
		}
		return (f[0] == "+" || f[0] == t[0]) && match(f[1:], t[1:])
	}
	return match(strings.Split(filter, "/"), strings.Split(topic, "/"))
}

var (
	genLevel       = rapid.SampledFrom([]string{"", "a", "b", "ab", "a\x01", "\x01", "\x02", "\x02\x01", "\x03", "$", "$s", "%", "ü", "zz"})
	genTopic       = genJoined(genLevel, 5, false)
	genFilterLevel = rapid.OneOf(genLevel, rapid.SampledFrom([]string{"+", "+", "a", "b"}))
	genFilter      = genJoined(genFilterLevel, 5, true)
	genShortFilter = genJoined(rapid.SampledFrom([]string{"", "a", "b", "$s", "+", "+"}), 3, true)
)

func genJoined(level *rapid.Generator[string], levels int, multi bool) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(level, 1, levels).Draw(t, "levels")
		if multi && rapid.IntRange(0, 3).Draw(t, "multi") == 0 {
			parts[len(parts)-1] = "#"
		}
		return strings.Join(parts, "/")
	}).Filter(func(s string) bool { return s != "" })
}
