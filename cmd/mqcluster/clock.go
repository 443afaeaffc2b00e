package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) clockCommand() *cobra.Command {
	cmd := group("clock", "Show and step the clock by which everything expires",
		`Sessions, wills, messages and tokens expire by the cluster's own clock. It runs
while there is a leader, follows the median of the voters' clocks slowly while they
are at most a minute apart, and stands still while the whole cluster is off: nothing
expires for time in which no client could come back. It is set forward only by an
operator, or by a new leader where the setting clock.after_outage is follow.`,
		"  mqcluster clock show\n  mqcluster clock step")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.clockShowCommand(r), a.clockStepCommand(r))
	return cmd
}

func (a *App) clockShowCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the cluster's clock and what a step would end",
		Long:    "Shows the cluster's clock beside wall time, and how many sessions would end and wills fire if it were stepped to wall time.",
		Example: "  mqcluster clock show\n  mqcluster clock show -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				now, err := c.Clock(ctx, admin.ClockRequest{})
				if err != nil {
					return err
				}
				return a.printClock(r, now)
			})
		},
	}
}

func (a *App) clockStepCommand(r *remote) *cobra.Command {
	var by time.Duration
	cmd := &cobra.Command{
		Use:   "step",
		Short: "Set the cluster's clock forward",
		Long: `Sets the cluster's clock forward to wall time, or by a duration. What is due by
then expires at once, on every node. It is never set back.`,
		Example: "  mqcluster clock step\n  mqcluster clock step --by 2h",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if by < 0 || cmd.Flags().Changed("by") && by == 0 {
				return usagef("--by must be more than 0: the clock is never set back")
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				now, err := c.Clock(ctx, admin.ClockRequest{Step: true, By: by})
				if err != nil {
					return err
				}
				if !now.Stepped && !r.out.json() {
					fmt.Fprintf(a.Out, "nothing to do: the cluster's clock is at wall time, %s\n", stamp(now.Wall))
					return nil
				}
				return a.printClock(r, now)
			})
		},
	}
	cmd.Flags().Var(durationFlag(&by), "by", "how far; without it to wall time")
	return cmd
}

func (a *App) printClock(r *remote, now admin.ClockReading) error {
	if r.out.json() {
		return r.out.value(now)
	}
	known := ""
	if !now.Known {
		known = " (not known from a majority of the voters yet)"
	}
	fmt.Fprintf(a.Out, "cluster  %s\nwall     %s%s\n", stamp(now.Log), stamp(now.Wall), known)
	verb := "would end"
	if now.Stepped {
		verb = "ended"
	}
	fmt.Fprintf(a.Out, "a step to %s %s %d sessions and fires %d wills\n", stamp(now.To), verb, now.Sessions, now.Wills)
	return nil
}
