package routing

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxLength is the length limit of topics and filters, in bytes
	// [MQTT-4.7.3-3].
	MaxLength = 65535
	// MaxLevels is how many levels a topic or a filter may have. MQTT sets no
	// limit; this one bounds the depth of the trie and so the cost of a match.
	MaxLevels = 128

	sharePrefix = "$share/"
)

// What ValidTopic and ValidFilter find wrong.
var (
	ErrEmpty     = errors.New("is empty")
	ErrTooLong   = fmt.Errorf("is longer than %d bytes", MaxLength)
	ErrTooDeep   = fmt.Errorf("has more than %d levels", MaxLevels)
	ErrNUL       = errors.New("contains a NUL character")
	ErrWildcard  = errors.New("contains a wildcard, which only filters may")
	ErrMultiEnd  = errors.New("must have # as its last character, and as a whole level")
	ErrPlusLevel = errors.New("must have + as a whole level")
	ErrShareName = errors.New("must be written $share/NAME/FILTER with a NAME that is not empty and has no + or #")
	ErrNested    = errors.New("shares a shared filter")
)

// ValidTopic tells whether topic may be published to [MQTT-4.7.3-1],
// [MQTT-4.7.3-2], [MQTT-3.3.2-2]. That it is well-formed UTF-8 is not checked.
func ValidTopic(topic string) error {
	if err := validText(topic); err != nil {
		return fmt.Errorf("topic %w", err)
	}
	if strings.ContainsAny(topic, "+#") {
		return fmt.Errorf("topic %w", ErrWildcard)
	}
	return nil
}

// ValidFilter tells whether filter, a shared one included, may be subscribed to
// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-1], [MQTT-4.8.2-2]. That it is
// well-formed UTF-8 is not checked.
func ValidFilter(filter string) error {
	if len(filter) > MaxLength {
		return fmt.Errorf("filter %w", ErrTooLong)
	}
	group, inner, shared := SplitShared(filter)
	if shared {
		// The group is checked for NUL with the rest, below.
		if group == "" || strings.ContainsAny(group, "+#") || !strings.HasPrefix(filter[len(sharePrefix)+len(group):], "/") {
			return fmt.Errorf("filter %w", ErrShareName)
		}
		if strings.IndexByte(group, 0) >= 0 {
			return fmt.Errorf("filter %w", ErrNUL)
		}
		if strings.HasPrefix(inner, sharePrefix) {
			return fmt.Errorf("filter %w", ErrNested)
		}
	}
	if err := validText(inner); err != nil {
		return fmt.Errorf("filter %w", err)
	}
	if err := validWildcards(inner); err != nil {
		return fmt.Errorf("filter %w", err)
	}
	return nil
}

func validText(s string) error {
	switch {
	case s == "":
		return ErrEmpty
	case len(s) > MaxLength:
		return ErrTooLong
	case strings.IndexByte(s, 0) >= 0:
		return ErrNUL
	case strings.Count(s, "/") >= MaxLevels:
		return ErrTooDeep
	}
	return nil
}

func validWildcards(filter string) error {
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = cutLevel(rest)
		if strings.IndexByte(level, '#') >= 0 && (level != "#" || more) {
			return ErrMultiEnd
		}
		if strings.IndexByte(level, '+') >= 0 && level != "+" {
			return ErrPlusLevel
		}
	}
	return nil
}

// SplitShared takes a shared filter, "$share/group/inner", apart. Of any other
// filter inner is the filter itself. It does not validate: group and inner may
// be empty.
func SplitShared(filter string) (group, inner string, shared bool) {
	rest, shared := strings.CutPrefix(filter, sharePrefix)
	if !shared {
		return "", filter, false
	}
	group, inner, _ = strings.Cut(rest, "/")
	return group, inner, true
}

// Match tells whether the valid inner filter matches the valid topic. A leading
// wildcard does not match a topic that begins with $ [MQTT-4.7.2-1], and "a/#"
// matches "a" [MQTT-4.7.1-2]. It does not allocate.
func Match(filter, topic string) bool {
	return !hidden(filter, topic) && matchFrom(filter, topic)
}

// matchFrom is Match below the first level, where wildcards are like any other.
func matchFrom(filter, topic string) bool {
	for {
		// Equal bytes up to the next wildcard need no look at levels.
		i := 0
		for i < len(filter) && i < len(topic) && filter[i] == topic[i] {
			i++
		}
		filter, topic = filter[i:], topic[i:]
		switch {
		case filter == "":
			return topic == ""
		case filter[0] == '#':
			return true
		case filter[0] != '+':
			return topic == "" && filter == "/#"
		}
		filter = filter[1:]
		n := strings.IndexByte(topic, '/')
		if n < 0 {
			return filter == "" || filter == "/#"
		}
		topic = topic[n:]
	}
}

// Covers tells whether filter matches every topic that sub, a valid inner filter
// too, can match. For a sub without wildcards it is Match. It does not allocate.
func Covers(filter, sub string) bool {
	if hidden(filter, sub) {
		return false
	}
	sub = longForm(sub)
	fmore, smore := true, true
	for fmore && smore {
		var f, s string
		f, filter, fmore = cutLevel(filter)
		if f == "#" {
			return true
		}
		s, sub, smore = cutLevel(sub)
		if s == "#" || f != s && f != "+" {
			return false
		}
	}
	return fmore == smore || fmore && filter == "#"
}

// Overlaps tells whether some topic is matched by both valid inner filters.
func Overlaps(a, b string) bool {
	if hidden(a, b) || hidden(b, a) {
		return false
	}
	a, b = longForm(a), longForm(b)
	for {
		var la, lb string
		var amore, bmore bool
		la, a, amore = cutLevel(a)
		lb, b, bmore = cutLevel(b)
		switch {
		case la == "#" || lb == "#":
			return true
		case la != lb && la != "+" && lb != "+":
			return false
		case !amore:
			return !bmore || b == "#"
		case !bmore:
			return a == "#"
		}
	}
}

// longForm writes the two filters that have an equal of another form, because no
// topic is empty, as the longer one.
func longForm(filter string) string {
	switch filter {
	case "#":
		return "+/#"
	case "/#":
		return "/+/#"
	}
	return filter
}

// hidden tells whether other, a topic or a filter, begins with $ and filter with
// a wildcard.
func hidden(filter, other string) bool {
	return filter != "" && (filter[0] == '+' || filter[0] == '#') && other != "" && other[0] == '$'
}

// cutLevel splits s after its first level; more tells whether another follows,
// an empty one included.
func cutLevel(s string) (level, rest string, more bool) {
	if before, after, ok := strings.Cut(s, "/"); ok {
		return before, after, true
	}
	return s, "", false
}
