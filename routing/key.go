package routing

import (
	"bytes"
	"errors"
	"strings"
)

// A topic key is a topic's levels, joined by keySep. The bytes keySep and
// keyEscape inside a level are escaped by keyEscape before them. So keySep sorts
// below all that a level can hold, keys sort as the lists of their levels do,
// and the bytes above prefix+keySep and below prefix+keyEscape are exactly the
// topics below a prefix.
const (
	keySep    = 0x01
	keyEscape = 0x02
)

// ErrTopicKey: bytes are not what AppendTopicKey writes.
var ErrTopicKey = errors.New("not the key of a topic: the store is damaged or of another version")

// AppendTopicKey appends the key of the valid topic to dst. Keys sort by level:
// a topic, then all topics below it, then its next sibling.
func AppendTopicKey(dst []byte, topic string) []byte {
	for i := range len(topic) {
		switch c := topic[i]; c {
		case '/':
			dst = append(dst, keySep)
		case keySep, keyEscape:
			dst = append(dst, keyEscape, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// TopicFromKey is the inverse of AppendTopicKey. Its error is ErrTopicKey.
func TopicFromKey(key []byte) (string, error) {
	if len(key) == 0 {
		return "", ErrTopicKey
	}
	var b strings.Builder
	b.Grow(len(key))
	for i := 0; i < len(key); i++ {
		switch c := key[i]; c {
		case keySep:
			b.WriteByte('/')
		case keyEscape:
			i++
			if i == len(key) || key[i] != keySep && key[i] != keyEscape {
				return "", ErrTopicKey
			}
			b.WriteByte(key[i])
		case 0, '/':
			return "", ErrTopicKey
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// TopicScan finds the topics that one filter matches among sorted topic keys,
// by seeks. The caller drives it:
//
//	for ok := store.SeekGE(scan.Start()); ok; {
//		match, seek, done := scan.Next(store.Key())
//		if match { ... }
//		if done { break }
//		if seek != nil { ok = store.SeekGE(seek) } else { ok = store.Next() }
//	}
//
// It is for one goroutine.
type TopicScan struct {
	levels []scanLevel
	start  []byte
	seek   []byte // what Next returns, reused
	starts []int  // of the levels of the key at hand, reused
	// hide: the filter begins with a wildcard, so topics beginning with $ do
	// not match.
	hide bool
}

type scanLevel struct {
	key  []byte // encoded; nil for a wildcard
	kind byte   // '+', '#' or 0
	// plus is the number of the last level up to this one that is '+', or -1.
	plus int
}

// NewTopicScan returns a scan for the valid inner filter.
func NewTopicScan(filter string) *TopicScan {
	s := &TopicScan{}
	plus := -1
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = cutLevel(rest)
		l := scanLevel{}
		switch level {
		case "+":
			l.kind = '+'
			plus = len(s.levels)
		case "#":
			l.kind = '#'
		default:
			l.key = AppendTopicKey([]byte{}, level)
		}
		l.plus = plus
		s.levels = append(s.levels, l)
	}
	s.hide = s.levels[0].kind != 0
	s.start = s.appendRun(nil, 0)
	return s
}

// Start returns the first key to seek to; empty means the first of all topics.
func (s *TopicScan) Start() []byte { return s.start }

// Next judges the key that the store is at: whether it matches, and where the
// next match can be: at or after seek, or after key where seek is nil, or
// nowhere (done). seek is greater than key and valid until the next call.
func (s *TopicScan) Next(key []byte) (match bool, seek []byte, done bool) {
	if s.hide && len(key) > 0 && key[0] == '$' {
		// Past all that begins with $.
		s.seek = append(s.seek[:0], '$'+1)
		return false, s.seek, false
	}
	s.starts = s.starts[:0]
	at, ended := 0, false
	for i, l := range s.levels {
		if l.kind == '#' {
			return true, nil, false
		}
		if ended {
			// The key is a prefix of what could match.
			s.seek = append(append(s.seek[:0], key...), keySep)
			s.seek = s.appendRun(s.seek, i)
			return false, s.seek, false
		}
		end := levelEnd(key, at)
		if l.kind == 0 {
			switch c := bytes.Compare(key[at:end], l.key); {
			case c < 0:
				s.seek = s.appendRun(append(s.seek[:0], key[:at]...), i)
				return false, s.seek, false
			case c > 0:
				seek, done = s.sibling(key, l.plus)
				return false, seek, done
			}
		}
		s.starts = append(s.starts, at)
		at, ended = end+1, end == len(key)
		// "a/#" matches "a".
		if ended && i == len(s.levels)-2 && s.levels[i+1].kind == '#' {
			return true, nil, false
		}
	}
	last := s.levels[len(s.levels)-1]
	if ended && last.kind == '+' {
		// The next key is most likely the next sibling: a step finds it.
		return true, nil, false
	}
	seek, done = s.sibling(key, last.plus)
	return ended, seek, done
}

// sibling returns the first key after all those that share the levels of key up
// to the one numbered plus.
func (s *TopicScan) sibling(key []byte, plus int) (seek []byte, done bool) {
	if plus < 0 {
		return nil, true
	}
	end := levelEnd(key, s.starts[plus])
	s.seek = append(append(s.seek[:0], key[:end]...), keyEscape)
	return s.seek, false
}

// appendRun appends the levels of the filter from level i to its next wildcard.
// What matches has that as a prefix, after what dst holds.
func (s *TopicScan) appendRun(dst []byte, i int) []byte {
	for first := true; i < len(s.levels); i++ {
		l := s.levels[i]
		if l.kind == '#' {
			break // without keySep: the parent matches too
		}
		if !first {
			dst = append(dst, keySep)
		}
		if l.kind == '+' {
			break
		}
		dst, first = append(dst, l.key...), false
	}
	return dst
}

func levelEnd(key []byte, at int) int {
	for i := at; i < len(key); i++ {
		switch key[i] {
		case keySep:
			return i
		case keyEscape:
			i++
		}
	}
	return len(key)
}
