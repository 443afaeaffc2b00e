package node

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// ParseListener reads the one-line form of a listener:
//
//	tls,address=127.0.0.1:8883,require_client_cert=true,proxy_from=10.0.0.0/8
//
// The kind comes first. A key of the tls section may be written with or without
// "tls." before it. A list grows with each time that its key is given. On an
// error the listener has what could be read.
func ParseListener(text string) (Listener, error) {
	parts := splitList(text, ",")
	if len(parts) == 0 {
		return Listener{}, fmt.Errorf("a listener is empty: write its kind and address, such as tls,address=0.0.0.0:8883")
	}
	var l Listener
	if !strings.Contains(parts[0], "=") {
		l.Kind, parts = parts[0], parts[1:]
	}
	fields, names := map[string]reflect.Value{}, []string{}
	collect := func(v reflect.Value, prefix string) {
		for i := range v.NumField() {
			if name := yamlName(v.Type().Field(i)); name != "tls" {
				fields[name], fields[prefix+name] = v.Field(i), v.Field(i)
				names = append(names, name)
			}
		}
	}
	collect(reflect.ValueOf(&l).Elem(), "")
	collect(reflect.ValueOf(&l.TLS).Elem(), "tls.")
	seen := map[string]bool{}
	for _, part := range parts {
		name, value, hasValue := strings.Cut(part, "=")
		name = strings.ReplaceAll(strings.TrimSpace(name), "-", "_")
		field, known := fields[name]
		switch {
		case !known:
			return l, fmt.Errorf("key %s of listener %q is unknown%s", name, text, suggestion(nearest(name, names)))
		case seen[name] && field.Kind() != reflect.Slice:
			return l, fmt.Errorf("key %s of listener %q is there twice: keep one", name, text)
		case !hasValue && field.Kind() == reflect.Bool:
			value = "true"
		case !hasValue:
			return l, fmt.Errorf("key %s of listener %q has no value: write %s=…", name, text, name)
		}
		seen[name] = true
		if err := setText(field, strings.TrimSpace(value)); err != nil {
			return l, fmt.Errorf("%s=%s of listener %q %w", name, value, text, err)
		}
	}
	if l.Kind == "" || strings.Contains(l.Kind, "=") {
		return l, fmt.Errorf("kind %q of listener %q is unknown: write tls, tcp, ws or wss", l.Kind, text)
	}
	return l, nil
}

// FormatListener is the inverse of ParseListener; keys that have no value are
// left out.
func FormatListener(l Listener) string {
	parts := []string{l.Kind}
	var add func(v reflect.Value)
	add = func(v reflect.Value) {
		for i := range v.NumField() {
			name, field := yamlName(v.Type().Field(i)), v.Field(i)
			switch {
			case name == "kind" || field.IsZero():
			case field.Kind() == reflect.Struct:
				add(field)
			case field.Kind() == reflect.Slice:
				for j := range field.Len() {
					parts = append(parts, name+"="+textOf(field.Index(j)))
				}
			default:
				parts = append(parts, name+"="+textOf(field))
			}
		}
	}
	add(reflect.ValueOf(l))
	return strings.Join(slices.Clip(parts), ",")
}
