package demo

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		harm func(*traffic)
		want string // "" is: nothing lost
	}{
		"well": {func(tr *traffic) {
			tr.control.ledger.acknowledged("p", 1, now)
			tr.control.ledger.arrived("p", 1, now)
			tr.control.ledger.arrived("p", 1, now) // at least once is what was promised
		}, ""},
		"lost": {func(tr *traffic) {
			tr.laptop.ledger.acknowledged("p", 1, now)
			tr.laptop.ledger.writeOff(now.Add(1))
		}, "laptop lost 1 acknowledged"},
		"out of order": {func(tr *traffic) {
			tr.control.ledger.arrived("p", 2, now)
			tr.control.ledger.arrived("p", 1, now)
		}, "control-room got 1 out of order"},
		"a session": {func(tr *traffic) { tr.control.forgotten = 2 }, "control-room lost its session 2 times"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTraffic(access{}, nil)
			defer tr.Close()
			test.harm(tr)
			err := tr.verdict()
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, errLost) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("the verdict is %v, not %q", err, test.want)
			}
		})
	}
}
