package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) sessionShowCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "show CLIENT",
		Short:   "Show all that the cluster knows of a session",
		Long:    "Shows a session: where it is connected, its subscriptions, what waits for it and what is under way.",
		Example: "  mqcluster session show dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				s, err := c.ShowSession(ctx, args[0])
				if err != nil {
					return err
				}
				if r.out.json() {
					return r.out.value(s)
				}
				return a.printSession(s)
			})
		},
	}
}

func (a *App) printSession(s admin.SessionDetail) error {
	where := "not connected since " + stamp(time.UnixMilli(s.Since))
	if s.Node != "" {
		where = fmt.Sprintf("on node %s from %s since %s", s.Node, printable(s.Address), stamp(time.UnixMilli(s.Since)))
	}
	more := ""
	if s.More {
		more = " or more"
	}
	fmt.Fprintf(a.Out, "client     %s\nuser       %s\nconnected  %s\nprotocol   %d\nexpiry     %d s\n", printable(s.Client), printable(s.User), where, s.Protocol, s.Expiry)
	if s.ExpiresAt != 0 {
		fmt.Fprintf(a.Out, "ends       %s\n", stamp(time.UnixMilli(s.ExpiresAt)))
	}
	fmt.Fprintf(a.Out, "queue      %d messages, %d bytes%s\nunder way  %d of QoS 1, %d of QoS 2 to it, %d from it\n", s.Queued, s.QueuedBytes, more, s.Inflight, s.Sending, s.Receiving)
	if s.WillTopic != "" {
		fmt.Fprintf(a.Out, "will       %s, %d s after the connection is lost\n", printable(s.WillTopic), s.WillDelay)
	}
	fmt.Fprintln(a.Out)
	t := newTable(a.Out, "FILTER QOS OPTIONS")
	for _, f := range s.Filters {
		options := ""
		if f.NoLocal {
			options += "no-local "
		}
		if f.RetainAsPublished {
			options += "retain-as-published "
		}
		if f.ID != 0 {
			options += fmt.Sprintf("id=%d", f.ID)
		}
		t.row(f.Filter, f.QoS, options)
	}
	return t.flush()
}

func (a *App) sessionKickCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "kick CLIENT",
		Short: "Close a client's connection; its session stays",
		Long: `Closes the connection of a client, on whatever node it is. Its session and its queue
stay, its will fires, and it may connect again at once; to keep it out, disable its
user.`,
		Example: "  mqcluster session kick dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				kicked, err := c.KickClient(ctx, args[0])
				if notFound(err) {
					kicked, err = admin.Kicked{}, nil
				}
				switch {
				case err != nil:
					return err
				case r.out.json():
					return r.out.value(kicked)
				case kicked.Node == "":
					fmt.Fprintf(a.Out, "client %s is not connected: nothing to do\n", args[0])
				default:
					fmt.Fprintf(a.Out, "client %s is sent away from node %s\n", args[0], kicked.Node)
				}
				return nil
			})
		},
	}
}

func (a *App) sessionPurgeCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "purge CLIENT",
		Short: "Empty the queue of a session",
		Long: `Has a session give up the messages that wait for it, for good. Its subscriptions and
its connection stay; what is on its way to the client is not called back.`,
		Example: "  mqcluster session purge dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				purged, err := c.PurgeSession(ctx, args[0])
				if err != nil {
					return err
				}
				if r.out.json() {
					if err := r.out.value(purged); err != nil {
						return err
					}
					return notApplied(purged.Change)
				}
				more := ""
				if purged.More {
					more = " or more"
				}
				return r.changed(purged.Change, fmt.Sprintf("the session of client %s has given up %d messages%s", args[0], purged.Purged, more))
			})
		},
	}
}
