package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) leaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave [NODE]",
		Short: "Take this node, or a dead one, out of the cluster",
		Long: `Without NODE this node sends its clients away, gives up its vote and its place
in the cluster, and stops; its data directory can then be deleted. With NODE that
member is removed; one that is up must leave by itself, unless --force says that
it never comes back.

A member that was removed needs a new token to join again.`,
		Example: `  mqcluster leave
  mqcluster leave c
  mqcluster leave c --force`,
		Args: argCount(0, 1),
	}
	r := a.remoteFlags(cmd)
	force := cmd.Flags().Bool("force", false, "remove the member although it is up")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request, who := admin.LeaveRequest{Force: *force}, "this node"
		if len(args) == 1 {
			request.Node, who = args[0], "node "+args[0]
		}
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			change, err := c.Leave(ctx, request)
			if notFound(err) {
				return r.changed(admin.Change{}, who+" is no member: nothing to do")
			}
			if err != nil {
				return err
			}
			return r.changed(change, who+" has left the cluster")
		})
	}
	return cmd
}

func (a *App) drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Send this node's clients to the others",
		Long: `Sends the clients away and refuses new ones, so that the machine can be worked
on; sessions, queues and wills wait for the clients on the other nodes. The node
stays a member. It serves again after drain --off or a restart.`,
		Example: `  mqcluster drain
  mqcluster drain --off`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	off := cmd.Flags().Bool("off", false, "serve clients again")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			result, err := c.Drain(ctx, admin.DrainRequest{Off: *off, Timeout: r.timeout * 9 / 10})
			switch {
			case err != nil:
				return err
			case r.out.json():
				return r.out.value(result)
			case *off:
				fmt.Fprintln(a.Out, "this node serves clients")
			default:
				fmt.Fprintf(a.Out, "%d clients were sent away, %d are still connected\n", result.Sent, result.Left)
			}
			return nil
		})
	}
	return cmd
}
