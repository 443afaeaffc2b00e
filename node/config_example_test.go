package node

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// loadExample loads text as the file of a data directory of its own.
func loadExample(t *testing.T, text string) *Loaded {
	t.Helper()
	file := filepath.Join(t.TempDir(), "example.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(Input{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// The example has every key, with the default of it, and sets none.
func TestExample(t *testing.T) {
	text, err := Example()
	if err != nil {
		t.Fatal(err)
	}
	asIs := loadExample(t, string(text))
	for _, key := range Keys() {
		if !asIs.Derived(key.Name) {
			t.Errorf("the example sets %s: %s", key.Name, asIs.Source(key.Name))
		}
	}
	all := loadExample(t, regexp.MustCompile(`(?m)^( *)#( {2}|[^ \n])`).ReplaceAllString(string(text), "$1$2"))
	for _, key := range Keys() {
		// What stands empty is derived as if it were not there.
		if all.Derived(key.Name) && key.Name != "node.id" && key.Name != "admin.socket" && key.Name != "mesh.advertise" {
			t.Errorf("without its # %s is not set: %s", key.Name, all.Source(key.Name))
		}
		if key.Name != ListenersKey && !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(string(text), "#", "")), " "), key.Help) {
			t.Errorf("the example does not explain %s", key.Name)
		}
	}
	if diff := cmp.Diff(asIs.Config, all.Config, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the example shows other defaults than there are:\n%s", diff)
	}
	for line := range strings.Lines(string(text)) {
		if len(line) > exampleWidth+1 {
			t.Errorf("too long: %q", line)
		}
	}
}
