package fakeaws

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// A record is an element of an answer: fields by name, each a text, number, truth,
// time, record or a list of them.
type record map[string]any

// text returns a field of text.
func (r record) text(name string) string {
	s, _ := r[name].(string)
	return s
}

// records returns a field that is a list of records.
func (r record) records(name string) []record {
	l, _ := r[name].([]record)
	return l
}

// with returns a copy with more fields.
func (r record) with(more record) record {
	out := maps.Clone(r)
	maps.Copy(out, more)
	return out
}

// only returns a copy with some of the fields.
func (r record) only(names ...string) record {
	out := record{}
	for _, name := range names {
		if v, ok := r[name]; ok {
			out[name] = v
		}
	}
	return out
}

// writeXML writes a value as an element; the elements of a list are called item.
func writeXML(b *bytes.Buffer, name string, value any, item string) {
	switch v := value.(type) {
	case nil:
		return
	case record:
		fmt.Fprintf(b, "<%s>", name)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			writeXML(b, key, v[key], item)
		}
		fmt.Fprintf(b, "</%s>", name)
		return
	case []record:
		fmt.Fprintf(b, "<%s>", name)
		for _, one := range v {
			writeXML(b, item, one, item)
		}
		fmt.Fprintf(b, "</%s>", name)
		return
	case []string:
		fmt.Fprintf(b, "<%s>", name)
		for _, one := range v {
			writeXML(b, item, one, item)
		}
		fmt.Fprintf(b, "</%s>", name)
		return
	}
	text := fmt.Sprint(value)
	switch v := value.(type) {
	case time.Time:
		text = v.UTC().Format("2006-01-02T15:04:05.000Z")
	case bool:
		text = strconv.FormatBool(v)
	}
	fmt.Fprintf(b, "<%s>", name)
	_ = xml.EscapeText(b, []byte(text)) // a buffer takes everything
	fmt.Fprintf(b, "</%s>", name)
}
