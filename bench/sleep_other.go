//go:build !linux

package bench

import "time"

type sleeper struct{}

func newSleeper() sleeper { return sleeper{} }

func (sleeper) sleep(ns int64) { time.Sleep(time.Duration(ns)) }

func (sleeper) close() {}
