//go:build linux

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wallVariable names the file with a node's shift of the wall clock: seconds, 8
// bytes, little endian. The process maps it, so it steps at once.
const wallVariable = "MQCLUSTER_TEST_WALL"

// shiftGo is added to package time of the program under test.
const shiftGo = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var shift = mapShift()

func mapShift() *int64 {
	path, _ := syscall.Getenv("` + wallVariable + `")
	if path == "" {
		return new(int64)
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic("` + wallVariable + `: " + err.Error())
	}
	m, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + wallVariable + `: " + err.Error())
	}
	syscall.Close(fd)
	return (*int64)(unsafe.Pointer(&m[0]))
}

func shifted() int64 { return atomic.LoadInt64(shift) }
`

// withShiftedClock has the test run the program as it is but for the standard
// library's time.Now, whose wall clock can be shifted for each process alone. A
// time namespace does not shift CLOCK_REALTIME, and a static program that asks
// the vDSO cannot be told another time from outside.
func withShiftedClock(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(src, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const now = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), now) != 1 {
		t.Fatal("this Go's time.Now is written in another way: look at it and adapt withShiftedClock")
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for name, content := range map[string]string{
		"time.go":  strings.Replace(string(text), now, now+"\tsec += shifted()\n", 1),
		"shift.go": shiftGo,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][filepath.Join(src, name)] = path
	}
	text, err = json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		t.Fatal(err)
	}
	buildProgram(t, "-overlay", list)
}

// buildProgram builds the program with further flags and has the test run that.
func buildProgram(t *testing.T, flags ...string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mqcluster")
	args := append([]string{"build", "-o", path}, flags...)
	build := exec.Command("go", append(args, "github.com/mqcluster/mqcluster/cmd/mqcluster")...)
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	sound := program
	program = path
	t.Cleanup(func() { program = sound })
}

// ShiftWall steps the node's wall clock to so much beside the machine's.
func (n *Node) ShiftWall(d time.Duration) {
	n.t.Helper()
	b := binary.LittleEndian.AppendUint64(nil, uint64(d/time.Second))
	f, err := os.OpenFile(n.wall, os.O_WRONLY, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		n.t.Fatal(err)
	}
}

// WallShift asks the node what time it is and returns how far that is from the
// machine's.
func (n *Node) WallShift() time.Duration {
	n.t.Helper()
	r, err := http.Get("http://" + n.Health + "/livez")
	if err != nil {
		n.t.Fatal(err)
	}
	r.Body.Close()
	date, err := http.ParseTime(r.Header.Get("Date"))
	if err != nil {
		n.t.Fatal(err)
	}
	return time.Until(date).Round(time.Minute)
}
