package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/backup"
	"github.com/mqcluster/mqcluster/node"
)

// partFlags say what of a backup goes into a cluster that runs.
type partFlags struct {
	only  []string
	parts node.Parts
}

func (p *partFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&p.only, "only", nil, "put users, acls or retained into the cluster that runs here, and make no new one")
	cmd.Flags().StringVar(&p.parts.Filter, "filter", "", "of the retained messages, only those whose topics match this")
	cmd.Flags().BoolVar(&p.parts.Overwrite, "overwrite", false, "change what is in the cluster otherwise than in the backup, too")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{"users", "acls", "retained"}, cobra.ShellCompDirectiveNoFileComp))
}

func (p *partFlags) read() error {
	for _, name := range p.only {
		switch name {
		case "users":
			p.parts.Users = true
		case "acls":
			p.parts.ACLs = true
		case "retained":
			p.parts.Retained = true
		default:
			return usagef("--only knows users, acls and retained, and not %q", name)
		}
	}
	if len(p.only) == 0 && (p.parts.Overwrite || p.parts.Filter != "") {
		return usagef("--overwrite and --filter belong to --only: say what is to be restored into the cluster")
	}
	if p.parts.Filter != "" && !p.parts.Retained {
		return usagef("--filter is for retained messages: add retained to --only")
	}
	return nil
}

// partsResult counts what became of the parts by kind and state.
type partsResult struct {
	Backup *backup.Whole             `json:"backup"`
	Counts map[string]map[string]int `json:"counts"`
	// Failed and Kept name what is not as in the backup, at most maxNamed.
	Failed []string `json:"failed,omitempty"`
	Kept   []string `json:"kept,omitempty"`
}

const maxNamed = 100

// partsTimeout is how long the node may take for one batch.
const partsTimeout = time.Minute

func (p *partsResult) note(kind string, names []string, outcomes []admin.ImportOutcome) {
	for i, o := range outcomes {
		if p.Counts[kind] == nil {
			p.Counts[kind] = map[string]int{}
		}
		p.Counts[kind][o.State]++
		switch {
		case o.State == admin.ImportFailed && len(p.Failed) < maxNamed:
			p.Failed = append(p.Failed, fmt.Sprintf("%s %s: %s", kind, names[i], o.Why))
		case o.State == admin.ImportKept && len(p.Kept) < maxNamed:
			p.Kept = append(p.Kept, fmt.Sprintf("%s %s", kind, names[i]))
		}
	}
}

// restoreParts puts parts of a backup into the cluster of the node that runs here. The
// file is read twice: whether it is whole is known only at its end.
func (a *App) restoreParts(cmd *cobra.Command, r *remote, path string, with *opening, parts node.Parts) error {
	if path == "-" {
		return usagef("with --only the file is read twice: give its name and not -")
	}
	in, err := with.open(a, path)
	if err != nil {
		return err
	}
	whole, err := backup.Read(in, nil)
	_ = in.Close() // it was read
	if err != nil {
		return err
	}
	if in, err = with.open(a, path); err != nil {
		return err
	}
	defer in.Close()
	out := partsResult{Backup: whole, Counts: map[string]map[string]int{}}
	err = r.call(cmd, func(_ context.Context, c *admin.Client) error {
		return node.ReadParts(in, parts, whole.LogTime, func(b admin.ImportBatch) error {
			// The timeout of the verb is for each batch.
			ctx, cancel := context.WithTimeout(cmd.Context(), r.timeout)
			defer cancel()
			got, err := c.Import(ctx, b)
			if err != nil {
				return fmt.Errorf("the restore did not end, run it again: %w", err)
			}
			out.note("user", namesOf(b.Users, func(u admin.ImportUser) string { return u.Name }), got.Users)
			out.note("rules of", namesOf(b.Acls, func(l admin.Acl) string { return l.Subject }), got.Acls)
			out.note("retained message", namesOf(b.Retained, func(m admin.ImportMessage) string { return m.Topic }), got.Retained)
			return nil
		})
	})
	if err != nil {
		return err
	}
	return a.printParts(r, &out)
}

func namesOf[T any](list []T, name func(T) string) []string {
	var out []string
	for _, x := range list {
		out = append(out, name(x))
	}
	return out
}

func (a *App) printParts(r *remote, out *partsResult) error {
	if r.out.json() {
		if err := r.out.value(out); err != nil {
			return err
		}
	} else {
		t := newTable(a.Out, "KIND NEW CHANGED SAME KEPT FAILED")
		for _, kind := range []string{"user", "rules of", "retained message"} {
			if n := out.Counts[kind]; n != nil {
				t.row(kind, n[admin.ImportNew], n[admin.ImportChanged], n[admin.ImportSame], n[admin.ImportKept], n[admin.ImportFailed])
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		for _, k := range out.Kept {
			fmt.Fprintf(a.Out, "%s is otherwise here and stays: --overwrite changes it\n", printable(k))
		}
	}
	if len(out.Failed) > 0 {
		return fmt.Errorf("not all was restored: %s", strings.Join(out.Failed[:min(len(out.Failed), 5)], "; "))
	}
	return nil
}
