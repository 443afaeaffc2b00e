package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Send this node's clients to the others",
		Long: `Has another node lead, makes this one not ready, serves on for drain.delay so that
balancers notice and send it nobody new, and then sends its clients away, so that the
machine can be worked on. MQTT 5 clients are told 0x9C Use another server with the
configured drain.reference, or 0x8B Server shutting down without one; older clients are
closed. Sessions, queues and wills wait for them on the other nodes: no will fires for a
client that comes back within drain.grace. The node stays a member.

--rate sets the pace, for clients that would all come to the other nodes at once.
--timeout is for sending them away. With --stop the process ends when no client is left.
Otherwise the node serves again after drain --off or a restart. Interrupted, it stays
not ready and keeps whom it has; run it again, or drain --off.`,
		Example: `  mqcluster drain
  mqcluster drain --rate 200 --stop
  mqcluster drain --off`,
		Args: argCount(0, 0),
	}
	var request admin.DrainRequest
	r := a.remoteFlags(cmd)
	cmd.Flags().BoolVar(&request.Off, "off", false, "serve clients again")
	cmd.Flags().IntVar(&request.Rate, "rate", 0, "clients to send away a second; 0: spread over the time there is")
	cmd.Flags().BoolVar(&request.Stop, "stop", false, "end the node's process afterwards")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if request.Rate < 0 || request.Off && (request.Stop || request.Rate > 0) {
			return usagef("--rate is a number of clients, and --off takes neither --rate nor --stop")
		}
		request.Timeout = r.timeout * 9 / 10
		if !request.Off {
			// The node knows how long the rest of it takes.
			r.timeout = longest
		}
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			seen := a.watchDrain(ctx, c, request.Off)
			result, err := c.Drain(ctx, request)
			seen()
			if err != nil {
				return err
			}
			if err := a.printDrain(r, request, result); err != nil {
				return err
			}
			if request.Stop && !result.Stopped {
				return fmt.Errorf("%d clients are still connected: the node goes on, not ready; run this again, or stop the process", result.Left)
			}
			return nil
		})
	}
	return cmd
}

// drainPhase says what a drain is at.
func drainPhase(phase string) string {
	switch phase {
	case admin.DrainLead:
		return "another node is to lead"
	case admin.DrainNotice:
		return "not ready, and serving on until balancers have noticed"
	case admin.DrainSend:
		return "sending clients away"
	case admin.DrainDrained:
		return "clients were sent away"
	}
	return phase
}

// drainLook is how often it is looked at what a drain is at.
const drainLook = 200 * time.Millisecond

// watchDrain tells what the node is at, until the function that it returns is called;
// nothing if none is to be.
func (a *App) watchDrain(ctx context.Context, c *admin.Client, none bool) (done func()) {
	if none {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(drainLook)
		defer tick.Stop()
		last := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Without an answer nothing is told: the drain itself says what is wrong.
			if s, err := c.Status(ctx); err == nil && s.DrainPhase != last && s.DrainPhase != "" {
				last = s.DrainPhase
				fmt.Fprintln(a.Err, drainPhase(last))
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (a *App) printDrain(r *remote, request admin.DrainRequest, result admin.DrainResult) error {
	switch {
	case r.out.json():
		return r.out.value(result)
	case request.Off:
		fmt.Fprintln(a.Out, "this node serves clients")
		return nil
	}
	fmt.Fprintf(a.Out, "%d clients were sent away, %d are still connected\n", result.Sent, result.Left)
	if result.Leader != "" {
		fmt.Fprintf(a.Out, "node %s leads\n", printable(result.Leader))
	}
	if result.Stopped {
		fmt.Fprintln(a.Out, "this node stops")
	}
	return nil
}
