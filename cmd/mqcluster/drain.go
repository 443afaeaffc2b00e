package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Send this node's clients to the others",
		Long: `Makes the node not ready, so that the balancer sends it nobody, has another node lead,
and sends the clients away, so that the machine can be worked on. MQTT 5 clients are
told 0x9C Use another server with the configured drain.reference, or 0x8B Server
shutting down without one; older clients are closed. Sessions, queues and wills wait
for them on the other nodes: no will fires for a client that comes back within
drain.grace. The node stays a member.

--rate sets the pace, for clients that would all come to the other nodes at once.
With --stop the process ends when no client is left. Otherwise the node serves again
after drain --off or a restart.`,
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
		if request.Rate > 0 {
			// The node knows how many there are, and --timeout is for the rest.
			r.timeout = longest
		}
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			result, err := c.Drain(ctx, request)
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
