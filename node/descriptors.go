package node

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ownDescriptors is what a node opens beside its clients' connections: the store,
// the log, its peers.
const ownDescriptors = 2000

// DescriptorWarning tells, in one sentence, that this process may not open as many
// files as its configuration admits clients; "" if it may.
func (c *Config) DescriptorWarning() string {
	var limit unix.Rlimit
	if c.Limits.MaxConnections == 0 || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return ""
	}
	return c.descriptorWarning(limit.Cur)
}

func (c *Config) descriptorWarning(limit uint64) string {
	want := uint64(c.Limits.MaxConnections + c.Limits.UnauthenticatedConnections + ownDescriptors)
	if want <= limit {
		return ""
	}
	return fmt.Sprintf("limits.max_connections %d takes %d open files and this process may have %d: raise its limit (LimitNOFILE of the unit, ulimit -n) or lower the key", c.Limits.MaxConnections, want, limit)
}
