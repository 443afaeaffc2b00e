package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) aclHistoryCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "List the versions of the ACLs",
		Long: `Lists the versions of the ACLs that the cluster keeps, with who made each, the newest
last. It keeps a hundred, and fewer if they are large.`,
		Example: "  mqcluster acl history\n  mqcluster acl history -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				versions, err := c.ListAclVersions(ctx)
				if err != nil {
					return err
				}
				return list(&r.out, versions, "VERSION TIME BY CHANGES", func(v admin.AclVersion) []any {
					var changes []string
					for _, ch := range v.Changes {
						changes = append(changes, fmt.Sprintf("%s %d->%d", ch.Subject, len(ch.Before), len(ch.After)))
					}
					return []any{v.Version, stamp(v.At), v.Actor, strings.Join(changes, ", ")}
				})
			})
		},
	}
}

func (a *App) aclDiffCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "diff FROM [TO]",
		Short: "Show what changed between two versions of the ACLs",
		Long: `Shows the rules that went (-) and came (+) from one version to another, or to now. A
subject whose rules only changed their order is shown with all of them.`,
		Example: "  mqcluster acl diff 4\n  mqcluster acl diff 4 6",
		Args:    argCount(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := versionArg(args[0])
			if err != nil {
				return err
			}
			to := ^uint64(0)
			if len(args) == 2 {
				if to, err = versionArg(args[1]); err != nil {
					return err
				}
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				versions, err := c.ListAclVersions(ctx)
				if err != nil {
					return err
				}
				changes, err := changesBetween(versions, from, to)
				if err != nil {
					return err
				}
				if r.out.json() {
					return r.out.value(changes)
				}
				r.printChanges(changes)
				return nil
			})
		},
	}
}

func versionArg(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, usagef("version %q is not a number: see mqcluster acl history", text)
	}
	return n, nil
}

// changesBetween are the changes after from up to to, one for each subject, those
// that another undid left out.
func changesBetween(versions []admin.AclVersion, from, to uint64) ([]admin.AclChange, error) {
	out := []admin.AclChange{}
	newest := uint64(0)
	if n := len(versions); n > 0 {
		newest = versions[n-1].Version
		if from+1 < versions[0].Version {
			return nil, fmt.Errorf("version %d is not kept any more, the oldest is %d: see mqcluster acl history", from, versions[0].Version-1)
		}
	}
	if from > newest || to != ^uint64(0) && (to > newest || to < from) {
		return nil, fmt.Errorf("there are no such versions, the newest is %d, and the older comes first: see mqcluster acl history", newest)
	}
	at := map[string]int{}
	for _, v := range versions {
		if v.Version <= from || v.Version > to {
			continue
		}
		for _, c := range v.Changes {
			if i, ok := at[c.Subject]; ok {
				out[i].After = c.After
				continue
			}
			at[c.Subject] = len(out)
			out = append(out, c)
		}
	}
	return slices.DeleteFunc(out, func(c admin.AclChange) bool { return slices.Equal(c.Before, c.After) }), nil
}

// printChanges prints rules that went and came.
func (r *remote) printChanges(changes []admin.AclChange) {
	w := r.out.app.Out
	for _, c := range changes {
		fmt.Fprintln(w, printable(c.Subject))
		gone := slices.DeleteFunc(slices.Clone(c.Before), func(rule string) bool { return slices.Contains(c.After, rule) })
		come := slices.DeleteFunc(slices.Clone(c.After), func(rule string) bool { return slices.Contains(c.Before, rule) })
		if len(gone)+len(come) == 0 {
			gone, come = c.Before, c.After // another order
		}
		for _, rule := range gone {
			fmt.Fprintln(w, "- "+printable(rule))
		}
		for _, rule := range come {
			fmt.Fprintln(w, "+ "+printable(rule))
		}
	}
}

func (a *App) aclRollbackCommand(r *remote) *cobra.Command {
	var subject string
	cmd := &cobra.Command{
		Use:   "rollback VERSION",
		Short: "Make the ACLs what they were",
		Long: `Makes the ACLs, or with --subject those of one subject, what they were at a version,
on every node and for connected clients, all at once. That is a new version: what was
undone can be had again. If somebody else changes the ACLs meanwhile nothing is
changed.`,
		Example: "  mqcluster acl rollback 4\n  mqcluster acl rollback 4 --subject role:sensors",
		Args:    argCount(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := versionArg(args[0])
			if err != nil {
				return err
			}
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				done, err := c.RollbackAcl(ctx, admin.AclRollback{Version: version, Subject: subject})
				if err != nil {
					return err
				}
				if !r.out.json() {
					r.printChanges(done.Changes)
				}
				if len(done.Changes) == 0 {
					return r.changed(done.Change, fmt.Sprintf("the ACLs are what they were at version %d: nothing to do", version))
				}
				return r.changed(done.Change, fmt.Sprintf("the ACLs are what they were at version %d", version))
			})
		},
	}
	cmd.Flags().StringVar(&subject, "subject", "", "only the rules of this subject")
	return cmd
}
