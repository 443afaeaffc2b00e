package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mqcluster/mqcluster/node"
)

func (a *App) recoverCommand() *cobra.Command {
	var (
		out          output
		yes, inspect bool
	)
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this node alone, after a majority was lost for good",
		Long: `For the day when the majority of the voters is lost for good: disks destroyed,
machines gone. While they may come back, wait for them; a single lost node is
replaced with join --replace.

Stop every node that survived and run recover --inspect on each: it reads and
changes nothing. Then run recover on the one that is furthest. It says what may be
lost, asks for the name of the cluster, and makes the node the only member:
everything in its log counts, what the lost nodes acknowledged behind the end of
its log is gone, their clients' sessions are free for other nodes. Start it with
run, empty the data directories of the others, survivors included, and add them
with join.

A node that was left behind is refused by the recovered one. A majority of the old
cluster that was not lost after all would still serve its clients, apart from it:
make sure that it cannot.` + keysHint,
		Example: `  mqcluster recover --inspect --data-dir /var/lib/mqcluster
  mqcluster recover --data-dir /var/lib/mqcluster
  mqcluster recover --yes`,
		Args: argCount(0, 0),
	}
	s := a.configFlags(cmd, mainKeys)
	out.flag(a, cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&inspect, "inspect", false, "say what this node knows and change nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.Inspect == nil || a.Recover == nil {
			return errors.New("this build has no node in it")
		}
		config, err := s.loadNode()
		if err != nil {
			return err
		}
		survivor, err := a.Inspect(cmd.Context(), config.Config)
		if err != nil {
			return err
		}
		if inspect && out.json() {
			return out.value(survivor)
		}
		if !out.json() {
			a.printSurvivor(survivor)
		}
		if inspect {
			return nil
		}
		if !yes {
			if err := a.confirm(survivor.ClusterName); err != nil {
				return err
			}
		}
		survivor, err = a.Recover(cmd.Context(), config.Config)
		if err != nil {
			return err
		}
		if out.json() {
			return out.value(survivor)
		}
		fmt.Fprintf(a.Out, "\nnode %s is the only member now. Start it:\n  mqcluster run --data-dir %s\n", survivor.Node, quoted(config.DataDir))
		return nil
	}
	return cmd
}

// printSurvivor says what a survivor knows and what may be lost.
func (a *App) printSurvivor(s *node.Survivor) {
	fmt.Fprintf(a.Out, "cluster      %s (%s)\nnode         %s\n", s.ClusterID, printable(s.ClusterName), s.Node)
	fmt.Fprintf(a.Out, "position     %s (term.index of the last entry; the survivor with the greatest is furthest)\n", s.Position())
	fmt.Fprintf(a.Out, "applied      %d (what follows in the log is applied when the node starts)\nlast entry   %s by the cluster's clock\nlast write   %s\n",
		s.AppliedIndex, stamp(s.LastEntry), stamp(s.Written.Truncate(time.Second)))
	voters := 0
	for _, server := range s.Lost {
		role := "non-voter"
		if server.Voter {
			role = "voter"
			voters++
		}
		fmt.Fprintf(a.Out, "other        %s at %s, %s\n", server.Node, server.Address, role)
	}
	fmt.Fprintln(a.Out)
	switch {
	case len(s.Lost) == 0:
		fmt.Fprintln(a.Out, "This node is alone in its cluster: nothing is to be recovered.")
		return
	case !s.Voter:
		fmt.Fprintln(a.Out, "This node never voted: what was acknowledged need not have reached it at all.")
	case voters > 1:
		fmt.Fprintf(a.Out, "The %d other voters can have acknowledged messages without this node: what they\nacknowledged after position %s is gone, and so is every change of a user, a\nright or a session after it.\n", voters, s.Position())
	default:
		fmt.Fprintln(a.Out, "Nothing was acknowledged without this node: nothing acknowledged is lost.")
	}
	if !s.CA {
		fmt.Fprintln(a.Out, "This node has no key of the certificate authority: no node can join it.")
	}
	fmt.Fprintln(a.Out, "Compare the positions of all survivors (recover --inspect) before you go on.")
}

// confirm asks for a name to be typed.
func (a *App) confirm(name string) error {
	fmt.Fprintf(a.Out, "\nThe others are expelled and must not come back. Type the name of the cluster (%s) to go on: ", printable(name))
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && line == "" {
		return usagef("nothing was typed: nothing was changed; use --yes where nobody can answer")
	}
	if strings.TrimSpace(line) != name {
		return usagef("that is not the name of the cluster: nothing was changed")
	}
	return nil
}
