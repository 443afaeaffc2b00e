//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// program is the path of the program under test; TestMain sets it once.
var program string

// TestMain builds the program once, or takes the one that MQCLUSTER_BIN names.
// With -short nothing runs: these tests take minutes.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("e2e: skipped with -short")
		os.Exit(0)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if program = os.Getenv("MQCLUSTER_BIN"); program == "" {
		dir, err := os.MkdirTemp("", "mqcluster-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "mqcluster")
		build := exec.Command("go", "build", "-o", program, "github.com/mqcluster/mqcluster/cmd/mqcluster")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: build the program:", err)
			return 1
		}
	}
	return m.Run()
}

// long tells whether E2E_LONG asks for the long form.
func long() bool { return os.Getenv("E2E_LONG") != "" }

// scaled is n, or with E2E_LONG ten times that.
func scaled(n int) int {
	if long() {
		return 10 * n
	}
	return n
}

// patience bounds every wait of a test that names no bound of its own. It is no
// bar: a bar is measured and compared by itself.
const patience = 30 * time.Second
