//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
)

// TestChaosPlan runs a cluster under plans of faults, with clients of every kind,
// and has the checker judge what they saw. CHAOS_PLANS is how many plans, with
// successive seeds from E2E_SEED, and CHAOS_DURATION how long each goes on;
// CHAOS_KINDS, a regular expression, narrows the kinds of faults.
func TestChaosPlan(t *testing.T) {
	seed := chaosSeed(t)
	plans := chaosSetting(t, "CHAOS_PLANS", 2, strconv.Atoi)
	duration := chaosSetting(t, "CHAOS_DURATION", 25*time.Second, time.ParseDuration)
	have, missing := abilities(t)
	for _, m := range missing {
		t.Logf("left out: %s", m)
	}
	kinds := able(faultKinds(), have, chaosSetting(t, "CHAOS_KINDS", regexp.MustCompile(""), regexp.Compile))
	var rows []string
	befell := map[string]int{}
	for i := range uint64(plans) {
		p := newPlan(seed+i, duration, kinds)
		t.Run(fmt.Sprintf("seed %d", p.seed), func(t *testing.T) {
			var report *history.Report
			defer func() { rows = append(rows, row(p, report, t.Failed())) }()
			report = runPlan(t, p, have, befell)
		})
	}
	for _, k := range kinds {
		t.Logf("%3d times  %s", befell[k.name], k.name)
		if plans >= 20 && befell[k.name] < enough {
			t.Errorf("%q befell the cluster %d times, at least %d are needed", k.name, befell[k.name], enough)
		}
	}
	t.Logf("\n%20s %6s %8s %8s %5s %8s %10s\n%s", "seed", "faults", "offered", "acked", "share", "silence", "violations", strings.Join(rows, "\n"))
}

func row(p plan, r *history.Report, failed bool) string {
	verdict := ""
	if failed {
		verdict = "  FAILED"
	}
	if r == nil {
		return fmt.Sprintf("%20d %6d  did not come to its end%s", p.seed, len(p.faults), verdict)
	}
	s := r.Stats
	return fmt.Sprintf("%20d %6d %8d %8d %4.0f%% %8s %10d%s", p.seed, len(p.faults), s.Offered, s.OfferedAcked, 100*s.Share(), s.Silence.Round(10*time.Millisecond), len(r.Violations), verdict)
}

// abilities tells what this machine and program are able to, and why not.
func abilities(t *testing.T) (have ability, missing []string) {
	if why := mayMount(); why == "" {
		have |= needDisks
	} else {
		missing = append(missing, "slow, hung and full disks: "+why)
	}
	if os.Getenv("CHAOS_CLOCK") != "" {
		withShiftedClock(t)
		have |= needWall
	} else {
		missing = append(missing, "steps of the clock: CHAOS_CLOCK is not set")
	}
	if keys, err := command("", "config", "keys"); err != nil {
		t.Fatal(err)
	} else if strings.Contains(keys, "storage.reserve") {
		have |= needReserve
	} else {
		missing = append(missing, "full disks: the program has no storage.reserve")
	}
	return have, missing
}

// able are the kinds that are wanted and need no more than there is.
func able(kinds []*faultKind, have ability, want *regexp.Regexp) (out []*faultKind) {
	for _, k := range kinds {
		if k.needs&^have == 0 && want.MatchString(k.name) {
			out = append(out, k)
		}
	}
	return out
}

// runPlan runs one plan and counts the faults that befell the cluster. If that
// does not come back, what its clients lost is judged all the same.
func runPlan(t *testing.T, p plan, have ability, befell map[string]int) (report *history.Report) {
	t.Logf("%v", p)
	c := NewCluster(t, Options{Proxy: true, Disks: have&needDisks != 0, Wall: have&needWall != 0, Flags: []string{"--drain.isolated-after", "2s",
		"--drain.grace", fmt.Sprintf("%ds", willGrace),
		// Small, so that nodes come back by a snapshot and not by the log alone.
		"--raft.snapshot-interval", "1s", "--raft.snapshot-threshold", "300", "--raft.trailing-logs", "50"}})
	c.add() // a spare, whose address clients know
	x := &chaos{Cluster: c, run: c.Record(t), random: rand.New(rand.NewPCG(p.seed, 1))}
	l := startLoad(x)
	judge := func() *history.Report {
		l.stop()
		x.keep(p)
		return x.run.Judge(l.options(p))
	}
	defer func() {
		if report == nil {
			x.repair()
			judge()
		}
	}()
	l.await(200)
	start := time.Now()
	for i, f := range p.faults {
		time.Sleep(max(gap, time.Until(start.Add(f.at))))
		x.befall(i, f, time.Since(start))
		befell[f.kind.name]++
		l.await(20)
	}
	l.await(200)
	report = judge()
	snapshots := 0
	for _, n := range c.Nodes {
		snapshots += strings.Count(n.Log(), "snapshot complete")
	}
	if t.Logf("%d snapshots during load", snapshots); snapshots == 0 {
		t.Error("no node took a snapshot during load")
	}
	noGhosts(t, c)
	return report
}

// repair ends the fault of a run that failed meanwhile.
func (x *chaos) repair() {
	x.Net.Heal()
	for _, n := range x.Nodes {
		if n.Disk != nil {
			n.Disk.Thaw()
		}
		if n.Running() && n.paused {
			n.Resume()
		}
	}
}

// keep writes the history to the folder that CHAOS_HISTORY names, if it does.
func (x *chaos) keep(p plan) {
	dir := os.Getenv("CHAOS_HISTORY")
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.jsonl", p.seed)))
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	for _, e := range x.run.Events() {
		if err := enc.Encode(e); err != nil {
			x.t.Fatal(err)
		}
	}
}

// befall has one fault befall the cluster and waits until it is well again, by
// itself, within patience.
func (x *chaos) befall(i int, f fault, now time.Duration) {
	x.t.Helper()
	x.name, x.begun, x.said, x.mayEnd = fmt.Sprintf("%d %s", i+1, f.kind.name), false, nil, map[*Node]bool{}
	members := x.Running()
	f.kind.do(x, f)
	if !x.begun {
		x.t.Fatalf("%v: the history was not told", f)
	}
	start := time.Now()
	x.revive(members)
	x.WaitWhole()
	x.run.FaultEnd(x.name)
	x.t.Logf("%6.1f s  %s, %.1f s: %s; whole again after %.1f s", now.Seconds(), x.name, f.lasts.Seconds(), strings.Join(x.said, ", "), time.Since(start).Seconds())
}

// revive waits until all are ready. Those that may have ended by themselves are
// started again, as whoever runs them would.
func (x *chaos) revive(members []*Node) {
	x.t.Helper()
	last := ""
	await(x.t, patience, func() bool {
		ready := true
		for _, n := range members {
			if !n.Running() {
				if !x.mayEnd[n] {
					x.t.Fatalf("%s: %s has ended by itself:\n%s", x.name, n.ID, n.tail(5))
				}
				x.say("%s ended by itself", n.ID)
				x.start(n)
			}
			code, body := n.Ready()
			if code != 200 {
				last, ready = fmt.Sprintf("%s says %d (%s)", n.ID, code, body), false
			}
		}
		return ready
	}, func() string { return x.name + ": not all came back: " + last })
}

// noGhosts fails if the cluster believes that a client is connected, when all have
// gone: such a session would never end and its will never fire.
func noGhosts(t *testing.T, c *Cluster) {
	t.Helper()
	var ghosts []string
	await(t, patience, func() bool {
		var sessions []struct{ Client, Node string }
		if err := json.Unmarshal([]byte(c.Nodes[0].CLI("session", "list", "-o", "json")), &sessions); err != nil {
			t.Fatal(err)
		}
		ghosts = nil
		for _, s := range sessions {
			if s.Node != "" {
				ghosts = append(ghosts, s.Client+" on "+s.Node)
			}
		}
		return len(ghosts) == 0
	}, func() string {
		return "all clients have gone, and these count as connected: " + strings.Join(ghosts, ", ")
	})
}
