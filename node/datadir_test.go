package node

import (
	"log/slog"
	"os"
	"strings"
	"testing"
)

// Root does not leave files in the directory of the service's user that this user
// cannot open.
func TestRootLeavesOthersDirectoriesAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give a directory away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	config := Defaults()
	config.DataDir, config.Node.ID = dir, "a"
	_, err := Init(t.Context(), config, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "run this command as that user (runuser -u ") {
		t.Errorf("init: %v", err)
	}
	if _, err := dataDir(dir).lock(); err == nil {
		t.Error("root has locked it")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
