package routing

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func TestTrieEditsAndSnapshots(t *testing.T) {
	tr := NewTrie[int]()
	empty := tr.Load()
	tr.Set("a/+/c", 1)
	one := tr.Load()
	tr.Set("a/+/c", 2)
	tr.Set("a/#", 3)
	if empty.Len() != 0 || one.Len() != 1 || tr.Load().Len() != 2 {
		t.Fatal("lengths", empty.Len(), one.Len(), tr.Load().Len())
	}
	if got := one.Match(nil, "a/b/c"); !slices.Equal(got, []int{1}) {
		t.Fatal("an old snapshot changed:", got)
	}
	if got := tr.Load().Match(nil, "a/b/c"); !slices.Equal(got, []int{3, 2}) {
		t.Fatal(got)
	}
	before := tr.Load()
	if tr.Delete("a/+") || tr.Delete("x") || tr.Load() != before {
		t.Fatal("deleting nothing published something")
	}
	if !tr.Delete("a/#") || !tr.Delete("a/+/c") || tr.Load().Version() <= before.Version() {
		t.Fatal("delete")
	}
	if s := tr.Load(); s.Len() != 0 || s.root.kids != nil {
		t.Fatal("an empty trie still has nodes")
	}
}

func TestTriePanicPublishesNothing(t *testing.T) {
	tr := NewTrie[int]()
	tr.Set("a", 1)
	before := tr.Load()
	var leaked *Tx[int]
	func() {
		defer func() { _ = recover() }()
		tr.Update(func(tx *Tx[int]) { leaked = tx; tx.Set("a", 2); panic("x") })
	}()
	if v, _ := tr.Load().Get("a"); v != 1 || tr.Load() != before {
		t.Fatal("published", v)
	}
	tr.Update(func(tx *Tx[int]) { leaked = tx })
	defer func() {
		if recover() == nil {
			t.Fatal("a Tx may be used after Update")
		}
	}()
	leaked.Set("b", 1)
}

func TestTrieKeepsNoCallerMemory(t *testing.T) {
	tr := NewTrie[int]()
	buf := []byte("a/b/c")
	tr.Set(unsafe.String(&buf[0], len(buf)), 1)
	copy(buf, "x/y/z")
	if v, ok := tr.Load().Get("a/b/c"); !ok || v != 1 {
		t.Fatal("the trie shares the caller's buffer")
	}
}

// The trie against a map, with hashes that collide as much as drawn, in
// transactions of random length, with old snapshots kept and compared.
func TestTrieAgainstModel(t *testing.T) {
	levels := []string{"", "a", "b", "$s", "+", "+"}
	for i := range 40 {
		levels = append(levels, fmt.Sprint("l", i))
	}
	rapid.Check(t, func(t *rapid.T) {
		tr := NewTrie[int]()
		first := *tr.Load()
		first.hash.mask = rapid.SampledFrom([]uint64{0, 1, 0x21, 0xff, ^uint64(0)}).Draw(t, "mask")
		tr.snap.Store(&first)
		model := map[string]int{}
		type old struct {
			snap  *Snapshot[int]
			model map[string]int
		}
		var olds []old
		filter := rapid.Custom(func(t *rapid.T) string {
			parts := rapid.SliceOfN(rapid.SampledFrom(levels), 1, 5).Draw(t, "levels")
			if rapid.IntRange(0, 5).Draw(t, "multi") == 0 {
				parts[len(parts)-1] = "#"
			}
			return strings.Join(parts, "/")
		}).Filter(func(s string) bool { return s != "" })
		for range rapid.IntRange(1, 12).Draw(t, "transactions") {
			olds = append(olds, old{tr.Load(), maps.Clone(model)})
			tr.Update(func(tx *Tx[int]) {
				for i := range rapid.IntRange(0, 25).Draw(t, "edits") {
					f := filter.Draw(t, "filter")
					if len(model) > 0 && rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
						known := slices.Sorted(maps.Keys(model))
						f = rapid.SampledFrom(known).Draw(t, "known")
						if !tx.Delete(f) {
							t.Fatalf("%q was there", f)
						}
						delete(model, f)
						continue
					}
					tx.Set(f, i)
					model[f] = i
				}
				if tx.Len() != len(model) {
					t.Fatalf("Len %d, want %d", tx.Len(), len(model))
				}
			})
		}
		olds = append(olds, old{tr.Load(), model})
		topic := rapid.SampledFrom([]string{"a", "a/l1", "$s/a", "a/", "/", "l1/l2/l3", "b/l7", "a/b/a", "a/b/a/l1/b"}).Draw(t, "topic")
		for _, o := range olds {
			checkSnapshot(t, o.snap, o.model, topic)
		}
	})
}

func checkSnapshot(t *rapid.T, s *Snapshot[int], model map[string]int, topic string) {
	if got := maps.Collect(s.All()); !maps.Equal(got, model) {
		t.Fatalf("All: got %v, want %v", got, model)
	}
	order := []string{}
	for f := range s.All() {
		order = append(order, f)
	}
	if !slices.IsSortedFunc(order, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	}) {
		t.Fatalf("All is not sorted: %q", order)
	}
	var want []int
	for f, v := range model {
		if Match(f, topic) {
			want = append(want, v)
		}
		if got, ok := s.Get(f); !ok || got != v {
			t.Fatalf("Get(%q) = %d, %v", f, got, ok)
		}
	}
	got := s.MatchBytes(nil, []byte(topic))
	sort.Ints(got)
	sort.Ints(want)
	if !slices.Equal(got, want) {
		t.Fatalf("Match(%q): got %v, want %v of %v", topic, got, want, model)
	}
	if s.Len() != len(model) {
		t.Fatalf("Len %d, want %d", s.Len(), len(model))
	}
}

// A table that has lost its nodes is gone, whatever the order.
func TestTrieManySiblings(t *testing.T) {
	const n = 20_000
	tr := NewTrie[int]()
	order := rand.New(rand.NewPCG(1, 2)).Perm(n)
	for _, i := range order[:n/2] {
		tr.Set(fmt.Sprintf("x/%d/y", i), i)
	}
	tr.Update(func(tx *Tx[int]) {
		for _, i := range order[n/2:] {
			tx.Set(fmt.Sprintf("x/%d/y", i), i)
		}
	})
	full := tr.Load()
	for _, i := range order[:n-3] {
		if !tr.Delete(fmt.Sprintf("x/%d/y", i)) {
			t.Fatal("lost", i)
		}
	}
	if got := tr.Load().root.kids.few[0].kids; got.many != nil || len(got.few) != 3 {
		t.Fatalf("%d children, still a hash trie: %v", got.count, got.many != nil)
	}
	for i := range n {
		if got := full.Match(nil, fmt.Sprintf("x/%d/y", i)); len(got) != 1 || got[0] != i {
			t.Fatal("the old snapshot lost", i, got)
		}
	}
}

func TestTrieReadersDuringWrites(t *testing.T) {
	tr := NewTrie[int]()
	tr.Set("a/#", -1)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var dst []int
			var last uint64
			for !stop.Load() {
				s := tr.Load()
				if s.Version() < last {
					t.Error("version went back")
				}
				last = s.Version()
				// Each transaction sets both or none.
				if dst = s.Match(dst[:0], "a/b"); len(dst) != 1 && len(dst) != 3 {
					t.Error("half a transaction:", dst)
				}
			}
		})
	}
	for i := range 3000 {
		tr.Update(func(tx *Tx[int]) {
			if i%2 == 0 {
				tx.Set("a/b", i)
				tx.Set("a/+", i)
			} else {
				tx.Delete("a/b")
				tx.Delete("a/+")
			}
			tx.Set(fmt.Sprint("a/", i, "/c"), i)
		})
	}
	stop.Store(true)
	wg.Wait()
}

func TestMatchDoesNotAllocate(t *testing.T) {
	tr := wildcards(100)
	s, dst, topic := tr.Load(), make([]int, 0, 100), []byte("park/s7/d7/temp")
	var k Topics[int]
	k.Get("another")
	for name, f := range map[string]func(){
		"Match":      func() { dst = s.Match(dst[:0], "park/s7/d7/temp") },
		"MatchBytes": func() { dst = s.MatchBytes(dst[:0], topic) },
		"Topics":     func() { k.Get("park"); k.GetBytes(topic) },
		"Get":        func() { s.Get("park/s7/+/temp") },
		"Covers":     func() { Covers("park/+/d7/#", "park/+/d7/+") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// Subscriptions of one topic of each of very many devices; a million of them take
// four times as much, 92 MB, with the text of the levels that differ.
func TestTrieMemory(t *testing.T) {
	const n = 250_000
	filters := make([]string, n)
	for i := range filters {
		filters[i] = fmt.Sprintf("park/devices/%07d/command", i)
	}
	before := heap()
	tr := NewTrie[*int]()
	tr.Update(func(tx *Tx[*int]) {
		for _, f := range filters {
			tx.Set(f, nil)
		}
	})
	each := (heap() - before) / n
	t.Logf("%d bytes a filter", each)
	if each > 150 {
		t.Errorf("a filter takes %d bytes", each)
	}
	runtime.KeepAlive(filters)
	runtime.KeepAlive(tr)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// wildcards returns a trie of n filters with wildcards, of which a topic
// "park/sS/dD/NAME" matches a handful.
func wildcards(n int) *Trie[int] {
	tr := NewTrie[int]()
	tr.Update(func(tx *Tx[int]) {
		for i := range n / 2 {
			tx.Set(fmt.Sprintf("park/s%d/+/temp", i), i)
			tx.Set(fmt.Sprintf("park/+/d%d/#", i), i)
		}
	})
	return tr
}

func BenchmarkSet(b *testing.B) {
	const n = 100_000
	tr := NewTrie[int]()
	tr.Update(func(tx *Tx[int]) {
		for i := range n {
			tx.Set(fmt.Sprintf("x/%d", i), i)
		}
	})
	filters := make([]string, 4096)
	for i := range filters {
		filters[i] = fmt.Sprintf("x/new%d", i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f := filters[i%len(filters)]
		if i/len(filters)%2 == 0 {
			tr.Set(f, i)
		} else {
			tr.Delete(f)
		}
		i++
	}
}

func BenchmarkLoad(b *testing.B) {
	filters := make([]string, 100_000)
	for i := range filters {
		filters[i] = fmt.Sprintf("park/devices/%07d/command", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		tr := NewTrie[int]()
		tr.Update(func(tx *Tx[int]) {
			for i, f := range filters {
				tx.Set(f, i)
			}
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(filters)), "ns/filter")
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		s := wildcards(n).Load()
		topics := make([][]byte, 64)
		for i := range topics {
			topics[i] = fmt.Appendf(nil, "park/s%d/d%d/temp", i*7%n, i*13%n)
		}
		b.Run(fmt.Sprint("trie/", n), func(b *testing.B) {
			b.ReportAllocs()
			var dst []int
			i := 0
			for b.Loop() {
				dst = s.MatchBytes(dst[:0], topics[i%len(topics)])
				i++
			}
		})
	}
}
