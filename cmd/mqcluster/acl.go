package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) aclCommand() *cobra.Command {
	cmd := group("acl", "Say who may publish and subscribe to what",
		`Rules belong to a subject: user:NAME, role:NAME, anonymous for clients without a
user, or * for everybody. A rule is

  allow|deny publish|subscribe|both|receive|request FILTER

where %u and %c in the filter stand for the user name and the client id, and
%{cert.cn}, %{cert.o}, %{cert.ou} and %{cert.san.dns} for the first such name in the
client's certificate; a rule matches nothing where the name is missing or has /, + or #
in it. The first rule that matches decides: those of the user in their order, then
those of its token, then those of its roles in their order, then those of *. What no
rule allows is denied. A rule about subscribe is about the subscription and what it
delivers; request is about the one alone and receive about the other. Roles are what
others call groups: a user has any number of them, and their order is their priority.`,
		"  mqcluster acl set user:dev1 'allow publish sensors/%c/#' 'allow subscribe commands/%c/#'\n  mqcluster acl explain dev1 publish sensors/dev1/t --client dev1")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.aclSetCommand(r), a.aclGetCommand(r), a.aclExplainCommand(r), a.aclTestCommand(r),
		a.aclHistoryCommand(r), a.aclDiffCommand(r), a.aclRollbackCommand(r))
	return cmd
}

func (a *App) aclSetCommand(r *remote) *cobra.Command {
	var file string
	var none bool
	cmd := &cobra.Command{
		Use:   "set SUBJECT [RULE...]",
		Short: "Replace the rules of a subject",
		Long: `Replaces all rules of a subject by those given as arguments, one each, or in a
file, one a line; lines that begin with # are comments there. It acts at once, on
every node and on connected clients.`,
		Example: `  mqcluster acl set user:dev1 'allow publish sensors/%c/#'
  mqcluster acl set role:sensors --file rules.acl
  mqcluster acl get role:sensors | mqcluster acl set role:test --file -
  mqcluster acl set user:dev1 --clear`,
		Args: argCount(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rules := args[1:]
			switch {
			case file != "" && len(rules) > 0, none && (file != "" || len(rules) > 0):
				return usagef("rules, --file and --clear exclude each other: give one")
			case file != "":
				var err error
				if rules, err = a.readRules(file); err != nil {
					return err
				}
			}
			if len(rules) == 0 && !none {
				return usagef("no rules were given: write some, or --clear to take all away")
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				change, err := c.SetAcl(ctx, admin.Acl{Subject: args[0], Rules: rules})
				if err != nil {
					return err
				}
				return r.changed(change, fmt.Sprintf("%s has %d rules", args[0], len(rules)))
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file with one rule a line; - is standard input")
	cmd.Flags().BoolVar(&none, "clear", false, "take all rules away")
	return cmd
}

// readRules returns the lines of a file that are neither empty nor comments.
func (a *App) readRules(path string) ([]string, error) {
	var in io.Reader = a.In
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("the rules cannot be read: %w", err)
		}
		defer file.Close()
		in = file
	}
	var rules []string
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" && !strings.HasPrefix(line, "#") {
			rules = append(rules, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("the rules cannot be read: %w", err)
	}
	return rules, nil
}

func (a *App) aclGetCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "get [SUBJECT]",
		Short: "Show the rules of a subject, or of all",
		Long: `Shows rules. Of one subject they are printed one a line, in the form that acl set
--file reads.`,
		Example: "  mqcluster acl get\n  mqcluster acl get role:sensors",
		Args:    argCount(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			subject := strings.Join(args, "")
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				acls, err := c.ListAcls(ctx, subject)
				if err != nil {
					return err
				}
				if subject == "" || r.out.json() {
					var lines []admin.Acl
					for _, acl := range acls {
						for _, rule := range acl.Rules {
							lines = append(lines, admin.Acl{Subject: acl.Subject, Rules: []string{rule}})
						}
					}
					if r.out.json() {
						lines = acls
					}
					return list(&r.out, lines, "SUBJECT RULE", func(l admin.Acl) []any { return []any{l.Subject, l.Rules[0]} })
				}
				for _, acl := range acls {
					for _, rule := range acl.Rules {
						fmt.Fprintln(a.Out, printable(rule))
					}
				}
				return nil
			})
		},
	}
}

func (a *App) aclExplainCommand(r *remote) *cobra.Command {
	var client, cert string
	cmd := &cobra.Command{
		Use:   "explain USER publish|subscribe TOPIC",
		Short: "Tell whether a user may do something, and by which rule",
		Long: `Tells whether a user, connected as a client id, may publish to a topic or
subscribe to a filter, and which rule decides, before which other one that would
decide otherwise. The user '' is a client without one.`,
		Example: `  mqcluster acl explain dev1 publish sensors/dev1/t --client dev1
  mqcluster acl explain dev1 publish plant/7/t --client dev1 --cert dev1.pem
  mqcluster acl explain dev1 subscribe 'sensors/#' -o json`,
		Args: argCount(3, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != "publish" && args[1] != "subscribe" {
				return usagef("action %q is unknown: write publish or subscribe", args[1])
			}
			question := admin.AclQuestion{User: args[0], Client: client, Action: args[1], Topic: args[2]}
			if cert != "" {
				var err error
				if question.Cert, err = certNames(cert); err != nil {
					return err
				}
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				answer, err := c.ExplainAcl(ctx, question)
				if err != nil {
					return err
				}
				if r.out.json() {
					return r.out.value(answer)
				}
				verdict := "denied"
				if answer.Allowed {
					verdict = "allowed"
				}
				switch {
				case answer.Reason != "":
					fmt.Fprintf(a.Out, "%s: %s\n", verdict, printable(answer.Reason))
				case answer.Rule != "":
					fmt.Fprintf(a.Out, "%s by the rule of %s: %s\n", verdict, printable(answer.Subject), printable(answer.Rule))
				default:
					fmt.Fprintf(a.Out, "%s: no rule matches\n", verdict)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "client id, for rules with %c")
	cmd.Flags().StringVar(&cert, "cert", "", "PEM file of the client's certificate, for rules with %{cert.…}")
	return cmd
}
