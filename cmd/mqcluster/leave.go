package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) leaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave [NODE]",
		Short: "Take this node, or a dead one, out of the cluster",
		Long: `Without NODE this node sends its clients away as drain does, gives up its vote and its
place in the cluster, and stops; its data directory can then be deleted. MQTT 5 clients
are told 0x9D Server moved with the configured drain.reference. With NODE that member is
removed; one that is up must leave by itself, unless --force says that it never comes
back.

A member that was removed needs a new token to join again.

--compromised removes a member because somebody else may have had its disk or its
memory. It takes it out even if it is up, revokes its certificates, makes the keys
anew that the nodes share in memory, and begins a rotation of the CA, whose key a
voter holds. Until mqcluster ca retire ends that, whoever has the old key can make
certificates that are trusted.`,
		Example: `  mqcluster leave
  mqcluster leave c
  mqcluster leave c --force
  mqcluster leave c --compromised`,
		Args: argCount(0, 1),
	}
	r := a.remoteFlags(cmd)
	force := cmd.Flags().Bool("force", false, "remove the member although it is up")
	compromised := cmd.Flags().Bool("compromised", false, "somebody else may have what the member knows: also rotate the CA")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		request, who := admin.LeaveRequest{Force: *force, Compromised: *compromised}, "this node"
		if *compromised && len(args) == 0 {
			return usagef("--compromised needs the name of the member: mqcluster leave NODE --compromised, on another node")
		}
		if len(args) == 0 && !cmd.Flags().Changed("timeout") {
			r.timeout = longest // the node knows how long drain.delay and the rest take
		}
		if len(args) == 1 {
			request.Node, who = args[0], "node "+args[0]
		}
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			seen := a.watchDrain(ctx, c, len(args) > 0)
			change, err := c.Leave(ctx, request)
			seen()
			if notFound(err) {
				return r.changed(admin.Change{}, who+" is no member: nothing to do")
			}
			if err != nil {
				return err
			}
			done := who + " has left the cluster"
			if *compromised {
				done += "\nThe CA is being rotated: give clients what mqcluster cert ca prints, renew their certificates\n(mqcluster ca status lists them), then run mqcluster ca retire. Change passwords that were in use."
			}
			return r.changed(change, done)
		})
	}
	return cmd
}
