//go:build linux

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// probing writes to a disk aside and tells how long that took.
func probing(d *disk) <-chan time.Duration {
	took := make(chan time.Duration, 1)
	go func() { took <- d.probe() }()
	return took
}

// slowDisk freezes a disk again and again for a moment.
func (x *chaos) slowDisk(f fault) {
	n := x.anyone(f)
	x.begin(n)
	x.mayEnd[n] = true
	freezes, frozen, slowest := 0, time.Duration(0), time.Duration(0)
	for start := time.Now(); time.Since(start) < f.lasts; freezes++ {
		d := time.Duration(30+x.random.IntN(300)) * time.Millisecond
		n.Disk.Freeze()
		took := probing(n.Disk)
		time.Sleep(d)
		n.Disk.Thaw()
		frozen, slowest = frozen+d, max(slowest, <-took)
		time.Sleep(30 * time.Millisecond)
	}
	x.say("frozen %d times for %v in all, slowest write %v", freezes, frozen, slowest.Round(time.Millisecond))
	if slowest < 100*time.Millisecond {
		x.t.Errorf("%v took no effect: the slowest write took %v", f, slowest)
	}
}

// hungDisk freezes a disk. A node whose disk answers no longer ends by itself,
// and the others go on without it before the disk is thawed.
func (x *chaos) hungDisk(f fault) {
	n := x.anyone(f)
	x.begin(n)
	x.mayEnd[n] = true
	others := x.others(n)
	start := time.Now()
	n.Disk.Freeze()
	took := probing(n.Disk)
	x.last(f)
	if f.lasts > 11*time.Second {
		x.serve(n, others)
		code, _ := n.Ready()
		x.say("%s says %d", n.ID, code)
		if code == 200 {
			x.t.Errorf("%v: %s is ready without a disk", f, n.ID)
		}
	}
	n.Disk.Thaw()
	lasted := time.Since(start)
	x.say("for %.1f s", lasted.Seconds())
	if wrote := <-took; wrote < f.lasts-100*time.Millisecond {
		x.t.Errorf("%v took no effect: a write took %v", f, wrote)
	}
}

func (x *chaos) others(n *Node) (out []*Node) {
	for _, o := range x.Running() {
		if o != n {
			out = append(out, o)
		}
	}
	return out
}

// serve waits until nodes are ready under a leader other than the lost one.
func (x *chaos) serve(lost *Node, nodes []*Node) {
	took := await(x.t, patience, func() bool {
		for _, n := range nodes {
			s, err := n.Status()
			if code, _ := n.Ready(); code != 200 || err != nil || s.Leader == "" || s.Leader == lost.ID {
				return false
			}
		}
		return true
	}, func() string { return "the others do not go on without " + lost.ID })
	x.say("the others go on (asked for %v)", took.Round(time.Millisecond))
}

// fullDisk takes most of what the node keeps in reserve: it lives, takes nothing
// more, and goes on when there is room.
func (x *chaos) fullDisk(f fault) {
	n := x.anyone(f)
	x.begin(n)
	_, all := n.Disk.space()
	reserve := min(256<<20, all/4)
	if err := n.Disk.Fill(reserve / 2); err != nil {
		x.t.Fatal(err)
	}
	pid := n.PID()
	x.last(f)
	free, _ := n.Disk.space()
	x.say("%d of %d MB free", free>>20, all>>20)
	if free >= reserve { // the node may have given some back itself
		x.t.Errorf("%v took no effect: %d bytes are free", f, free)
	}
	if !n.Running() || n.PID() != pid {
		x.t.Errorf("%v: %s died of it", f, n.ID)
		x.mayEnd[n] = true
	}
	n.Disk.Empty()
}

// crammedDisk takes every byte at once. The node may end: what a failed write
// left is unknown.
func (x *chaos) crammedDisk(f fault) {
	n := x.anyone(f)
	x.begin(n)
	x.mayEnd[n] = true
	if err := n.Disk.Fill(0); err != nil {
		x.t.Fatal(err)
	}
	path := filepath.Join(n.Disk.mount, "more")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		x.t.Errorf("%v took no effect: writing more: %v", f, err)
	}
	x.last(f)
	x.say("process lives: %t", n.Running())
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		x.t.Fatal(err)
	}
	n.Disk.Empty()
}
