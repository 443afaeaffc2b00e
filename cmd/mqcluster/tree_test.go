package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// Every verb explains itself and shows how it is used.
func TestEveryVerbHasHelp(t *testing.T) {
	root := fakeApp().Root()
	_ = walk(root, func(c *cobra.Command) error {
		name := c.CommandPath()
		if c.Short == "" || c.Long == "" {
			t.Errorf("%s does not say what it does", name)
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if strings.Contains(line, name) {
				return nil
			}
		}
		t.Errorf("%s has no example that uses it", name)
		return nil
	})
}

// Examples name only verbs and flags that exist.
func TestExamplesParse(t *testing.T) {
	_ = walk(fakeApp().Root(), func(c *cobra.Command) error {
		for line := range strings.SplitSeq(strings.ReplaceAll(c.Example, "\\\n", " "), "\n") {
			_, command, found := strings.Cut(line, "mqcluster ")
			if !found {
				continue
			}
			for part := range strings.SplitSeq(command, "| mqcluster ") {
				part, _, _ = strings.Cut(part, "| ")
				part, _, _ = strings.Cut(part, " >")
				part, _, _ = strings.Cut(part, " <")
				words := splitShell(part)
				// A tree of its own: parsing leaves marks.
				verb, rest, err := fakeApp().Root().Find(words)
				if err == nil {
					verb.InheritedFlags() // merges what the parents define
					err = verb.ParseFlags(rest)
				}
				if err == nil && verb.Args != nil {
					err = verb.Args(verb, verb.Flags().Args())
				}
				if err != nil {
					t.Errorf("%s: example %q: %v", c.CommandPath(), part, err)
				}
			}
		}
		return nil
	})
}

// splitShell cuts a simple command at blanks outside single quotes.
func splitShell(line string) []string {
	var words []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// The help of all verbs, as one file to review. UPDATE_GOLDEN=1 rewrites it.
func TestHelpGolden(t *testing.T) {
	var got bytes.Buffer
	_ = walk(fakeApp().Root(), func(c *cobra.Command) error {
		if strings.HasPrefix(c.CommandPath(), "mqcluster completion") {
			return nil // cobra's own words
		}
		app := fakeApp()
		var out bytes.Buffer
		app.Out, app.Err = &out, &out
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		if code := app.Main(t.Context(), args); code != 0 {
			t.Errorf("%v: exit code %d", args, code)
		}
		got.WriteString("$ mqcluster " + strings.Join(args, " ") + "\n" + out.String() + "\n")
		return nil
	})
	file := filepath.Join("testdata", "help.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

// substitution is what a shell puts the output of a command in the place of.
var substitution = regexp.MustCompile(`"\$\([^)]*\)"`)

// TestDocumentedCommandsParse: what the documents have an operator type names verbs and
// flags that exist. Those in blocks "sh on=…" are run as well, by make quickstart.
func TestDocumentedCommandsParse(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join("..", "..", "README.md"), filepath.Join("..", "..", "deploy", "grafana", "README.md"))
	found := 0
	for _, file := range files {
		if name := filepath.Base(file); name == "cli.md" || name == "licences.md" {
			continue // TestExamplesParse reads where it comes from; the other has none
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.SplitSeq(strings.ReplaceAll(string(text), "\\\n", " "), "\n") {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "mqcluster ")
			if !ok || strings.Contains(line, "`") || strings.HasPrefix(command, "bench ") || strings.HasPrefix(command, "demo ") {
				continue // prose, or a verb of another package
			}
			command = substitution.ReplaceAllString(command, "x")
			command, _, _ = strings.Cut(command, " #")
			command, _, _ = strings.Cut(command, " >")
			command, _, _ = strings.Cut(command, " | ")
			words := splitShell(command)
			verb, rest, err := fakeApp().Root().Find(words)
			if err == nil {
				verb.InheritedFlags() // merges what the parents define
				err = verb.ParseFlags(rest)
			}
			if err == nil && verb.Args != nil {
				err = verb.Args(verb, verb.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %q: %v", file, command, err)
			}
			found++
		}
	}
	if found < 40 {
		t.Errorf("only %d commands were found", found)
	}
}
