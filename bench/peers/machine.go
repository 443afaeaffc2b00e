package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// machine says on what the run was made, for a table of the document.
type machine struct {
	Date     string            `json:"date"`
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   string            `json:"memory"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Versions map[string]string `json:"versions"`
	Command  string            `json:"command"`
}

func (s *starter) machine(ctx context.Context, command string) machine {
	m := machine{Date: time.Now().UTC().Format(time.DateOnly), CPU: line("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(),
		Memory: gib(line("/proc/meminfo", "MemTotal")), Go: runtime.Version(), Command: command,
		Versions: map[string]string{"mqcluster": s.version(ctx)}}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // a system without it has no name there
	m.Kernel = strings.TrimSpace(string(kernel))
	if path, err := look(s.mosquitto, "mosquitto"); err == nil {
		m.Versions["mosquitto"] = strings.TrimPrefix(first(ctx, path, "-h"), "mosquitto version ")
	}
	if path, err := look(s.nats, "nats-server"); err == nil {
		m.Versions["nats-server"] = strings.TrimPrefix(first(ctx, path, "--version"), "nats-server: v")
	}
	return m
}

// version is mqcluster's, with its commit.
func (s *starter) version(ctx context.Context) string {
	var v struct{ Version, Commit string }
	if out, err := s.command(ctx, "version", "-o", "json"); err != nil || json.Unmarshal(out, &v) != nil {
		return "unknown"
	}
	return fmt.Sprintf("%s (%.12s)", v.Version, v.Commit)
}

// first is the first line that a program prints, whatever its exit code.
func first(ctx context.Context, path string, args ...string) string {
	out, _ := exec.CommandContext(ctx, path, args...).CombinedOutput()
	text, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(text)
}

// line is the value of a key in a file of /proc, empty if there is none.
func line(path, key string) string {
	text, _ := os.ReadFile(path)
	for l := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// gib makes GiB of a number of kB.
func gib(kb string) string {
	var n float64
	if _, err := fmt.Sscan(kb, &n); err != nil {
		return ""
	}
	return fmt.Sprintf("%.0f GiB", n/(1<<20))
}
