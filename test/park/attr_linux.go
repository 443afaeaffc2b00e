package main

import "syscall"

// processAttr ends a process with the run, should that be killed, and keeps the
// terminal's Ctrl-C from it: the run ends its processes itself.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
