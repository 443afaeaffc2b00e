#!/bin/sh
# usage: machine.sh DIR GROUP
#
# Boots a machine: the systemd of this one on a copy-on-write view of its files, in
# namespaces of its own but for the network. DIR has what the machine has of its own:
# files, which go over those of this one, and units. It ends when that systemd does,
# and its disk with it, which is memory.
set -eu

if [ "${3:-}" = "" ]; then
  # A group of control groups that the inner systemd is the root of.
  groups=$1/groups
  mkdir -p "$groups"
  mount --make-rprivate /
  mount -t cgroup2 cgroup2 "$groups"
  mkdir -p "$groups/$2"
  echo $$ >"$groups/$2/cgroup.procs"
  umount "$groups"
  exec unshare --cgroup --pid --mount --ipc --uts --fork --kill-child "$0" "$1" "$2" inside
fi

dir=$1
hostname "$2"
mkdir -p "$dir/disk" "$dir/root"
mount -t tmpfs tmpfs "$dir/disk"
mkdir "$dir/disk/upper" "$dir/disk/work"
cp -a "$dir/files/." "$dir/disk/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/disk/upper,workdir=$dir/disk/work" "$dir/root"
cd "$dir/root"
mount -t proc proc proc
# The kernel's settings are everybody's.
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# No unit that somebody has enabled here is started.
mount -t tmpfs tmpfs etc/systemd/system
cp "$dir"/units/* etc/systemd/system/
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
  systemd-sysctl.service systemd-modules-load.service systemd-random-seed.service systemd-hwdb-update.service \
  systemd-binfmt.service systemd-timesyncd.service systemd-firstboot.service systemd-machine-id-commit.service \
  systemd-remount-fs.service systemd-pstore.service systemd-networkd.service systemd-resolved.service systemd-update-utmp.service \
  systemd-tpm2-setup-early.service systemd-boot-random-seed.service \
  kmod-static-nodes.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-ask-password-console.path \
  systemd-ask-password-wall.path getty.target remote-fs.target swap.target; do
  ln -s /dev/null etc/systemd/system/$unit
done
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/disk dev/disk/by-id
for device in null zero full random urandom tty; do
  touch dev/$device
  mount --bind /dev/$device dev/$device
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir -p .before
pivot_root . .before
umount -l .before
rmdir .before
exec env -i container=unshare PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=machine.target
