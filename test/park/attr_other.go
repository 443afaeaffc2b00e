//go:build !linux

package main

import "syscall"

// processAttr keeps the terminal's Ctrl-C from a process.
func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
