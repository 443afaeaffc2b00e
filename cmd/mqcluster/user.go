package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) userCommand() *cobra.Command {
	cmd := group("user", "Manage the users that clients log in as",
		`Users are people and devices with a name and a password. A new user may do
nothing until an ACL allows it: see mqcluster acl. Every change acts at once, on
every node and on connected clients.`,
		"  mqcluster user add dev1\n  mqcluster user list")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.userAddCommand(r), a.userImportCommand(r), a.userPasswdCommand(r), a.userListCommand(r), a.userShowCommand(r),
		a.userDisableCommand(r), a.userEnableCommand(r), a.userRolesCommand(r), a.userLimitsCommand(r), a.userRemoveCommand(r))
	return cmd
}

// userArg takes one user name, and tells who adds a password why not.
func userArg(cmd *cobra.Command, args []string) error {
	if len(args) == 2 {
		return usageError{errPasswordArgument}
	}
	return argCount(1, 1)(cmd, args)
}

func (a *App) userAddCommand(r *remote) *cobra.Command {
	var password passwordFlags
	var roles []string
	var none bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Long: `Adds a user. The password is asked for twice, or read from a file or standard
input. With --no-password the user can only log in with a certificate, on a
listener that takes the user name from it.`,
		Example: `  mqcluster user add dev1
  mqcluster user add dev1 --password-file secret --role sensors
  mqcluster user add gateway7 --no-password`,
		Args: userArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := exclusive(cmd, false, "no-password", "password-file", "stdin"); err != nil {
				return err
			}
			request := admin.UserAdd{Name: args[0], Roles: roles}
			if !none {
				secret, err := password.readNew(a)
				if err != nil {
					return err
				}
				defer clear(secret)
				request.Password = secret
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.AddUser(ctx, request)
				if err != nil {
					return err
				}
				return r.changed(change, fmt.Sprintf("user %s is added", args[0]))
			})
		},
	}
	password.flags(cmd)
	cmd.Flags().StringSliceVar(&roles, "role", nil, "role of the user (repeatable)")
	cmd.Flags().BoolVar(&none, "no-password", false, "log in by certificate only")
	return cmd
}

func (a *App) userPasswdCommand(r *remote) *cobra.Command {
	var password passwordFlags
	cmd := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Change a password",
		Long:  "Changes a user's password. Clients that are connected with the old one are sent away.",
		Example: `  mqcluster user passwd dev1
  pass show mqtt/dev1 | mqcluster user passwd dev1 --stdin`,
		Args: userArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := password.readNew(a)
			if err != nil {
				return err
			}
			defer clear(secret)
			return a.setUser(cmd, r, admin.UserSet{Name: args[0], Password: secret}, "the password of user "+args[0]+" is changed")
		},
	}
	password.flags(cmd)
	return cmd
}

func (a *App) setUser(cmd *cobra.Command, r *remote, request admin.UserSet, done string) error {
	return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
		change, err := c.SetUser(ctx, request)
		if err != nil {
			return err
		}
		return r.changed(change, done)
	})
}

func (a *App) userListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the users",
		Long:    "Lists all users with their roles.",
		Example: "  mqcluster user list -o json",
		Args:    argCount(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.showUsers(cmd, r, "") },
	}
}

func (a *App) userShowCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one user",
		Long:    "Shows one user with its roles.",
		Example: "  mqcluster user show dev1",
		Args:    argCount(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.showUsers(cmd, r, args[0]) },
	}
}

func (a *App) showUsers(cmd *cobra.Command, r *remote, name string) error {
	return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
		users, err := c.ListUsers(ctx, name)
		if err != nil {
			return err
		}
		return list(&r.out, users, "NAME STATE PASSWORD ROLES", func(u admin.User) []any {
			state, password := "enabled", "yes"
			if u.Disabled {
				state = "disabled"
			}
			if !u.HasPassword {
				password = "no"
			}
			return []any{u.Name, state, password, strings.Join(u.Roles, ",")}
		})
	})
}

func (a *App) userDisableCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "disable NAME",
		Short:   "Refuse a user and send its clients away",
		Long:    "Disables a user. Its connected clients are sent away on every node before this returns; its sessions stay.",
		Example: "  mqcluster user disable dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			disabled := true
			return a.setUser(cmd, r, admin.UserSet{Name: args[0], Disabled: &disabled}, "user "+args[0]+" is disabled")
		},
	}
}

func (a *App) userEnableCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "enable NAME",
		Short:   "Accept a disabled user again",
		Long:    "Enables a user that was disabled.",
		Example: "  mqcluster user enable dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			disabled := false
			return a.setUser(cmd, r, admin.UserSet{Name: args[0], Disabled: &disabled}, "user "+args[0]+" is enabled")
		},
	}
}

func (a *App) userRolesCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "roles NAME [ROLE...]",
		Short:   "Replace the roles of a user",
		Long:    "Gives a user exactly the roles that are named; none takes all away.",
		Example: "  mqcluster user roles dev1 sensors heating\n  mqcluster user roles dev1",
		Args:    argCount(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			roles := args[1:]
			return a.setUser(cmd, r, admin.UserSet{Name: args[0], Roles: &roles}, "the roles of user "+args[0]+" are set")
		},
	}
}

func (a *App) userLimitsCommand(r *remote) *cobra.Command {
	var q admin.Quota
	cmd := &cobra.Command{
		Use:   "limits NAME",
		Short: "Bound what the clients of a user may use",
		Long: `Gives a user exactly the limits that are named, beside those of the configuration that
hold for every client (limits in mqcluster config keys); without any flag it has none
of its own. Messages beyond a rate are not lost: the client is read no faster. Rates
and connections are of all clients of the user on one node, the other limits of each.
A packet size and a number in flight hold from the next connection on.`,
		Example: "  mqcluster user limits dev1 --message-rate 50 --subscriptions 10 --topic-levels 6\n  mqcluster user limits dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setUser(cmd, r, admin.UserSet{Name: args[0], Quota: &q}, "the limits of user "+args[0]+" are set")
		},
	}
	f := cmd.Flags()
	f.IntVar(&q.MessageRate, "message-rate", 0, "messages a second that are read")
	f.IntVar(&q.ByteRate, "byte-rate", 0, "bytes of messages a second that are read")
	f.IntVar(&q.Connections, "connections", 0, "connections")
	f.IntVar(&q.Subscriptions, "subscriptions", 0, "subscriptions of a session")
	f.IntVar(&q.PacketSize, "packet-size", 0, "bytes of a packet")
	f.IntVar(&q.Inflight, "inflight", 0, "QoS 1 and 2 messages without an acknowledgement, each way")
	f.IntVar(&q.TopicLevels, "topic-levels", 0, "levels of a topic or filter")
	return cmd
}

func (a *App) userRemoveCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove"},
		Short:   "Remove a user",
		Long:    "Removes a user and sends its clients away. Its ACL stays and can be removed with mqcluster acl set user:NAME --clear.",
		Example: "  mqcluster user rm dev1",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.RemoveUser(ctx, args[0])
				if notFound(err) {
					return r.changed(admin.Change{}, "there is no user "+args[0]+": nothing to do")
				}
				if err != nil {
					return err
				}
				return r.changed(change, "user "+args[0]+" is removed")
			})
		},
	}
}
