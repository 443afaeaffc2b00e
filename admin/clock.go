package admin

import (
	"context"
	"time"
)

// Clock is the cluster's clock, by which everything expires.
type Clock interface {
	// Clock reads it on the leader and, with Step, sets it forward: to wall time,
	// or by By.
	Clock(ctx context.Context, r ClockRequest) (ClockReading, error)
}

// ClockRequest asks for the clock, or for a step of it.
type ClockRequest struct {
	Step bool          `json:"step,omitempty"`
	By   time.Duration `json:"by,omitempty"`
}

// ClockReading is the cluster's clock beside wall time, the median of the voters'
// clocks, and what a step to To ends.
type ClockReading struct {
	Log   time.Time `json:"log"`
	Wall  time.Time `json:"wall"`
	Known bool      `json:"wall_known"` // by a majority of the voters
	To    time.Time `json:"to"`
	// Sessions end and Wills fire by To.
	Sessions int  `json:"sessions_due"`
	Wills    int  `json:"wills_due"`
	Stepped  bool `json:"stepped"`
}

// Clock is Clock.Clock.
func (c *Client) Clock(ctx context.Context, r ClockRequest) (ClockReading, error) {
	if r.Step {
		return call[ClockReading](ctx, c, opClockStep, r)
	}
	return call[ClockReading](ctx, c, opClockShow, r)
}
