package fsm

import (
	"testing"

	"github.com/mqcluster/mqcluster/fsm/logpb"
	"github.com/mqcluster/mqcluster/session"
)

// TestReadPart: users, rules and retained messages of a copy come back by themselves,
// and nothing else does.
func TestReadPart(t *testing.T) {
	r := full(t)
	c, err := r.store.Copy()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	users, acls, retained := 0, 0, 0
	err = c.Each(func(k, v []byte) error {
		p, err := ReadPart(k, v)
		switch {
		case p.User != nil:
			users++
			if p.User.Name != "anna" {
				t.Errorf("a user %v", p.User)
			}
		case p.ACL != nil:
			acls++
			if p.ACL.Subject != "*" || len(p.ACL.Rules) != 1 {
				t.Errorf("rules %v", p.ACL)
			}
		case p.Retained != nil:
			retained++
			if m := p.Retained; m.Topic != "x/kept" || string(m.Payload) != "v" || m.QoS != 1 || m.ExpiresAt == 0 {
				t.Errorf("a retained message %+v", m)
			}
		}
		return err
	})
	if err != nil || users != 1 || acls != 1 || retained != 1 {
		t.Errorf("%d users, %d rules, %d retained messages: %v", users, acls, retained, err)
	}
}

// TestAbsent: the sessions without a connection that wait for a message are told, those
// that have one are not.
func TestAbsent(t *testing.T) {
	r := newTape(t)
	for _, c := range []string{"away", "here", "zero", "own"} {
		_, e := r.connect("a", &logpb.Claim{Client: c, Expiry: session.Never})
		qos := uint32(1)
		if c == "zero" {
			qos = 0
		}
		r.subscribe("a", c, e, qos, "x/+")
		if c != "here" {
			r.leave("a", c, e)
		}
	}
	_, p := r.connect("b", &logpb.Claim{Client: "pub", CleanStart: true})
	got := map[string]byte{}
	r.events = nil
	r.publish("b", "pub", p, "x/1", "m", 2)
	for _, e := range r.events {
		if e.Kind == EventMessage {
			r.store.Absent(e, func(client string, qos byte) { got[client] = qos })
		}
	}
	if len(got) != 2 || got["away"] != 1 || got["own"] != 1 {
		t.Errorf("who is away and waits: %v", got)
	}
}

// FuzzReadPart: whatever a backup holds is read or refused.
func FuzzReadPart(f *testing.F) {
	for _, k := range []string{"", "uanna", "a*", "rx\x01y", "sdev"} {
		f.Add([]byte(k), []byte("\x00\x00\x00\x00\x00\x00\x00\x01\x0a\x01x"))
	}
	f.Fuzz(func(t *testing.T, k, v []byte) {
		p, err := ReadPart(k, v)
		if err == nil && p.Retained != nil && p.Retained.Topic == "" {
			t.Errorf("a retained message of no topic: %q", k)
		}
	})
}
