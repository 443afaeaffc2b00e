// Command mqcluster is a node of the cluster and everything that an operator
// does with it. Each verb is one file: its flags, its help, its work. What a
// node is lives in package node; main only plugs it in.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	app := App{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Environ(),
		Build: readBuild(),
	}
	wire(&app)
	ctx, stop := interruptible()
	code := app.Main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM.
// The second one ends the process at once.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
			return
		}
		if _, again := <-signals; again {
			fmt.Fprintln(os.Stderr, "mqcluster: stopped at once by a second signal")
			os.Exit(1)
		}
	}()
	return ctx, func() {
		cancel()
		signal.Stop(signals)
		close(signals)
		<-ended
	}
}
