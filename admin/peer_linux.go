package admin

import (
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// peerOf is who is at the other end of a Unix socket, as the kernel says: nobody can
// say to be somebody else.
func peerOf(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	if who, err := user.LookupId(uid); err == nil {
		return fmt.Sprintf("uid %s (%s)", uid, who.Username)
	}
	return "uid " + uid
}
