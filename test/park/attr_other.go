//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// processAttr keeps the terminal's Ctrl-C from a process.
func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// leisurely is a command that gets a processor after the others.
func leisurely(path string, args ...string) (*exec.Cmd, error) {
	return exec.Command("nice", append([]string{"-n", "19", path}, args...)...), nil
}
