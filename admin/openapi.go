package admin

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// openAPI is the document that makes programs know the API. A test writes it from
// the routes and checks real answers against it.
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	writeBody(w, "application/json", http.StatusOK, openAPI)
}

// object is a JSON object; encoding/json writes its keys in order.
type object map[string]any

// describer writes the OpenAPI document of routes.
type describer struct{ schemas object }

// describe returns the OpenAPI 3.1 document of m, indented.
func describe(m *mux) ([]byte, error) {
	d := &describer{schemas: object{}}
	paths := object{}
	problem := d.schema(reflect.TypeFor[Problem]())
	for _, r := range sortedRoutes(m) {
		path := strings.ReplaceAll(r.path, "...}", "}")
		item, _ := paths[path].(object)
		if item == nil {
			item = object{}
			paths[path] = item
		}
		item[strings.ToLower(r.method)] = d.operation(r)
	}
	d.sessionPaths(paths)
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "mqcluster", "version": "1",
			"description": "The operators' API of a node. Every node answers for the whole cluster. Errors are problems (RFC 9457). What changes something returns when every node that holds a lease has applied it, or names those that have not.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"security": []object{{"token": []string{}}, {"session": []string{}}, {"certificate": []string{}}},
		"paths":    paths,
		"components": object{
			"schemas": d.schemas,
			"responses": object{"Problem": object{
				"description": "What went wrong, in one sentence with cause and remedy.",
				"content":     object{"application/problem+json": object{"schema": problem}},
			}},
			"securitySchemes": object{
				"token":       object{"type": "http", "scheme": "bearer", "description": "A token of mqcluster api-token create."},
				"session":     object{"type": "apiKey", "in": "cookie", "name": "__Host-mqcluster-NODE", "description": "The dashboard's session; POST /v1/session makes it of a token."},
				"certificate": object{"type": "mutualTLS", "description": "A client certificate of the cluster's CA whose user has the role api-viewer, api-operator or api-admin."},
			},
		},
	}, "", " ")
}

func sortedRoutes(m *mux) []*route {
	var all []*route
	for _, r := range m.routes {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *route) int { return strings.Compare(a.path+" "+a.method, b.path+" "+b.method) })
	return all
}

// sessionPaths describes what no route is of.
func (d *describer) sessionPaths(paths object) {
	login := object{"description": "Who is logged in.", "content": object{"application/json": object{"schema": d.schema(reflect.TypeFor[Login]())}}}
	fail := object{"$ref": "#/components/responses/Problem"}
	paths["/v1/session"] = object{
		"post": object{
			"operationId": "postSession", "tags": []string{"session"}, "summary": "Log in with a token; the answer sets a cookie.", "security": []object{},
			"requestBody": object{"required": true, "content": object{"application/json": object{"schema": d.schema(reflect.TypeFor[LoginRequest]())}}},
			"responses":   object{"200": login, "default": fail},
		},
		"get": object{
			"operationId": "getSession", "tags": []string{"session"}, "summary": "Who asks, and with which role.",
			"responses": object{"200": login, "default": fail},
		},
		"delete": object{
			"operationId": "deleteSession", "tags": []string{"session"}, "summary": "Log out.", "security": []object{},
			"responses": object{"204": object{"description": "The session has ended."}, "default": fail},
		},
	}
}

func (d *describer) operation(r *route) object {
	o := object{"operationId": operationID(r), "tags": []string{r.tag}, "summary": r.summary, "x-role": string(r.role)}
	if r.role != "" {
		o["description"] = "Needs the role " + string(r.role) + "."
	}
	var parameters []object
	body := r.in
	if !r.plain && r.in != nil {
		parameters, body = d.parameters(r.in)
	}
	if len(parameters) > 0 {
		o["parameters"] = parameters
	}
	if body != nil && body != reflect.TypeFor[nothing]() {
		o["requestBody"] = object{"content": object{"application/json": object{"schema": d.schema(body)}}}
	}
	kind := "application/json"
	if r.kind != "" {
		kind = r.kind
	}
	content := object{}
	switch {
	case r.stream:
		content["schema"] = object{"type": "string"}
		o["x-data"] = d.schema(r.out) // of each event but a problem
	case r.out != nil:
		content["schema"] = d.schema(r.out)
	}
	if r.path == "/v1/"+opBackup {
		kind = "application/octet-stream"
	}
	o["responses"] = object{
		"200":     object{"description": "Done.", "content": object{kind: content}},
		"default": object{"$ref": "#/components/responses/Problem"},
	}
	return o
}

// operationID is such as getRetainedTopic.
func operationID(r *route) string {
	var b strings.Builder
	b.WriteString(strings.ToLower(r.method))
	for _, part := range strings.FieldsFunc(strings.TrimPrefix(r.path, "/v1/"), func(c rune) bool { return strings.ContainsRune("/{}.-", c) }) {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// parameters are those of a resource's request; body is the type of its body, nil
// for none.
func (d *describer) parameters(t reflect.Type) (all []object, body reflect.Type) {
	for f := range t.Fields() {
		p := object{"schema": d.schema(f.Type)}
		if text := f.Tag.Get("doc"); text != "" {
			p["description"] = text
		}
		switch {
		case f.Tag.Get("path") != "":
			p["name"], p["in"], p["required"] = f.Tag.Get("path"), "path", true
		case f.Tag.Get("query") != "":
			p["name"], p["in"] = f.Tag.Get("query"), "query"
		default:
			body = f.Type
			continue
		}
		all = append(all, p)
	}
	return all, body
}

// schema describes what encoding/json makes of a type. Structs are named.
func (d *describer) schema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "description": "nanoseconds"}
	case reflect.TypeFor[Role]():
		return object{"type": "string", "enum": Roles()}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": []string{"string", "null"}, "contentEncoding": "base64"}
		}
		return object{"type": []string{"array", "null"}, "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": d.schema(t.Elem())}
	case reflect.Struct:
		return d.named(t)
	}
	return object{"type": "integer"}
}

// named puts a struct among the schemas, and refers to it.
func (d *describer) named(t reflect.Type) object {
	name := schemaName(t)
	ref := object{"$ref": "#/components/schemas/" + name}
	if _, known := d.schemas[name]; known {
		return ref
	}
	s := object{"type": "object"}
	d.schemas[name] = s // before its fields, which may be of its kind
	properties, required := object{}, []string{}
	d.fields(t, properties, &required)
	s["properties"], s["additionalProperties"] = properties, false
	if len(required) > 0 {
		slices.Sort(required)
		s["required"] = slices.Compact(required)
	}
	return ref
}

// fields collects the members of a struct as encoding/json has them.
func (d *describer) fields(t reflect.Type, into object, required *[]string) {
	for f := range t.Fields() {
		tag, tagged := f.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case !f.IsExported() && !f.Anonymous, name == "-":
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct && !tagged:
			d.fields(f.Type, into, required)
			continue
		case name == "":
			name = f.Name
		}
		if _, taken := into[name]; taken {
			continue // the outer one counts
		}
		into[name] = d.schema(f.Type)
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// schemaName is the name of a type; of a page it is that of its items.
func schemaName(t reflect.Type) string {
	name := t.Name()
	if base, item, generic := strings.Cut(strings.TrimSuffix(name, "]"), "["); generic {
		return item[strings.LastIndexByte(item, '.')+1:] + base
	}
	if name == "" {
		return "Object" + strconv.Itoa(t.NumField())
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
