package admin

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The document is what the routes are. UPDATE_GOLDEN=1 writes it.
func TestOpenAPIIsTheRoutes(t *testing.T) {
	s := openSecured(t)
	got, err := describe(s.server.apiHandler(everyPart(s)))
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile("openapi.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, openAPI) {
		t.Error("openapi.json is not what the routes are: run UPDATE_GOLDEN=1 go test ./admin -run OpenAPI")
	}
}

// everyPart is a backend of which no part is missing, for the document alone.
func everyPart(s *secured) Backend {
	b := allParts(s)
	b.Settings, b.Clock, b.Backups, b.Importer = struct{ Settings }{}, noClock{}, struct{ Backups }{}, struct{ Importer }{}
	return b
}

// noClock is never asked.
type noClock struct{}

func (noClock) Clock(context.Context, ClockRequest) (ClockReading, error) { return ClockReading{}, nil }

// bodies are requests that the fakes can answer.
var bodies = map[string]string{
	"POST /v1/publish": `{"topic":"a","text":"x"}`, "PUT /v1/retained/{topic...}": `{"text":"x"}`,
	"POST /v1/api-tokens": `{"name":"x","role":"viewer"}`, "PUT /v1/users/{user}": `{"roles":["r"]}`,
	"PUT /v1/acls/{subject}": `{"rules":["allow both #"]}`, "PUT /v1/bans/{kind}/{value}": `{"reason":"noise"}`,
}

// TestAnswersFitOpenAPI asks every route, and holds what it answers against the
// document: the answer itself, and the problem where the request is wrong.
func TestAnswersFitOpenAPI(t *testing.T) {
	s := openSecured(t)
	token, _ := s.tokens.add("a", RoleAdmin)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	check := func(pointer string, body io.Reader) {
		t.Helper()
		schema, err := compiler.Compile("openapi.json#" + pointer)
		if err != nil {
			t.Fatalf("%s: %v", pointer, err)
		}
		value, err := jsonschema.UnmarshalJSON(body)
		if err != nil {
			t.Fatalf("%s: %v", pointer, err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s: %v", pointer, err)
		}
	}
	fill := strings.NewReplacer("{node}", "a", "{client}", "c", "{user}", "u", "{subject}", "user:u", "{id}", "none", "{kind}", "address", "{value}", "10.0.0.0%2F8", "{topic...}", "a%2Fb")
	m := s.server.apiHandler(allParts(s))
	if len(m.routes) < 50 {
		t.Fatalf("only %d routes", len(m.routes))
	}
	for _, r := range sortedRoutes(m) {
		path := "/paths/" + strings.NewReplacer("...}", "}", "/", "~1").Replace(r.path) + "/" + strings.ToLower(r.method)
		address := fill.Replace(r.path)
		if r.pattern() == "GET /v1/retained/{topic...}" {
			s.status(ask{method: "PUT", path: address, body: `{"text":"x"}`, token: token})
		}
		if r.path == "/v1/watch/messages" {
			address += "?filter=a"
		}
		response := s.do(ask{method: r.method, path: address, body: bodies[r.pattern()], token: token})
		if response.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(response.Body)
			t.Errorf("%s: %s %s", r.pattern(), response.Status, text)
			continue
		}
		if r.stream {
			lines := bufio.NewScanner(response.Body)
			for lines.Scan() {
				if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
					check(path+"/x-data", strings.NewReader(data))
					break
				}
			}
			_ = response.Body.Close()
			continue
		}
		check(path+"/responses/200/content/application~1json/schema", response.Body)
		if !r.plain {
			wrong := s.do(ask{method: r.method, path: fill.Replace(r.path) + "?nonsense=1", body: bodies[r.pattern()], token: token})
			if wrong.StatusCode != http.StatusBadRequest {
				t.Errorf("%s with an unknown parameter: %s", r.pattern(), wrong.Status)
			}
			check("/components/schemas/Problem", wrong.Body)
		}
	}
}
