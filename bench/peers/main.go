// Command peers starts Debian's mosquitto and nats-server, and mqcluster as one
// node and as three, on free ports of the loopback, and compares them with package
// bench. It is what make bench runs.
//
//	go run ./bench/peers -mqcluster bin/mqcluster -suite S1,S2 -bound S1:one:0.4
//	go run ./bench/peers -suite handshake,idle,idleTLS -targets null,mosquitto,one
//	go run ./bench/peers -peer 'other=/opt/other/start.sh {port}' -suite S1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mqcluster/mqcluster/bench"
)

func main() {
	// A reader of the output that ends must not leave the brokers running.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	mqcluster, mosquitto string
	nats                 string
	targets, suite       string
	commands             map[string]string // of peers that the command line adds
	rounds               int
	each                 time.Duration
	markdown, docs       string
	bounds               []bench.Bound
	state                int
}

func parse() (options, error) {
	var o options
	flag.StringVar(&o.mqcluster, "mqcluster", "bin/mqcluster", "the binary to measure")
	flag.StringVar(&o.mosquitto, "mosquitto", "mosquitto", "the peer; also looked for in /usr/sbin")
	flag.StringVar(&o.nats, "nats", "nats-server", "the peer; also looked for in /usr/sbin")
	flag.StringVar(&o.targets, "targets", "mosquitto,nats,one,three", "what to compare: mosquitto, nats, null (a broker that does nothing: the load generator's ceiling, a bare TLS server), one (a node), watched (a node whose metrics are read every second while a trace follows one pair of clients), three (nodes, publishers and subscribers on different ones); ratios are to the first, in some cases to null")
	o.commands = map[string]string{}
	flag.Func("peer", "name=COMMAND: one more broker to compare; in the command, split at spaces, {port} is where it shall listen on 127.0.0.1 and {dir} a directory of its own; a script must exec the broker; repeatable", func(s string) error {
		name, command, ok := strings.Cut(s, "=")
		if !ok || name == "" || strings.TrimSpace(command) == "" || !strings.Contains(command, "{") {
			return fmt.Errorf("%q is not name=COMMAND with {port} or {dir} in it", s)
		}
		o.commands[name] = command
		return nil
	})
	flag.StringVar(&o.suite, "suite", "S1,S2,S3", "cases, as of mqcluster bench compare; and restart, of a node with a large state (not of mosquitto)")
	flag.IntVar(&o.state, "state", 1_000_000, "restart: retained topics, and queued messages")
	flag.IntVar(&o.rounds, "rounds", 0, "runs of each case against each target (default 3; -docs: as planned)")
	flag.DurationVar(&o.each, "duration", 0, "how long a run publishes (default 3s; -docs: as planned)")
	flag.StringVar(&o.docs, "docs", "", "run all that docs/benchmarks.md shows, and write it to this file (.md) and its plots and results.json to a folder of its name")
	flag.StringVar(&o.markdown, "markdown", "", "also write the table to this file")
	flag.Func("bound", "case:target:ratio (ratio*other: to another target than the first), case:target:Nus, case:target:N/s, case:target:Nms or case.figure:target:N: fail if CPU per message is above the ratio or N µs, the rate below N, the 99th percentile above N ms, or the figure above N; repeatable", func(s string) error {
		b, err := parseBound(s)
		o.bounds = append(o.bounds, b)
		return err
	})
	flag.Parse()
	if flag.NArg() > 0 {
		return o, fmt.Errorf("argument %q is not expected: everything is a flag", flag.Arg(0))
	}
	for name := range o.commands {
		if !slices.Contains(strings.Split(o.targets, ","), name) {
			o.targets += "," + name
		}
	}
	return o, nil
}

func parseBound(s string) (bench.Bound, error) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 {
		return bench.Bound{}, fmt.Errorf("%q is not case:target:ratio", s)
	}
	b := bench.Bound{Target: parts[1]}
	b.Case, b.Figure, _ = strings.Cut(parts[0], ".")
	number, of, _ := strings.Cut(parts[2], "*")
	b.Of = of
	to := &b.Ratio
	if b.Figure != "" {
		to = &b.Most
	}
	for suffix, field := range map[string]*float64{"us": &b.CPU, "/s": &b.Rate, "ms": &b.P99} {
		if n, ok := strings.CutSuffix(number, suffix); ok {
			number, to = n, field
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v <= 0 {
		return b, fmt.Errorf("%q has no number above 0 at its end", s)
	}
	*to = v
	return b, nil
}

// raiseFiles lets the brokers open as many files as this process may. The runtime
// does so for itself and takes it back in children, unless it is set by hand.
func raiseFiles() error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	r.Cur = r.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return fmt.Errorf("raise the limit of open files to %d: %w", r.Max, err)
	}
	return nil
}

// compare starts the targets, which close ends, and runs the cases against them.
func (s *starter) compare(ctx context.Context, suite, targets string, rounds int, each time.Duration) (bench.Compared, error) {
	c := bench.Comparison{Rounds: rounds, Progress: os.Stderr}
	for name := range strings.SplitSeq(targets, ",") {
		t, err := s.start(ctx, name)
		if err != nil {
			return bench.Compared{}, fmt.Errorf("start %s: %w", name, err)
		}
		c.Targets = append(c.Targets, t)
	}
	var err error
	if c.Cases, err = s.cases(suite, each); err != nil {
		return bench.Compared{}, err
	}
	return bench.Compare(ctx, c)
}

// cases are those of bench and this program's own, which comes last: after it
// processes are others than before.
func (s *starter) cases(suite string, each time.Duration) (all []bench.Case, err error) {
	for name := range strings.SplitSeq(suite, ",") {
		if name == "restart" {
			defer func() { all = append(all, s.restartCase(s.state, s.state)) }()
			continue
		}
		some, err := bench.Cases([]string{name}, each)
		if err != nil {
			return nil, err
		}
		if name == "filters" {
			some[0] = spreading(some[0])
		}
		all = append(all, some...)
	}
	return all, nil
}

func run(ctx context.Context) (err error) {
	o, err := parse()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mqcluster-bench-")
	if err != nil {
		return err
	}
	s := &starter{dir: dir, options: o, last: map[string]*clusterNode{}}
	if s.pki, err = newPKI(dir); err != nil {
		return err
	}
	if err := raiseFiles(); err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, s.close()); err == nil {
			err = os.RemoveAll(dir)
		} else {
			err = fmt.Errorf("%w\n(the logs are in %s)", err, dir)
		}
	}()
	if s.docs != "" {
		return s.document(ctx)
	}
	result, err := s.compare(ctx, o.suite, o.targets, o.pick(3), o.pickEach(3*time.Second))
	fmt.Print(result.Markdown())
	if o.markdown != "" {
		text := fmt.Sprintf("`go run ./bench/peers %s`\n\n%s", strings.Join(os.Args[1:], " "), result.Markdown())
		err = errors.Join(err, os.WriteFile(o.markdown, []byte(text), 0o644))
	}
	return errors.Join(err, result.Check(o.bounds))
}
