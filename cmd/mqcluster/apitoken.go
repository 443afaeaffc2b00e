package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) apiTokenCommand() *cobra.Command {
	cmd := group("api-token", "Make and remove the tokens of the API and the dashboard",
		`A token lets a person or a program use the API of every node over the network
(api.listen), and log in at the dashboard. Its role says how far: a viewer reads, an
operator works with clients, sessions and messages and drains nodes, an admin does
everything. The cluster keeps only a hash of it.`,
		"  mqcluster api-token create --name grafana --role viewer\n  mqcluster api-token list")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.apiTokenCreateCommand(r), a.apiTokenListCommand(r), a.apiTokenRemoveCommand(r))
	return cmd
}

func (a *App) apiTokenCreateCommand(r *remote) *cobra.Command {
	var request admin.APITokenRequest
	var role string
	var only bool
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token",
		Long:  "Makes a token. It is shown this once.",
		Example: `  mqcluster api-token create --name anna --role operator
  (umask 077; mqcluster api-token create --name ci --role viewer --ttl 90d --quiet > ci.token)`,
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			request.Role = admin.Role(role)
			if !request.Role.Valid() {
				return usagef("--role is %q: write viewer, operator or admin", role)
			}
			if request.Name == "" {
				return usagef("--name is missing: say who or what uses the token")
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				token, err := c.CreateAPIToken(ctx, request)
				if err != nil {
					return err
				}
				switch {
				case only:
					fmt.Fprintln(a.Out, token.Token)
				case r.out.json():
					err = r.out.value(token)
				default:
					fmt.Fprintf(a.Out, "token    %s\nid       %s\nname     %s\nrole     %s\nexpires  %s\n",
						token.Token, token.ID, printable(token.Name), token.Role, orNever(stamp(token.ExpiresAt)))
				}
				if err != nil {
					return err
				}
				return notApplied(token.Change)
			})
		},
	}
	cmd.Flags().StringVar(&request.Name, "name", "", "who or what uses it")
	cmd.Flags().StringVar(&role, "role", string(admin.RoleViewer), "viewer, operator or admin")
	cmd.Flags().Var(durationFlag(&request.TTL), "ttl", "how long it is valid; 0: until it is removed")
	cmd.Flags().BoolVarP(&only, "quiet", "q", false, "print only the token")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(strings.Fields("viewer operator admin"), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func orNever(text string) string {
	if text == "" {
		return "never"
	}
	return text
}

func (a *App) apiTokenListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the tokens",
		Long:    "Lists the tokens of the API, without their secrets; those that have expired, too.",
		Example: "  mqcluster api-token list -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				tokens, err := c.ListAPITokens(ctx)
				if err != nil {
					return err
				}
				return list(&r.out, tokens, "ID NAME ROLE CREATED EXPIRES", func(t admin.APITokenInfo) []any {
					return []any{t.ID, t.Name, t.Role, stamp(t.CreatedAt), orNever(stamp(t.ExpiresAt))}
				})
			})
		},
	}
}

func (a *App) apiTokenRemoveCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "rm ID",
		Short:   "Remove a token",
		Long:    "Removes a token. Who has it is out at once, sessions at the dashboard included.",
		Example: "  mqcluster api-token rm k3f9a7",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.RemoveAPIToken(ctx, args[0])
				if err != nil {
					return err
				}
				if change.Index == 0 {
					return r.changed(change, "there is no API token "+args[0]+": nothing to do")
				}
				return r.changed(change, "API token "+args[0]+" is removed")
			})
		},
	}
}
