package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A build is what packages are made from.
type build struct {
	ctx     context.Context
	source  string // the root of the repository
	program string // what is packed
	// host is the same program for this machine, which writes its own manual,
	// completions and configuration.
	host    string
	version string
	arch    string // as Go spells it
	when    time.Time
}

func (b *build) read(name string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(b.source, name))
	if err != nil {
		return nil, fmt.Errorf("read a part of the package: %w", err)
	}
	return text, nil
}

// run returns what the program prints.
func (b *build) run(args ...string) ([]byte, error) {
	var complaint bytes.Buffer
	cmd := exec.CommandContext(b.ctx, b.host, args...)
	cmd.Stderr = &complaint
	cmd.Env = []string{} // no setting of this machine
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", b.host, strings.Join(args, " "), err, complaint.String())
	}
	return out, nil
}

// installed are the files of a package for a machine with systemd.
func (b *build) installed() ([]file, error) {
	program, err := b.static()
	if err != nil {
		return nil, err
	}
	files := []file{{Path: "usr/bin/mqcluster", Mode: 0o755, Data: program}}
	for from, to := range map[string]string{
		"deploy/systemd/mqcluster.service":  "lib/systemd/system/mqcluster.service",
		"deploy/systemd/mqcluster.sysusers": "usr/lib/sysusers.d/mqcluster.conf",
	} {
		text, err := b.read(from)
		if err != nil {
			return nil, err
		}
		files = append(files, file{Path: to, Mode: 0o644, Data: text})
	}
	for to, args := range map[string][]string{
		"etc/mqcluster/mqcluster.yaml":                       {"config", "example"},
		"usr/share/bash-completion/completions/mqcluster":    {"completion", "bash"},
		"usr/share/zsh/vendor-completions/_mqcluster":        {"completion", "zsh"},
		"usr/share/fish/vendor_completions.d/mqcluster.fish": {"completion", "fish"},
	} {
		text, err := b.run(args...)
		if err != nil {
			return nil, err
		}
		files = append(files, file{Path: to, Mode: 0o644, Data: text})
	}
	manual, err := b.manual()
	return append(files, manual...), err
}

// manual are the manual pages.
func (b *build) manual() ([]file, error) {
	dir, err := os.MkdirTemp("", "mqcluster-man-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the manual: %w", err)
	}
	defer os.RemoveAll(dir)
	if _, err := b.run("man", dir); err != nil {
		return nil, err
	}
	pages, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the manual: %w", err)
	}
	var files []file
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(dir, page.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the manual: %w", err)
		}
		if text, err = gzipped(text); err != nil {
			return nil, err
		}
		files = append(files, file{Path: "usr/share/man/man1/" + page.Name() + ".gz", Mode: 0o644, Data: text})
	}
	return files, nil
}

// terms matches the names under which modules keep what has to be passed on.
var terms = regexp.MustCompile(`(?i)^(\w+_)?(licen[cs]e|copying|notice)([.-].*)?$`)

// copyright is the terms of the program and of everything that it is linked with.
func (b *build) copyright() ([]byte, error) {
	var out bytes.Buffer
	if err := addTerms(&out, "mqcluster", b.source); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(b.ctx, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Dir}}{{end}}{{end}}", "./cmd/mqcluster")
	cmd.Dir = b.source
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+b.arch, "CGO_ENABLED=0")
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the modules that are linked: %w", err)
	}
	root, err := exec.CommandContext(b.ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find Go's own licence: %w", err)
	}
	modules := slices.DeleteFunc(strings.Split(string(list), "\n"), func(line string) bool { return line == "" })
	modules = append(modules, "the Go standard library\t"+strings.TrimSpace(string(root)))
	slices.Sort(modules)
	for _, module := range slices.Compact(modules) {
		name, dir, _ := strings.Cut(module, "\t")
		if err := addTerms(&out, name, dir); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// addTerms appends the files of terms in dir.
func addTerms(out *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the licence of %s: %w", name, err)
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || !terms.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("read the licence of %s: %w", name, err)
		}
		found = true
		fmt.Fprintf(out, "==== %s: %s ====\n\n%s\n\n", name, e.Name(), bytes.TrimSpace(text))
	}
	if !found {
		return fmt.Errorf("%s has no licence in %s: it may not be passed on", name, dir)
	}
	return nil
}
