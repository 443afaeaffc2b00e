package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *App) initCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the first node of a new cluster",
		Long: `Makes the cluster's certificate authority and its first node in the data
directory, and prints the command with which another machine joins. What is set
here by flags or variables is written to mqcluster.yaml in the data directory, so
that run needs no more than --data-dir. Running it again changes nothing.` + keysHint,
		Example: `  mqcluster init --data-dir /var/lib/mqcluster --node a
  mqcluster init --data-dir ./a --node a --mesh.listen 127.0.0.1:7883 \
    --listener tls,address=127.0.0.1:8883,require_client_cert=true`,
		Args: argCount(0, 0),
	}
	s := a.configFlags(cmd, mainKeys)
	out.flag(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if a.Init == nil {
			return errors.New("this build has no node in it")
		}
		config, err := s.loadNode()
		if err != nil {
			return err
		}
		result, err := a.Init(cmd.Context(), config.Config)
		if err != nil {
			return err
		}
		if config.File == "" {
			if _, err := config.WriteFile(); err != nil {
				return err
			}
		}
		if out.json() {
			return out.value(result)
		}
		if result.Already {
			fmt.Fprintf(a.Out, "%s is already initialised.\n", config.DataDir)
		}
		fmt.Fprintf(a.Out, "cluster  %s (%s)\nnode     %s\nmesh     %s\nca       %s\n",
			result.ClusterID, printable(result.ClusterName), result.Node, result.MeshAddress, result.CAFile)
		fmt.Fprintf(a.Out, "\nStart it:\n  mqcluster run --data-dir %s\n", quoted(config.DataDir))
		if result.JoinCommand != "" {
			until := ""
			if !result.TokenUntil.IsZero() {
				until = ", until " + stamp(result.TokenUntil)
			}
			fmt.Fprintf(a.Out, "\nAdd a node, on another machine%s:\n  %s\n", until, result.JoinCommand)
		} else {
			fmt.Fprintf(a.Out, "\nAdd a node: make a token with\n  mqcluster token create --data-dir %s\n", quoted(config.DataDir))
		}
		return nil
	}
	return cmd
}
