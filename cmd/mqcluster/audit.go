package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) auditCommand() *cobra.Command {
	cmd := group("audit", "See who changed what",
		`The cluster keeps the last 10,000 changes that somebody asked for, and what was
refused, with who asked: the user at the other end of the admin socket, the token of a
node that joined, a node that banned somebody. No password, hash or key is among them.
With audit.syslog a node sends what it was asked to a syslog daemon as well.`,
		"  mqcluster audit list\n  mqcluster audit list --operation user --since 24h")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.auditListCommand(r))
	return cmd
}

func (a *App) auditListCommand(r *remote) *cobra.Command {
	var q admin.AuditQuery
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List changes, the newest first",
		Long:  "Lists who asked for which change, when, at which node, and whether it was made.",
		Example: `  mqcluster audit list --limit 20
  mqcluster audit list --operation acl --subject role:sensors
  mqcluster audit list --actor root --since 7d --refused -o json`,
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if since > 0 {
				q.Since = time.Now().Add(-since)
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				records, err := c.ListAudit(ctx, q)
				if err != nil {
					return err
				}
				return list(&r.out, records, "TIME ACTOR NODE OPERATION SUBJECT DETAIL RESULT", func(l admin.AuditRecord) []any {
					result := "done"
					if l.Refused != "" {
						result = "refused: " + l.Refused
					}
					return []any{stamp(l.At), l.Actor, l.Node, l.Operation, l.Subject, l.Detail, result}
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Actor, "actor", "", "only of actors whose name has this in it")
	f.StringVar(&q.Operation, "operation", "", "only operations that begin like this, such as user or acl/set")
	f.StringVar(&q.Subject, "subject", "", "only what is about subjects that have this in their name")
	f.Var(durationFlag(&since), "since", "only of this last time, such as 24h or 7d")
	f.BoolVar(&q.Refused, "refused", false, "only what was refused")
	f.IntVar(&q.Limit, "limit", 100, "how many at most, up to 10000")
	return cmd
}
