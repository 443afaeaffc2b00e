package consensus

import "syscall"

// dsync makes a write return when what it wrote can be read after a loss of power.
const dsync = syscall.O_DSYNC
