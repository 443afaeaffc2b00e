package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) settingCommand() *cobra.Command {
	cmd := group("setting", "Show and change what the whole cluster is set to",
		`Settings hold for the whole cluster and are kept in its log, unlike the
configuration of a node. They are the limits of what waits for clients that are
not there or too slow: beyond them the oldest messages go first, and are counted
in mqcluster_queue_dropped_total. A change acts at once, on every node.`,
		"  mqcluster setting list\n  mqcluster setting set queue.max_messages 100000")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.settingListCommand(r), a.settingGetCommand(r), a.settingSetCommand(r), a.settingUnsetCommand(r))
	return cmd
}

// completeSettings offers the keys that the node knows.
func (r *remote) completeSettings(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var keys []string
	if len(args) == 0 {
		_ = r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			settings, err := c.ListSettings(ctx, "")
			for _, s := range settings {
				keys = append(keys, s.Key+"\t"+s.Help)
			}
			return err
		}) // without a node there is nothing to offer
	}
	return keys, cobra.ShellCompDirectiveNoFileComp
}

func (a *App) settingListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the settings",
		Long:    "Lists the settings with the value in force and the default.",
		Example: "  mqcluster setting list\n  mqcluster setting list -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				settings, err := c.ListSettings(ctx, "")
				if err != nil {
					return err
				}
				return list(&r.out, settings, "SETTING VALUE DEFAULT MEANING", func(s admin.Setting) []any {
					return []any{s.Key, s.Value, s.Default, s.Help}
				})
			})
		},
	}
}

func (a *App) settingGetCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:               "get KEY",
		Short:             "Show one setting",
		Long:              "Prints the value of a setting that is in force.",
		Example:           "  mqcluster setting get queue.max_age",
		Args:              argCount(1, 1),
		ValidArgsFunction: r.completeSettings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				settings, err := c.ListSettings(ctx, args[0])
				if err != nil {
					return err
				}
				for _, s := range settings {
					if r.out.json() {
						return r.out.value(s)
					}
					fmt.Fprintln(a.Out, printable(s.Value))
				}
				return nil
			})
		},
	}
}

func (a *App) settingSetCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Change a setting",
		Long: `Changes a setting, on every node at once. A limit that is lowered has queues that
are over it give up their oldest messages within seconds.

With queue.qos0 on, messages of QoS 0 wait for sessions whose client is away, as
Mosquitto's queue_qos0_messages has them do, shared subscriptions excepted. They
count for the limits of queues, go through the log, and are sent at most once.`,
		Example: `  mqcluster setting set queue.max_messages 100000
  mqcluster setting set queue.max_bytes 64MiB
  mqcluster setting set queue.max_age 168h
  mqcluster setting set queue.qos0 on`,
		Args:              argCount(2, 2),
		ValidArgsFunction: r.completeSettings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.changeSetting(cmd, admin.SettingChange{Key: args[0], Value: args[1]}, strings.Join(args, " is now "))
		},
	}
}

func (a *App) settingUnsetCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:               "unset KEY",
		Short:             "Take a setting back to its default",
		Long:              "Takes a setting back to its default, on every node at once.",
		Example:           "  mqcluster setting unset queue.max_messages",
		Args:              argCount(1, 1),
		ValidArgsFunction: r.completeSettings,
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.changeSetting(cmd, admin.SettingChange{Key: args[0], Unset: true}, args[0]+" is at its default")
		},
	}
}

func (r *remote) changeSetting(cmd *cobra.Command, change admin.SettingChange, done string) error {
	return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
		made, err := c.SetSetting(ctx, change)
		if err != nil {
			return err
		}
		return r.changed(made, done)
	})
}
