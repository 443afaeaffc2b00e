package main

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
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

// leisurely is a command that gets a processor when nobody else wants it.
func leisurely(path string, args ...string) *exec.Cmd {
	return exec.Command("chrt", append([]string{"--idle", "0", path}, args...)...)
}

// crowd has this process do with one of its processors, until the function that it returns
// is called. Linux does not always see that a processor is as good as idle which only a
// leisurely process has: with two of them others were seen to queue, eleven of them, for
// the other one.
func crowd() (spread func() error, err error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("ask for the processors: %w", err)
	}
	for n := range len(all) * bits.UintSize {
		if all.IsSet(n) {
			one.Zero()
			one.Set(n)
		}
	}
	return func() error { return onto(&all) }, onto(&one)
}

// onto has all threads run on some processors; later ones do as those that start them.
func onto(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list the threads: %w", err)
	}
	for _, t := range threads {
		n, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.SchedSetaffinity(n, set)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // one may have ended
			return fmt.Errorf("choose processors: %w", err)
		}
	}
	return nil
}
