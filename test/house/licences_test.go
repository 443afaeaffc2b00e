package house

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// licenceTable is the committed list. make licences writes it.
const licenceTable = root + "/docs/licences.md"

// A family is a licence that code under Apache-2.0 may be linked with.
type family struct {
	name string
	// marks are all in the text, white space taken as single blanks.
	marks []string
}

// families, the more specific first: a text counts as the first that fits.
var families = []family{
	{"MPL-2.0", []string{"Mozilla Public License", "ersion 2.0", "Covered Software"}},
	{"EDL-1.0", []string{"Eclipse Public License v2.0 and Eclipse Distribution License v1.0 which accompany this distribution"}},
	{"Apache-2.0", []string{"Apache License", "Version 2.0, January 2004", "Grant of Patent License"}},
	{"BSD-3-Clause", []string{"Redistribution and use in source and binary forms", "endorse or promote products"}},
	{"BSD-2-Clause", []string{"Redistribution and use in source and binary forms", "list of conditions"}},
	{"MIT", []string{"Permission is hereby granted, free of charge", "THE SOFTWARE IS PROVIDED"}},
	{"ISC", []string{"ermission to use, copy, modify, and", "distribute this software for any purpose"}},
}

// copyleft finds the heading of a licence that would bind our code; a mere
// mention, as in the EPL's secondary licences, is none.
var copyleft = regexp.MustCompile(`(?i)GNU (AFFERO |LESSER |LIBRARY )?GENERAL PUBLIC LICENSE,? Version [0-9.]+, ([0-9]+ )?\w+ [0-9]{4}|Server Side Public License|Business Source License|Commons Clause`)

// licenceFile matches the names under which modules keep their terms.
var licenceFile = regexp.MustCompile(`(?i)^(\w+_)?(licen[cs]e|copying|unlicense)([.-].*)?$`)

// A dependency is a module that the program or its tests are built from.
type dependency struct {
	path, dir string
	program   bool
}

// TestLicences reads the terms of every module that is compiled in and compares
// them with the committed table. Terms that it does not know fail it, as does a
// module without any.
func TestLicences(t *testing.T) {
	var table strings.Builder
	table.WriteString(licenceHead)
	for _, d := range dependencies(t) {
		terms, err := d.licences()
		if err != nil {
			t.Errorf("%s: %v", d.path, err)
			continue
		}
		use := "tests"
		if d.program {
			use = "program"
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", d.path, strings.Join(terms, ", "), use)
	}
	if t.Failed() {
		return
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(licenceTable, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	committed, err := os.ReadFile(licenceTable)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(committed), table.String()); diff != "" {
		t.Errorf("docs/licences.md is not what is compiled in, run make licences and read what it changed:\n%s", diff)
	}
}

// TestFamilies shows what passes and what does not.
func TestFamilies(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"MIT License\n\nPermission is hereby granted, free of\ncharge ... THE SOFTWARE IS PROVIDED \"AS IS\"", "MIT"},
		{"Mozilla Public License, version 2.0\n1.4. \"Covered Software\"", "MPL-2.0"},
		{"                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007", ""},
		{"Permission is hereby granted, free of charge THE SOFTWARE IS PROVIDED\nor the GNU General Public License, version 2, as published", "MIT"},
		{"Permission is hereby granted, free of charge THE SOFTWARE IS PROVIDED\nGNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3, 19 November 2007", ""},
		{"All rights reserved.", ""},
	} {
		got, err := classify([]byte(tt.text))
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%.40q: %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

const licenceHead = `# Licences of the modules that are compiled in

mqcluster is under the Apache License 2.0 (LICENSE). What it is built from, read
from the modules' own files by TestLicences (test/house), which fails where it
does not know the terms. ` + "`make licences`" + ` writes this file.

Modules under MPL-2.0 are used as they come; whoever changes one publishes the
changed files. Of the Eclipse modules' two licences we take the Eclipse
Distribution License, which is the BSD-3-Clause.

| module | licence | part of |
|---|---|---|
`

// dependencies lists the modules whose packages are compiled for Linux, by path.
func dependencies(t *testing.T) []dependency {
	t.Helper()
	var all []dependency
	program := listModules(t, "./cmd/...")
	for line := range strings.Lines(strings.Join(listModules(t, "-test", "./..."), "\n")) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		all = append(all, dependency{path: path, dir: dir, program: slices.Contains(program, path+"\t"+dir)})
	}
	if len(all) < 10 {
		t.Fatalf("only %d modules are compiled in: go list did not see the program", len(all))
	}
	return all
}

// listModules returns "path\tfolder" of the modules that the patterns need.
func listModules(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{
		"list", "-e", "-deps",
		"-f", `{{with .Module}}{{if not .Main}}{{.Path}}{{"\t"}}{{.Dir}}{{end}}{{end}}`,
	}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	lines := strings.Fields(strings.ReplaceAll(string(out), "\t", "\x00"))
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], "\x00", "\t")
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// licences returns the families of all licence files of a module.
func (d dependency) licences() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("it is not in the module cache: %w", err)
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(d.dir, e.Name()))
		if err != nil {
			return nil, err
		}
		name, err := classify(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		found = append(found, name)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("it has no licence file")
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// classify names the family of a text.
func classify(text []byte) (string, error) {
	plain := strings.Join(strings.Fields(string(text)), " ")
	if heading := copyleft.FindString(plain); heading != "" {
		return "", fmt.Errorf("%q cannot be combined with Apache-2.0", heading)
	}
	for _, f := range families {
		if !slices.ContainsFunc(f.marks, func(m string) bool { return !strings.Contains(plain, m) }) {
			return f.name, nil
		}
	}
	return "", fmt.Errorf("its terms are not known: read them and add the family to families, or do without the module")
}
