package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestEveryAlertIsInTheRunbook: who is woken finds what to do, and no section is of an
// alert that is gone. Links within the documents lead somewhere.
func TestEveryAlertIsInTheRunbook(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/mqcluster.rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, r.Alert)
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
			}
			if !strings.HasSuffix(r.Annotations["runbook_url"], "docs/runbook.md#"+strings.ToLower(r.Alert)) {
				t.Errorf("%s leads to %q", r.Alert, r.Annotations["runbook_url"])
			}
		}
	}
	book, err := os.ReadFile(filepath.Join(root, "docs/runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^### (Mqcluster\w+)\n\n(.+)`).FindAllStringSubmatch(string(book), -1) {
		sections = append(sections, m[1])
	}
	slices.Sort(alerts)
	slices.Sort(sections)
	if diff := cmp.Diff(alerts, sections); diff != "" || len(alerts) == 0 {
		t.Errorf("alerts (-) and sections of the runbook (+):\n%s", diff)
	}
}

// TestLinksLead: links in the documents to files of the repository, and to sections of
// them, exist.
func TestLinksLead(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			path, section, _ := strings.Cut(m[1], "#")
			to := file
			if path != "" {
				to = filepath.Join(filepath.Dir(file), path)
			}
			target, err := os.ReadFile(to)
			if err != nil {
				if info, statErr := os.Stat(to); statErr != nil || !info.IsDir() {
					t.Errorf("%s: %s leads nowhere", file, m[1])
				}
				continue
			}
			if section != "" && !slices.Contains(anchors(string(target)), section) {
				t.Errorf("%s: %s leads to no section", file, m[1])
			}
		}
	}
	if links < 30 {
		t.Errorf("only %d links were found", links)
	}
}

// TestTheSameCommandsInChinese: the quick start in Chinese has the commands and the
// configuration of the README, which CI runs.
func TestTheSameCommandsInChinese(t *testing.T) {
	blocks := func(file string) []string {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile("(?s)```(?:sh on=\\S+|haproxy)\n.*?```").FindAllString(string(text), -1)
	}
	want := blocks("README.md")
	if diff := cmp.Diff(want, blocks("docs/quickstart.zh-CN.md")); diff != "" || len(want) == 0 {
		t.Errorf("the README (-) and docs/quickstart.zh-CN.md (+):\n%s", diff)
	}
}

// anchors are the names that GitHub gives to the headings of a document.
func anchors(text string) (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(m[1])
		name = regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(name, "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}
