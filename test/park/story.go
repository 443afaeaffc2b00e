package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// backLimit is how long the run waits for clients to come back before it gives
	// up; the bar is stricter.
	backLimit = 2 * time.Minute
	// settleLimit is how long the last messages may be on their way.
	settleLimit = time.Minute
	// perLogin is how long one client may take to be made a user and to log in for
	// the first time: two password hashes on a machine that does other things.
	perLogin = 300 * time.Millisecond
)

// park is one run.
type park struct {
	options
	free      freeAddresses
	cluster   *cluster
	balancers *balancers
	workers   workers
	auditor   *tls.Config

	began   time.Time
	started time.Time // of publishing
	killed  time.Time
	victims int    // clients of the node that was killed
	storms  []span // those that are over, and the one that is under way
	usage   []usage
}

// story is the whole plan from the first node to the verdicts.
func (p *park) story(ctx context.Context) error {
	p.began = time.Now()
	for _, part := range []func(context.Context) error{
		p.build, p.open, p.steadyState, p.killNode, p.restartNode, p.storm, p.halt,
	} {
		if err := part(ctx); err != nil {
			return errors.Join(err, p.failures())
		}
	}
	return p.verdicts(ctx)
}

func (p *park) say(format string, args ...any) {
	fmt.Printf("%7.1f s  %s\n", time.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

// build starts the nodes, makes the users and their rules, and starts the balancers.
func (p *park) build(ctx context.Context) error {
	if _, err := findHAProxy(); err != nil {
		return err
	}
	devices, err := newAuthority()
	if err != nil {
		return err
	}
	ca := filepath.Join(p.dir, "devices.pem")
	if err := os.WriteFile(ca, devices.pem(), 0o600); err != nil {
		return err
	}
	if p.cluster, err = newCluster(ctx, p.program, p.dir, ca, p.memory, &p.free); err != nil {
		return err
	}
	p.say("three nodes serve")
	if err := p.makeUsers(ctx); err != nil {
		return err
	}
	if p.balancers, err = startBalancers(ctx, p.cluster, p.plan.all(), &p.free); err != nil {
		return err
	}
	p.say("%d HAProxy before them", len(p.balancers.processes))
	roots, err := p.cluster.verb(ctx, "cert", "ca", "--data-dir", p.cluster.nodes[0].dir)
	if err != nil {
		return err
	}
	pool, err := rootsOf(roots)
	if err != nil {
		return err
	}
	signer, err := devices.open()
	if err != nil {
		return err
	}
	if p.auditor, err = signer.config(auditor, pool); err != nil {
		return err
	}
	if p.workers, err = startWorkers(&p.plan); err != nil {
		return err
	}
	var orders []request
	for i := range p.workers {
		orders = append(orders, request{Op: opOpen, Order: &order{Plan: p.plan, Worker: i, Balancers: p.balancers.addresses,
			Sources: []string{fmt.Sprintf("127.0.%d.1", 10+i), fmt.Sprintf("127.0.%d.2", 10+i)},
			Openers: p.openers, Roots: roots, Devices: devices}})
	}
	_, err = p.workers.call(orders...)
	return err
}

// auditor is the user that looks at the retained states in the end.
const auditor = "auditor"

// makeUsers imports a file of users for each role.
func (p *park) makeUsers(ctx context.Context) error {
	began := time.Now()
	dir := p.cluster.nodes[0].dir
	files := map[role]*bytes.Buffer{}
	line := func(r role, name string) {
		if files[r] == nil {
			files[r] = &bytes.Buffer{}
		}
		fmt.Fprintf(files[r], "%s:%s\n", name, p.plan.password(name))
	}
	for n := range p.plan.all() {
		r, _ := p.plan.place(n)
		line(r, p.plan.name(n))
	}
	line(dashboard, auditor)
	for r, text := range files {
		if _, err := p.cluster.verb(ctx, append([]string{"acl", "set", "role:" + r.String(), "--data-dir", dir}, rules[r]...)...); err != nil {
			return err
		}
		file := filepath.Join(p.dir, r.String()+".users")
		if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
			return err
		}
		if _, err := p.cluster.verb(ctx, "user", "import", file, "--role", r.String(), "--timeout", "2m", "--data-dir", dir); err != nil {
			return err
		}
	}
	p.say("%d users were imported in %.1f s", p.plan.all()+1, time.Since(began).Seconds())
	return nil
}

// open waits until every client has logged in for the first time.
func (p *park) open(ctx context.Context) error {
	began := time.Now()
	limit := time.Minute + time.Duration(p.plan.all())*perLogin
	err := await(ctx, limit, "all clients are connected", func() (bool, error) {
		s, err := p.workers.status()
		return s.Up == p.plan.all(), err
	})
	if err != nil {
		return err
	}
	p.say("%d clients are connected after %.1f s: %d sensors, %d devices, %d dashboards, %d commanders", p.plan.all(),
		time.Since(began).Seconds(), p.plan.sensors(), p.plan.devices(), p.plan.dashboards(), commanders)
	p.mark("logins")
	p.started = time.Now()
	return p.workers.tell(opStart)
}

// pass lets time go by under load.
func (p *park) pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return p.died()
	}
}

// died is an error if something ended that should not have.
func (p *park) died() error {
	var errs []error
	for _, n := range p.cluster.nodes {
		if n.process != nil {
			errs = append(errs, n.process.ended())
		}
	}
	for _, b := range p.balancers.processes {
		errs = append(errs, b.ended())
	}
	return errors.Join(errs...)
}

func (p *park) steadyState(ctx context.Context) error {
	if err := p.pass(ctx, p.steady); err != nil {
		return err
	}
	p.mark("steady")
	return nil
}

// killNode kills the leader and waits until all its clients are back.
func (p *park) killNode(ctx context.Context) error {
	victim, clients, err := p.cluster.victim(ctx)
	if err != nil {
		return err
	}
	before, err := p.workers.status()
	if err != nil {
		return err
	}
	p.victims = clients
	p.killed = time.Now()
	victim.process.kill()
	victim.process = nil
	p.say("node %s, which led and served %d clients, was killed", victim.name, clients)
	if err := p.back(ctx, before.Downs+clients); err != nil {
		return err
	}
	p.mark("kill")
	return p.pass(ctx, p.steady/2)
}

// back waits until so many connections have ended and every client has one again.
func (p *park) back(ctx context.Context, downs int) error {
	began := time.Now()
	err := await(ctx, backLimit, "all clients are connected again", func() (bool, error) {
		s, err := p.workers.status()
		return s.Downs >= downs && s.Up == p.plan.all(), err
	})
	if err == nil {
		p.say("all clients are connected again, seen after %.1f s", time.Since(began).Seconds())
	}
	return err
}

// restartNode starts the node again that was killed.
func (p *park) restartNode(ctx context.Context) error {
	for _, n := range p.cluster.nodes {
		if n.process == nil {
			if err := p.cluster.start(ctx, n); err != nil {
				return err
			}
			p.say("node %s serves again", n.name)
		}
	}
	err := p.pass(ctx, p.steady/2)
	p.mark("restart")
	return err
}

// storm has a third of the clients reconnect at once, as often as is wanted: what one of
// them does to the others depends much on what the machine does in the same second.
func (p *park) storm(ctx context.Context) error {
	for range p.repeat {
		before, err := p.workers.status()
		if err != nil {
			return err
		}
		p.storms = append(p.storms, span{from: time.Now()})
		if err := p.workers.tell(opStorm); err != nil {
			return err
		}
		p.say("%d clients reconnect at once", p.plan.stormers())
		if err := p.back(ctx, before.Downs+p.plan.stormers()); err != nil {
			return err
		}
		p.storms[len(p.storms)-1].to = time.Now()
		if err := p.workers.tell(opCalm); err != nil {
			return err
		}
		p.mark("storm")
		if err := p.pass(ctx, p.steady/2); err != nil {
			return err
		}
		p.mark("after")
	}
	checks, err := p.passwords()
	if err == nil {
		p.say("passwords since the nodes started: %s", checks)
	}
	return err
}

// halt ends the publishing and waits for the last acknowledgement.
func (p *park) halt(ctx context.Context) error {
	if err := p.workers.tell(opHalt); err != nil {
		return err
	}
	return await(ctx, settleLimit, "every message is acknowledged", func() (bool, error) {
		s, err := p.workers.status()
		return s.Pending == 0, err
	})
}

// failures tells how connections failed and how the nodes see it.
func (p *park) failures() error {
	if p.workers == nil {
		return nil
	}
	s, err := p.workers.status()
	if err != nil {
		return err
	}
	return fmt.Errorf("%d of %d clients are connected, %d messages are not acknowledged; connections ended: %s",
		s.Up, p.plan.all(), s.Pending, failureText(s.Failures))
}

// failureText lists the reasons, the most frequent first.
func failureText(failures map[string]int) string {
	var reasons []string
	for why := range failures {
		reasons = append(reasons, why)
	}
	slices.SortFunc(reasons, func(a, b string) int { return failures[b] - failures[a] })
	var lines []string
	for _, why := range reasons {
		lines = append(lines, fmt.Sprintf("%d× %s", failures[why], why))
	}
	return strings.Join(lines, "; ")
}

func (p *park) close() {
	if err := p.workers.close(); err != nil {
		fmt.Fprintln(os.Stderr, "park: a generator process:", err)
	}
	if p.balancers != nil {
		p.balancers.close()
	}
	if p.cluster != nil {
		p.cluster.close()
	}
}
