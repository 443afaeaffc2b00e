package main

import (
	"fmt"
	"math/bits"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttr ends a process with the run, should that be killed, and keeps the
// terminal's Ctrl-C from it: the run ends its processes itself.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// leisurely is a command that gets one of the processors, and that when nobody else wants
// it. One, because Linux does not always see that a processor is as good as idle which only
// such a command has: with two of them others were seen to queue, eleven of them, for the
// other one.
func leisurely(path string, args ...string) (*exec.Cmd, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return nil, fmt.Errorf("ask for the processors: %w", err)
	}
	last := 0
	for n := range len(allowed) * bits.UintSize {
		if allowed.IsSet(n) {
			last = n
		}
	}
	return exec.Command("taskset", append([]string{"--cpu-list", strconv.Itoa(last), "chrt", "--idle", "0", path}, args...)...), nil
}
