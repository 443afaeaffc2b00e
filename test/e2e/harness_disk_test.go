//go:build linux

package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// disk is a file system of its own for one node, an ext4 image on a loop device,
// so that it can be filled and frozen alone. Mounting takes root.
type disk struct {
	t      *testing.T
	mount  string
	frozen bool
}

// diskSize is that of every image; only what is written takes space.
const diskSize = 512 << 20

// mayMount tells why this process cannot have disks, "" if it can.
func mayMount() string {
	if os.Geteuid() != 0 {
		return "mounting takes root"
	}
	for _, p := range []string{"mkfs.ext4", "mount", "umount", "fsfreeze"} {
		if _, err := exec.LookPath(p); err != nil {
			return err.Error()
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return err.Error()
	}
	return ""
}

// janitor is a process that thaws and unmounts every disk of the cluster when its
// input ends: when the cluster closes, and also when the test program is killed,
// for a frozen file system that stays behind would hang whoever syncs.
func (c *Cluster) janitor() {
	c.t.Helper()
	dir := filepath.Join(c.dir, "disks")
	if err := os.Mkdir(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `cat >/dev/null; for d in "$1"/*/; do fsfreeze -u "$d" 2>/dev/null; umount "$d" || umount -l "$d"; done`, "sh", dir)
	// A terminal's interrupt is not meant for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.unmount = func() error {
		return closeAndWait(in, cmd)
	}
}

func closeAndWait(in io.Closer, cmd *exec.Cmd) error {
	in.Close()
	return cmd.Wait()
}

// newDisk makes and mounts the disk of a node, whose data directory moves there.
func (c *Cluster) newDisk(n *Node) {
	c.t.Helper()
	n.Disk = &disk{t: c.t, mount: c.mountImage(n.ID, diskSize)}
	n.Dir = filepath.Join(n.Disk.mount, "data")
}

// tinyDisk is a further disk of so many bytes, for what does not fit; it goes with
// those of the nodes.
func (c *Cluster) tinyDisk(size int64) (mount string) {
	c.t.Helper()
	return c.mountImage("tiny", size)
}

func (c *Cluster) mountImage(name string, size int64) (mount string) {
	c.t.Helper()
	image := filepath.Join(c.dir, name+".img")
	mount = filepath.Join(c.dir, "disks", name)
	for _, err := range []error{
		os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(mount, 0o700),
		exec.Command("mkfs.ext4", "-q", "-m", "0", image).Run(),
		exec.Command("mount", "-o", "loop", image, mount).Run(),
	} {
		if err != nil {
			c.t.Fatalf("make the disk %s: %v", name, err)
		}
	}
	return mount
}

// The requests of ioctl_fs that freeze and thaw a file system.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

func (d *disk) ioctl(request uintptr) error {
	f, err := os.Open(d.mount)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, 0); errno != 0 {
		return errno
	}
	return nil
}

// Freeze has every write and sync hang, until Thaw.
func (d *disk) Freeze() {
	d.t.Helper()
	if err := d.ioctl(fiFreeze); err != nil {
		d.t.Fatalf("freeze %s: %v", d.mount, err)
	}
	d.frozen = true
}

// Thaw ends a Freeze; what hung goes on.
func (d *disk) Thaw() {
	d.t.Helper()
	if !d.frozen {
		return
	}
	if err := d.ioctl(fiThaw); err != nil {
		d.t.Fatalf("thaw %s: %v", d.mount, err)
	}
	d.frozen = false
}

// probe writes and syncs a few bytes and returns how long that took.
func (d *disk) probe() time.Duration {
	d.t.Helper()
	start := time.Now()
	f, err := os.Create(filepath.Join(d.mount, "probe"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		d.t.Fatal(err)
	}
	return time.Since(start)
}

// space is how many bytes are free and how many there are.
func (d *disk) space() (free, all int64) {
	d.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(d.mount, &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize
}

// Fill takes all free space but leave bytes; Empty gives it back.
func (d *disk) Fill(leave int64) error {
	f, err := os.OpenFile(filepath.Join(d.mount, "ballast"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	size := int64(0)
	for range 8 { // blocks of the file system's own come on top
		free, _ := d.space()
		if free <= leave {
			return nil
		}
		if err := syscall.Fallocate(int(f.Fd()), 0, size, free-leave); err != nil && err != syscall.ENOSPC {
			return fmt.Errorf("fill %s: %w", d.mount, err)
		}
		size += free - leave
	}
	return nil
}

func (d *disk) Empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.mount, "ballast")); err != nil {
		d.t.Fatal(err)
	}
}
