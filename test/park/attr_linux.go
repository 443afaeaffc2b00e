package main

import (
	"os/exec"
	"syscall"
)

// processAttr ends a process with the run, should that be killed, and keeps the
// terminal's Ctrl-C from it: the run ends its processes itself.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// leisurely is a command that gets a processor when nobody else wants it.
func leisurely(path string, args ...string) *exec.Cmd {
	return exec.Command("chrt", append([]string{"--idle", "0", path}, args...)...)
}
