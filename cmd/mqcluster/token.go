package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/node"
)

func (a *App) tokenCommand() *cobra.Command {
	cmd := group("token", "Make and revoke the tokens that nodes join with",
		`A token lets machines join the cluster: a limited number of times, for a limited
time. It carries the hash of the cluster's certificate authority, so that the
machine that joins knows whom it talks to; the cluster keeps only a hash of its
secret.`,
		"  mqcluster token create --uses 2 --ttl 30m\n  mqcluster token list")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.tokenCreateCommand(r), a.tokenListCommand(r), a.tokenRevokeCommand(r))
	return cmd
}

func (a *App) tokenCreateCommand(r *remote) *cobra.Command {
	var request admin.TokenRequest
	var only bool
	request.TTL = time.Hour
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print the command that uses it",
		Long:  "Makes a token. It is shown this once.",
		Example: `  mqcluster token create
  mqcluster token create --uses 2 --ttl 30m
  mqcluster token create --quiet > token`,
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				token, err := c.CreateToken(ctx, request)
				if err != nil {
					return err
				}
				switch {
				case only:
					fmt.Fprintln(a.Out, token.Token)
				case r.out.json():
					err = r.out.value(token)
				default:
					fmt.Fprintf(a.Out, "token    %s\nid       %s\nuses     %d\nexpires  %s\n\nOn the machine that is to join:\n  %s\n",
						token.Token, token.ID, token.Uses, stamp(token.ExpiresAt), token.JoinCommand)
				}
				if err != nil {
					return err
				}
				return notApplied(token.Change)
			})
		},
	}
	cmd.Flags().IntVar(&request.Uses, "uses", 1, "how many machines may join with it")
	cmd.Flags().Var(durationFlag(&request.TTL), "ttl", "how long it is valid")
	cmd.Flags().BoolVarP(&only, "quiet", "q", false, "print only the token")
	return cmd
}

// durationFlag is a flag that takes days and weeks too.
func durationFlag(d *time.Duration) durationValue {
	return durationValue{d: d, parse: node.ParseDuration, text: node.FormatDuration}
}

func (a *App) tokenListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the tokens",
		Long:    "Lists the tokens that have neither expired nor been used up.",
		Example: "  mqcluster token list -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				tokens, err := c.ListTokens(ctx)
				if err != nil {
					return err
				}
				return list(&r.out, tokens, "ID USED CREATED EXPIRES", func(t admin.TokenInfo) []any {
					return []any{t.ID, fmt.Sprintf("%d/%d", t.Used, t.Uses), stamp(t.CreatedAt), stamp(t.ExpiresAt)}
				})
			})
		},
	}
}

func (a *App) tokenRevokeCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a token",
		Long:    "Revokes a token. Nodes that joined with it stay members.",
		Example: "  mqcluster token revoke 3f9a",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.RevokeToken(ctx, args[0])
				if notFound(err) {
					return r.changed(admin.Change{}, "there is no token "+args[0]+": nothing to do")
				}
				if err != nil {
					return err
				}
				return r.changed(change, "token "+args[0]+" is revoked")
			})
		},
	}
}
