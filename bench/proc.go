package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of /proc/PID/stat: USER_HZ is 100 on every Linux.
const clockTick = 10 * time.Millisecond

// usage is what a process has used.
type usage struct {
	pid       int
	name      string
	cpu       time.Duration
	rss, peak int64 // bytes
}

// sample reads what the processes have used so far.
func sample(pids []int) ([]usage, error) {
	var all []usage
	for _, pid := range pids {
		u, err := readUsage(pid)
		if err != nil {
			return nil, fmt.Errorf("read the usage of process %d: %w", pid, err)
		}
		all = append(all, u)
	}
	return all, nil
}

func readUsage(pid int) (usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return usage{}, err
	}
	u, err := parseStat(stat)
	if err != nil {
		return usage{}, err
	}
	u.pid = pid
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return usage{}, err
	}
	u.rss, u.peak = statusBytes(status, "VmRSS"), statusBytes(status, "VmHWM")
	return u, nil
}

// parseStat reads name and CPU time. The name, in parentheses, may have any
// character, so the fields are counted from the last parenthesis.
func parseStat(stat []byte) (usage, error) {
	from, to := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if from < 0 || to < from {
		return usage{}, fmt.Errorf("no process name in %q", stat)
	}
	fields := strings.Fields(string(stat[to+1:]))
	if len(fields) < 13 {
		return usage{}, fmt.Errorf("only %d fields in %q", len(fields), stat)
	}
	u := usage{name: string(stat[from+1 : to])}
	for _, f := range fields[11:13] { // utime, stime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return usage{}, err
		}
		u.cpu += time.Duration(ticks) * clockTick
	}
	return u, nil
}

// statusBytes returns a memory line of /proc/PID/status, 0 if there is none.
func statusBytes(status []byte, key string) int64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
