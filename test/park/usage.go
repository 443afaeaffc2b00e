package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is the processor time that the parts had used at the end of a phase.
type usage struct {
	phase                        string
	at                           time.Time
	nodes, balancers, generators time.Duration
}

// mark notes it.
func (p *park) mark(phase string) {
	u := usage{phase: phase, at: time.Now()}
	for _, n := range p.cluster.nodes {
		if n.process != nil {
			u.nodes += cpuTime(n.process.cmd.Process.Pid)
		}
	}
	for _, b := range p.balancers.processes {
		u.balancers += cpuTime(b.cmd.Process.Pid)
	}
	for _, pid := range p.workers.pids() {
		u.generators += cpuTime(pid)
	}
	p.usage = append(p.usage, u)
}

// passwords tells how each node checked the passwords since it was started.
func (p *park) passwords() (string, error) {
	var parts []string
	for _, n := range p.cluster.nodes {
		text, err := n.metrics()
		if err != nil {
			return "", err
		}
		counts := map[string]string{}
		for line := range strings.Lines(text) {
			for _, how := range []string{"hashed", "remembered"} {
				if value, ok := strings.CutPrefix(line, `mqcluster_node_password_checks_total{how="`+how+`"} `); ok {
					counts[how] = strings.TrimSpace(value)
				}
			}
		}
		parts = append(parts, fmt.Sprintf("%s hashed %s and remembered %s", n.name, counts["hashed"], counts["remembered"]))
	}
	return strings.Join(parts, ", "), nil
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// cpuTime is what a process has used, 0 if it is gone.
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; utime and stime are the 12th and
	// 13th field behind it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}
