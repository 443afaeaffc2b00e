package node

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// exampleWidth is where the prose of the example is broken.
const exampleWidth = 88

// Example returns a configuration file that sets nothing and shows every key with
// its meaning and its default. A line of prose begins with "# ", a setting that only
// lacks its "#" with anything else.
func Example() ([]byte, error) {
	var out bytes.Buffer
	prose(&out, "", "Configuration of mqcluster. It sets nothing as it is: take the # off the keys that are to have another value than the default, which is the one shown. A flag or a variable beats this file; mqcluster config check tells what is wrong with it.")
	defaults := Defaults()
	var section []string
	for _, key := range Keys() {
		path := strings.Split(key.Name, ".")
		own, name := path[:len(path)-1], path[len(path)-1]
		indent := strings.Repeat("  ", len(own))
		out.WriteByte('\n')
		for i := range own {
			if i >= len(section) || !slices.Equal(own[:i+1], section[:i+1]) {
				fmt.Fprintf(&out, "%s%s:\n", strings.Repeat("  ", i), own[i])
			}
		}
		section = own
		if key.Name == ListenersKey { // the help is that of the flag
			prose(&out, indent, "the ports for clients; each may have these keys, those of tls in a section of that name:")
			listenerKeys(&out, reflect.TypeFor[Listener](), "")
		} else {
			prose(&out, indent, key.Help)
		}
		value := reflect.ValueOf(&defaults).Elem().FieldByIndex(key.index)
		text, err := encodeYAML(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{word(name), valueNode(value)}})
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			out.WriteString(indent + "#" + line)
		}
	}
	return out.Bytes(), nil
}

// listenerKeys tells what an element of the list of listeners may have.
func listenerKeys(out *bytes.Buffer, t reflect.Type, prefix string) {
	for field := range t.Fields() {
		name := prefix + yamlName(field)
		if field.Type.Kind() == reflect.Struct {
			listenerKeys(out, field.Type, name+".")
			continue
		}
		prose(out, "", name+": "+field.Tag.Get("help"))
	}
}

// prose writes a comment, broken into lines.
func prose(out *bytes.Buffer, indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > exampleWidth {
			out.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	out.WriteString(line + "\n")
}
