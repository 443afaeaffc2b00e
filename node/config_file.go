package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fileDecoder reads one YAML file into a Config. It is stricter than the
// library's decoder and tells every problem with its line.
type fileDecoder struct {
	path     string
	keys     []Key
	sources  map[string]string
	problems Problems
}

func (f *fileDecoder) problem(line int, format string, args ...any) {
	f.problems = append(f.problems, fmt.Sprintf("%s line %d: %s", filepath.Base(f.path), line, fmt.Sprintf(format, args...)))
}

func (f *fileDecoder) decode(text []byte, into *Config) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return // an empty file sets nothing
	} else if err != nil {
		f.problems = append(f.problems, fmt.Sprintf("%s is not valid YAML: %s", filepath.Base(f.path),
			strings.TrimPrefix(err.Error(), "yaml: ")))
		return
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		f.problem(second.Line, "a second document begins here: keep one")
	}
	f.mapping(document.Content[0], reflect.ValueOf(into).Elem(), "")
}

// mapping sets the fields of the struct v by the YAML mapping n, whose own key
// is prefix.
func (f *fileDecoder) mapping(n *yaml.Node, v reflect.Value, prefix string) {
	if n.Tag == "!!null" {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		f.problem(n.Line, "%s must be a section with keys below it", orTop(prefix))
		return
	}
	fields, names := map[string]int{}, []string{}
	for i := range v.NumField() {
		name := yamlName(v.Type().Field(i))
		fields[name] = i
		names = append(names, name)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := prefix + key.Value
		at, known := fields[key.Value]
		if !known {
			f.problem(key.Line, "key %s is unknown%s", name, suggestion(f.nearestKey(key.Value, prefix, names)))
			continue
		}
		if first, twice := seen[key.Value]; twice {
			f.problem(key.Line, "key %s is there twice, first in line %d: keep one", name, first)
			continue
		}
		seen[key.Value] = key.Line
		f.field(key, value, v.Field(at), name)
	}
}

func orTop(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return strings.TrimSuffix(prefix, ".")
}

// nearestKey looks among the neighbours first, then for the same word in another
// section.
func (f *fileDecoder) nearestKey(word, prefix string, names []string) string {
	if best := nearest(word, names); best != "" {
		return prefix + best
	}
	for _, key := range f.keys {
		if last := key.Name[strings.LastIndexByte(key.Name, '.')+1:]; last == word {
			return key.Name
		}
	}
	return ""
}

func (f *fileDecoder) field(key, n *yaml.Node, v reflect.Value, name string) {
	if n.Kind == yaml.AliasNode {
		f.problem(n.Line, "%s is an alias, which this file does not have: write the value", name)
		return
	}
	f.sources[name] = fmt.Sprintf("file %s:%d", filepath.Base(f.path), key.Line)
	if v.Kind() == reflect.Struct {
		f.mapping(n, v, name+".")
		return
	}
	// A list of the file replaces the default list; an element that is itself
	// read from text (an address range) is no struct of ours.
	if v.Kind() == reflect.Slice {
		v.SetZero()
		f.list(n, v, name)
		return
	}
	f.scalar(n, v, name)
}

func (f *fileDecoder) list(n *yaml.Node, v reflect.Value, name string) {
	if n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		f.problem(n.Line, "%s must be a list: put a dash before each element", name)
		return
	}
	for i, element := range n.Content {
		if listeners, ok := v.Addr().Interface().(*[]Listener); ok {
			var l Listener
			f.mapping(element, reflect.ValueOf(&l).Elem(), fmt.Sprintf("%s[%d].", name, i))
			*listeners = append(*listeners, l)
			continue
		}
		f.scalar(element, v, fmt.Sprintf("%s[%d]", name, i))
	}
}

func (f *fileDecoder) scalar(n *yaml.Node, v reflect.Value, name string) {
	if n.Kind != yaml.ScalarNode {
		f.problem(n.Line, "%s must be one value", name)
		return
	}
	if n.Tag == "!!null" {
		f.problem(n.Line, "%s has no value: write one or remove the key", name)
		return
	}
	if err := setText(v, n.Value); err != nil {
		f.problem(n.Line, "%s: %q %v", name, n.Value, err)
	}
}
