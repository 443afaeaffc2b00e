package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) balanceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "Even out how many clients the nodes have",
		Long: `Has every node that has more clients than its share send the rest away, 200 a
second, as drain does: sessions, queues and wills wait for them. A balancer before
the nodes has to send them to the node with the fewest connections; without one
they come back to where they were, and this is of no use. A node that was down or
drained is empty when it comes back, and stays so until clients connect anew.

A node that is not ready takes no part. Where all have their share nothing is done;
what did not fit into --timeout is done by running it again.`,
		Example: `  mqcluster balance
  mqcluster balance --timeout 10m -o json`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			shares, err := c.Balance(ctx)
			if err != nil {
				return err
			}
			return list(&r.out, shares, "NODE CLIENTS SHARE SENT", func(s admin.Share) []any {
				if s.Out {
					return []any{s.Node, s.Clients, "not ready", 0}
				}
				return []any{s.Node, s.Clients, s.Share, s.Sent}
			})
		})
	}
	return cmd
}
