package fakeaws

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// A form is the parameters of one request of the query protocol, or a part of them.
// It remembers which were looked at: what no handler knows is not to be passed over.
type form struct {
	values url.Values
	prefix string
	used   map[string]bool
}

func newForm(values url.Values) *form {
	return &form{values: values, used: map[string]bool{"Action": true, "Version": true}}
}

// get returns a parameter, "" if it is not there.
func (f *form) get(name string) string {
	f.used[f.prefix+name] = true
	return f.values.Get(f.prefix + name)
}

// or returns a parameter, and what counts if it is not there.
func (f *form) or(name, otherwise string) string {
	if v := f.get(name); v != "" {
		return v
	}
	return otherwise
}

func (f *form) has(name string) bool {
	f.used[f.prefix+name] = true
	return f.values.Has(f.prefix + name)
}

func (f *form) number(name string) int {
	n, _ := strconv.Atoi(f.get(name))
	return n
}

// ignore names parameters that change nothing here.
func (f *form) ignore(names ...string) {
	for _, name := range names {
		for key := range f.values {
			if key == f.prefix+name || strings.HasPrefix(key, f.prefix+name+".") {
				f.used[key] = true
			}
		}
	}
}

// list returns the values of name.1, name.2, and so on.
func (f *form) list(name string) (out []string) {
	for i := 1; ; i++ {
		key := fmt.Sprintf("%s.%d", name, i)
		if !f.values.Has(f.prefix + key) {
			return out
		}
		out = append(out, f.get(key))
	}
}

// forms returns the parts name.1.…, name.2.…, and so on.
func (f *form) forms(name string) (out []*form) {
	for i := 1; ; i++ {
		part := f.part(fmt.Sprintf("%s.%d", name, i))
		if part == nil {
			return out
		}
		out = append(out, part)
	}
}

// part returns the parameters that begin with name and a dot, nil if there are none.
func (f *form) part(name string) *form {
	prefix := f.prefix + name + "."
	for key := range f.values {
		if strings.HasPrefix(key, prefix) {
			return &form{values: f.values, prefix: prefix, used: f.used}
		}
	}
	return nil
}

// unknown are the parameters that no handler asked for.
func (f *form) unknown() (out []string) {
	for key, values := range f.values {
		if !f.used[key] && strings.Join(values, "") != "" {
			out = append(out, key)
		}
	}
	return out
}
