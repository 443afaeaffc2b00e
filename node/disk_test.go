package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/mqcluster/mqcluster/consensus"
)

func TestMarks(t *testing.T) {
	for _, c := range []struct {
		name         string
		set          StorageConfig
		total        uint64
		low, reserve uint64
	}{
		{"1 TiB", StorageConfig{}, 1 << 40, 1 << 40 / 20, 256 << 20},
		{"10 GiB", StorageConfig{}, 10 << 30, 1 << 30, 256 << 20},
		{"1 GiB", StorageConfig{}, 1 << 30, 512 << 20, 256 << 20},
		{"64 MiB", StorageConfig{}, 64 << 20, 32 << 20, 16 << 20},
		{"set", StorageConfig{Low: 2 * GiB, Reserve: GiB}, 1 << 40, 2 << 30, 1 << 30},
		{"set too high", StorageConfig{Low: GiB, Reserve: GiB}, 1 << 30, 512 << 20, 256 << 20},
		{"low below the default reserve", StorageConfig{Low: MiB}, 1 << 40, 256 << 20, 256 << 20},
	} {
		if low, reserve := marks(c.set, c.total); low != c.low || reserve != c.reserve {
			t.Errorf("%s: marks %d and %d, want %d and %d", c.name, low, reserve, c.low, c.reserve)
		}
	}
}

func TestDiskMarksAreLeftAnEighthAbove(t *testing.T) {
	free := uint64(1000)
	var out bytes.Buffer
	d, err := newDisk(StorageConfig{}, func() (uint64, uint64, error) { return free, 1600, nil }, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	// Of 1600 bytes the low mark is 800 and the reserve 400.
	for _, s := range []struct {
		free uint64
		want consensus.Room
	}{
		{1000, consensus.RoomEnough}, {801, consensus.RoomEnough}, {799, consensus.RoomLow}, {850, consensus.RoomLow},
		{401, consensus.RoomLow}, {399, consensus.RoomNone}, {440, consensus.RoomNone}, {450, consensus.RoomLow},
		{899, consensus.RoomLow}, {900, consensus.RoomEnough}, {10, consensus.RoomNone}, {1600, consensus.RoomEnough},
	} {
		free = s.free
		if got := d.Room(); got != s.want {
			t.Errorf("%d bytes free: %v, want %v", s.free, got, s.want)
		}
		d.watch(t.Context())
		d.watch(t.Context())
	}
	if n := strings.Count(out.String(), "\n"); n != 6 {
		t.Errorf("%d lines for 6 changes:\n%s", n, out.String())
	}
	free = 500
	if !d.holds(100) || d.holds(101) {
		t.Error("100 bytes fit above the reserve, 101 do not")
	}
}
