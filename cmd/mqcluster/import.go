package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/admin"
	"github.com/mqcluster/mqcluster/mosquitto"
)

func (a *App) importCommand() *cobra.Command {
	cmd := group("import", "Take over what another broker has",
		"Takes over users, rights, retained messages and sessions of another broker.",
		"  mqcluster import mosquitto --config /etc/mosquitto/mosquitto.conf --dry-run")
	r := a.remoteFlags(cmd)
	cmd.AddCommand(a.importMosquittoCommand(r))
	return cmd
}

func (a *App) importMosquittoCommand(r *remote) *cobra.Command {
	var config string
	var dry bool
	cmd := &cobra.Command{
		Use:   "mosquitto --config FILE",
		Short: "Take over a Mosquitto",
		Long: `Reads mosquitto.conf and the files that it names: passwords, ACLs, the file of
dynamic security and the database with retained messages, sessions and queues.
Stop that Mosquitto first: it writes its database when it ends. It prints one line
for each line that it read (taken, not needed because, or not supported with what
to do instead), and a suggested part of mqcluster.yaml.

Passwords go on working and are hashed with argon2id at the next login. What is
here already is not changed, so running it again is safe. With --dry-run it only
prints, and needs no node.`,
		Example: `  mqcluster import mosquitto --config /etc/mosquitto/mosquitto.conf --dry-run
  mqcluster import mosquitto --config /etc/mosquitto/mosquitto.conf`,
		Args: argCount(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return usagef("no configuration was named: give --config, such as --config /etc/mosquitto/mosquitto.conf")
			}
			p, err := planImport(config, diskFiles{}, time.Now())
			if err != nil {
				return err
			}
			report := importReport{Lines: p.notes, Fragment: p.fragment(), Settings: p.settings(), DryRun: dry}
			if !dry {
				err := r.call(cmd, func(_ context.Context, c *admin.Client) error {
					// The timeout of the verb is for each batch.
					return p.send(c, func() (context.Context, func()) { return context.WithTimeout(cmd.Context(), r.timeout) })
				})
				if err != nil {
					return err
				}
				report.Lines, report.Taken = append(p.notes, p.outcomes...), p.taken
			}
			return report.print(r)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the mosquitto.conf to read")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the report and change nothing")
	return cmd
}

// diskFiles are those of this machine.
type diskFiles struct{}

func (diskFiles) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }

func (diskFiles) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, filepath.Base(e.Name()))
		}
	}
	return names, nil
}

// importReport is what the operator reads.
type importReport struct {
	Lines    []mosquitto.Note `json:"lines"`
	Fragment string           `json:"mqcluster_yaml"`
	Settings []string         `json:"commands,omitempty"` // to set what the cluster keeps
	DryRun   bool             `json:"dry_run"`
	Taken    map[string]int   `json:"taken,omitempty"` // new things by kind
}

func (i *importReport) print(r *remote) error {
	if r.out.json() {
		return r.out.value(i)
	}
	w := r.out.app.Out
	counts := map[mosquitto.Verdict]int{}
	for _, n := range i.Lines {
		counts[n.Verdict]++
		fmt.Fprintln(w, printable(n.String()))
	}
	fmt.Fprintf(w, "\n# Suggested part of mqcluster.yaml on each node:\n%s", i.Fragment)
	for _, s := range i.Settings {
		fmt.Fprintf(w, "# Then: %s\n", s)
	}
	fmt.Fprintf(w, "\n%d lines are taken, %d not needed, %d not supported.\n", counts[mosquitto.Taken], counts[mosquitto.NotNeeded], counts[mosquitto.NotSupported])
	if i.DryRun {
		fmt.Fprintln(w, "Nothing was changed.")
		return nil
	}
	fmt.Fprintf(w, "New here: %d users, %d subjects with rules, %d retained messages, %d sessions with %d messages.\n",
		i.Taken["users"], i.Taken["acls"], i.Taken["retained"], i.Taken["sessions"], i.Taken["queued"])
	return nil
}

// Bounds of one batch, well below what the API takes.
const (
	batchThings = 500
	batchBytes  = 2 << 20
)

// send has the node take everything, in batches; each has a context of its own.
func (p *importPlan) send(c *admin.Client, begin func() (context.Context, func())) error {
	var b admin.ImportBatch
	var origins importOrigins
	size, things := 0, 0
	flush := func() error {
		if things == 0 {
			return nil
		}
		ctx, done := begin()
		defer done()
		r, err := c.Import(ctx, b)
		if err != nil {
			return fmt.Errorf("the import did not end, run it again: %w", err)
		}
		p.note("users", origins.users, r.Users)
		p.note("acls", origins.acls, r.Acls)
		p.note("retained", origins.retained, r.Retained)
		p.note("sessions", origins.sessions, r.Sessions)
		for i, o := range r.Sessions {
			if o.State == admin.ImportNew {
				p.taken["queued"] += len(b.Sessions[i].Queue)
			}
		}
		b, origins, size, things = admin.ImportBatch{}, importOrigins{}, 0, 0
		return nil
	}
	grown := func(n int) error {
		size, things = size+n, things+1
		if size < batchBytes && things < batchThings {
			return nil
		}
		return flush()
	}
	for _, u := range p.users {
		b.Users, origins.users = append(b.Users, u), append(origins.users, "user "+u.Name)
		if err := grown(len(u.Name) + len(u.Hash)); err != nil {
			return err
		}
	}
	for _, l := range p.acls {
		b.Acls, origins.acls = append(b.Acls, l), append(origins.acls, "rules of "+l.Subject)
		if err := grown(64 * len(l.Rules)); err != nil {
			return err
		}
	}
	for _, m := range p.retained {
		b.Retained, origins.retained = append(b.Retained, m), append(origins.retained, "retained message "+m.Topic)
		if err := grown(len(m.Topic) + len(m.Payload)); err != nil {
			return err
		}
	}
	// Retained messages come before the subscriptions that they would match.
	if err := flush(); err != nil {
		return err
	}
	for _, s := range p.sessions {
		for part := range parts(s) {
			b.Sessions, origins.sessions = append(b.Sessions, part), append(origins.sessions, "session of client "+s.Client)
			n := batchBytes // the next part of a session needs this one applied
			if part.From+len(part.Queue) == s.Total {
				n = 64*len(part.Subscriptions) + bytesOf(part.Queue)
			}
			if err := grown(n); err != nil {
				return err
			}
		}
	}
	return flush()
}

// importOrigins say what the things of a batch are.
type importOrigins struct{ users, acls, retained, sessions []string }

// note counts what is new, and has a line for what is not as it was there.
func (p *importPlan) note(kind string, what []string, outcomes []admin.ImportOutcome) {
	for i, o := range outcomes {
		switch o.State {
		case admin.ImportNew:
			p.taken[kind]++
		case admin.ImportKept:
			p.outcomes = append(p.outcomes, mosquitto.Note{File: p.file, Text: what[i], Verdict: mosquitto.NotNeeded, Why: o.Why})
		case admin.ImportFailed:
			p.outcomes = append(p.outcomes, mosquitto.Note{File: p.file, Text: what[i], Verdict: mosquitto.NotSupported, Why: o.Why})
		}
	}
}
