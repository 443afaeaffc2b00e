package node

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML returns the effective configuration as a file that Load accepts, with the
// source of each value as a comment.
func (l *Loaded) YAML() ([]byte, error) {
	return encodeYAML(l.tree(func(string) bool { return true }, true))
}

// Written returns the part of the configuration that somebody wrote, as a file
// that Load accepts. The data directory is left out, because the file lies in it;
// the node id is always there, because it must not follow the name of the host.
func (l *Loaded) Written() ([]byte, error) {
	return encodeYAML(l.tree(func(key string) bool { return key == "node.id" || key != "data_dir" && !l.Derived(key) }, false))
}

// WriteFile writes what Written returns to ConfigFile in the data directory,
// mode 0600, and syncs it. It refuses to replace a file.
func (l *Loaded) WriteFile() (path string, err error) {
	text, err := l.Written()
	if err != nil {
		return "", err
	}
	path = filepath.Join(l.DataDir, ConfigFile)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("the configuration cannot be written: %w", err)
	}
	header := "# Written by mqcluster; all keys: mqcluster config keys\n"
	_, err = file.WriteString(header + string(text))
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", fmt.Errorf("the configuration cannot be written: %w", err)
	}
	return path, nil
}

func encodeYAML(root *yaml.Node) ([]byte, error) {
	if len(root.Content) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("the configuration cannot be encoded: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("the configuration cannot be encoded: %w", err)
	}
	return out.Bytes(), nil
}

// tree builds the YAML of the keys that keep allows, in the order of Config.
func (l *Loaded) tree(keep func(key string) bool, comments bool) *yaml.Node {
	root := &yaml.Node{Kind: yaml.MappingNode}
	sections := map[string]*yaml.Node{"": root}
	for _, key := range Keys() {
		if !keep(key.Name) {
			continue
		}
		section, name := "", key.Name
		if dot := strings.LastIndexByte(key.Name, '.'); dot >= 0 {
			section, name = key.Name[:dot], key.Name[dot+1:]
		}
		at := sectionNode(sections, section)
		value := reflect.ValueOf(&l.Config).Elem().FieldByIndex(key.index)
		name1, node := word(name), valueNode(value)
		if comments {
			if node.Kind == yaml.ScalarNode || len(node.Content) == 0 {
				node.LineComment = l.Source(key.Name)
			} else {
				name1.HeadComment = l.Source(key.Name)
			}
		}
		at.Content = append(at.Content, name1, node)
	}
	return root
}

// sectionNode returns the mapping of a section, made where it is missing, in that of
// the section around it.
func sectionNode(sections map[string]*yaml.Node, name string) *yaml.Node {
	if n := sections[name]; n != nil {
		return n
	}
	outer, last := "", name
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		outer, last = name[:dot], name[dot+1:]
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	sections[name] = n
	around := sectionNode(sections, outer)
	around.Content = append(around.Content, word(last), n)
	return n
}

// word is a plain key.
func word(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: text}
}

func valueNode(v reflect.Value) *yaml.Node {
	switch {
	case v.Kind() == reflect.Struct && v.NumMethod() == 0 || v.Type() == reflect.TypeFor[Listener]():
		return structNode(v)
	case v.Kind() == reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			list.Content = append(list.Content, valueNode(v.Index(i)))
		}
		if v.Len() == 0 {
			list.Style = yaml.FlowStyle
		}
		return list
	}
	node := &yaml.Node{}
	if v.Kind() == reflect.String {
		node.SetString(v.String()) // quoted where it would be read as something else
		if v.String() == "" {
			node.Style = yaml.DoubleQuotedStyle
		}
		return node
	}
	return word(textOf(v))
}

// structNode is a listener or its tls section: only what has a value.
func structNode(v reflect.Value) *yaml.Node {
	mapping := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		if field := v.Field(i); !field.IsZero() {
			mapping.Content = append(mapping.Content, word(yamlName(v.Type().Field(i))), valueNode(field))
		}
	}
	return mapping
}
