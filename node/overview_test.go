package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
)

// healthy is a cluster of three that has no alarm.
func healthy(now time.Time) *admin.Overview {
	o := &admin.Overview{Status: admin.Status{Leader: "a", Quorum: true}, At: now}
	for _, id := range []string{"a", "b", "c"} {
		o.Nodes = append(o.Nodes, admin.NodeReport{
			Member: admin.Member{Node: id, Role: admin.RoleVoter, Up: true, Lease: 4000, Disk: "ok", Version: "v1"},
			Ready:  true, CertUntil: now.Add(60 * 24 * time.Hour),
		})
	}
	return o
}

func TestAlarms(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		name  string
		spoil func(*admin.Overview)
		ends  []certEnd
		want  []string // level, kind, node
	}{
		{name: "healthy", spoil: func(*admin.Overview) {}},
		{"a node is down", func(o *admin.Overview) {
			o.Nodes[2] = admin.NodeReport{Member: admin.Member{Node: "c", Role: admin.RoleVoter, Lease: -1}}
		}, nil, []string{"critical node_down c"}},
		{"two are down", func(o *admin.Overview) {
			o.Leader, o.Quorum, o.Nodes[1].Up, o.Nodes[2].Up = "", false, false, false
		}, nil, []string{"critical no_leader ", "critical node_down b", "critical node_down c"}},
		{"an election", func(o *admin.Overview) { o.Leader, o.Quorum = "", false }, nil, []string{"warning electing "}},
		{"no quorum, and a leader that does not know yet", func(o *admin.Overview) { o.Quorum = false }, nil, []string{"critical no_quorum "}},
		{"drained", func(o *admin.Overview) { o.Nodes[1].Draining, o.Nodes[1].Ready = true, false }, nil, []string{"notice draining b"}},
		{"not ready", func(o *admin.Overview) { o.Nodes[1].Ready = false }, nil, []string{"warning not_ready b"}},
		{"no lease", func(o *admin.Overview) { o.Nodes[1].Ready, o.Nodes[1].Lease = false, 0 }, nil, []string{"warning no_lease b"}},
		{"behind", func(o *admin.Overview) { o.Nodes[1].Ready, o.Nodes[1].Lag = false, readyLag+1 }, nil, []string{"warning lagging b"}},
		{"disks", func(o *admin.Overview) { o.Nodes[0].Disk, o.Nodes[1].Disk, o.Refusing = "low", "full", true }, nil, []string{"critical refusing_publishes ", "critical disk_full b", "warning disk_low a"}},
		{"a node's certificate", func(o *admin.Overview) { o.Nodes[0].CertUntil = now.Add(30 * time.Hour) }, nil, []string{"critical node_certificate a"}},
		{"clients' certificates", func(*admin.Overview) {}, []certEnd{{"dev1", now.Add(72 * time.Hour)}, {"dev2", now.Add(90 * time.Hour)}}, []string{"warning client_certificates "}},
		{"two voters, and one that serves", func(o *admin.Overview) { o.Nodes[2].Role = admin.RoleServing }, nil, []string{"warning few_voters "}},
		{"two voters of two versions", func(o *admin.Overview) { o.Nodes = o.Nodes[:2]; o.Nodes[1].Version = "v2" }, nil, []string{"warning few_voters ", "notice mixed_versions "}},
	} {
		o := healthy(now)
		tt.spoil(o)
		var got []string
		for _, a := range alarms(o, tt.ends) {
			got = append(got, a.Level+" "+a.Kind+" "+a.Node)
			if a.Text == "" {
				t.Errorf("%s: an alarm says nothing", tt.name)
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

func TestPlanDrain(t *testing.T) {
	status := func(up, ready bool) (admin.Status, []nodeStatus) {
		return admin.Status{Leader: "a", Members: []admin.Member{
			{Node: "a", Role: admin.RoleLeader, Up: true, Clients: 5},
			{Node: "b", Role: admin.RoleVoter, Up: up, Clients: 7},
			{Node: "c", Role: admin.RoleNonVoter, Up: true, Clients: 9},
		}}, []nodeStatus{{Ready: true}, {Ready: up}, {Ready: ready}}
	}
	s, told := status(true, true)
	got := planDrain(s, told, "a", 10*time.Second)
	want := admin.DrainPlan{Node: "a", Clients: 5, Leads: true, Others: []admin.ClientsOf{{Node: "b", Clients: 7}, {Node: "c", Clients: 9}}, Timeout: 10, Warnings: []string{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, tt := range []struct {
		up, ready bool
		node      string
		warnings  int
	}{
		{false, true, "a", 1},  // no heir
		{false, false, "a", 1}, // nobody
		{false, true, "b", 1},  // it is down
		{true, false, "b", 1},  // one is left
	} {
		s, told := status(tt.up, tt.ready)
		if got := planDrain(s, told, tt.node, time.Second); len(got.Warnings) != tt.warnings {
			t.Errorf("%+v: %q", tt, got.Warnings)
		}
	}
}

func TestDays(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "no time", time.Hour: "1 hour", 30 * time.Hour: "30 hours", 72 * time.Hour: "3 days",
	} {
		if got := days(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
