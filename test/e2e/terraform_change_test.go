//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mqcluster/mqcluster/test/history"
	"github.com/mqcluster/mqcluster/test/rawmqtt"
)

// The load of TestTerraformChanges: in all 2,000 messages a second at QoS 1, each
// to one subscriber.
const (
	siteSubscribers = 20
	sitePublishers  = 40
	siteRate        = 2000.0 / sitePublishers
	// longestAway is how long a client may be without a connection, whatever is done.
	longestAway = 3 * time.Second
)

// TestTerraformChanges upgrades a site node by node from the previous build, and then
// kills, drains and replaces nodes of it, while clients with persistent sessions send
// 2,000 messages a second through the balancer: nothing acknowledged is lost, no client is
// away for more than three seconds, and in the end every node has its share of them. Of a
// node that is drained or replaced each client is sent away once, and none is put back on
// it.
func TestTerraformChanges(t *testing.T) {
	s := newSite(t, previousBuild(t))
	s.apply()
	s.admit()
	s.judgeVersion(true)
	c := s.startCrowd()
	for _, change := range []struct {
		name string
		do   func()
		once bool // no client is sent away twice or refused
	}{
		{"upgrade", func() {
			s.values["program"] = absolute(t, program)
			s.apply()
			c.run.Drain(s.front)
			s.must(s.run("bash", append([]string{"../../rolling-replace.sh", ".", "--"}, s.options()...)...))
			s.judgeVersion(false)
		}, false},
		{"kill", func() {
			c.run.Kill(s.front)
			s.kill("n1")
			c.more(3 * time.Second)
			s.apply(`-replace=module.cluster.terraform_data.node["n1"]`)
			c.run.Restart(s.front)
		}, false},
		{"drain", func() {
			c.run.Drain(s.front)
			t.Log(s.must(command("", "drain", "--data-dir", s.disk("n2"))))
			c.more(3 * time.Second)
			s.must(command("", "drain", "--off", "--data-dir", s.disk("n2")))
		}, true},
		{"replace", func() {
			c.run.Drain(s.front)
			s.apply(`-replace=module.cluster.terraform_data.node["n3"]`)
		}, true},
		{"replace with its disk", func() {
			c.run.Drain(s.front)
			s.apply(`-replace=module.cluster.terraform_data.disk["n1"]`)
		}, true},
	} {
		start := c.mark(change.name)
		change.do()
		s.awaitWell()
		c.more(between())
		if change.once {
			c.judgeOnce(change.name, start)
		}
		if change.name != "upgrade" { // rolling-replace.sh does it
			t.Logf("%s: clients by node: %v", change.name, s.spread())
			s.must(s.run("bash", "-c", s.must(s.terraform("output", "-raw", "balance_command"))))
		}
		c.more(time.Second)
		c.judgeAway(change.name, start)
		s.judgeSpread(change.name)
	}
	c.finish()
}

// between is for how long there is load only, after a change.
func between() time.Duration { return time.Duration(scaled(1)) * time.Second }

// previous is the version of the build that the nodes are upgraded from, whatever it is
// made of.
const previous = "v0.0.1-previous"

// judgeVersion fails unless every node is of the previous build, or none.
func (s *site) judgeVersion(old bool) {
	s.t.Helper()
	status, err := s.status("n1")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range status.Members {
		if (m.Version == previous) != old {
			s.t.Errorf("node %s is of version %q", m.Node, m.Version)
		}
	}
}

// previousBuild is the program to upgrade from: of the revision that E2E_PREVIOUS names,
// else of the last released version before this one, else of the commit before. A clone
// that has none of them, or no git, gets this source with another version in it, and the
// test says so.
func previousBuild(t *testing.T) string {
	t.Helper()
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	revision, err := os.Getenv("E2E_PREVIOUS"), error(nil)
	if revision == "" {
		revision, err = git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
	}
	if err != nil {
		revision, err = git("rev-parse", "--verify", "HEAD^")
	}
	source, dir := "../..", t.TempDir()
	if err == nil {
		source = filepath.Join(dir, "source")
		archive := filepath.Join(dir, "source.tar")
		if _, err = git("archive", "-o", archive, revision); err == nil {
			err = errors.Join(os.Mkdir(source, 0o700), exec.Command("tar", "-x", "-C", source, "-f", archive).Run())
		}
		if err != nil {
			t.Fatalf("the source of %s: %v", revision, err)
		}
		t.Logf("the previous build is of %s", revision)
	} else {
		t.Logf("this clone has no earlier commit: the previous build is of this source, with another version")
	}
	path := filepath.Join(dir, "mqcluster")
	build := exec.Command("go", "build", "-ldflags", "-s -w -X main.version="+previous, "-o", path, "./cmd/mqcluster")
	build.Dir = source
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		t.Fatal(err)
	}
	return path
}

// evenly is how many clients more than another one a node may have: those of a
// connection or two that ended while the shares were counted.
const evenly = 3

// judgeSpread fails unless every node comes to have its share of the clients.
func (s *site) judgeSpread(change string) {
	s.t.Helper()
	var got map[string]int
	await(s.t, patience, func() bool {
		got = s.spread()
		fewest, most := siteSubscribers+sitePublishers, 0
		for _, n := range got {
			fewest, most = min(fewest, n), max(most, n)
		}
		return len(got) == 3 && most-fewest <= evenly
	}, func() string { return fmt.Sprintf("%s: the clients are not spread evenly: %v", change, got) })
	s.t.Logf("%s: in the end: %v", change, got)
}

// spread is how many clients each node has.
func (s *site) spread() map[string]int {
	s.t.Helper()
	status, err := s.status("n1")
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]int{}
	for _, m := range status.Members {
		out[m.Node] = m.Clients
	}
	return out
}

// siteCrowd is the load.
type siteCrowd struct {
	s    *site
	run  *Run
	subs []*history.Subscriber
	pubs []*history.Publisher
}

func (s *site) startCrowd() *siteCrowd {
	s.t.Helper()
	rec, err := history.Open("")
	if err != nil {
		s.t.Fatal(err)
	}
	c := &siteCrowd{s: s, run: &Run{rec, s.t, nil}}
	// Each device has a user of its own, as devices have: a node that cannot know
	// their passwords computes a hash for each.
	s.addUsers(siteSubscribers + sitePublishers)
	at := func(i, version int) history.Endpoint {
		e := s.endpoint(4 + byte(version%2))
		e.Username = deviceName(i)
		return e
	}
	for i := range siteSubscribers {
		c.subs = append(c.subs, c.run.Subscribe(history.SubscriberConfig{Endpoint: at(i, i), Name: fmt.Sprintf("sub-%d", i), Expiry: 3600,
			Subscriptions: []rawmqtt.Subscription{rawmqtt.Sub(fmt.Sprintf("site/%d/#", i), 1)}}))
	}
	for i := range sitePublishers {
		c.pubs = append(c.pubs, c.run.Publish(history.PublisherConfig{Endpoint: at(siteSubscribers+i, i/2), Name: fmt.Sprintf("pub-%d", i), Expiry: 3600, QoS: 1,
			Topics: []string{fmt.Sprintf("site/%d/%d", i%siteSubscribers, i)}, Rate: siteRate, Window: 200, Size: 64}))
	}
	c.more(2 * time.Second)
	return c
}

func deviceName(i int) string { return fmt.Sprintf("device-%d", i) }

// addUsers adds the users of the devices, some at a time.
func (s *site) addUsers(n int) {
	s.t.Helper()
	var wg sync.WaitGroup
	next := make(chan string)
	for range 4 {
		wg.Go(func() {
			for name := range next {
				if _, err := command(password+"\n", "user", "add", name, "--stdin", "--data-dir", s.disk("n1")); err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- deviceName(i)
	}
	close(next)
	wg.Wait()
}

func (c *siteCrowd) acked() (sum int) {
	for _, p := range c.pubs {
		sum += p.Acked()
	}
	return sum
}

// more waits until as much is acknowledged as is to be sent in d.
func (c *siteCrowd) more(d time.Duration) {
	c.s.t.Helper()
	want := c.acked() + int(siteRate*sitePublishers*d.Seconds())
	await(c.s.t, patience, func() bool { return c.acked() >= want }, func() string {
		return fmt.Sprintf("%d messages are acknowledged, not %d", c.acked(), want)
	})
}

// mark notes that a change begins and returns when.
func (c *siteCrowd) mark(name string) time.Duration {
	c.run.Mark(name)
	return c.run.fault(history.Mark).At
}

// judgeAway fails if a client was without a connection for too long since start. Whom the
// balancing has just sent away may still be on the way.
func (c *siteCrowd) judgeAway(change string, start time.Duration) {
	c.s.t.Helper()
	var a absence
	await(c.s.t, patience, func() bool { a = absences(c.run.Events(), start); return len(a.still) == 0 }, func() string {
		for name, at := range a.still {
			c.show(name, at)
		}
		return fmt.Sprintf("%s: these are without a connection, since: %v", change, a.still)
	})
	if a.times == 0 {
		c.s.t.Errorf("%s: no client lost its connection: it shows nothing", change)
	}
	if a.longest > longestAway {
		c.s.t.Errorf("%s: a client was without a connection for %v, more than %v", change, a.longest, longestAway)
		c.show(a.who, a.since)
	}
	c.s.t.Logf("%s: %d connections were lost; the longest time without one was %v", change, a.times, a.longest.Round(time.Millisecond))
}

// absence is how often and for how long clients were without a connection.
type absence struct {
	times          int
	longest, since time.Duration
	who            string
	still          map[string]time.Duration // who has none, since when
}

func absences(events []history.Event, start time.Duration) absence {
	a := absence{still: map[string]time.Duration{}}
	for _, e := range events {
		switch {
		case e.At < start:
		case e.Kind == history.Lost:
			a.still[e.History] = e.At
			a.times++
		case e.Kind == history.Connected && a.still[e.History] > 0:
			if gap := e.At - a.still[e.History]; gap > a.longest {
				a.longest, a.who, a.since = gap, e.History, a.still[e.History]
			}
			delete(a.still, e.History)
		}
	}
	return a
}

// judgeOnce fails if since start a client was refused, or sent away more than once: it was
// put back on the node that is drained.
func (c *siteCrowd) judgeOnce(change string, start time.Duration) {
	c.s.t.Helper()
	lost := map[string]int{}
	for _, e := range c.run.Events() {
		switch {
		case e.At < start:
		case e.Kind == history.Refused:
			c.s.t.Errorf("%s: a client was refused: %v", change, e)
		case e.Kind == history.Lost:
			if lost[e.History]++; lost[e.History] == 2 {
				c.s.t.Errorf("%s: %s lost its connection a second time", change, e.History)
				c.show(e.History, start)
			}
		}
	}
	c.s.t.Logf("%s: %d clients were sent away, each once", change, len(lost))
}

// show logs what a client did about its connections since a moment.
func (c *siteCrowd) show(name string, since time.Duration) {
	for _, e := range c.run.Events() {
		switch {
		case e.History != name || e.At < since || e.At > since+10*time.Second:
		case e.Kind == history.Lost, e.Kind == history.ConnectSent, e.Kind == history.Refused, e.Kind == history.Connected:
			c.s.t.Log(e)
		}
	}
}

// finish ends the load and has its history judged.
func (c *siteCrowd) finish() {
	c.s.t.Helper()
	for _, p := range c.pubs {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := p.Stop(ctx); err != nil {
			c.s.t.Error(err)
		}
		cancel()
	}
	c.run.Finish(c.subs...)
	c.run.Judge(history.Options{MinAcked: 50_000, MinOwed: 50_000, MinShare: 0.95, MaxSilence: longestAway})
}
