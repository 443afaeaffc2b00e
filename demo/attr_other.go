//go:build !linux

package demo

import "syscall"

// processAttr keeps the terminal's Ctrl-C from the nodes, which the demo stops
// itself. Only Linux ends them with a demo that is killed.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
