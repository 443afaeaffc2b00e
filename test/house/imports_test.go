// Package house holds tests of the repository itself: who imports whom, and
// under which licences the dependencies come. It tests no behaviour.
package house

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path of the main module.
const module = "github.com/mqcluster/mqcluster"

// root is where the main module lies as this package's tests see it.
const root = "../.."

// A layer is a part of the house, with all packages below its folder.
type layer struct {
	dir string
	// uses are the folders of the house that it may import, with all below them.
	uses []string
	// pure layers import the standard library only, and what also names.
	pure bool
	also []string
}

// domain is what every part above it may use.
var domain = []string{"routing", "session", "auth"}

// core is what the adapters stand on: the domain and the log's state.
var core = append([]string{"fsm"}, domain...)

// layers, lowest first. A folder that is in none of them fails the test: whoever
// adds one says here what it stands on.
var layers = []layer{
	{dir: "routing", pure: true},
	{dir: "session", pure: true},
	{dir: "auth", pure: true, also: []string{"golang.org/x/crypto"}, uses: []string{"routing"}},
	{dir: "fsm", uses: domain},
	{dir: "broker", uses: core},
	{dir: "consensus", uses: core},
	{dir: "mesh", uses: core},
	{dir: "gossip", uses: core},
	{dir: "admin", uses: core},
	{dir: "tls", uses: core},
	{dir: "backup", uses: core},
	{dir: "identity", uses: domain},
	{dir: "mosquitto", uses: domain},
	{dir: "node", uses: append([]string{"broker", "consensus", "mesh", "gossip", "admin", "tls", "backup", "identity", "mosquitto"}, core...)},
	{dir: "bench"},
	{dir: "demo", uses: []string{"admin"}},
	{dir: "cmd", uses: []string{"node", "admin", "tls", "backup", "bench", "demo", "mosquitto", "fsm"}},
	// The simulation plugs the parts together without what needs a machine.
	{dir: "test/sim", uses: append([]string{"broker", "consensus", "mesh", "test"}, core...)},
	// The park is an operator and 15,000 clients: it knows the program's verbs and
	// ports, and none of its packages.
	{dir: "test/park", uses: []string{"test"}},
	{dir: "test"},
	{dir: "deploy"},
}

// homes says which folders may import a library: those that wrap it. The longest
// path that fits a package counts. Tests may import any.
var homes = map[string][]string{
	"github.com/hashicorp/raft":               {"consensus", "fsm"},
	"github.com/hashicorp/raft-boltdb":        {"consensus"},
	"filippo.io/age":                          {"backup"},
	"github.com/hashicorp/memberlist":         {"gossip"},
	"github.com/cockroachdb/pebble":           {"fsm"},
	"github.com/mochi-mqtt/server":            {}, // the server: docs/adr/0001
	"github.com/mochi-mqtt/server/v2/packets": {"broker"},
	"github.com/coder/websocket":              {"broker/listener"},
	"github.com/pires/go-proxyproto":          {"broker/listener", "admin", "demo"},
	"software.sslmate.com/src/go-pkcs12":      {"tls"},
	"github.com/spf13/cobra":                  {"cmd", "bench", "demo"},
	"github.com/xdg-go/scram":                 {"identity", "cmd"},
	"github.com/golang-jwt/jwt/v5":            {"identity"},
	"github.com/MicahParks/jwkset":            {"identity"},
	"go.yaml.in/yaml":                         {"node", "cmd"},
	"github.com/eclipse/paho.golang":          {"cmd", "demo"},
	"github.com/eclipse/paho.mqtt.golang":     {},
	"github.com/anishathalye/porcupine":       {"test"},
	"github.com/santhosh-tekuri/jsonschema":   {},
	"github.com/google/go-cmp":                {},
	"github.com/rogpeppe/go-internal":         {},
	"go.uber.org/goleak":                      {},
	"pgregory.net/rapid":                      {},
}

// vague names say nothing of what a package does.
var vague = []string{"util", "utils", "types", "common", "config", "helper", "helpers", "misc", "shared", "base"}

// A source is what one Go file imports.
type source struct {
	path    string // slash-separated, from the root
	dir     string
	test    bool
	imports []string
}

func TestImports(t *testing.T) {
	all := sources(t)
	if len(all) < 20 {
		t.Fatalf("only %d Go files were found below %s", len(all), root)
	}
	for _, s := range all {
		own := layerOf(s.dir)
		if own == nil {
			t.Errorf("%s: folder %s is in no layer: add it to layers in this test and say what it may import", s.path, s.dir)
			continue
		}
		for _, path := range s.imports {
			if reason := own.refuses(s, path); reason != "" {
				t.Errorf("%s imports %s: %s", s.path, path, reason)
			}
		}
	}
}

// TestLayersRefuse shows that the rules refuse what they are there for.
func TestLayersRefuse(t *testing.T) {
	for _, tt := range []struct {
		file, path string
		test       bool
		ok         bool
	}{
		{file: "routing/trie.go", path: "sync/atomic", ok: true},
		{file: "routing/trie.go", path: "golang.org/x/crypto/argon2"},
		{file: "routing/trie.go", path: module + "/session"},
		{file: "auth/hash.go", path: "golang.org/x/crypto/argon2", ok: true},
		{file: "auth/hash.go", path: "golang.org/x/cryptography"},
		{file: "auth/hash_test.go", path: "pgregory.net/rapid", test: true, ok: true},
		{file: "auth/hash.go", path: "pgregory.net/rapid"},
		{file: "fsm/apply.go", path: module + "/fsm/logpb", ok: true},
		{file: "fsm/apply.go", path: module + "/consensus"},
		{file: "broker/broker.go", path: module + "/broker/codec", ok: true},
		{file: "broker/broker.go", path: module + "/consensus"},
		{file: "broker/broker_test.go", path: module + "/consensus", test: true},
		{file: "mesh/mesh.go", path: module + "/tls"},
		{file: "mesh/mesh.go", path: module + "/node"},
		{file: "gossip/gossip.go", path: "github.com/hashicorp/memberlist", ok: true},
		{file: "node/node.go", path: "github.com/hashicorp/memberlist"},
		{file: "broker/connect.go", path: "github.com/mochi-mqtt/server/v2/packets", ok: true},
		{file: "broker/connect.go", path: "github.com/mochi-mqtt/server/v2"},
		{file: "node/node.go", path: module + "/gossip", ok: true},
		{file: "node/node.go", path: module + "/cmd/mqcluster"},
		{file: "broker/listener/websocket.go", path: "github.com/coder/websocket", ok: true},
		{file: "broker/serve.go", path: "github.com/coder/websocket"},
		{file: "test/e2e/queue_test.go", path: module + "/test/history", test: true, ok: true},
		{file: "test/e2e/queue_test.go", path: module + "/session", test: true},
		{file: "bench/run.go", path: module + "/broker/codec"},
		{file: "cmd/mqcluster/wire.go", path: module + "/node", ok: true},
		{file: "cmd/mqcluster/wire.go", path: module + "/test/history"},
	} {
		s := source{path: tt.file, dir: filepath.Dir(tt.file), test: tt.test}
		reason := layerOf(s.dir).refuses(s, tt.path)
		if (reason == "") != tt.ok {
			t.Errorf("%s imports %s: %q, want ok %v", tt.file, tt.path, reason, tt.ok)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, s := range sources(t) {
		if name := filepath.Base(s.dir); slices.Contains(vague, name) {
			t.Errorf("%s: a package called %s says nothing of what it does", s.path, name)
		}
	}
}

// refuses tells why a file of the layer may not import path, or "".
func (l *layer) refuses(s source, path string) string {
	if dir, ours := strings.CutPrefix(path, module+"/"); ours {
		if below(dir, l.dir) || slices.ContainsFunc(l.uses, func(u string) bool { return below(dir, u) }) {
			return ""
		}
		return "imports point down only; where " + l.dir + " needs a neighbour it declares an interface and node plugs it in"
	}
	first, _, _ := strings.Cut(path, "/")
	if s.test || !strings.Contains(first, ".") {
		return ""
	}
	if l.pure && !slices.ContainsFunc(l.also, func(a string) bool { return below(path, a) }) {
		return l.dir + " is pure: it imports the standard library only"
	}
	library := ""
	for l := range homes {
		if below(path, l) && len(l) > len(library) {
			library = l
		}
	}
	dirs, known := homes[library]
	switch {
	case !known, slices.ContainsFunc(dirs, func(d string) bool { return below(s.dir, d) }):
		return ""
	case len(dirs) == 0:
		return "it is for tests only"
	}
	return "only " + strings.Join(dirs, " and ") + " may use it"
}

func layerOf(dir string) *layer {
	i := slices.IndexFunc(layers, func(l layer) bool { return below(dir, l.dir) })
	if i < 0 {
		return nil
	}
	return &layers[i]
}

// below tells whether path is dir or in it.
func below(path, dir string) bool {
	rest, found := strings.CutPrefix(path, dir)
	return found && (rest == "" || rest[0] == '/')
}

// sources reads the imports of every Go file of the main module, whatever its
// build constraints.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skipDir(path, d)
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(rel), test: strings.HasSuffix(path, "_test.go")}
		s.dir = filepath.ToSlash(filepath.Dir(rel))
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, name)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// skipDir leaves out what the Go tool leaves out: hidden folders, testdata and
// other modules.
func skipDir(path string, d fs.DirEntry) error {
	name := d.Name()
	if path == root {
		return nil
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "vendor" {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}
