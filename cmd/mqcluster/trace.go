package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) traceCommand() *cobra.Command {
	var request admin.TraceRequest
	var count int
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "trace CLIENT|FILTER",
		Short: "Follow messages through all nodes, live",
		Long: `Prints, until it is interrupted, each step of the messages that a client publishes or
receives, or whose topics match a filter, on all nodes: accepted, committed (a
majority has it on disk), forwarded and arrived (QoS 0, between nodes), queued, waits
(in the log, for a client that is away or slow), delivered, acknowledged, or dropped
and why.

An argument with one of / + # is a filter, another one a client id; --client and
--filter say which it is, and both together trace what fits both. Steps of one node
come in order; times are of each node's clock. With -o json every line is a JSON
object. A trace shows topics and client ids, never payloads, and costs while it runs;
of more than 5,000 steps a second of a node the rest is left out, which is said.`,
		Example: `  mqcluster trace 'plant/+/alarm'
  mqcluster trace dev1 --for 30s
  mqcluster trace --client dev1 --filter 'plant/#' --count 10 -o json`,
		Args: argCount(0, 1),
	}
	r := a.remoteFlags(cmd)
	cmd.Flags().StringVar(&request.Client, "client", "", "trace what this client publishes or receives")
	cmd.Flags().StringVar(&request.Filter, "filter", "", "trace messages whose topics match this")
	cmd.Flags().IntVar(&count, "count", 0, "end after so many steps (default: never)")
	cmd.Flags().DurationVar(&limit, "for", 0, "end after this time (default: never)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if request.Client != "" || request.Filter != "" {
				return usagef("give an argument, or --client and --filter")
			}
			if strings.ContainsAny(args[0], "/+#") {
				request.Filter = args[0]
			} else {
				request.Client = args[0]
			}
		}
		if request.Client == "" && request.Filter == "" {
			return usagef("say whose messages are to be traced: a client id or a filter, see %s --help", cmd.CommandPath())
		}
		r.timeout = longest
		if limit > 0 {
			r.timeout = limit
		}
		seen := 0
		err := r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			return c.Trace(ctx, request, func(s admin.TraceStep) error {
				if err := a.printStep(r, s); err != nil {
					return err
				}
				if s.Step != "note" {
					seen++
				}
				if count > 0 && seen >= count {
					return errEnough
				}
				return nil
			})
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	}
	return cmd
}

var errEnough = errors.New("as much as was asked for")

func (a *App) printStep(r *remote, s admin.TraceStep) error {
	if r.out.json() {
		line, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.Out, "%s\n", line)
		return err
	}
	if s.Step == "note" {
		_, err := fmt.Fprintf(a.Err, "node %s %s\n", printable(s.Node), printable(s.Why))
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-8s %-12s %s", s.At.Local().Format("15:04:05.000000"), s.Node, s.Step, s.Client)
	if s.Publisher != "" && s.Publisher != s.Client {
		fmt.Fprintf(&b, " (from %s)", s.Publisher)
	}
	fmt.Fprintf(&b, "  %s  QoS %d", s.Topic, s.QoS)
	if s.Index != 0 {
		fmt.Fprintf(&b, "  log %d.%d", s.Index, s.Item)
	}
	if s.PacketID != 0 {
		fmt.Fprintf(&b, "  id %d", s.PacketID)
	}
	if s.Why != "" {
		fmt.Fprintf(&b, "  %s", s.Why)
	}
	_, err := fmt.Fprintln(a.Out, printable(b.String()))
	return err
}
