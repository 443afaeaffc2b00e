package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// audit subscribes to all retained states and returns how many sensors have one that
// is older than the last that was acknowledged, or none.
func (p *park) audit(ctx context.Context, acked map[stream]uint32) (stale int, err error) {
	c, err := rawmqtt.Dial(ctx, p.balancers.addresses[0], p.auditor, version)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	name, password := auditor, p.plan.password(auditor)
	ack, err := c.Connect(rawmqtt.Connect{ClientID: auditor, CleanStart: true, Username: &name, Password: &password})
	if err != nil || ack.Reason != 0 {
		return 0, fmt.Errorf("the auditor was not let in (%v): %w", ack, err)
	}
	if _, err := c.Subscribe(1, rawmqtt.Subscription{Filter: "park/+/+/state"}); err != nil {
		return 0, fmt.Errorf("the auditor cannot subscribe: %w", err)
	}
	wanted := map[stream]uint32{}
	for s, seq := range acked {
		if r, _ := p.plan.place(int(s / 2)); r == sensor && s%2 == 1 && seq > 0 {
			wanted[s] = seq
		}
	}
	for len(wanted) > 0 {
		m, err := c.Read(settleLimit / 6)
		if errors.Is(err, rawmqtt.ErrTimeout) {
			return len(wanted), nil // there are no more
		}
		if err != nil {
			return len(wanted), fmt.Errorf("the auditor: %w", err)
		}
		h, ok := parseHeader(m.Payload)
		if m.Type != rawmqtt.PUBLISH || !ok {
			continue
		}
		if seq, is := wanted[h.stream]; is && h.seq >= seq {
			delete(wanted, h.stream)
		}
	}
	return 0, nil
}
