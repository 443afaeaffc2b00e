//go:build !linux

package consensus

import "os"

// dsync makes a write return when what it wrote can be read after a loss of power.
const dsync = os.O_SYNC
