//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// processAttr keeps the terminal's Ctrl-C from a process.
func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// leisurely is a command that gets a processor after the others.
func leisurely(path string, args ...string) *exec.Cmd {
	return exec.Command("nice", append([]string{"-n", "19", path}, args...)...)
}

// crowd does nothing here.
func crowd() (spread func() error, err error) { return func() error { return nil }, nil }
