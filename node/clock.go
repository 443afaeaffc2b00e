package node

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/consensus"
)

// settingAfterOutage says what becomes of time that no leader counted: hold (the
// default) leaves it out, follow counts it.
const settingAfterOutage = "clock.after_outage"

func (n *Node) followsWall() bool {
	v, _ := n.store.Setting(settingAfterOutage)
	return v == "follow"
}

// Clock implements admin.Clock: the cluster's clock, or, with Step, sets it.
func (b backend) Clock(ctx context.Context, r admin.ClockRequest) (admin.ClockReading, error) {
	out, err := askLeader(ctx, b.n, pathClock, r, b.n.clock)
	return out, adminError(err)
}

func (n *Node) serveClock(ctx context.Context, _ string, r admin.ClockRequest) (admin.ClockReading, error) {
	return n.clock(ctx, r)
}

// clock reads the cluster's clock on the leader, and steps it to wall time, or by
// r.By, if it is to.
func (n *Node) clock(_ context.Context, r admin.ClockRequest) (admin.ClockReading, error) {
	now, err := n.consensus.Clock()
	if err != nil {
		return admin.ClockReading{}, faultf(http.StatusServiceUnavailable, "%s", err)
	}
	to := now.Wall
	if r.By != 0 {
		to = now.Log.Add(r.By)
	}
	out := admin.ClockReading{Log: now.Log, Wall: now.Wall, Known: now.Known, To: to}
	out.Sessions, out.Wills = n.dueBy(to)
	if !r.Step {
		return out, nil
	}
	if r.By == 0 && !now.Known {
		return out, faultf(http.StatusServiceUnavailable, "the leader does not know the clocks of a majority of the voters yet: try again in some seconds")
	}
	err = n.consensus.StepClock(to)
	if errors.Is(err, consensus.ErrClockBack) {
		if r.By == 0 && now.Log.Sub(to) < time.Second {
			return out, nil // it is there: a step may be asked for twice
		}
		return out, faultf(http.StatusConflict, "%s", err)
	}
	if err != nil {
		return out, faultf(http.StatusServiceUnavailable, "%s", err)
	}
	out.Stepped, out.Log = true, to
	return out, nil
}

// dueBy counts the sessions that end and the wills that fire by a moment.
func (n *Node) dueBy(to time.Time) (sessions, wills int) {
	at := to.UnixMilli()
	for _, s := range n.store.Sessions("", int(^uint(0)>>1)) {
		if s.ExpiresAt != 0 && s.ExpiresAt <= at {
			sessions++
		}
		if s.WillAt != 0 && s.WillAt <= at {
			wills++
		}
	}
	return sessions, wills
}
