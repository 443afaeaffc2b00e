package listener

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// The same cause of the same address is told once a minute, with how often it was
// not said, and a flood of addresses does not become a flood of lines.
func TestRefusalsAreToldOnce(t *testing.T) {
	var r refusals
	now := time.Unix(1e9, 0)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, tt := range []struct {
		from   netip.Addr
		why    string
		after  time.Duration
		say    bool
		unsaid int
	}{
		{a, "expired", 0, true, 0},
		{a, "expired", time.Second, false, 0},
		{a, "expired", 59 * time.Second, false, 0},
		{a, "revoked", 59 * time.Second, true, 0},
		{b, "expired", 59 * time.Second, true, 0},
		{a, "expired", 61 * time.Second, true, 2},
		{a, "expired", 62 * time.Second, false, 0},
	} {
		unsaid, say := r.note(tt.from, tt.why, now.Add(tt.after))
		if say != tt.say || unsaid != tt.unsaid {
			t.Errorf("%s %s after %v: %t %d, want %t %d", tt.from, tt.why, tt.after, say, unsaid, tt.say, tt.unsaid)
		}
	}
	said := 0
	for i := range 100_000 {
		if _, say := r.note(a, fmt.Sprint(i), now.Add(2*time.Second)); say {
			said++
		}
	}
	if said >= maxTold || len(r.told) > maxTold {
		t.Errorf("%d lines, %d remembered", said, len(r.told))
	}
	if _, say := r.note(b, "later", now.Add(5*time.Minute)); !say {
		t.Error("nothing is told any more")
	}
}
