package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) banCommand() *cobra.Command {
	cmd := group("ban", "Keep addresses, users and clients out of the cluster",
		`Bans hold on every node and end connections that are there. Nodes make some by
themselves, for a while, as abuse.scan_limit and abuse.flap_limit say. A banned
address gets no answer; a banned user or client is told that it is banned (0x8A).`,
		"  mqcluster ban add address 198.51.100.0/24 --for 1h\n  mqcluster ban list")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.banAddCommand(r), a.banListCommand(r), a.banRemoveCommand(r))
	return cmd
}

func (a *App) banAddCommand(r *remote) *cobra.Command {
	var request admin.BanRequest
	cmd := &cobra.Command{
		Use:   "add address|user|client VALUE",
		Short: "Ban somebody",
		Long: `Bans an address or a network, a user, or a client id. Without --for it lasts until it
is removed. Time in which the whole cluster is off does not count.`,
		Example: `  mqcluster ban add address 198.51.100.7 --for 12h --reason 'guesses passwords'
  mqcluster ban add address 2001:db8:7::/48
  mqcluster ban add client sensor-17`,
		Args: argCount(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Kind, request.Value = args[0], args[1]
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.AddBan(ctx, request)
				if err != nil {
					return err
				}
				return r.changed(change, fmt.Sprintf("%s %s is banned", request.Kind, request.Value))
			})
		},
	}
	cmd.Flags().Var(durationFlag(&request.Lifetime), "for", "how long")
	cmd.Flags().StringVar(&request.Reason, "reason", "", "why, for whoever lists the bans")
	return cmd
}

func (a *App) banListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the bans",
		Long:    "Lists the bans in force, with when they end and whether a node made them by itself.",
		Example: "  mqcluster ban list\n  mqcluster ban list -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				bans, err := c.ListBans(ctx)
				if err != nil {
					return err
				}
				return list(&r.out, bans, "KIND VALUE SINCE UNTIL BY REASON", func(b admin.Ban) []any {
					until, by := "removed", "operator"
					if !b.ExpiresAt.Equal(time.Time{}) {
						until = stamp(b.ExpiresAt)
					}
					if b.Automatic {
						by = "node"
					}
					return []any{b.Kind, b.Value, stamp(b.Since), until, by, b.Reason}
				})
			})
		},
	}
}

func (a *App) banRemoveCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "remove address|user|client VALUE",
		Aliases: []string{"rm"},
		Short:   "Let somebody in again",
		Long:    "Removes a ban. One that does not exist is no error.",
		Example: "  mqcluster ban remove address 198.51.100.0/24",
		Args:    argCount(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := admin.BanRequest{Kind: args[0], Value: args[1]}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.RemoveBan(ctx, request)
				if notFound(err) {
					return r.changed(admin.Change{}, fmt.Sprintf("%s %s is not banned: nothing to do", request.Kind, request.Value))
				}
				if err != nil {
					return err
				}
				return r.changed(change, fmt.Sprintf("%s %s may connect again", request.Kind, request.Value))
			})
		},
	}
}
