package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster as this node sees it",
		Long: `Shows the leader, whether there is a quorum, and of each member its role, lease,
applied index and clients. A serving node has no vote and needs none: as many vote as
should, or it was joined with --serving-only. A non-voter gets its vote when it has
caught up. With --check the exit code is 1 unless this node is ready to serve. With
--watch it is shown anew, until it is interrupted.`,
		Example: `  mqcluster status
  mqcluster status -o json | jq .leader
  mqcluster status --check
  mqcluster status --watch=2s`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	check := cmd.Flags().Bool("check", false, "exit with 1 unless this node is ready to serve")
	var watch time.Duration
	cmd.Flags().DurationVar(&watch, "watch", 0, "show it anew after this time, again and again")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	show := func(cmd *cobra.Command) error {
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			status, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if watch > 0 && !r.out.json() {
				fmt.Fprint(a.Out, clearScreen)
			}
			if err := a.printStatus(r, status); err != nil {
				return err
			}
			if *check && !status.Ready() {
				return fmt.Errorf("node %s is not ready: %s", status.Node, strings.Join(status.Reasons, "; "))
			}
			return nil
		})
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if watch == 0 {
			return show(cmd)
		}
		if watch < 100*time.Millisecond || *check {
			return usagef("--watch takes 100ms or more, and no --check beside it")
		}
		shown := false
		return a.repeat(cmd, watch, 0, func() error {
			err := show(cmd)
			if err != nil && shown && cmd.Context().Err() == nil {
				// The node is being restarted: whoever watches wants to see it come back.
				fmt.Fprintln(a.Err, "mqcluster:", explain(err))
				return nil
			}
			shown = true
			return err
		})
	}
	return cmd
}

func (a *App) printStatus(r *remote, s admin.Status) error {
	if r.out.json() {
		if s.Members == nil {
			s.Members = []admin.Member{}
		}
		return r.out.value(s)
	}
	leader, quorum, ready := s.Leader, "yes", "yes"
	if leader == "" {
		leader = "none known"
	}
	if !s.Quorum {
		quorum = "no: bring back a majority of the voters"
	}
	if !s.Ready() {
		ready = "no: " + strings.Join(s.Reasons, "; ")
	}
	if s.Draining {
		ready += " (" + drainPhase(s.DrainPhase) + ")"
	}
	fmt.Fprintf(a.Out, "cluster  %s (%s)\nnode     %s, version %s\nleader   %s\nquorum   %s\nready    %s\nlog      term %d, last %d, committed %d, applied %d, feature level %d\n\n",
		s.ClusterID, printable(s.ClusterName), s.Node, s.Version, leader, quorum, ready,
		s.Term, s.LastIndex, s.CommitIndex, s.AppliedIndex, s.Level)
	if s.Refusing {
		fmt.Fprint(a.Out, "Durable publishes are refused: make room on the disks that are low or full.\n\n")
	}
	t := newTable(a.Out, "NODE ROLE UP LEASE APPLIED CLIENTS VERSION ADDRESS")
	for _, m := range s.Members {
		up, lease := "down", "?"
		if m.Up {
			up = "up"
		}
		if m.Lease >= 0 {
			lease = fmt.Sprintf("%.1fs", float64(m.Lease)/1000)
		}
		if m.Up && m.Disk != "" && m.Disk != "ok" {
			up = "disk " + m.Disk
		}
		t.row(m.Node, m.Role, up, lease, m.Applied, m.Clients, m.Version, m.Address)
	}
	return t.flush()
}
