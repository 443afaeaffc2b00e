package consensus

import (
	"errors"
	"time"

	"github.com/mqcluster/mqcluster/fsm/logpb"
)

// ErrClockBack: log time never goes back.
var ErrClockBack = errors.New("the cluster's clock is past that already: it is never set back")

// ClockReading is log time beside wall time.
type ClockReading struct {
	Log time.Time `json:"log"`
	// Wall is the median of the voters' clocks, as far as they are known.
	Wall time.Time `json:"wall"`
	// Known: a majority of the voters has told its clock to this leader.
	Known bool `json:"known"`
}

// Clock reads log time and wall time. Leader only.
func (c *Consensus) Clock() (ClockReading, error) {
	lead := c.lead.Load()
	if lead == nil {
		return ClockReading{}, ErrNotLeader
	}
	c.granter.mu.Lock()
	known := c.granter.compared
	c.granter.mu.Unlock()
	wall := time.Now().Add(c.granter.offset())
	c.proposeMu.Lock()
	defer c.proposeMu.Unlock()
	stamp := lead.clock.Stamp(c.now(), wall)
	return ClockReading{Log: time.UnixMilli(stamp), Wall: wall, Known: known}, nil
}

// StepClock sets log time forward, for time that no leader counted: what is due by
// then happens at once. It blocks until a majority has it on disk. Leader only.
func (c *Consensus) StepClock(to time.Time) error {
	lead := c.lead.Load()
	if lead == nil {
		return ErrNotLeader
	}
	c.proposeMu.Lock()
	gap := lead.clock.Gap(c.now(), to)
	lead.clock.Step(c.now(), to)
	c.proposeMu.Unlock()
	if gap <= 0 {
		return ErrClockBack
	}
	c.log.Warn("log time was stepped forward", "by", gap.Round(time.Millisecond), "to", to)
	return c.proposeEntry(lead, &logpb.Entry{Command: &logpb.Entry_Tick{Tick: &logpb.Tick{}}})
}

// look compares log time with the voters' clocks, once in a leadership, as soon as
// a majority of them is known: one clock that is wrong decides nothing.
func (g *granter) look(lead *leading) {
	if lead.looked {
		return
	}
	r, err := g.c.Clock()
	if err != nil || !r.Known {
		return
	}
	lead.looked = true
	gap := r.Wall.Sub(r.Log)
	switch {
	case gap.Abs() <= maxSkew:
	case gap > 0 && g.c.deps.Follow != nil && g.c.deps.Follow():
		if err := g.c.StepClock(r.Wall); err != nil {
			g.c.log.Debug("log time was not stepped", "err", err)
		}
	case gap > 0:
		g.c.log.Warn("log time is behind wall time: nothing expires for the time that no leader counted; mqcluster clock step makes it count", "by", gap.Round(time.Second))
	default:
		g.c.log.Warn("log time is ahead of wall time: the voters' clocks may be wrong, and log time does not follow them", "by", (-gap).Round(time.Second))
	}
}
