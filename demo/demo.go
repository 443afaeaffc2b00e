package demo

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// cleanup is one step back.
type cleanup struct {
	what string
	undo func() error
}

// stage is a running demo.
type stage struct {
	config
	story   *story
	traffic atomic.Pointer[traffic]
	display display
	live    bool // the display is a screen
	undo    []cleanup
}

// push has f done at the end, before what was pushed earlier.
func (d *stage) push(what string, f func() error) { d.undo = append(d.undo, cleanup{what, f}) }

// close undoes everything and returns the first error.
func (d *stage) close() error {
	var first error
	for i := len(d.undo) - 1; i >= 0; i-- {
		if err := d.undo[i].undo(); err != nil && first == nil {
			first = fmt.Errorf("%s: %w", d.undo[i].what, err)
		}
	}
	d.undo = nil
	return first
}

// run runs the demo until its end, which without once is that of ctx. When it
// returns, nothing of it is left running.
func run(ctx context.Context, c config) error {
	d := &stage{config: c}
	if err := d.open(); err != nil {
		return errors.Join(err, d.close())
	}
	err := d.story.tell(ctx)
	if err == nil && !c.once {
		err = d.stay(ctx)
	}
	if ctx.Err() != nil && !errors.Is(err, errLost) {
		err = nil
		if c.once {
			err = errors.New("the demo was interrupted before its end")
		}
	}
	d.curtain()
	return errors.Join(err, d.close())
}

// open makes the stage. What is on it is undone by close, also after an error.
func (d *stage) open() error {
	// Before anything else: without it the demo is none, and an earlier demo
	// that still runs keeps its directory.
	l, err := listen(d.endpoint)
	if err != nil {
		return err
	}
	d.push("the endpoint", func() error { _ = l.Close(); return nil }) // the balancer has closed it already
	dir, err := openWorkdir(d.dir)
	if err != nil {
		return err
	}
	d.push("the directory", dir.Close)
	nodes, err := newCluster(d.config, dir)
	if err != nil {
		return err
	}
	d.push("the nodes", nodes.Close)
	var targets []*target
	for _, n := range nodes.nodes {
		targets = append(targets, n.target)
	}
	balancer := openBalancer(l, targets)
	d.push("the balancer", balancer.Close)
	probe := openProbe(nodes)
	d.push("the probes", probe.Close)
	d.story = &story{
		board: &board{start: time.Now()}, cluster: nodes, balancer: balancer, probe: probe, once: d.once,
		ready: func(t *traffic) {
			d.traffic.Store(t)
			d.push("the devices", t.Close)
		},
	}
	if file, ok := terminal(d.config); ok {
		d.live = true
		d.display = openScreen(file, d.look)
	} else {
		d.display = openLines(d.out, d.look)
	}
	d.push("the display", d.display.Close)
	d.story.board.tell = d.display.tell
	return nil
}

// look collects what the screen shows.
func (d *stage) look() view {
	v := view{endpoint: d.endpoint, nodes: d.story.probe.view()}
	d.story.put(&v)
	if t := d.traffic.Load(); t != nil {
		t.put(&v)
		v.try = d.story.cluster.tryLines(d.endpoint)
	}
	return v
}

// lastWords is how long the devices may take at the end for what is under way.
const lastWords = 2 * time.Second

// curtain gives the terminal back before the nodes are stopped, which takes a
// moment, and leaves on it what a live screen takes away.
func (d *stage) curtain() {
	_ = d.display.Close() // it has no error
	if d.live {
		for _, e := range d.story.history() {
			fmt.Fprintln(d.out, stamp(e.at)+"  "+e.text)
		}
	}
	if t := d.traffic.Load(); t != nil {
		t.rest(lastWords)
		v := view{}
		t.put(&v)
		for _, s := range v.subscribers {
			fmt.Fprintf(d.out, "%s: %s acknowledged, %s delivered, %d twice, %d out of order, %d lost",
				s.name, thousands(s.tally.acked), thousands(s.tally.delivered), s.tally.duplicates, s.tally.disordered, s.tally.lost)
			if s.tally.owed > 0 {
				fmt.Fprintf(d.out, ", %d under way", s.tally.owed)
			}
			if s.gaps {
				fmt.Fprintf(d.out, ", longest silence %s", milliseconds(s.tally.gap))
			}
			fmt.Fprintln(d.out)
		}
	}
	fmt.Fprintf(d.out, "stopping the nodes; their logs stay in %s\n", shown(d.story.cluster.dir.path))
}
