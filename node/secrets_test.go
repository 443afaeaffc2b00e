package node

import (
	"bytes"
	"testing"
	"time"
)

// Ticket keys rotate with the one before still opening tickets, and are made anew
// without it where somebody has it who should not.
func TestSecretsRotate(t *testing.T) {
	var used []secretKeys
	s := &secrets{use: func(k secretKeys) { used = append(used, k) }}
	now := time.Unix(1e9, 0)
	s.receive(s.renew(now))
	if s.renew(now.Add(secretLife-time.Second)) != nil {
		t.Error("the keys were renewed before their time")
	}
	s.receive(s.renew(now.Add(secretLife)))
	s.receive(s.renew(now.Add(2 * secretLife)))
	if len(used) != 3 || len(used[2].Tickets) != 2 || used[2].Tickets[1] != used[1].Tickets[0] || used[2].Tickets[0] == used[1].Tickets[0] {
		t.Errorf("%+v", used)
	}
	s.receive(s.replace(now.Add(2*secretLife + time.Second)))
	last := used[len(used)-1]
	if len(last.Tickets) != 1 || last.Tickets[0] == used[2].Tickets[0] || bytes.Equal(last.Password, used[2].Password) || last.ID != used[2].ID+1 {
		t.Errorf("an old key is left: %+v", last)
	}
}
