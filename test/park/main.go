package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	plan    plan
	program string
	dir     string
	keep    bool
	openers int
	memory  string
	steady  time.Duration
	repeat  int // storms
	latency string
}

// errMissed: a bar was missed, which the verdicts have said.
var errMissed = errors.New("a bar was missed")

func main() {
	if len(os.Args) == 2 && os.Args[1] == workerFlag {
		if err := work(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "park: generator:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "park:", err)
		os.Exit(1)
	}
}

func parseFlags() (o options, err error) {
	flag.StringVar(&o.program, "mqcluster", "bin/mqcluster", "the program")
	flag.IntVar(&o.plan.Clients, "clients", 15000, "clients: ten sensors to four devices and one dashboard")
	flag.IntVar(&o.plan.Workers, "workers", 2, "generator processes: one in three, at least one of two, has who storms")
	flag.DurationVar(&o.plan.ReadingEvery, "reading", 10*time.Second, "time between two readings of a sensor")
	flag.DurationVar(&o.plan.StateEvery, "state", time.Minute, "time between two retained states of a sensor")
	flag.DurationVar(&o.plan.CommandEvery, "command", 20*time.Second, "time between two commands to a device")
	flag.IntVar(&o.openers, "openers", 16, "first connections that each generator has under way at a time")
	flag.StringVar(&o.memory, "argon2-memory", "", "memory of one password hash (default: the program's)")
	flag.DurationVar(&o.steady, "steady", time.Minute, "time between two events")
	flag.IntVar(&o.repeat, "storms", 5, "how often a third of the clients reconnects at once; the median counts")
	flag.StringVar(&o.latency, "latency", "bar", "bar: a missed latency bar fails the run; report: it is only printed")
	flag.StringVar(&o.dir, "dir", "", "directory for data and logs, which is made (default: one in the temporary directory)")
	flag.BoolVar(&o.keep, "keep", false, "leave the directory")
	flag.Parse()
	switch {
	case flag.NArg() > 0:
		return o, fmt.Errorf("argument %q is not understood: see -help", flag.Arg(0))
	case o.plan.Clients < 60 || o.plan.Clients > 100_000:
		return o, fmt.Errorf("%d clients are too few or too many: give 60 to 100000", o.plan.Clients)
	case o.plan.Workers < 1 || o.openers < 1 || o.repeat < 1:
		return o, errors.New("there must be at least one generator, one first connection at a time and one storm")
	case o.plan.ReadingEvery <= 0 || o.plan.StateEvery <= 0 || o.plan.CommandEvery <= 0 || o.steady <= 0:
		return o, errors.New("times must be above 0")
	case o.latency != "bar" && o.latency != "report":
		return o, fmt.Errorf("-latency %s is not known: write bar or report", o.latency)
	}
	o.plan.Secret = make([]byte, 32)
	if _, err := rand.Read(o.plan.Secret); err != nil {
		return o, err
	}
	if o.dir == "" {
		o.dir, err = os.MkdirTemp("", "mqcluster-park-")
	} else {
		err = os.Mkdir(o.dir, 0o700)
	}
	if err != nil {
		return o, fmt.Errorf("the directory of the run cannot be made, choose one that does not exist: %w", err)
	}
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}

// run runs the park. Its directory stays where something went wrong.
func run(ctx context.Context) error {
	o, err := parseFlags()
	if err != nil {
		return err
	}
	p := &park{options: o, free: freeAddresses{next: 20000 + os.Getpid()%8000}}
	err = p.story(ctx)
	p.close()
	switch {
	case err != nil || o.keep:
		fmt.Fprintln(os.Stderr, "park: data and logs are in", o.dir)
	default:
		err = os.RemoveAll(o.dir)
	}
	return err
}
