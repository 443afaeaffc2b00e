package node

import (
	"reflect"
	"strings"
)

// EnvPrefix is how the variables of the configuration begin.
const EnvPrefix = "MQCLUSTER_"

// ListenersKey is the one key whose elements are structs; flag and variable take
// the form of ParseListener.
const ListenersKey = "listeners"

// Key is one setting.
type Key struct {
	Name    string // as in the file, dotted: limits.max_packet_size
	Flag    string // without the two dashes: limits.max-packet-size
	Env     string // MQCLUSTER_LIMITS_MAX_PACKET_SIZE
	Help    string
	Default string
	List    bool // the flag may be repeated, the variable holds a separated list
	path    bool
	index   []int
}

// Keys lists every setting in the order of Config.
func Keys() []Key {
	defaults := Defaults()
	return collectKeys(reflect.ValueOf(&defaults).Elem(), "", nil)
}

// collectKeys lists the settings of one struct, whose own key is prefix.
func collectKeys(v reflect.Value, prefix string, index []int) []Key {
	var keys []Key
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		at := append(append([]int(nil), index...), i)
		name := prefix + yamlName(field)
		if field.Type.Kind() == reflect.Struct {
			keys = append(keys, collectKeys(value, name+".", at)...)
			continue
		}
		key := Key{
			Name:  name,
			Flag:  strings.ReplaceAll(name, "_", "-"),
			Env:   EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
			Help:  field.Tag.Get("help"),
			List:  field.Type.Kind() == reflect.Slice,
			path:  field.Tag.Get("kind") == "path",
			index: at,
		}
		if name == ListenersKey {
			key.Flag = "listener"
			key.Default = "tls,address=0.0.0.0:8883"
		} else {
			key.Default = textOf(value)
		}
		keys = append(keys, key)
	}
	return keys
}

func yamlName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return name
}

// nearest returns the candidate that text was probably meant to be, or "".
func nearest(text string, candidates []string) string {
	best, distance := "", 1+max(2, len(text)/3)
	for _, candidate := range candidates {
		// A key may have been written with dashes or in capitals.
		d := editDistance(strings.ToLower(strings.ReplaceAll(text, "-", "_")), candidate)
		if d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and replacements of bytes, and
// the swaps of neighbours, that turn a into b.
func editDistance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// ListenerKeys lists what an element of the list of listeners may have; only Name and
// Help are set.
func ListenerKeys() []Key { return listenerFields(reflect.TypeFor[Listener](), "") }

func listenerFields(t reflect.Type, prefix string) (keys []Key) {
	for field := range t.Fields() {
		name := prefix + yamlName(field)
		if field.Type.Kind() == reflect.Struct {
			keys = append(keys, listenerFields(field.Type, name+".")...)
			continue
		}
		keys = append(keys, Key{Name: name, Help: field.Tag.Get("help")})
	}
	return keys
}
