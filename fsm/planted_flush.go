//go:build !plant_restore_without_flush

package fsm

import "github.com/cockroachdb/pebble/v2"

// flush writes the memtable to disk, because a checkpoint leaves it out. It is
// durable on return. A test build plants a fault here.
func flush(db *pebble.DB) error { return db.Flush() }
