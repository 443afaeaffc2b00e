package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/mqcluster/mqcluster/bench"

	_ "embed"
)

// section is a part of the document: cases that are run against the same targets.
type section struct {
	Title, Text    string
	suite, targets string
	rounds         int
	each           time.Duration
	Result         bench.Compared
	Plots          []string // their files
}

// plan is all that the document shows. It takes about ten minutes on two cores.
func plan() []section {
	return []section{
		{Title: "Messages", Text: messagesText, suite: "S1,S2,S3,S4,S8", targets: "mosquitto,nats,one,three,null", rounds: 5, each: time.Second},
		{Title: "Messages for persistent sessions", Text: durableText, suite: "R3,R4,replay", targets: "one,three", rounds: 3, each: time.Second},
		{Title: "Connections", Text: connectionsText, suite: "handshake,plain", targets: "mosquitto,nats,one,three,null", rounds: 5},
		{Title: "Everybody comes back", Text: stormText, suite: "storm", targets: "one,three", rounds: 1},
		{Title: "Idle connections", Text: idleText, suite: "idle,idleTLS", targets: "mosquitto,nats,one,null", rounds: 1},
		{Title: "Filters", Text: filtersText, suite: "filters", targets: "three", rounds: 3},
		{Title: "A million subscriptions", Text: subscriptionsText, suite: "subscriptions", targets: "one", rounds: 1},
		{Title: "Wildcards", Text: wildcardsText, suite: "wildcost,wildcost1", targets: "mosquitto,one", rounds: 3, each: time.Second},
		{Title: "Being watched", Text: watchedText, suite: "S3", targets: "one,watched", rounds: 15, each: time.Second},
		{Title: "Growth", Text: growthText, suite: "growth,growth1", targets: "mosquitto,one,three", rounds: 1, each: 2 * time.Second},
	}
}

const (
	messagesText = `S1 is fan-in (QoS 0, 50 publishers to 1 subscriber, 16 bytes), S2 fan-out (QoS 0, 1 publisher to 500
subscribers, 64 bytes), S3 and S4 are 100 pairs at QoS 1 and 2 with 100 messages of each under way
(64 bytes), S8 is 100 pairs at QoS 1 and 5,000 messages a second. In S1 to S4 a publisher writes
batches of up to 64, as fast as its window allows, so the latency there is that of the queue; S8 is
the one to read for latency, each of its messages is written by itself. mosquitto writes nothing to
disk, nats-server stores QoS 1 in a file that it does not sync before it acknowledges, and does not know
QoS 2; mqcluster has every QoS 1 and 2 message synced to disk, with three nodes on two of them, before
it acknowledges. ` + "`null`" + ` does nothing but copy:
what the load generator can do at least.`
	durableText = `R3 and R4 are S3 and S4 to persistent sessions; replay is 100 sessions that are away, 5,000 messages
queued for each, and their delivery when they come back.`
	connectionsText = `CPU time is that of one connection. handshake is a full mutual TLS 1.3 handshake (ECDSA P-256, X25519)
and no more: the client leaves then. plain is a connection over TCP: CONNECT, its answer, DISCONNECT. The
ratios are to ` + "`null`" + `, which is a bare server on the same TLS library with the same certificates. nats-server has one MQTT port,
which is the plain one here.`
	stormText = `5,000 clients come back to their persistent sessions over resumed TLS, all at once. A connection that the node has no room for is tried again later, as a device does.`
	idleText  = `Growth of the resident memory of a broker that was just started, for each of 8,000 connections that
do nothing.`
	filtersText = `100,000 distinct filters, 100 clients subscribing at once on one node. spread is the time from the
first SUBSCRIBE until 1,000 of the filters, spread over all, have got a message that was published
on each of the other nodes. A message of QoS 0 that was published after the last SUBACK and did not
arrive is lost. Memory is that of the largest node.`
	subscriptionsText = `1,000,000 distinct filters of 1,000 clients, on one node.`
	wildcardsText     = `Pairs with 5,000 topics, as fast as they go, while there are 100 or 10,000 wildcard subscriptions,
of which one matches a message. wildcost is QoS 0, wildcost1 QoS 1.`
	watchedText = `S3 once more, beside a node whose metrics are read every second while a trace follows the messages of
one of the 100 pairs.`
	growthText = `CPU time of a message at 100, 1,000 and 10,000 clients (half of them publish, 5,000 messages a
second in all, each written by itself) and at 1,000, 10,000 and 100,000 topics in use (100 pairs, as
fast as they go). growth is QoS 0, growth1 QoS 1. CPU time with many topics counts
from when each has been used once. Flat is best.`
)

// aims are what this project wants to reach, in the form of -bound.
var aims = []string{
	"S1:one:0.25", "S1:one:1.1*nats", "S2:one:0.25", "S2:one:1.5*nats", "S1:three:3us",
	"S3:one:0.6", "S4:one:0.6", "S3:three:60000/s", "S4:three:20000/s", "S8:three:10ms",
	"handshake:one:1.05", "idle.memory:one:10", "idleTLS.memory:one:36",
	"filters.spread:three:1", "filters.gossip after:three:1.25", "subscriptions.memory:one:572",
	"wildcost.10,000 wildcards:one:3", "wildcost1.10,000 wildcards:one:3",
	"S3:watched:1.03",
	"growth.dearest by clients:one:1.5", "growth.dearest by topics:one:1.5",
	"growth1.dearest by clients:one:1.5", "growth1.dearest by topics:one:1.5",
}

// aim is one of them with what was measured.
type aim struct {
	Bound bench.Bound `json:"-"`
	Aim   string      `json:"aim"`
	Found string      `json:"found"`
	Met   bool        `json:"met"`
}

// document runs the plan and writes the document, its plots and its figures beside
// it into a folder of the document's name. What was missed is told, and no error;
// a run that failed is one, after everything was written.
func (s *starter) document(ctx context.Context) error {
	folder := strings.TrimSuffix(s.docs, ".md")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	d := document{Machine: s.machine(ctx, strings.Join(append([]string{"go run ./bench/peers"}, os.Args[1:]...), " ")), Sections: plan()}
	started := time.Now()
	var all bench.Compared
	var errs []error
	for i := range d.Sections {
		sec := &d.Sections[i]
		fmt.Fprintf(os.Stderr, "== %s, after %v\n", sec.Title, time.Since(started).Round(time.Second))
		result, err := s.compare(ctx, sec.suite, sec.targets, s.pick(sec.rounds), s.pickEach(sec.each))
		if ctx.Err() != nil {
			return err
		}
		errs = append(errs, err, s.close())
		sec.Result = result
		all.Schema, all.Rows = result.Schema, append(all.Rows, result.Rows...)
	}
	d.Minutes = time.Since(started).Minutes()
	for _, text := range aims {
		b, err := parseBound(text)
		if err != nil {
			return err
		}
		found, met := all.Judge(b)
		if !met {
			fmt.Fprintf(os.Stderr, "missed: %s: %s\n", b, found)
		}
		d.Aims = append(d.Aims, aim{b, b.String(), found, met})
	}
	return errors.Join(append(errs, d.write(s.docs, folder, all))...)
}

// pick is the section's number of rounds, unless the command line has one.
func (o *options) pick(rounds int) int {
	if o.rounds > 0 {
		return o.rounds
	}
	return rounds
}

func (o *options) pickEach(each time.Duration) time.Duration {
	if o.each > 0 {
		return o.each
	}
	return each
}

// document is what its template shows.
type document struct {
	Machine  machine
	Minutes  float64
	Sections []section
	Aims     []aim
}

//go:embed benchmarks.md.tmpl
var documentTemplate string

func (d *document) write(path, folder string, all bench.Compared) error {
	for i := range d.Sections {
		sec := &d.Sections[i]
		plots := plotsOf(sec.Result.Rows)
		for _, name := range slices.Sorted(maps.Keys(plots)) {
			if err := os.WriteFile(filepath.Join(folder, name+".svg"), []byte(plots[name]), 0o644); err != nil {
				return err
			}
			sec.Plots = append(sec.Plots, filepath.Base(folder)+"/"+name+".svg")
		}
	}
	for i := range all.Rows {
		all.Rows[i].Reports = nil // a megabyte that nobody reads
	}
	results, err := json.MarshalIndent(struct {
		Machine machine     `json:"machine"`
		Aims    []aim       `json:"aims"`
		Rows    []bench.Row `json:"rows"`
	}{d.Machine, d.Aims, all.Rows}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "results.json"), append(results, '\n'), 0o644); err != nil {
		return err
	}
	t, err := template.New("").Parse(documentTemplate)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, d); err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}
