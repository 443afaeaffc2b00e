package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
)

// newestFirst sorts certificates by when they were issued.
func newestFirst(certs []admin.Cert) {
	slices.SortStableFunc(certs, func(a, b admin.Cert) int { return b.NotBefore.Compare(a.NotBefore) })
}

func (a *App) caCommand() *cobra.Command {
	cmd := group("ca", "Show and replace the cluster's certificate authority",
		`The authority signs the certificates of nodes and clients. To replace it:

  1. mqcluster ca rotate: a second one is made, and every node trusts both.
  2. Give all clients both (mqcluster cert ca > ca.pem), and renew their certificates
     (mqcluster cert renew); mqcluster ca status lists whose are of the old one.
  3. mqcluster ca retire: nodes get certificates of the new one by themselves, and
     the old one, with all certificates that it issued, is not trusted any more.

Join tokens of before step 3 are void afterwards.`,
		"  mqcluster ca status\n  mqcluster ca rotate\n  mqcluster ca retire")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.caStatusCommand(r), a.caRotateCommand(r), a.caRetireCommand(r))
	return cmd
}

func (a *App) caStatusCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the authorities, and how every node stands to them",
		Long:    "Shows which authorities are trusted and what they sign, which of them signed each node's certificate, who holds their keys, sealed or not, and in a rotation the clients' certificates that end with the old one.",
		Example: "  mqcluster ca status -o json",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				s, err := c.CAStatus(ctx)
				if err != nil {
					return err
				}
				if r.out.json() {
					return r.out.value(s)
				}
				return a.printCAs(s)
			})
		},
	}
}

func (a *App) printCAs(s admin.CAStatus) error {
	fmt.Fprintf(a.Out, "stage  %s\n\n", s.Stage)
	names := map[string]string{}
	t := newTable(a.Out, "AUTHORITY SIGNS VALID-UNTIL SHA256")
	for _, ca := range s.CAs {
		names[ca.Pin] = ca.Subject
		var signs []string
		if ca.SignsNodes {
			signs = append(signs, "nodes")
		}
		if ca.SignsClients {
			signs = append(signs, "clients")
		}
		t.row(ca.Subject, strings.Join(signs, ","), stamp(ca.NotAfter), ca.SHA256)
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(a.Out)
	t = newTable(a.Out, "NODE TRUSTS CERTIFICATE-OF UNTIL KEYS ERROR")
	for _, n := range s.Nodes {
		keys := fmt.Sprint(len(n.Holds))
		switch {
		case len(n.Holds) == 0:
			keys = "none"
		case n.Sealed:
			keys += " sealed"
		default:
			keys += " in clear text"
		}
		t.row(n.Node, len(n.Trusted), cmp.Or(names[n.Signer], n.Signer), stamp(n.NotAfter), keys, n.Error)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if len(s.OldClients) > 0 {
		fmt.Fprintf(a.Out, "\n%d client certificates end with the old authority:\n", len(s.OldClients))
		for _, c := range s.OldClients {
			fmt.Fprintf(a.Out, "  %s (serial %s)\n", printable(c.Subject), c.Serial)
		}
	}
	return nil
}

func (a *App) caRotateCommand(r *remote) *cobra.Command {
	var request admin.CARequest
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make a second authority that is trusted beside the first",
		Long: `Makes a new authority. Its key goes to the voters, over the connections between
nodes and never into the log, and every node trusts both. Clients' certificates are
issued by the new one from now on; nodes keep theirs, because clients do not trust
the new one yet. It is safe to run again.

Every node must answer: one that does not would trust only the authority that goes.
--force goes on without such, which then have to join anew.`,
		Example: "  mqcluster ca rotate",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				out, err := c.RotateCA(ctx, request)
				if err != nil {
					return err
				}
				done := "a second authority is trusted: give clients what mqcluster cert ca prints, renew their certificates, then run mqcluster ca retire"
				if out.Already {
					done = "a rotation is under way already (" + out.Stage + "): see mqcluster ca status"
				}
				return r.caResult(out, done)
			})
		},
	}
	cmd.Flags().BoolVar(&request.Force, "force", false, "leave nodes behind that do not answer")
	return cmd
}

func (a *App) caRetireCommand(r *remote) *cobra.Command {
	var request admin.CARequest
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "End the old authority",
		Long: `Has every node take a certificate of the new authority, and then trust the old one
no longer: certificates of its making are refused from then on, and who is connected
with one is sent away. Its key is removed from the voters. It is safe to run again.

It refuses while clients' certificates of the old authority are in force, or while a
node does not answer, unless --force says so.`,
		Example: "  mqcluster ca retire\n  mqcluster ca retire --force",
		Args:    argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.call(cmd, func(ctx context.Context, c *admin.Client) error {
				out, err := c.RetireCA(ctx, request)
				if err != nil {
					return err
				}
				done := "the old authority is trusted no longer"
				switch {
				case out.Already:
					done = "there is one authority: nothing to do"
				case out.Stage != admin.CASettled:
					done = "nodes are getting certificates of the new authority; the old one ends by itself when all have one: see mqcluster ca status"
				}
				return r.caResult(out, done)
			})
		},
	}
	cmd.Flags().BoolVar(&request.Force, "force", false, "end clients' certificates of the old authority, and leave nodes behind that do not answer")
	return cmd
}

// caResult reports a step of a rotation.
func (r *remote) caResult(out admin.CAResult, done string) error {
	if r.out.json() {
		if err := r.out.value(out); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(r.app.Out, done)
	}
	if len(out.NotApplied) > 0 {
		return fmt.Errorf("not done yet on %s: each goes on by itself when it is back; watch mqcluster ca status", strings.Join(out.NotApplied, ", "))
	}
	return nil
}
