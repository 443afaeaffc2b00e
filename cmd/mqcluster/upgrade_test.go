package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mqcluster/mqcluster/admin"
)

// well is a cluster of three in which everything is well.
func well() admin.Status {
	s := admin.Status{Node: "a", Leader: "a", CommitIndex: 10_000}
	for _, name := range []string{"a", "b", "c"} {
		s.Members = append(s.Members, admin.Member{Node: name, Role: admin.RoleVoter, Up: true, Lease: 4000, Applied: 9_999, Level: 2, Disk: "ok"})
	}
	s.Members[0].Role = admin.RoleLeader
	return s
}

func TestUpgradeChecks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*admin.Status)
		node   string
		to     *Build
		bad    []string
	}{
		{"all well", func(*admin.Status) {}, "a", &Build{Level: 2}, nil},
		{"a newer program", func(*admin.Status) {}, "b", &Build{Level: 3}, nil},
		{"an older program", func(*admin.Status) {}, "b", &Build{Level: 1}, []string{"feature level"}},
		{"older than one member", func(s *admin.Status) { s.Members[2].Level = 3 }, "b", &Build{Level: 2}, []string{"feature level"}},
		{"another voter is down", func(s *admin.Status) { s.Members[1].Up = false }, "a", nil, []string{"quorum without it", "members up"}},
		{"it is the one that is down", func(s *admin.Status) { s.Members[1].Up = false }, "b", nil, []string{"members up"}},
		{"a non-voter is down", func(s *admin.Status) {
			s.Members = append(s.Members, admin.Member{Node: "d", Role: admin.RoleNonVoter, Level: 2})
		}, "a", nil, []string{"members up"}},
		{"one is behind", func(s *admin.Status) { s.Members[1].Applied = 7_000 }, "a", nil, []string{"caught up"}},
		{"one is a little behind", func(s *admin.Status) { s.Members[1].Applied = 8_500 }, "a", nil, nil},
		{"this node is behind", func(s *admin.Status) { s.CommitIndex = 5_000; s.Members[1].Applied = 5_000 }, "a", nil, []string{"caught up"}},
		{"no lease", func(s *admin.Status) { s.Members[1].Lease = 0 }, "a", nil, []string{"leases"}},
		{"a low disk", func(s *admin.Status) { s.Members[1].Disk = "low" }, "a", nil, []string{"disks"}},
		{"no leader", func(s *admin.Status) { s.Leader = "" }, "a", nil, []string{"quorum without it"}},
		{"two voters", func(s *admin.Status) { s.Members = s.Members[:2] }, "a", nil, []string{"quorum without it"}},
		{"one voter", func(s *admin.Status) { s.Members = s.Members[:1] }, "a", nil, []string{"quorum without it"}},
		{"not a member", func(*admin.Status) {}, "x", nil, []string{"quorum without it"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := well()
			tt.change(&s)
			var bad []string
			for _, c := range upgradeChecks(s, tt.node, tt.to) {
				if c.OK != (c.Remedy == "") || c.Found == "" {
					t.Errorf("%+v: a check that fails has a remedy, and only that", c)
				}
				if !c.OK {
					bad = append(bad, c.Check)
				}
			}
			if d := cmp.Diff(tt.bad, bad); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestReadBuildOf(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{
		file("version.json", ` {"version":"v2","feature_level":3}`, 0o600),
		file("program", "#!/bin/sh\necho '{\"version\":\"v2\",\"feature_level\":3}'\n", 0o700),
	} {
		if b, err := readBuildOf(t.Context(), path); err != nil || b.Level != 3 {
			t.Errorf("%s: %+v %v", path, b, err)
		}
	}
	for _, path := range []string{
		file("none.json", `{"version":"v2"}`, 0o600), file("broken", "#!/bin/sh\nexit 1\n", 0o700), filepath.Join(dir, "missing"),
	} {
		if _, err := readBuildOf(t.Context(), path); err == nil || !strings.Contains(err.Error(), " ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
