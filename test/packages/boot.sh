#!/bin/sh
# usage: boot.sh ROOT CGROUP
#
# Boots the systemd of a Debian tree in namespaces of its own: processes, mounts,
# network, a group of control groups. It ends when that systemd does; whoever kills it
# ends that too.
set -eu

if [ "${3:-}" = "" ]; then
  # A group that the inner systemd is the root of.
  groups=$(mktemp -d)
  mount --make-rprivate /
  mount -t cgroup2 cgroup2 "$groups"
  mkdir -p "$groups/$2"
  echo $$ >"$groups/$2/cgroup.procs"
  exec unshare --cgroup --pid --mount --ipc --uts --net --fork --kill-child "$0" "$1" "$2" inside
fi

root=$1
hostname scratch
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do
  touch dev/$device
  mount --bind /dev/$device dev/$device
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mkdir .before
pivot_root . .before
umount -l .before
rmdir .before
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
