package history

import "strings"

// group takes a shared subscription's filter apart; name is empty for others.
func group(filter string) (name, plain string) {
	rest, ok := strings.CutPrefix(filter, "$share/")
	if !ok {
		return "", filter
	}
	name, plain, _ = strings.Cut(rest, "/")
	return name, plain
}

// matches tells whether a topic matches a filter without its group [MQTT-4.7].
func matches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i >= len(t) || level != "+" && level != t[i] {
			return false
		}
	}
	return len(f) == len(t)
}
