package broker

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// meter counts what clients of this node publish, topic by topic, in two windows:
// the one that runs and the one before. It exists while somebody looks.
type meter struct {
	seed   maphash.Seed
	now    func() time.Time
	began  time.Time
	asked  atomic.Int64 // when somebody looked last, ns since began
	shards [meterShards]meterShard
}

type meterShard struct {
	mu           sync.Mutex
	window       int64 // number of the running one
	now, last    map[string]*topicCount
	other, lastO int64 // messages of topics without room
}

type topicCount struct{ messages, bytes int64 }

const (
	meterShards = 16
	meterWindow = 5 * time.Second
	// meterTopics bounds the topics that are counted in one window, in all.
	meterTopics = 64_000
	// meterIdle is how long a meter counts on that nobody looks at.
	meterIdle = time.Minute
)

func newMeter(now func() time.Time) *meter {
	return &meter{seed: maphash.MakeSeed(), now: now, began: now()}
}

// count notes a message.
func (m *meter) count(topic string, size int) {
	s := &m.shards[maphash.String(m.seed, topic)%meterShards]
	window := int64(m.now().Sub(m.began) / meterWindow)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(window)
	c := s.now[topic]
	if c == nil {
		if len(s.now) >= meterTopics/meterShards {
			s.other++
			return
		}
		c = new(topicCount)
		s.now[strings.Clone(topic)] = c // topic is a part of more, which it would keep
	}
	c.messages++
	c.bytes += int64(size)
}

// turn begins a window.
func (s *meterShard) turn(window int64) {
	switch {
	case s.now == nil || window > s.window+1:
		s.last, s.lastO = nil, 0
	case window == s.window:
		return
	default:
		s.last, s.lastO = s.now, s.other
	}
	s.now, s.other, s.window = map[string]*topicCount{}, 0, window
}

// TopicRate is what clients publish to the topics of one level and below.
type TopicRate struct {
	Level    string  `json:"level"`
	Messages float64 `json:"messages"` // a second
	Bytes    float64 `json:"bytes"`
	Below    bool    `json:"below"` // some of it is below the level
}

// TopicRates returns what the clients of this node publish to topics that begin with
// under ("" for all, else it ends with a slash), summed by the next level, in the order of their names and at most limit of
// them. measured is for how long was counted: counting begins with the first call
// and ends a minute after the last. other is what had no room, in messages a second.
func (b *Broker) TopicRates(under string, limit int) (rates []TopicRate, measured time.Duration, other float64, more bool) {
	m := b.theMeter()
	age := m.now().Sub(m.began)
	m.asked.Store(int64(age))
	sums, other := m.sum(under, age)
	for level, r := range sums {
		r.Level = level
		rates = append(rates, *r)
	}
	slices.SortFunc(rates, func(a, b TopicRate) int { return cmp.Compare(a.Level, b.Level) })
	if more = len(rates) > limit; more {
		rates = rates[:limit]
	}
	return rates, age, other, more
}

// theMeter returns the meter that runs, or starts one.
func (b *Broker) theMeter() *meter {
	for {
		if m := b.meter.Load(); m != nil {
			return m
		}
		m := newMeter(time.Now)
		if b.meter.CompareAndSwap(nil, m) {
			b.wg.Go(func() { b.watchMeter(m) })
			return m
		}
	}
}

// sum adds up both windows, over the time that they have run.
func (m *meter) sum(under string, age time.Duration) (sums map[string]*TopicRate, other float64) {
	window := int64(age / meterWindow)
	span := (age % meterWindow).Seconds()
	if window > 0 {
		span += meterWindow.Seconds()
	}
	sums = map[string]*TopicRate{}
	if span < 0.1 {
		return sums, 0
	}
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		s.turn(window)
		other += float64(s.other + s.lastO)
		for _, counts := range []map[string]*topicCount{s.now, s.last} {
			for topic, c := range counts {
				rest, ok := strings.CutPrefix(topic, under)
				if !ok {
					continue
				}
				level, _, below := strings.Cut(rest, "/")
				r := sums[level]
				if r == nil {
					r = new(TopicRate)
					sums[level] = r
				}
				r.Messages += float64(c.messages) / span
				r.Bytes += float64(c.bytes) / span
				r.Below = r.Below || below
			}
		}
		s.mu.Unlock()
	}
	return sums, other / span
}

// watchMeter ends the meter when nobody looks any more.
func (b *Broker) watchMeter(m *meter) {
	tick := time.NewTicker(meterIdle / 6)
	defer tick.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-tick.C:
		}
		if m.now().Sub(m.began)-time.Duration(m.asked.Load()) > meterIdle {
			b.meter.CompareAndSwap(m, nil)
			return
		}
	}
}
