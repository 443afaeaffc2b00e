package demo

import "syscall"

// processAttr keeps the terminal's Ctrl-C from the nodes, which the demo stops
// itself, and ends them with the demo if that is killed.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
