package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

func (a *App) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that all nodes have stored the same",
		Long: `Has every node hash its state at one and the same log index, and compares: sessions,
queues, QoS 2 states, retained messages, users, rights, certificates, settings. The
cluster goes on serving; each node reads all that it has stored, with half of one
processor at most.

Where the nodes differ, it names each record that differs and the nodes that have it
otherwise than most. Such a node has a failing disk or memory, or met a bug: take it
out (mqcluster leave), let it join again with an empty data directory, and verify
again. The exit code is 1 unless all nodes were compared and agree.

Messages that nobody is owed any more are left out: when they are deleted is each
node's own affair.`,
		Example: `  mqcluster verify
  mqcluster verify -o json | jq .differences`,
		Args: argCount(0, 0),
	}
	r := a.remoteFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("timeout") {
			r.timeout = longest // it takes as long as the state is large
		}
		return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
			v, err := c.Verify(ctx)
			if err != nil {
				return err
			}
			if r.out.json() {
				err = r.out.value(v)
			} else {
				err = a.printVerification(v)
			}
			if err == nil && !v.Agree() {
				err = errors.New("the nodes were not found to agree: see above")
			}
			return err
		})
	}
	return cmd
}

func (a *App) printVerification(v admin.Verification) error {
	fmt.Fprintf(a.Out, "log index %d\n\n", v.Index)
	t := newTable(a.Out, "NODE RECORDS BYTES SECONDS RESULT")
	for _, n := range v.Nodes {
		result := "agrees"
		switch {
		case n.Error != "":
			t.row(n.Node, "", "", "", "not compared: "+n.Error)
			continue
		case !n.Same:
			result = "differs"
		case len(n.Faults) > 0:
			result = "contradicts itself"
		}
		t.row(n.Node, n.Records, n.Bytes, fmt.Sprintf("%.1f", n.Seconds), result)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, d := range v.Differences {
		how := "otherwise"
		missing := true
		for _, n := range d.Nodes {
			missing = missing && d.Sums[n] == ""
		}
		if missing {
			how = "not at all"
		}
		fmt.Fprintf(a.Out, "\n%s %s (key %q)\n  node %s has it %s\n", d.Kind, printable(d.Name), d.Key, strings.Join(d.Nodes, ", "), how)
	}
	for _, n := range v.Nodes {
		for _, f := range n.Faults {
			fmt.Fprintf(a.Out, "\nnode %s: %s\n", n.Node, printable(f))
		}
	}
	if v.More {
		fmt.Fprintln(a.Out, "\nThere are more differences than these.")
	}
	return nil
}
