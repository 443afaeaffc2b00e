package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) sessionCommand() *cobra.Command {
	cmd := group("session", "List, show, mend and end the clients' sessions",
		"Shows which client has a session, where it is connected and as whom, and what waits for it.",
		"  mqcluster session list\n  mqcluster session show dev1\n  mqcluster session end dev1")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.sessionListCommand(r), a.sessionShowCommand(r), a.sessionKickCommand(r), a.sessionPurgeCommand(r), a.sessionEndCommand(r))
	return cmd
}

func (a *App) sessionListCommand(r *remote) *cobra.Command {
	var request admin.SessionRequest
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List sessions",
		Long:    "Lists sessions by client id, those without a connection included.",
		Example: "  mqcluster session list --prefix sensor- -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				sessions, err := c.ListSessions(ctx, request)
				if err != nil {
					return err
				}
				return list(&r.out, sessions, "CLIENT USER NODE ADDRESS PROTOCOL SUBSCRIPTIONS", func(s admin.Session) []any {
					return []any{s.Client, s.User, s.Node, s.Address, s.Protocol, s.Subscriptions}
				})
			})
		},
	}
	cmd.Flags().StringVar(&request.Prefix, "prefix", "", "only client ids that begin so")
	cmd.Flags().IntVar(&request.Limit, "limit", 1000, "list no more than this")
	return cmd
}

func (a *App) sessionEndCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "end CLIENT",
		Short:   "End a session and close its connection",
		Long:    "Ends a session: its subscriptions and its queue are gone, its connection is closed. The client may connect again; to keep it out, disable its user.",
		Example: "  mqcluster session end dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.EndSession(ctx, args[0])
				if notFound(err) {
					return r.changed(admin.Change{}, "client "+args[0]+" has no session: nothing to do")
				}
				if err != nil {
					return err
				}
				return r.changed(change, "the session of client "+args[0]+" is ended")
			})
		},
	}
}
